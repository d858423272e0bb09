//! The counting element of one counter: modes 0 to 5 in closed form.
//!
//! A clock pulse either loads the count register into the counting element, if a write or a trigger has asked for it,
//! or counts. [`CountingElement::clock`] takes the loading pulse by itself and all pulses after it at once: between
//! writes and GATE edges they are arithmetic. The waveforms for count N (8254 datasheet, Mode Definitions), `l` being
//! the loading pulse:
//!
//! ```text
//!   mode 0   ‾l______‾‾‾‾   low from the control word or a write, high N pulses after loading
//!   mode 1   ‾‾l_____‾‾‾‾   low from the loading pulse after a trigger, for N pulses
//!   mode 2   ‾‾l‾‾‾_‾‾‾_‾   low for the last pulse of every N
//!   mode 3   ‾‾l‾‾__‾‾__‾   high (N+1)/2, low N/2 pulses (whole numbers), counting by two
//!   mode 4   ‾‾l‾‾‾‾_‾‾‾‾   low for one pulse, N pulses after loading
//!   mode 5   ‾‾l‾‾‾‾_‾‾‾‾   as mode 4, but loaded after a trigger
//! ```
//!
//! The datasheet's minimum count in modes 2 and 3 is 2. Here, OUT stays high with a count of 1.

use serde::{Deserialize, Serialize};

use super::control::{Mode, Radix};
use crate::lines::Level;
use crate::state::{StateError, check};

/// The counting element of one counter, with its count register and pins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountingElement {
    mode: Mode,
    radix: Radix,
    gate: Level,
    out: Level,
    /// The value that a read shows, below the modulus. Zero is as far from the next zero as the modulus.
    value: u64,
    /// The count register, 1 to modulus, or `None` from the control word until the first count.
    count_register: Option<u64>,
    /// The next pulse loads the count register.
    load_pending: bool,
    /// A count has been loaded since the control word.
    loaded: bool,
    /// Modes 0, 1, 4, 5: terminal count has not been reached since the last loading.
    armed: bool,
    /// Mode 3: the count loaded last was odd.
    odd: bool,
    /// Mode 0: the first of two bytes has been written, and the second has not.
    suspended: bool,
    /// The count register has not been loaded since it was written, or since the control word.
    null_count: bool,
}

/// Pins, control word and count register.
impl CountingElement {
    /// Creates the element as it is right after a control word.
    pub fn new(mode: Mode, radix: Radix, gate: Level) -> Self {
        Self {
            mode,
            radix,
            gate,
            out: Level::from_active(mode != Mode::InterruptOnTerminalCount),
            value: 0,
            count_register: None,
            load_pending: false,
            loaded: false,
            armed: false,
            odd: false,
            suspended: false,
            null_count: true,
        }
    }

    /// Takes over the value of `previous`.
    pub fn keep_value(&mut self, previous: &Self) {
        self.value = previous.value % self.radix.modulus();
    }

    pub fn gate(&self) -> Level {
        self.gate
    }

    pub fn out(&self) -> Level {
        self.out
    }

    pub fn null_count(&self) -> bool {
        self.null_count
    }

    /// The value as the 16 bits that a read shows.
    pub fn value(&self) -> u16 {
        self.radix.encode(self.value)
    }

    /// Takes the first of two bytes. In mode 0 it stops counting and lowers OUT.
    pub fn begin_count(&mut self) {
        if self.mode == Mode::InterruptOnTerminalCount {
            self.suspended = true;
            self.out = Level::Low;
        }
    }

    /// Writes the count register. Modes 0 and 4 load it at the next pulse. Modes 2 and 3 do so only with the first
    /// count, and load later ones at the end of a period or half period. Modes 1 and 5 wait for a trigger.
    pub fn write_count(&mut self, written: u16) {
        let first = self
            .count_register
            .replace(self.radix.count(written))
            .is_none();
        self.null_count = true;
        self.suspended = false;
        match self.mode {
            Mode::InterruptOnTerminalCount => {
                self.out = Level::Low;
                self.load_pending = true;
            }
            Mode::SoftwareTriggeredStrobe => self.load_pending = true,
            Mode::RateGenerator | Mode::SquareWave => self.load_pending |= first,
            Mode::HardwareRetriggerableOneShot | Mode::HardwareTriggeredStrobe => {}
        }
    }

    /// Drives GATE to `level`. A rising edge is a trigger in modes 1, 2, 3 and 5, once there is a count to load (8254
    /// datasheet, Gate Pin Operations Summary).
    pub fn set_gate(&mut self, level: Level) {
        let rises = level.is_high() && !self.gate.is_high();
        self.gate = level;
        match self.mode {
            Mode::InterruptOnTerminalCount | Mode::SoftwareTriggeredStrobe => {}
            Mode::HardwareRetriggerableOneShot | Mode::HardwareTriggeredStrobe => {
                self.load_pending |= rises && self.count_register.is_some()
            }
            Mode::RateGenerator | Mode::SquareWave => {
                self.load_pending |= rises && self.count_register.is_some();
                if !level.is_high() {
                    self.out = Level::High;
                }
            }
        }
    }
}

/// Saved state.
impl CountingElement {
    /// Whether the control word selected `mode` and `radix`.
    pub fn is_programmed(&self, mode: Mode, radix: Radix) -> bool {
        self.mode == mode && self.radix == radix
    }

    /// Checks that a saved element can continue, and that OUT will rise when [`Self::pulses_to_rise`] says so.
    pub fn check(&self) -> Result<(), StateError> {
        let modulus = self.radix.modulus();
        let is_count = |count| (1..=modulus).contains(&count);
        check(self.value < modulus, "8254: counting element")?;
        check(
            self.count_register.is_none_or(is_count),
            "8254: count register",
        )?;
        let needs_count = self.load_pending || self.loaded;
        check(
            !needs_count || self.count_register.is_some(),
            "8254: loading",
        )?;
        check(
            self.mode != Mode::SquareWave || !self.loaded || self.value.is_multiple_of(2),
            "8254: counting element in mode 3",
        )?;
        check(self.is_out_possible(), "8254: OUT")
    }

    fn is_out_possible(&self) -> bool {
        match self.mode {
            Mode::InterruptOnTerminalCount | Mode::HardwareRetriggerableOneShot => {
                !(self.armed && self.out.is_high())
            }
            Mode::RateGenerator => self.out.is_high() || (self.loaded && self.value == 1),
            _ => true,
        }
    }
}

/// Counting.
impl CountingElement {
    /// Runs `pulses` clock pulses and returns how often OUT rose.
    pub fn clock(&mut self, pulses: u64) -> u64 {
        match self.count_register {
            Some(count) if self.load_pending && pulses > 0 => {
                self.load(count) + self.run(pulses - 1)
            }
            _ => self.run(pulses),
        }
    }

    /// The number of clock pulses until OUT rises, or `None` if it will not before GATE changes or something is
    /// written.
    pub fn pulses_to_rise(&self) -> Option<u64> {
        if self.load_pending {
            let mut loaded = self.clone();
            return if loaded.clock(1) > 0 {
                Some(1)
            } else {
                loaded.pulses_to_rise().map(|pulses| pulses + 1)
            };
        }
        match self.mode {
            Mode::SoftwareTriggeredStrobe | Mode::HardwareTriggeredStrobe
                if !self.out.is_high() =>
            {
                Some(1)
            }
            _ if !self.is_counting() => None,
            Mode::InterruptOnTerminalCount | Mode::HardwareRetriggerableOneShot => {
                self.armed.then(|| self.pulses_to_zero())
            }
            Mode::SoftwareTriggeredStrobe | Mode::HardwareTriggeredStrobe => {
                self.armed.then(|| self.pulses_to_zero() + 1)
            }
            Mode::RateGenerator => self.rate_generator_rise(),
            Mode::SquareWave => self.square_wave_rise(),
        }
    }

    fn is_counting(&self) -> bool {
        self.loaded
            && match self.mode {
                Mode::HardwareRetriggerableOneShot | Mode::HardwareTriggeredStrobe => true,
                Mode::InterruptOnTerminalCount => self.gate.is_high() && !self.suspended,
                Mode::RateGenerator | Mode::SquareWave | Mode::SoftwareTriggeredStrobe => {
                    self.gate.is_high()
                }
            }
    }

    /// Runs the pulse that loads `count` and returns how often OUT rose.
    fn load(&mut self, count: u64) -> u64 {
        self.load_pending = false;
        self.loaded = true;
        self.armed = true;
        self.null_count = false;
        match self.mode {
            Mode::SquareWave => self.set_square_wave(count, 0),
            Mode::InterruptOnTerminalCount | Mode::HardwareRetriggerableOneShot => {
                self.set_value(count);
                self.drive(Level::Low)
            }
            Mode::RateGenerator | Mode::SoftwareTriggeredStrobe | Mode::HardwareTriggeredStrobe => {
                self.set_value(count);
                self.drive(Level::High)
            }
        }
    }

    /// Runs `pulses` pulses, none of which is a loading pulse, and returns how often OUT rose.
    fn run(&mut self, pulses: u64) -> u64 {
        if pulses == 0 {
            return 0;
        }
        let strobe_ends = match self.mode {
            Mode::SoftwareTriggeredStrobe | Mode::HardwareTriggeredStrobe => {
                self.drive(Level::High)
            }
            _ => 0,
        };
        let Some(count) = self.count_register.filter(|_| self.is_counting()) else {
            return strobe_ends;
        };
        match self.mode {
            Mode::RateGenerator => self.run_rate_generator(pulses, count),
            Mode::SquareWave => self.run_square_wave(pulses, count),
            _ => strobe_ends + self.run_down(pulses),
        }
    }

    /// Modes 0, 1, 4 and 5: counts down, even past zero; the first zero after loading changes OUT.
    fn run_down(&mut self, pulses: u64) -> u64 {
        let to_zero = self.pulses_to_zero();
        let modulus = self.radix.modulus();
        self.set_value(to_zero + modulus - pulses % modulus);
        if !self.armed || pulses < to_zero {
            return 0;
        }
        self.armed = false;
        match self.mode {
            Mode::InterruptOnTerminalCount | Mode::HardwareRetriggerableOneShot => {
                self.drive(Level::High)
            }
            _ => {
                self.drive(Level::Low);
                if pulses > to_zero {
                    self.drive(Level::High)
                } else {
                    0
                }
            }
        }
    }

    /// Mode 2: the pulse at 1 reloads.
    fn run_rate_generator(&mut self, pulses: u64, count: u64) -> u64 {
        let left = self.pulses_to_zero();
        let Some(past) = pulses.checked_sub(left) else {
            self.set_value(left - pulses);
            return self.drive(Level::from_active(left - pulses != 1));
        };
        self.null_count = false;
        let rises =
            u64::from(left > 1 || !self.out.is_high()) + if count > 1 { past / count } else { 0 };
        let into_period = past % count;
        self.set_value(count - into_period);
        self.drive(Level::from_active(
            into_period == 0 || count - into_period != 1,
        ));
        rises
    }

    fn rate_generator_rise(&self) -> Option<u64> {
        let count = self.count_register?;
        let left = self.pulses_to_zero();
        if left > 1 || !self.out.is_high() {
            Some(left)
        } else {
            (count > 1).then_some(left + count)
        }
    }

    /// Mode 3: the end of each half period reloads.
    fn run_square_wave(&mut self, pulses: u64, count: u64) -> u64 {
        let left = self.half_period_left();
        let Some(past) = pulses.checked_sub(left) else {
            self.set_value(self.pulses_to_zero() - 2 * pulses);
            return 0;
        };
        self.null_count = false;
        let rises = u64::from(!self.out.is_high());
        let position = past
            + if self.out.is_high() {
                high_half(count)
            } else {
                0
            };
        self.set_square_wave(count, position % count);
        rises + if count > 1 { position / count } else { 0 }
    }

    fn square_wave_rise(&self) -> Option<u64> {
        let count = self.count_register?;
        if self.out.is_high() {
            (count > 1).then(|| self.half_period_left() + low_half(count))
        } else {
            Some(self.half_period_left())
        }
    }

    /// The number of pulses that take the value to zero, 1 to modulus.
    fn pulses_to_zero(&self) -> u64 {
        if self.value == 0 {
            self.radix.modulus()
        } else {
            self.value
        }
    }

    /// Mode 3: the number of pulses to the end of this half period. An odd count shows zero for one pulse at the end of
    /// the high half.
    fn half_period_left(&self) -> u64 {
        if self.odd && self.out.is_high() {
            self.value / 2 + 1
        } else {
            self.pulses_to_zero() / 2
        }
    }

    /// Mode 3: puts the element `position` pulses after the rising edge of a period of `count`.
    fn set_square_wave(&mut self, count: u64, position: u64) -> u64 {
        self.odd = !count.is_multiple_of(2);
        let high = high_half(count);
        let into_half = if position < high {
            position
        } else {
            position - high
        };
        self.set_value(count - count % 2 - 2 * into_half);
        self.drive(Level::from_active(position < high))
    }

    fn set_value(&mut self, value: u64) {
        self.value = value % self.radix.modulus();
    }

    /// Drives OUT to `level` and returns the number of rising edges, 0 or 1.
    fn drive(&mut self, level: Level) -> u64 {
        let rises = level.is_high() && !self.out.is_high();
        self.out = level;
        u64::from(rises)
    }
}

/// The number of pulses for which OUT is high in a mode 3 period of `count`.
fn high_half(count: u64) -> u64 {
    count.div_ceil(2)
}

/// The number of pulses for which OUT is low in a mode 3 period of `count`.
fn low_half(count: u64) -> u64 {
    count / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_values_are_named() {
        let rejected = |mode, change: fn(&mut CountingElement)| {
            let mut element = CountingElement::new(mode, Radix::Decimal, Level::High);
            element.write_count(0x1000);
            element.clock(1);
            assert_eq!(element.check(), Ok(()));
            change(&mut element);
            element.check().map_err(|error| error.field)
        };
        let one_shot = Mode::InterruptOnTerminalCount;
        for (mode, change, field) in [
            (
                one_shot,
                (|element| element.value = 10_000) as fn(&mut CountingElement),
                "8254: counting element",
            ),
            (
                one_shot,
                |element| element.count_register = Some(0),
                "8254: count register",
            ),
            (
                one_shot,
                |element| element.count_register = Some(10_001),
                "8254: count register",
            ),
            (
                one_shot,
                |element| element.count_register = None,
                "8254: loading",
            ),
            (one_shot, |element| element.out = Level::High, "8254: OUT"),
            (
                Mode::RateGenerator,
                |element| element.out = Level::Low,
                "8254: OUT",
            ),
            (
                Mode::SquareWave,
                |element| element.value = 5,
                "8254: counting element in mode 3",
            ),
        ] {
            assert_eq!(rejected(mode, change), Err(field), "{mode:?}");
        }
    }
}
