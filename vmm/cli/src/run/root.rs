//! [`RootSource`]: where a command's root comes from.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use guest_kernels::{Architecture, RootChanges};
use oci_root::{ImageConfig, Reference};

use super::image;
use crate::{architecture::Programs, args::RunArgs, guest, usage::after_dashes};

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
        /// The architecture of its programs, if that is known.
        architecture: Option<Architecture>,
        /// What the image that it was made of says about its command.
        config: ImageConfig,
    },
}

/// The beginning of a squashfs.
const SQUASHFS_MAGIC: [u8; 4] = *b"hsqs";

impl RootSource {
    /// Finds the root that `args` name. Of an image, it is that for the first possible one of `architectures`.
    ///
    /// # Errors
    /// If there is none of this name, or `--rw` has no directory.
    pub fn find(args: &RunArgs, architectures: &[Architecture]) -> Result<Self> {
        let source = match (&args.root, &args.source) {
            (Some(dir), _) => Self::directory(dir, args.rw),
            (None, Some(source)) => Self::named(source, args, architectures)?,
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

    fn named(source: &Path, args: &RunArgs, architectures: &[Architecture]) -> Result<Self> {
        let source = &*guest::find(source)?;
        let name = || format!("root {}", source.display());
        let Some(reference) = Reference::parse(source.as_os_str()) else {
            bail!(
                "{}: no such directory or image{}",
                name(),
                hint(source, args)
            );
        };
        if !reference.is_image() {
            return match reference.name {
                None => Ok(Self::directory(source, args.rw)),
                Some(_) => bail!("{}: {} is no image", name(), reference.path.display()),
            };
        }
        if reference.name.is_none() && is_squashfs(source).with_context(name)? {
            return Ok(Self::Squashfs {
                file: source.into(),
                architecture: None,
                config: ImageConfig::default(),
            });
        }
        let image = image::open(&reference, architectures)?;
        Ok(Self::Squashfs {
            architecture: image::architecture(&image),
            file: image.squashfs,
            config: image.config,
        })
    }

    /// Returns the directory of the host, and what becomes of changes.
    pub fn shared(&self) -> Option<(PathBuf, RootChanges)> {
        match self {
            Self::Directory(dir, changes) => Some((dir.clone(), *changes)),
            Self::Initramfs | Self::Squashfs { .. } => None,
        }
    }

    /// Returns what tells the architecture of the root's programs, where the command is the first file of the paths `command`.
    pub fn programs(&self, command: &[PathBuf]) -> Programs {
        match self {
            Self::Initramfs => Programs::default(),
            Self::Directory(dir, _) => Programs::of_root(dir, command),
            Self::Squashfs { architecture, .. } => Programs::of_image(*architecture),
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

/// What may have been meant by a root that is not there.
fn hint(source: &Path, args: &RunArgs) -> String {
    let guest = " (replex guest NAME makes a root)";
    match source.to_str() {
        Some(name) if args.command.is_empty() && !name.contains('/') => {
            format!("{guest}; {}", after_dashes(&[], &[name]))
        }
        _ => guest.into(),
    }
}

/// Whether a file is a squashfs, and not an archive.
fn is_squashfs(path: &Path) -> io::Result<bool> {
    let mut magic = Vec::new();
    if path.is_file() {
        let file = File::open(path)?;
        file.take(SQUASHFS_MAGIC.len() as u64)
            .read_to_end(&mut magic)?;
    }
    Ok(magic == SQUASHFS_MAGIC)
}
