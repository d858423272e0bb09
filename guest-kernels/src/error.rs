//! What can go wrong while a guest is fetched. Each error names the command, file or package it is about.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// A guest could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// None of the variables that locate the cache is set.
    #[error("no place for the cache: set REPLEX_CACHE, XDG_CACHE_HOME or HOME to an absolute path")]
    NoCacheDir,

    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// A program could not be started.
    #[error("cannot run {program} (Debian package {package}): {source}")]
    Start {
        /// The program.
        program: &'static str,
        /// The package that brings it.
        package: &'static str,
        /// The system's reason.
        source: io::Error,
    },

    /// A program failed.
    #[error("{command}: {status}\n{stderr}")]
    Command {
        /// The command line without the options that every call has.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its standard error.
        stderr: String,
    },

    /// The system's apt sources name no Debian archive.
    #[error(
        "this system's apt sources name no Debian archive: set REPLEX_DEBIAN_MIRROR to the URI of one \
         (the part that ends before /dists)"
    )]
    NoArchive,

    /// The archive's URI cannot be written into an apt source.
    #[error(
        "not the URI of a Debian archive: \"{uri}\" (from REPLEX_DEBIAN_MIRROR or apt's sources)"
    )]
    BadArchiveUri {
        /// The URI as found.
        uri: String,
    },

    /// The keys that sign Debian's archive are not installed.
    #[error("the keys of Debian's archive are missing: install package debian-archive-keyring (it brings {})", path.display())]
    NoKeyring {
        /// Where the package puts them.
        path: PathBuf,
    },

    /// The package lists say less about a package than they must.
    #[error("the package lists have no usable field {field} for package {package}")]
    PackageField {
        /// Package name.
        package: String,
        /// Field of the Packages file.
        field: &'static str,
    },

    /// A package lacks a file.
    #[error("package {package} has no file {file}")]
    NotInPackage {
        /// Package name.
        package: String,
        /// The file looked for.
        file: String,
    },

    /// A package could not be read.
    #[error("cannot unpack package {package}: {source}\n{stderr}")]
    Unpack {
        /// Package name.
        package: String,
        /// The reason.
        source: io::Error,
        /// The last lines of dpkg-deb's standard error.
        stderr: String,
    },
}

/// Turns an `io::Error` into [`FetchError::File`]; made for `map_err`.
pub(crate) fn file_error(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> FetchError {
    let path = path.into();
    move |source| FetchError::File {
        action,
        path,
        source,
    }
}
