//! [`Mode`] and [`PageKey`]: how code executes, and which page of code it is.

use crate::decode::decoder::CodeSize;
use mmu::{Frame, Privilege};

/// The privilege at which code executes, the way it reaches memory, and its width: 32-bit code where not said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// CPL 0, memory by way of the tables.
    Supervisor,
    /// CPL 3, memory by way of the tables.
    User,
    /// CPL 3 in an address space that has a window: memory through that.
    Windowed,
    /// 64-bit code at CPL 0, memory by way of the tables.
    Supervisor64,
    /// 64-bit code at CPL 3, memory by way of the tables.
    User64,
    /// 64-bit code at CPL 3 in an address space that has a window: memory through that.
    Windowed64,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 6] = [
        Self::Supervisor,
        Self::User,
        Self::Windowed,
        Self::Supervisor64,
        Self::User64,
        Self::Windowed64,
    ];

    /// The mode's name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "Supervisor",
            Self::User => "User",
            Self::Windowed => "Windowed",
            Self::Supervisor64 => "Supervisor64",
            Self::User64 => "User64",
            Self::Windowed64 => "Windowed64",
        }
    }

    /// The privilege.
    pub fn privilege(self) -> Privilege {
        match self {
            Self::Supervisor | Self::Supervisor64 => Privilege::Supervisor,
            Self::User | Self::Windowed | Self::User64 | Self::Windowed64 => Privilege::User,
        }
    }

    /// Whether the code is 64-bit code.
    pub fn is_64(self) -> bool {
        matches!(self, Self::Supervisor64 | Self::User64 | Self::Windowed64)
    }

    /// Whether the code reaches memory through a window.
    pub fn is_windowed(self) -> bool {
        matches!(self, Self::Windowed | Self::Windowed64)
    }

    /// The default sizes of the code.
    pub fn code_size(self) -> CodeSize {
        match self.is_64() {
            true => CodeSize::Bits64,
            false => CodeSize::Bits32,
        }
    }
}

/// The key of a code page: what lies in a frame is one page of code for each mode in which it executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageKey {
    /// The frame that holds the guest's code.
    pub frame: Frame,
    /// The mode in which the code executes.
    pub mode: Mode,
}
