//! The errors of fetching a guest. Each names the command, file or package that it is about.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// The reason why a guest could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// None of the variables that locate the cache is set.
    #[error("no place for the cache: set REPLEX_CACHE, XDG_CACHE_HOME or HOME to an absolute path")]
    NoCacheDir,

    /// The variable that chooses the cache names no absolute path.
    #[error("REPLEX_CACHE: {}: not an absolute path", path.display())]
    RelativeCache {
        /// Its value.
        path: PathBuf,
    },

    /// The folder of the cache, or one in it, cannot be made.
    #[error("cannot create {}: {reason} (REPLEX_CACHE chooses another folder)", path.display())]
    CreateCache {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },

    /// A file operation failed.
    #[error("cannot {action} {}: {reason}", path.display())]
    File {
        /// The verb for what was attempted.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },

    /// A program could not be started.
    #[error("cannot run {program} (Debian package {package}): {reason}")]
    Start {
        /// The program.
        program: &'static str,
        /// The package that contains it.
        package: &'static str,
        /// The system's reason.
        reason: io::Error,
    },

    /// A program failed.
    #[error("{command}: {status}\n{stderr}")]
    Command {
        /// The command line, without the options of every call.
        command: String,
        /// The program's exit status.
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
        /// The URI that was found.
        uri: String,
    },

    /// The keys that sign Debian's archive are not installed.
    #[error("the keys of Debian's archive are missing: install package debian-archive-keyring (it brings {})", path.display())]
    NoKeyring {
        /// The file in which the package installs them.
        path: PathBuf,
    },

    /// The package lists lack a field of a package.
    #[error("the package lists have no usable field {field} for package {package}")]
    PackageField {
        /// The package's name.
        package: String,
        /// The field of the Packages file.
        field: &'static str,
    },

    /// A package lacks a file.
    #[error("package {package} has no file {file}")]
    NotInPackage {
        /// The package's name.
        package: String,
        /// The file that was looked for.
        file: String,
    },

    /// There is something where a root directory is to be made.
    #[error("{} is there already", path.display())]
    RootExists {
        /// The place.
        path: PathBuf,
    },

    /// A root directory cannot take the place of what is there, though that may be an empty directory.
    #[error("{} is {what}: a root directory needs a name that is free, or that of an empty directory", path.display())]
    RootPlace {
        /// The place.
        path: PathBuf,
        /// What is there, with its article.
        what: &'static str,
    },

    /// A name is none of a package.
    #[error("not the name of a package: \"{name}\"")]
    BadPackageName {
        /// The name that was given.
        name: String,
    },

    /// A package could not be read.
    #[error("cannot unpack package {package}: {reason}\n{stderr}")]
    Unpack {
        /// The package's name.
        package: String,
        /// The reason.
        reason: io::Error,
        /// The last lines of dpkg-deb's standard error.
        stderr: String,
    },
}

/// Returns a function for `map_err` that turns an `io::Error` into [`FetchError::File`].
pub(crate) fn file_error(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> FetchError {
    let path = path.into();
    move |reason| FetchError::File {
        action,
        path,
        reason,
    }
}
