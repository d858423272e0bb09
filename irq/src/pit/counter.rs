//! The bus side of one counter: access to the count, latches and status byte.
//!
//! [`CountingElement`] does the counting; here, bytes become counts and counts become bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::control::{Access, Format, ReadBack};
use super::counting::CountingElement;
use crate::lines::Level;
use crate::state::{StateError, check};

/// Status byte: the level of OUT.
const STATUS_OUT: u8 = 1 << 7;
/// Status byte: the last count written is not yet in the counting element.
const STATUS_NULL_COUNT: u8 = 1 << 6;

/// A byte of a two-byte count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Byte {
    Low,
    High,
}

/// One counter of the 8254.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    format: Format,
    element: CountingElement,
    /// The low byte of a two-byte count whose high byte has not been written yet.
    written_low: Option<u8>,
    next_read: Byte,
    /// The output latch.
    latched_count: Option<u16>,
    /// The status latch.
    latched_status: Option<u8>,
}

impl Counter {
    /// Creates a counter that has never been programmed, with its GATE at `gate`.
    pub fn new(gate: Level) -> Self {
        Self::programmed(Format::POWER_ON, gate)
    }

    fn programmed(format: Format, gate: Level) -> Self {
        Self {
            format,
            element: CountingElement::new(format.mode, format.radix, gate),
            written_low: None,
            next_read: Byte::Low,
            latched_count: None,
            latched_status: None,
        }
    }

    /// Checks that a saved counter can continue, with its GATE at `gate`.
    pub fn check(&self, gate: Level) -> Result<(), StateError> {
        let Format { mode, radix, .. } = self.format;
        check(self.element.gate() == gate, "8254: GATE")?;
        check(self.element.is_programmed(mode, radix), "8254: mode")?;
        self.element.check()
    }

    /// Applies a control word. It resets the control logic and sets OUT to the mode's initial level; the count stays.
    pub fn program(&mut self, format: Format) {
        let mut element = CountingElement::new(format.mode, format.radix, self.element.gate());
        element.keep_value(&self.element);
        *self = Self {
            element,
            ..Self::programmed(format, self.element.gate())
        };
    }

    pub fn out(&self) -> Level {
        self.element.out()
    }

    pub fn set_gate(&mut self, level: Level) {
        self.element.set_gate(level);
    }

    /// Runs `pulses` clock pulses and returns how often OUT rose.
    pub fn clock(&mut self, pulses: u64) -> u64 {
        self.element.clock(pulses)
    }

    /// The number of clock pulses until OUT rises, or `None` if it will not before GATE changes or something is
    /// written.
    pub fn pulses_to_rise(&self) -> Option<u64> {
        self.element.pulses_to_rise()
    }

    /// Writes a byte of a new count. With one-byte access the other byte is zero.
    pub fn write(&mut self, byte: u8) {
        let count = match (self.format.access, self.written_low.take()) {
            (Access::Low, _) => u16::from_le_bytes([byte, 0]),
            (Access::High, _) => u16::from_le_bytes([0, byte]),
            (Access::LowThenHigh, Some(low)) => u16::from_le_bytes([low, byte]),
            (Access::LowThenHigh, None) => {
                self.written_low = Some(byte);
                return self.element.begin_count();
            }
        };
        self.element.write_count(count);
    }

    /// Reads a byte from the status latch, else from the output latch, else from the counting element.
    pub fn read(&mut self) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self
            .latched_count
            .unwrap_or_else(|| self.element.value())
            .to_le_bytes();
        let (byte, next) = match (self.format.access, self.next_read) {
            (Access::Low, _) => (low, Byte::Low),
            (Access::High, _) => (high, Byte::Low),
            (Access::LowThenHigh, Byte::Low) => (low, Byte::High),
            (Access::LowThenHigh, Byte::High) => (high, Byte::Low),
        };
        self.next_read = next;
        if next == Byte::Low {
            self.latched_count = None;
        }
        byte
    }

    /// Performs the counter latch command, which has no effect until an earlier latched count has been read. A latched
    /// count is read low byte first, even if the low byte of an unlatched count has just been read.
    pub fn latch_count(&mut self) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.element.value());
            self.next_read = Byte::Low;
        }
    }

    /// Performs the read-back command. A status that has been latched and not read stays as it is.
    pub fn read_back(&mut self, command: ReadBack) {
        if command.status() && self.latched_status.is_none() {
            self.latched_status = Some(self.status());
        }
        if command.count() {
            self.latch_count();
        }
    }

    fn status(&self) -> u8 {
        let out = if self.out().is_high() { STATUS_OUT } else { 0 };
        let null_count = if self.element.null_count() {
            STATUS_NULL_COUNT
        } else {
            0
        };
        out | null_count | self.format.status_bits()
    }
}

/// Prints mode, count and pins in one line.
impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = |level: Level| if level.is_high() { "high" } else { "low" };
        let Format { mode, radix, .. } = self.format;
        write!(
            f,
            "mode {} ({radix:?}), count {:04x}, OUT {}, GATE {}",
            mode as u8,
            self.element.value(),
            level(self.out()),
            level(self.element.gate()),
        )?;
        if self.element.null_count() {
            f.write_str(", no count loaded")?;
        }
        Ok(())
    }
}
