//! [`RootSource`]: where a command's root comes from.

use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use guest_kernels::RootChanges;
use oci_root::Reference;

use super::image::{self, ImageConfig};
use crate::args::RunArgs;

/// The root of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootSource {
    /// The initramfs, which has busybox.
    Initramfs,
    /// A directory of the host.
    Directory(PathBuf, RootChanges),
    /// A squashfs, which the user has or which an image was made into.
    Squashfs {
        /// The file.
        file: PathBuf,
        /// What the image that it was made of says about its command.
        config: ImageConfig,
    },
}

/// The beginning of a squashfs.
const SQUASHFS_MAGIC: [u8; 4] = *b"hsqs";

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
        let Some(reference) = Reference::parse(source.as_os_str()) else {
            let error = source.metadata().err();
            let error = error.unwrap_or_else(|| ErrorKind::InvalidInput.into());
            return Err(error).with_context(|| format!("root {}", source.display()));
        };
        let path = &reference.path;
        if path.is_dir() && reference.name.is_none() && !reference.is_image() {
            return Ok(Self::directory(path, rw));
        }
        let mut magic = [0; SQUASHFS_MAGIC.len()];
        // What cannot be read is told by those who open images.
        let read = path.is_file() && {
            let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
            read.is_ok()
        };
        let (file, config) = if read && magic == SQUASHFS_MAGIC {
            (path.clone(), ImageConfig::default())
        } else {
            image::open(&reference)?
        };
        Ok(Self::Squashfs { file, config })
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
