//! [`restrict_files`]: what is left of the host's files, by Landlock (Linux, Documentation/userspace-api/landlock.rst).

use std::{io, path::PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use nix::sys::resource::{Resource, setrlimit};
use thiserror::Error;

use crate::support::Support;

/// A file or directory that threads may use after [`restrict_files`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The path of the file, or of the directory with all that is below it.
    pub path: PathBuf,
    /// The ways of using it.
    pub access: Access,
}

/// The ways of using what is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A file is read.
    ReadFile,
    /// A directory, and all files below it, are read.
    Read,
    /// A directory, and all files below it, are read, changed, made and removed; device nodes are not made.
    Change,
    /// Sockets are made in a directory, and entries removed from it.
    Sockets,
}

/// The error of restricting files.
#[derive(Debug, Error)]
pub enum RestrictError {
    /// The host has no Landlock, or it is switched off.
    #[error("this host has no Landlock")]
    Missing,
    /// The host's Landlock would keep the guest from moving files between directories, since it knows only the first version of
    /// the interface.
    #[error("this host's Landlock (Linux before 5.19) forbids to move files between directories")]
    TooOld,
    /// What is shared cannot be opened.
    #[error(transparent)]
    Path(#[from] PathFdError),
    /// The host refuses the restriction.
    #[error("Landlock")]
    Host(#[from] RulesetError),
}

/// The version of the interface that is used where the host has it.
const USED: ABI = ABI::V6;

/// The first version of the interface that lets files be moved between directories.
const MOVES: u32 = 2;

/// Leaves the calling thread, and those that it starts from now on, nothing of the host's files but what is `shared`, whatever
/// their user may do. Open descriptors stay usable, and metadata stays visible. Abstract sockets and processes outside can no
/// longer be reached either, where the host knows how.
///
/// # Errors
/// See [`RestrictError`]. Nothing is then restricted.
pub fn restrict_files(shared: &[Shared]) -> Result<(), RestrictError> {
    let version = Support::of_host().landlock.ok_or(RestrictError::Missing)?;
    let changes = |shared: &Shared| shared.access == Access::Change;
    if version < MOVES && shared.iter().any(changes) {
        return Err(RestrictError::TooOld);
    }
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(USED))?
        .scope(Scope::from_all(USED))?
        .create()?;
    let rules = shared
        .iter()
        .map(|shared| {
            let file = PathFd::new(&shared.path)?;
            Ok(PathBeneath::new(file, shared.access.rights()))
        })
        .collect::<Result<Vec<_>, RestrictError>>()?;
    let ruleset = ruleset.add_rules(rules.into_iter().map(Ok::<_, RulesetError>))?;
    match ruleset.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Err(RestrictError::Missing),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

impl Access {
    /// The rights that Landlock grants.
    fn rights(self) -> BitFlags<AccessFs> {
        match self {
            Self::ReadFile => AccessFs::ReadFile.into(),
            Self::Read => AccessFs::ReadFile | AccessFs::ReadDir,
            Self::Change => {
                let unused = AccessFs::Execute
                    | AccessFs::MakeChar
                    | AccessFs::MakeBlock
                    | AccessFs::IoctlDev;
                AccessFs::from_all(USED) & !unused
            }
            Self::Sockets => AccessFs::MakeSock | AccessFs::RemoveFile,
        }
    }
}

/// Keeps this process from leaving memory images, which would hold the guest's secrets, when it ends by a signal.
///
/// # Errors
/// The host's.
pub fn limit_resources() -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, 0)?)
}
