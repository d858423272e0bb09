//! Interrupt lines: their numbers and their levels.
//!
//! A line is a wire with a level. Whether an edge or the level itself requests an interrupt is up to the controller
//! that the line enters ([`crate::pic`]). Numbers are checked once, here, so that no controller has to check them.

use serde::{Deserialize, Serialize};

/// The electrical level of a line or pin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// The level at which a line requests no interrupt.
    #[default]
    Low,
    /// The level at which a line requests an interrupt, or to which it rises to request one.
    High,
}

impl Level {
    /// Returns `High` if `active`, else `Low`.
    #[must_use]
    pub const fn from_active(active: bool) -> Self {
        if active { Self::High } else { Self::Low }
    }

    /// Whether the level is `High`.
    #[must_use]
    pub const fn is_high(self) -> bool {
        matches!(self, Self::High)
    }
}

/// The number of an interrupt line of a PC, 0 to 15. Lines 0 to 7 enter the master 8259A, 8 to 15 the slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Irq(u8);

impl Irq {
    /// The line of the 8254's OUT0.
    pub const TIMER: Self = Self(0);
    /// The line of the keyboard controller's first port.
    pub const KEYBOARD: Self = Self(1);
    /// The input that the slave's INT output drives, which is no device's line.
    pub const CASCADE: Self = Self(2);
    /// The line of the second serial port.
    pub const COM2: Self = Self(3);
    /// The line of the first serial port.
    pub const COM1: Self = Self(4);
    /// The line of the real-time clock.
    pub const RTC: Self = Self(8);
    /// The line of the keyboard controller's second port.
    pub const MOUSE: Self = Self(12);

    /// Returns the line with this number, or `None` above 15.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number < 16 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The line's number, 0 to 15.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}
