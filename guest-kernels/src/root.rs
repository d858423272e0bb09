//! The root directories that can be made, and their names.

use std::fmt;
use std::str::FromStr;

use crate::architecture::Architecture;

/// A distribution whose root directory can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Root {
    /// Debian for i386.
    #[default]
    DebianI386,
    /// Debian for amd64.
    DebianAmd64,
}

/// The error of a name that no root directory has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown root directory \"{name}\"; known ones: {}", Root::ALL.map(Root::name).join(", "))]
pub struct UnknownRoot {
    /// The name that was given.
    pub name: String,
}

impl Root {
    /// All of them, the default one first.
    pub const ALL: [Self; 2] = [Self::DebianI386, Self::DebianAmd64];

    /// The name on the command line and of the directory in the cache.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DebianI386 => "debian-i386",
            Self::DebianAmd64 => "debian-amd64",
        }
    }

    /// The architecture of its programs.
    pub const fn architecture(self) -> Architecture {
        match self {
            Self::DebianI386 => Architecture::I386,
            Self::DebianAmd64 => Architecture::Amd64,
        }
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Root {
    type Err = UnknownRoot;

    fn from_str(name: &str) -> Result<Self, UnknownRoot> {
        Self::ALL
            .into_iter()
            .find(|root| root.name() == name)
            .ok_or_else(|| UnknownRoot {
                name: name.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for root in Root::ALL {
            assert_eq!(root.name().parse(), Ok(root));
            assert_eq!(
                root.name(),
                format!("debian-{}", root.architecture().name())
            );
        }
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        let error = "debian-686".parse::<Root>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown root directory \"debian-686\"; known ones: debian-i386, debian-amd64"
        );
    }
}
