//! The distribution guests and their names.
//!
//! A guest is one flavour of Debian's kernel; its packages and their place in the cache follow from that.

use std::fmt;
use std::str::FromStr;

use crate::architecture::Architecture;

/// A distribution kernel that can be fetched and booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Guest {
    /// Debian's kernel for i686 without PAE: 32-bit page-table entries, two levels.
    #[default]
    Debian686,
    /// Debian's kernel for i686 with PAE: 64-bit page-table entries, three levels, NX.
    Debian686Pae,
    /// Debian's kernel for x86-64: four-level page tables, NX.
    DebianAmd64,
}

/// The error of a name that no guest has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown guest \"{name}\"; known guests: {}", Guest::ALL.map(Guest::name).join(", "))]
pub struct UnknownGuest {
    /// The name that was given.
    pub name: String,
}

impl Guest {
    /// All guests, the default one first.
    pub const ALL: [Self; 3] = [Self::Debian686, Self::Debian686Pae, Self::DebianAmd64];

    /// The name of the guest on the command line and of its folder in the cache.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debian686 => "debian-686",
            Self::Debian686Pae => "debian-686-pae",
            Self::DebianAmd64 => "debian-amd64",
        }
    }

    /// The Debian metapackage that depends on the current kernel image.
    pub(crate) const fn metapackage(self) -> &'static str {
        match self {
            Self::Debian686 => "linux-image-686",
            Self::Debian686Pae => "linux-image-686-pae",
            Self::DebianAmd64 => "linux-image-amd64",
        }
    }

    /// The guest that runs programs of `architecture` best.
    pub const fn of(architecture: Architecture) -> Self {
        match architecture {
            Architecture::I386 => Self::Debian686,
            Architecture::Amd64 => Self::DebianAmd64,
        }
    }

    /// The architecture of its kernel and of its own programs.
    pub const fn architecture(self) -> Architecture {
        match self {
            Self::Debian686 | Self::Debian686Pae => Architecture::I386,
            Self::DebianAmd64 => Architecture::Amd64,
        }
    }

    /// The architectures whose programs it runs, its own first.
    pub const fn runs(self) -> &'static [Architecture] {
        match self.architecture() {
            Architecture::I386 => &[Architecture::I386],
            Architecture::Amd64 => &[Architecture::Amd64, Architecture::I386],
        }
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Guest {
    type Err = UnknownGuest;

    fn from_str(name: &str) -> Result<Self, UnknownGuest> {
        Self::ALL
            .into_iter()
            .find(|guest| guest.name() == name)
            .ok_or_else(|| UnknownGuest {
                name: name.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for guest in Guest::ALL {
            assert_eq!(guest.name().parse(), Ok(guest));
        }
    }

    #[test]
    fn the_guest_of_an_architecture_is_of_it() {
        assert_eq!(Guest::default().architecture(), Architecture::ALL[0]);
        for architecture in Architecture::ALL {
            assert_eq!(Guest::of(architecture).architecture(), architecture);
        }
        for guest in Guest::ALL {
            assert_eq!(guest.runs()[0], guest.architecture());
        }
    }

    #[test]
    fn the_default_guest_is_listed_first() {
        assert_eq!(Guest::ALL[0], Guest::default());
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        let error = "debian-arm64".parse::<Guest>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown guest \"debian-arm64\"; known guests: debian-686, debian-686-pae, debian-amd64"
        );
    }
}
