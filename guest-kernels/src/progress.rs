//! The progress of a fetch, reported to the caller that waits for it.

use std::fmt;

/// A step of a fetch that may take longer than a second. Its `Display` is one line for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Another process holds the cache.
    WaitingForLock,
    /// The archive's signed package lists are being downloaded.
    PackageLists {
        /// The URI of the Debian archive.
        archive: String,
    },
    /// A package is being downloaded.
    Downloading {
        /// The package's name.
        package: String,
        /// The package's size in bytes.
        bytes: u64,
    },
    /// Part of the download is there.
    Downloaded {
        /// How much, in percent of the bytes.
        percent: u8,
    },
    /// A package is being unpacked.
    Unpacking {
        /// The package's name.
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
            Self::Downloaded { percent } => write!(f, "downloaded {percent} %"),
            Self::Unpacking { package } => write!(f, "unpacking {package}"),
        }
    }
}

/// A receiver of the stages of a fetch. Any `FnMut(&Stage)` is one.
pub trait Progress {
    /// Reports that `stage` begins, and that the stage before it, if any, has ended.
    fn stage(&mut self, stage: &Stage);
}

impl<F: FnMut(&Stage)> Progress for F {
    fn stage(&mut self, stage: &Stage) {
        self(stage);
    }
}
