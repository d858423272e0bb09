//! One 8259A: registers, priority resolver and command words.
//!
//! ```text
//!   IR0..7 ──▶ edge sense ──▶ IRR ──▶ & !IMR ──▶ priority resolver ──▶ INT
//!                 (per input: latch, or level)          ▲     │ INTA
//!                                                     ISR ◀───┘
//! ```
//!
//! An edge-triggered input requests from its rising edge until it is acknowledged or goes low. A level-triggered input
//! requests as long as it is high.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::INPUTS;
use super::command::{Command, Icw1, Icw4, Ocw2, Ocw3, StatusRead, slave_identity, vector_base};
use crate::lines::Level;
use crate::state::{MOST_COUNTED, StateError, check};

/// The level whose vector an INTA cycle without a request gives, and the one of lowest priority after ICW1.
const DEFAULT_LEVEL: u8 = 7;
/// Poll word: the I bit, set if there was a request.
const POLL_INTERRUPT: u8 = 1 << 7;
/// The poll word without a request. Bits W2 to W0 then mean nothing.
const POLL_NOTHING: u8 = 0;

/// The position of the chip in its initialization sequence (8259A datasheet, Initialization Sequence).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Sequence {
    /// Since power-on there was no ICW1: a write with A0 = 1 is OCW1, but the chip requests nothing.
    #[default]
    NeverStarted,
    Icw2,
    Icw3,
    Icw4,
    /// The chip accepts interrupt requests.
    Ready,
}

/// One 8259A.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chip {
    /// The levels of the inputs.
    inputs: u8,
    /// The edge sense latches: inputs that have risen and have since neither fallen nor been acknowledged.
    edges: u8,
    imr: u8,
    isr: u8,
    elcr: u8,
    /// The level of lowest priority; the level after it has the highest.
    lowest: u8,
    sequence: Sequence,
    icw1: Icw1,
    vector_base: u8,
    icw3: u8,
    icw4: Icw4,
    rotate_in_auto_eoi: bool,
    special_mask: bool,
    poll: bool,
    status_read: StatusRead,
    /// The number of acknowledges of each level since power-on.
    acknowledged: [u64; INPUTS as usize],
}

impl Default for Chip {
    fn default() -> Self {
        Self {
            inputs: 0,
            edges: 0,
            imr: 0,
            isr: 0,
            elcr: 0,
            lowest: DEFAULT_LEVEL,
            sequence: Sequence::default(),
            icw1: Icw1::default(),
            vector_base: 0,
            icw3: 0,
            icw4: Icw4::default(),
            rotate_in_auto_eoi: false,
            special_mask: false,
            poll: false,
            status_read: StatusRead::default(),
            acknowledged: [0; INPUTS as usize],
        }
    }
}

impl Chip {
    /// Checks that a saved chip can continue. `elcr_writable` has the writable bits of its ELCR.
    pub fn check(&self, elcr_writable: u8) -> Result<(), StateError> {
        check(self.lowest < INPUTS, "8259A: lowest priority")?;
        check(
            self.vector_base == vector_base(self.vector_base),
            "8259A: vector base",
        )?;
        check(self.elcr & !elcr_writable == 0, "ELCR")?;
        check(
            self.acknowledged.iter().all(|&count| count <= MOST_COUNTED),
            "8259A: acknowledge counts",
        )
    }
}

/// Inputs, requests and the INTA cycle.
impl Chip {
    /// Drives input `input`, 0 to 7, to `level`.
    pub fn set_input(&mut self, input: u8, level: Level) {
        let bit = 1 << input;
        if level.is_high() {
            self.edges |= bit & !self.inputs;
            self.inputs |= bit;
        } else {
            self.inputs &= !bit;
            self.edges &= !bit;
        }
    }

    /// Whether the initialization sequence is complete.
    pub fn is_ready(&self) -> bool {
        self.sequence == Sequence::Ready
    }

    /// The Interrupt Request Register.
    pub fn irr(&self) -> u8 {
        let level_triggered = if self.icw1.level_triggered {
            u8::MAX
        } else {
            self.elcr
        };
        (self.inputs & level_triggered) | (self.edges & !level_triggered)
    }

    /// The Interrupt Mask Register.
    pub fn imr(&self) -> u8 {
        self.imr
    }

    /// The In-Service Register.
    pub fn isr(&self) -> u8 {
        self.isr
    }

    /// The number of acknowledges of `level` since power-on, by INTA cycles and polls.
    pub fn acknowledged(&self, level: u8) -> u64 {
        self.acknowledged[usize::from(level)]
    }

    /// The level for which INT is high, or `None` while INT is low.
    pub fn request(&self) -> Option<u8> {
        if self.sequence != Sequence::Ready {
            return None;
        }
        let level = self.highest(self.irr() & !self.imr)?;
        let Some(in_service) = self.highest(self.blocking()) else {
            return Some(level);
        };
        let admitted = self.rank(level) < self.rank(in_service)
            || (level == in_service && self.nests_in_itself(level));
        admitted.then_some(level)
    }

    /// Performs the chip's part of an INTA cycle: puts the requesting level in service and returns it, or `None` if
    /// there is no request.
    pub fn accept(&mut self) -> Option<u8> {
        let level = self.request()?;
        let bit = 1 << level;
        self.edges &= !bit;
        self.acknowledged[usize::from(level)] += 1;
        if !self.icw4.auto_eoi {
            self.isr |= bit;
        } else if self.rotate_in_auto_eoi {
            self.lowest = level;
        }
        Some(level)
    }

    pub fn vector(&self, level: u8) -> u8 {
        self.vector_base | level
    }

    /// The level whose vector is `vector`, or `None` if the vector is not this chip's.
    pub fn level_of(&self, vector: u8) -> Option<u8> {
        (vector & !(INPUTS - 1) == self.vector_base).then_some(vector % INPUTS)
    }

    pub fn default_vector(&self) -> u8 {
        self.vector(DEFAULT_LEVEL)
    }

    /// Whether this chip is a master whose ICW3 says that a slave drives `input`.
    pub fn has_slave_on(&self, input: u8) -> bool {
        !self.icw1.single && self.icw3 & (1 << input) != 0
    }

    /// Whether this chip is a slave that recognizes `identity` on the cascade lines.
    pub fn answers_to(&self, identity: u8) -> bool {
        !self.icw1.single && slave_identity(self.icw3) == identity
    }

    /// The distance of `level` from the highest priority, 0 to 7.
    fn rank(&self, level: u8) -> u8 {
        (level + INPUTS - 1 - self.lowest) % INPUTS
    }

    fn highest(&self, levels: u8) -> Option<u8> {
        (0..INPUTS)
            .filter(|level| levels & (1 << level) != 0)
            .min_by_key(|&level| self.rank(level))
    }

    /// The levels in service that lock out others. In special mask mode, masked levels lock out none.
    fn blocking(&self) -> u8 {
        if self.special_mask {
            self.isr & !self.imr
        } else {
            self.isr
        }
    }

    /// Whether a request of `level` is accepted while `level` itself is in service: in special fully nested mode, a
    /// slave is not locked out by its own service.
    fn nests_in_itself(&self, level: u8) -> bool {
        self.icw4.special_fully_nested && self.has_slave_on(level)
    }
}

/// Ports.
impl Chip {
    pub fn elcr(&self) -> u8 {
        self.elcr
    }

    pub fn set_elcr(&mut self, value: u8) {
        self.elcr = value;
    }

    /// Whether the next read answers a poll command.
    pub fn is_polled(&self) -> bool {
        self.poll
    }

    /// Reads with A0 = 0: the poll word, IRR or ISR.
    pub fn read_command(&mut self) -> u8 {
        if self.poll {
            return self.read_poll();
        }
        match self.status_read {
            StatusRead::Irr => self.irr(),
            StatusRead::Isr => self.isr,
        }
    }

    /// Reads with A0 = 1: the poll word or IMR.
    pub fn read_data(&mut self) -> u8 {
        if self.poll {
            self.read_poll()
        } else {
            self.imr
        }
    }

    /// Writes with A0 = 0: ICW1, OCW2 or OCW3.
    pub fn write_command(&mut self, byte: u8) {
        match Command::decode(byte) {
            Command::Icw1(icw1) => self.start_initialization(icw1),
            Command::Ocw2(ocw2) => self.operate(ocw2),
            Command::Ocw3(ocw3) => self.select(ocw3),
        }
    }

    /// Writes with A0 = 1: the next initialization command word that ICW1 announced, else OCW1.
    pub fn write_data(&mut self, byte: u8) {
        match self.sequence {
            Sequence::NeverStarted | Sequence::Ready => self.imr = byte,
            Sequence::Icw2 => {
                self.vector_base = vector_base(byte);
                self.sequence = if self.icw1.single {
                    self.after_icw3()
                } else {
                    Sequence::Icw3
                };
            }
            Sequence::Icw3 => {
                self.icw3 = byte;
                self.sequence = self.after_icw3();
            }
            Sequence::Icw4 => {
                self.icw4 = Icw4::decode(byte);
                self.sequence = Sequence::Ready;
            }
        }
    }

    /// Answers a poll command, which takes the place of an INTA cycle: the read puts the level in service (8259A
    /// datasheet, Poll Command).
    fn read_poll(&mut self) -> u8 {
        self.poll = false;
        self.accept()
            .map_or(POLL_NOTHING, |level| POLL_INTERRUPT | level)
    }

    /// Starts the initialization sequence. ICW1 resets everything (8259A datasheet, Initialization Command Words 1 and
    /// 2) but the levels of the inputs, and what is no part of the chip: the edge/level control register and the
    /// counts.
    fn start_initialization(&mut self, icw1: Icw1) {
        *self = Self {
            inputs: self.inputs,
            elcr: self.elcr,
            acknowledged: self.acknowledged,
            sequence: Sequence::Icw2,
            icw1,
            ..Self::default()
        };
    }

    fn after_icw3(&self) -> Sequence {
        if self.icw1.ic4 {
            Sequence::Icw4
        } else {
            Sequence::Ready
        }
    }

    fn operate(&mut self, ocw2: Ocw2) {
        match ocw2 {
            Ocw2::NonSpecificEoi => {
                self.end_highest();
            }
            Ocw2::SpecificEoi(level) => self.end(level),
            Ocw2::RotateOnNonSpecificEoi => {
                if let Some(level) = self.end_highest() {
                    self.lowest = level;
                }
            }
            Ocw2::RotateOnSpecificEoi(level) => {
                self.end(level);
                self.lowest = level;
            }
            Ocw2::SetPriority(level) => self.lowest = level,
            Ocw2::RotateInAutoEoiSet => self.rotate_in_auto_eoi = true,
            Ocw2::RotateInAutoEoiClear => self.rotate_in_auto_eoi = false,
            Ocw2::NoOperation => {}
        }
    }

    /// Clears the ISR bit of `level`.
    pub fn end(&mut self, level: u8) {
        self.isr &= !(1 << level);
    }

    /// Whether any level is in service.
    pub fn is_serving(&self) -> bool {
        self.isr != 0
    }

    /// Ends the service of highest priority and returns its level. In special mask mode, a masked level is passed over.
    fn end_highest(&mut self) -> Option<u8> {
        let level = self.highest(self.blocking())?;
        self.end(level);
        Some(level)
    }

    fn select(&mut self, ocw3: Ocw3) {
        self.poll = ocw3.poll;
        self.status_read = ocw3.status_read.unwrap_or(self.status_read);
        self.special_mask = ocw3.special_mask.unwrap_or(self.special_mask);
    }
}

/// Prints registers, inputs and modes in one line.
impl fmt::Display for Chip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sequence != Sequence::Ready {
            return f.write_str("not initialized");
        }
        write!(
            f,
            "IRR {:02x}, IMR {:02x}, ISR {:02x}; vectors {:02x} to {:02x}; lines {:02x} high, {:02x} level triggered",
            self.irr(),
            self.imr,
            self.isr,
            self.vector(0),
            self.vector(INPUTS - 1),
            self.inputs,
            if self.icw1.level_triggered {
                u8::MAX
            } else {
                self.elcr
            },
        )?;
        for (mode, name) in [
            (self.icw4.auto_eoi, "automatic EOI"),
            (self.icw4.special_fully_nested, "special fully nested"),
            (self.special_mask, "special mask"),
            (self.lowest != DEFAULT_LEVEL, "rotated priorities"),
            (self.poll, "poll command given"),
        ] {
            if mode {
                write!(f, "; {name}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_values_are_named() {
        let rejected = |change: fn(&mut Chip)| {
            let mut chip = Chip::default();
            change(&mut chip);
            chip.check(0xf8).map_err(|error| error.field)
        };
        assert_eq!(rejected(|_| ()), Ok(()));
        assert_eq!(rejected(|chip| chip.elcr = 0x08), Ok(()));
        assert_eq!(
            rejected(|chip| chip.lowest = 8),
            Err("8259A: lowest priority")
        );
        assert_eq!(
            rejected(|chip| chip.vector_base = 0x21),
            Err("8259A: vector base")
        );
        assert_eq!(rejected(|chip| chip.elcr = 0x04), Err("ELCR"));
        assert_eq!(
            rejected(|chip| chip.acknowledged[7] = u64::MAX),
            Err("8259A: acknowledge counts")
        );
    }
}
