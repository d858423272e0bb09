//! The programs of /init that are no scripts, for each architecture.
//!
//! A 64-bit kernel gets 64-bit ones: it may have been built without the means to run others (`CONFIG_IA32_EMULATION`).

use crate::architecture::Architecture;

/// The programs for one architecture.
pub(super) struct Programs {
    /// The program by which /init begins.
    pub(super) prepare: &'static [u8],
    /// The program that runs the command of `replex run`.
    pub(super) launch: &'static [u8],
}

/// The program called `$name` for `$architecture`, as `build.rs` has compiled it.
macro_rules! program {
    ($architecture:literal, $name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $architecture, "/", $name))
    };
}

impl Programs {
    /// Returns those for `architecture`.
    pub(super) const fn of(architecture: Architecture) -> Self {
        match architecture {
            Architecture::I386 => Self {
                prepare: program!("i386", "prepare"),
                launch: program!("i386", "launch"),
            },
            Architecture::Amd64 => Self {
                prepare: program!("amd64", "prepare"),
                launch: program!("amd64", "launch"),
            },
        }
    }
}
