//! What a fetch is doing, told to whoever waits for it.

use std::fmt;

/// A step of a fetch that may take longer than a second. Its `Display` is one line for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Another process holds the cache.
    WaitingForLock,
    /// The archive's signed package lists are being downloaded.
    PackageLists {
        /// URI of the Debian archive.
        archive: String,
    },
    /// A package is being downloaded.
    Downloading {
        /// Package name.
        package: String,
        /// Size in bytes.
        bytes: u64,
    },
    /// A package is being unpacked.
    Unpacking {
        /// Package name.
        package: String,
    },
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MEGABYTE: f64 = 1e6;
        match self {
            Self::WaitingForLock => f.write_str("waiting for another process that fetches guests"),
            Self::PackageLists { archive } => write!(f, "reading the package lists of {archive}"),
            Self::Downloading { package, bytes } => {
                write!(
                    f,
                    "downloading {package} ({:.1} MB)",
                    *bytes as f64 / MEGABYTE
                )
            }
            Self::Unpacking { package } => write!(f, "unpacking {package}"),
        }
    }
}

/// Told of each stage as it begins. Any `FnMut(&Stage)` is one.
pub trait Progress {
    /// `stage` begins; the one before it, if any, has ended.
    fn stage(&mut self, stage: &Stage);
}

impl<F: FnMut(&Stage)> Progress for F {
    fn stage(&mut self, stage: &Stage) {
        self(stage);
    }
}
