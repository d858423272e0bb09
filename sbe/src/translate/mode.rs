//! [`Mode`]: how a page of code executes.

use mmu::Privilege;

/// At which privilege code executes, and how it reaches memory. A frame is a code page of its own in each.
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

    /// Its name for people.
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
