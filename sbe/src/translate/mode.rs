//! [`Mode`] and [`PageKey`]: how code executes, and which page of code it is.

use mmu::{Frame, Privilege};

/// The privilege at which code executes, and the way it reaches memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// CPL 0, memory by way of the tables.
    Supervisor,
    /// CPL 3, memory by way of the tables.
    User,
    /// CPL 3 in an address space that has a window: memory through that.
    Windowed,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::Supervisor, Self::User, Self::Windowed];

    /// The mode's name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "Supervisor",
            Self::User => "User",
            Self::Windowed => "Windowed",
        }
    }

    /// The privilege.
    pub fn privilege(self) -> Privilege {
        match self {
            Self::Supervisor => Privilege::Supervisor,
            Self::User | Self::Windowed => Privilege::User,
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
