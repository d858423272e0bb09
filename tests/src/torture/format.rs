//! The formats of paging structures, by paging mode ([`Mode`]), and the width of code that uses them ([`Width`]).

/// Bytes of a page.
pub const PAGE: u32 = 0x1000;

/// P, R/W, U/S, A, D, PS and G of an entry, and XD of those of 8 bytes.
pub const P: u64 = 1;
/// Writable.
pub const W: u64 = 1 << 1;
/// For users.
pub const U: u64 = 1 << 2;
/// Accessed.
pub const A: u64 = 1 << 5;
/// Dirty.
pub const D: u64 = 1 << 6;
/// An entry above page tables that maps a large page.
pub const PS: u64 = 1 << 7;
/// Global.
pub const G: u64 = 1 << 8;
/// Not for execution.
pub const XD: u64 = 1 << 63;

/// The width of the code that executes a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 32-bit code, in 2-level and PAE paging.
    Narrow,
    /// 64-bit code, in 4-level paging.
    Wide,
}

impl Width {
    /// The name of the test kernel that executes scripts.
    pub fn kernel(self) -> &'static str {
        match self {
            Self::Narrow => "torture",
            Self::Wide => "torture64",
        }
    }

    /// The paging modes, which take turns.
    pub fn modes(self) -> &'static [Mode] {
        match self {
            Self::Narrow => &[Mode::Pae, Mode::TwoLevel],
            Self::Wide => &[Mode::FourLevel],
        }
    }
}

/// A paging mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 32-bit paging with CR4.PSE set.
    TwoLevel,
    /// PAE paging.
    Pae,
    /// 4-level paging.
    FourLevel,
}

impl Mode {
    /// The width of the code that uses it.
    pub fn width(self) -> Width {
        match self {
            Self::TwoLevel | Self::Pae => Width::Narrow,
            Self::FourLevel => Width::Wide,
        }
    }

    /// Bytes of an entry.
    pub fn entry(self) -> u32 {
        match self {
            Self::TwoLevel => 4,
            Self::Pae | Self::FourLevel => 8,
        }
    }

    /// Entries of a structure.
    pub fn entries(self) -> u32 {
        PAGE / self.entry()
    }

    /// The level of the topmost structures in memory; page tables are those of level 1. In PAE paging those above directories are
    /// registers.
    pub fn levels(self) -> u32 {
        match self {
            Self::TwoLevel | Self::Pae => 2,
            Self::FourLevel => 4,
        }
    }

    /// Bytes that an entry of `level` maps.
    pub fn bytes(self, level: u32) -> u64 {
        u64::from(PAGE) * u64::from(self.entries()).pow(level - 1)
    }

    /// The index of the entry of `level` that translates a linear address.
    pub fn index(self, level: u32, linear: u64) -> u32 {
        (linear / self.bytes(level)) as u32 % self.entries()
    }

    /// Whether entries of `level` may map pages by PS.
    pub fn maps(self, level: u32) -> bool {
        level == 2 || level == 3
    }

    /// The reserved bits of an entry of `level` that has PS. In 2-level paging, bits 20:13 are address bits of PSE-36, of which
    /// bit 20 is beyond those of any processor model here.
    pub fn large_reserved(self, level: u32) -> u64 {
        match self {
            Self::TwoLevel => 1 << 21,
            _ if self.maps(level) => self.bytes(level) - (1 << 13),
            _ => PS,
        }
    }

    /// The reserved bits of all entries, but for XD, whatever MAXPHYADDR is, as far as scripts set them. In 4-level paging bits 62:52
    /// are ignored, and 51 is an address bit beyond those of any processor model here.
    pub fn reserved(self) -> u64 {
        match self {
            Self::TwoLevel => 0,
            Self::Pae => 0x7ff << 52,
            Self::FourLevel => 1 << 51,
        }
    }
}
