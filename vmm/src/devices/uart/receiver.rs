//! The receiver: its FIFO or single register, its line status, and the time-out of a FIFO that nobody reads.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::registers::{
    FCR_ENABLE, FCR_RESET_RECEIVER, FCR_TRIGGER_SHIFT, LSR_CHARACTER_ERRORS, LSR_DR,
    LSR_FIFO_ERROR, LSR_OE,
};
use crate::bus::DeviceStateError;

/// The receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiver {
    fifo_enabled: bool,
    /// The index of the FIFO's trigger level in [`TRIGGER_LEVELS`].
    trigger: u8,
    /// The characters that wait to be read. The errors of the first are in [`Self::errors`] already.
    characters: VecDeque<Character>,
    /// The errors in the line status register.
    errors: u8,
    /// The data register as last read.
    last: u8,
    timer: Timer,
}

/// A received character and its errors, as bits of the line status register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Character {
    pub data: u8,
    pub errors: u8,
}

/// The timer of the time-out, which starts anew with each character that comes or is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Timer {
    /// There is nothing to read, or no FIFO.
    #[default]
    Off,
    /// The timer starts at the next [`Receiver::advance`].
    Starting,
    /// The timer runs until this time.
    Until(u64),
    /// The time-out is pending.
    Expired,
}

const FIFO_DEPTH: usize = 16;
/// Characters at which the FIFO interrupts (FCR bits 7 and 6).
const TRIGGER_LEVELS: [usize; 4] = [1, 4, 8, 14];
/// Duration of the time-out in character times (8.11 FIFO Interrupt Mode Operation).
const TIME_OUT: u64 = 4;

impl Receiver {
    /// Checks a saved state.
    pub fn check(&self) -> Result<(), DeviceStateError> {
        let known = |errors| errors & !LSR_CHARACTER_ERRORS == 0;
        let triggers = if self.fifo_enabled {
            TRIGGER_LEVELS.len()
        } else {
            1
        };
        if usize::from(self.trigger) >= triggers {
            return Err(DeviceStateError::Impossible("the trigger level"));
        }
        if self.characters.len() > self.depth()
            || !self.characters.iter().all(|c| known(c.errors))
            || self.characters.front().is_some_and(|c| c.errors != 0)
        {
            return Err(DeviceStateError::Impossible("the characters received"));
        }
        if !known(self.errors & !LSR_OE) {
            return Err(DeviceStateError::Impossible("the line status"));
        }
        if (self.timer == Timer::Off) == (self.fifo_enabled && !self.is_empty()) {
            return Err(DeviceStateError::Impossible("the receiver's timer"));
        }
        Ok(())
    }

    pub fn fifo_enabled(&self) -> bool {
        self.fifo_enabled
    }

    pub fn is_empty(&self) -> bool {
        self.characters.is_empty()
    }

    /// Whether a character can come without overrun.
    pub fn has_room(&self) -> bool {
        self.characters.len() < self.depth()
    }

    /// Whether characters have reached the trigger level; without FIFO, whether there is one.
    pub fn has_reached_trigger(&self) -> bool {
        self.characters.len() >= self.trigger_level()
    }

    /// Whether a character has been in the FIFO for four character times in which none came and none was read.
    pub fn has_timed_out(&self) -> bool {
        self.timer == Timer::Expired
    }

    /// Whether the line status register shows an error.
    pub fn has_errors(&self) -> bool {
        self.errors != 0
    }

    /// Takes a character from the line.
    pub fn receive(&mut self, character: Character) {
        if !self.has_room() {
            self.errors |= LSR_OE;
            if self.fifo_enabled {
                return;
            }
            self.characters.clear();
        }
        self.characters.push_back(character);
        self.show_errors();
        if self.timer != Timer::Expired {
            self.start_timer();
        }
    }

    /// Reads the data register.
    pub fn read(&mut self) -> u8 {
        if let Some(character) = self.characters.pop_front() {
            self.last = character.data;
            self.show_errors();
            self.start_timer();
        }
        self.last
    }

    /// Reads the receiver's bits of the line status register, which clears the errors.
    pub fn read_status(&mut self) -> u8 {
        let mut status = std::mem::take(&mut self.errors);
        if !self.is_empty() {
            status |= LSR_DR;
        }
        let waiting = || self.characters.iter().any(|c| c.errors != 0);
        if self.fifo_enabled && (status & LSR_CHARACTER_ERRORS != 0 || waiting()) {
            status |= LSR_FIFO_ERROR;
        }
        status
    }

    /// Writes the FIFO control register.
    pub fn control(&mut self, value: u8) {
        let enable = value & FCR_ENABLE != 0;
        if enable != self.fifo_enabled || (enable && value & FCR_RESET_RECEIVER != 0) {
            self.characters.clear();
            self.timer = Timer::Off;
        }
        self.fifo_enabled = enable;
        self.trigger = if enable {
            value >> FCR_TRIGGER_SHIFT
        } else {
            0
        };
    }

    /// Brings the timer up to time `now`, in nanoseconds, as is the duration of a character.
    pub fn advance(&mut self, now: u64, character_time: u64) {
        match self.timer {
            Timer::Starting => {
                self.timer = Timer::Until(now.saturating_add(TIME_OUT * character_time));
            }
            Timer::Until(end) if end <= now => self.timer = Timer::Expired,
            _ => {}
        }
    }

    /// The time at which [`Self::advance`] next has something to do; 0 if that is now, and the last of all if never.
    pub fn due(&self) -> u64 {
        match self.timer {
            Timer::Starting => 0,
            Timer::Until(end) => end,
            Timer::Off | Timer::Expired => u64::MAX,
        }
    }

    fn depth(&self) -> usize {
        if self.fifo_enabled { FIFO_DEPTH } else { 1 }
    }

    fn trigger_level(&self) -> usize {
        TRIGGER_LEVELS[usize::from(self.trigger)]
    }

    /// Moves the errors of the first character, which is the one that will be read next, to the line status register.
    fn show_errors(&mut self) {
        if let Some(first) = self.characters.front_mut() {
            self.errors |= std::mem::take(&mut first.errors);
        }
    }

    fn start_timer(&mut self) {
        self.timer = if self.fifo_enabled && !self.is_empty() {
            Timer::Starting
        } else {
            Timer::Off
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_states_are_named() {
        let rejected = |change: fn(&mut Receiver)| {
            let mut receiver = Receiver::default();
            receiver.control(FCR_ENABLE);
            change(&mut receiver);
            receiver.check().map_err(|error| error.to_string())
        };
        fn character(errors: u8) -> Character {
            Character { data: 0, errors }
        }
        assert_eq!(rejected(|_| ()), Ok(()));
        assert_eq!(
            rejected(|receiver| receiver.receive(character(LSR_CHARACTER_ERRORS))),
            Ok(())
        );
        let impossible = |what: &str| Err(format!("impossible value of {what}"));
        let (trigger, characters) = ("the trigger level", "the characters received");
        for (change, what) in [
            ((|r| r.trigger = 4) as fn(&mut Receiver), trigger),
            (|r| (r.fifo_enabled, r.trigger) = (false, 1), trigger),
            (|r| r.characters = [character(0); 17].into(), characters),
            (|r| r.characters = [character(LSR_OE); 2].into(), characters),
            (
                |r| r.characters = [character(LSR_CHARACTER_ERRORS)].into(),
                characters,
            ),
            (|r| r.errors = LSR_DR, "the line status"),
            (|r| r.timer = Timer::Expired, "the receiver's timer"),
            (
                |r| r.characters = [character(0)].into(),
                "the receiver's timer",
            ),
        ] {
            assert_eq!(rejected(change), impossible(what));
        }
    }
}
