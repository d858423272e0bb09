//! Interrupt lines: their numbers and their levels.
//!
//! A line is a wire with a level; whether an edge or the level itself requests an interrupt is the business of the
//! controller that it enters ([`crate::pic`]). Numbers are checked once, here, so that no controller has to.

use serde::{Deserialize, Serialize};

/// The electrical level of a line or pin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// Inactive for an interrupt request.
    #[default]
    Low,
    /// Active for an interrupt request.
    High,
}

impl Level {
    /// `High` when `active`, otherwise `Low`.
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
    /// Output of counter 0 of the 8254.
    pub const TIMER: Self = Self(0);
    /// First port of the keyboard controller.
    pub const KEYBOARD: Self = Self(1);
    /// The slave's INT output. Not a device line.
    pub const CASCADE: Self = Self(2);
    /// Second serial port.
    pub const COM2: Self = Self(3);
    /// First serial port.
    pub const COM1: Self = Self(4);
    /// Real-time clock.
    pub const RTC: Self = Self(8);
    /// Second port of the keyboard controller.
    pub const MOUSE: Self = Self(12);

    /// The line numbered `number`, or `None` above 15.
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
