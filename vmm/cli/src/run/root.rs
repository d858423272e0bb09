//! [`RootSource`]: where a command's root comes from.

use std::{
    ffi::OsString,
    fs::File,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use guest_kernels::RootChanges;

use crate::args::RunArgs;

/// The root of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootSource {
    /// The initramfs, which has busybox.
    Initramfs,
    /// A directory of the host.
    Directory(PathBuf, RootChanges),
    /// A squashfs.
    Squashfs {
        /// The file.
        file: PathBuf,
        /// What the image that it was made of says about its command.
        config: ImageConfig,
    },
}

/// The beginning of a squashfs.
const SQUASHFS_MAGIC: [u8; 4] = *b"hsqs";

/// What an image says about its command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// The program and its first arguments.
    pub entrypoint: Vec<OsString>,
    /// Further arguments, if the user gives none.
    pub cmd: Vec<OsString>,
    /// The environment, as `NAME=VALUE`.
    pub env: Vec<OsString>,
    /// The working directory.
    pub workdir: Option<PathBuf>,
    /// The user, as `USER[:GROUP]`.
    pub user: Option<String>,
}

impl RootSource {
    /// Finds the root that `args` name.
    ///
    /// # Errors
    /// If there is none of this name, or `--rw` has no directory.
    pub fn find(args: &RunArgs) -> Result<Self> {
        let source = match (&args.root, &args.source) {
            (Some(dir), _) => Self::directory(dir, args.rw),
            (None, Some(source)) => Self::named(source, args.rw)?,
            (None, None) => Self::Initramfs,
        };
        match (&source, args.rw) {
            (Self::Directory(..), _) | (_, false) => Ok(source),
            (_, true) => bail!("--rw: changes can be made in a directory only"),
        }
    }

    fn directory(dir: &Path, rw: bool) -> Self {
        let changes = match rw {
            true => RootChanges::Kept,
            false => RootChanges::Dropped,
        };
        Self::Directory(dir.into(), changes)
    }

    fn named(source: &Path, rw: bool) -> Result<Self> {
        let metadata = source
            .metadata()
            .with_context(|| format!("root {}", source.display()))?;
        if metadata.is_dir() {
            return Ok(Self::directory(source, rw));
        }
        let mut magic = [0; SQUASHFS_MAGIC.len()];
        let read = File::open(source).and_then(|mut file| file.read_exact(&mut magic));
        match read {
            Ok(()) if magic == SQUASHFS_MAGIC => Ok(Self::Squashfs {
                file: source.into(),
                config: ImageConfig::default(),
            }),
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => {
                Err(error).with_context(|| format!("root {}", source.display()))
            }
            _ => bail!(
                "root {}: neither a directory nor a squashfs",
                source.display()
            ),
        }
    }

    /// Returns the directory of the host, and what becomes of changes.
    pub fn shared(&self) -> Option<(PathBuf, RootChanges)> {
        match self {
            Self::Directory(dir, changes) => Some((dir.clone(), *changes)),
            Self::Initramfs | Self::Squashfs { .. } => None,
        }
    }

    /// Returns what the root says about its command.
    pub fn config(&self) -> ImageConfig {
        match self {
            Self::Squashfs { config, .. } => config.clone(),
            Self::Initramfs | Self::Directory(..) => ImageConfig::default(),
        }
    }
}
