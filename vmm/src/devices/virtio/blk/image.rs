//! [`Image`]: an open image file, by `imago`, locked against other machines.
//!
//! Whoever writes an image holds a write lock on it, whoever only reads it, or what lies below it, a read lock. They are open
//! file description locks of the whole file: they end with the machine however it ends, and concern this process's other
//! machines, too. QEMU's, which are locks of single bytes, exclude them and are excluded.
//!
//! A hostile qcow2 image can be read without harm. To be written, its refcounts must be right ([`refcounts`]).

use std::{
    env,
    fs::{File, OpenOptions},
    io::{self, Read, Seek},
    path::{Path, PathBuf},
};

use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder, FormatDriverBuilder,
    StorageOpenOptions, format::gate::ImplicitOpenGate, qcow2::Qcow2, raw::Raw,
};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};
use thiserror::Error;

use super::{
    config::{DiskConfig, DiskFormat},
    extensions,
    ordered::Ordered,
    refcounts,
};

/// An open image. What has been written is in the file when it is dropped, but not on stable storage.
pub struct Image(FormatAccess<Ordered>);

/// The error of opening a disk.
#[derive(Debug, Error)]
pub enum DiskError {
    /// The file, or one that it needs, cannot be opened, or is none of its format.
    #[error("{}: {error}", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// The temporary file of a snapshot cannot be made.
    #[error("cannot make a temporary file in {}: {error}", .folder.display())]
    Temporary {
        /// The folder (TMPDIR).
        folder: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// The size is no number of sectors.
    #[error("{}: its size, {size} bytes, is not a multiple of 512", .path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// The size of the disk.
        size: u64,
    },
    /// No format is given, and the content is not what the name says.
    #[error("{}: holds a qcow2 image, but is not named so; say format=qcow2, or format=raw to use its bytes as they are", .path.display())]
    Ambiguous {
        /// The file.
        path: PathBuf,
    },
}

/// The unit of capacity and positions, in bytes.
pub const SECTOR: u64 = 512;

/// Whether a file is opened to be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Read,
    Write,
}

impl Image {
    /// Opens the image that `config` names.
    pub fn open(config: &DiskConfig) -> Result<Self, DiskError> {
        let path = &config.path;
        let at_path = |error| DiskError::Open {
            path: path.clone(),
            error,
        };
        let mode = match config.read_only || config.snapshot {
            true => Mode::Read,
            false => Mode::Write,
        };
        let file = open_locked(path, mode).map_err(at_path)?;
        let format = format_of(config, &file).map_err(at_path)?;
        let format = format.ok_or_else(|| DiskError::Ambiguous { path: path.clone() })?;
        let access = open_format(file, path, format, mode).map_err(at_path)?;
        let size = access.size();
        if !size.is_multiple_of(SECTOR) {
            let path = path.clone();
            return Err(DiskError::Size { path, size });
        }
        match config.snapshot {
            true => overlay(access, temporary()?).map(Self).map_err(at_path),
            false => Ok(Self(access)),
        }
    }

    /// The size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.0.size()
    }

    /// Reads all of `bytes` from `offset` on.
    pub fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read(bytes, offset)
    }

    /// Writes all of `bytes` from `offset` on.
    pub fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write(bytes, offset)
    }

    /// Makes a range read as zeroes and keeps room for it.
    pub fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.write_zeroes(offset, len)
    }

    /// Makes a range read as zeroes and gives its room back.
    pub fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.0.discard_to_zero(offset, len)
    }

    /// Brings all that was written to stable storage.
    pub fn flush(&self) -> io::Result<()> {
        self.0.flush()?;
        self.0.sync()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Err(error) = self.0.flush() {
            log::warn!("disk: {error}");
        }
    }
}

/// The format of an image, or `None` if name and content disagree. A raw image is never taken for another because of its
/// content, which is the guest's.
fn format_of(config: &DiskConfig, mut file: &File) -> io::Result<Option<DiskFormat>> {
    if config.format.is_some() {
        return Ok(config.format);
    }
    if config.path.extension().is_some_and(|name| name == "qcow2") {
        return Ok(Some(DiskFormat::Qcow2));
    }
    let mut magic = Vec::new();
    file.take(refcounts::MAGIC.len() as u64)
        .read_to_end(&mut magic)?;
    file.rewind()?;
    Ok((magic != refcounts::MAGIC).then_some(DiskFormat::Raw))
}

fn open_format(
    file: File,
    path: &Path,
    format: DiskFormat,
    mode: Mode,
) -> io::Result<FormatAccess<Ordered>> {
    let write = mode == Mode::Write;
    if format == DiskFormat::Qcow2 {
        extensions::check(&file)?;
    }
    // What a raw image holds is the guest's business, even if it looks like another image.
    let l1_table = match write && format == DiskFormat::Qcow2 {
        true => refcounts::check(&file)?,
        false => 0..0,
    };
    let options = StorageOpenOptions::new().write(write).filename(path);
    let file = Ordered::new(file, options, l1_table)?;
    Ok(match format {
        DiskFormat::Raw => {
            let raw = Raw::builder(file).write(write);
            FormatAccess::new(raw.open(DenyImplicitOpenGate::default())?)
        }
        DiskFormat::Qcow2 => {
            let qcow2 = Qcow2::<Ordered>::builder(file).write(write);
            FormatAccess::new(qcow2.open(Below::new(path))?)
        }
    })
}

/// Makes the file of a snapshot, which has no name.
fn temporary() -> Result<File, DiskError> {
    tempfile::tempfile().map_err(|error| DiskError::Temporary {
        folder: env::temp_dir(),
        error,
    })
}

/// Makes a qcow2 image in the empty file `file`, which takes all writes, and puts it over `below`.
fn overlay(below: FormatAccess<Ordered>, file: File) -> io::Result<FormatAccess<Ordered>> {
    let file = Ordered::new(file, StorageOpenOptions::new().write(true), 0..0)?;
    let created = Qcow2::<Ordered>::create_builder(file).size(below.size());
    let overlay = created.create_open(DenyImplicitOpenGate::default(), |file| {
        let open = Qcow2::<Ordered>::builder(file);
        Ok(open.write(true).backing(Some(below)))
    })?;
    Ok(FormatAccess::new(overlay))
}

/// Opens `path` and locks it.
fn open_locked(path: &Path, mode: Mode) -> io::Result<File> {
    let write = mode == Mode::Write;
    let file = OpenOptions::new().read(true).write(write).open(path)?;
    lock(&file, mode)?;
    Ok(file)
}

/// Locks the whole of a file, for readers or for one writer.
fn lock(file: &File, mode: Mode) -> io::Result<()> {
    let kind = match mode {
        Mode::Read => libc::F_RDLCK,
        Mode::Write => libc::F_WRLCK,
    };
    let whole = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
        Ok(_) => Ok(()),
        Err(Errno::EAGAIN | Errno::EACCES) => {
            let message = "in use by another machine";
            Err(io::Error::new(io::ErrorKind::WouldBlock, message))
        }
        Err(error) => Err(error.into()),
    }
}

/// The gate for what an image names in its header: files in the image's folder or below, to be read and
/// locked. An image may come from anywhere, and must not show the guest other files of the host.
struct Below {
    image: PathBuf,
    /// The number of further images that may lie below.
    depth: usize,
}

/// The most images that lie below each other: one that names itself would never end.
const MOST_BELOW: usize = 16;

impl Below {
    fn new(image: &Path) -> Self {
        let image = image.to_owned();
        let depth = MOST_BELOW;
        Self { image, depth }
    }

    /// Opens and locks the file that the header names.
    fn open(&self, named: &Path) -> io::Result<Ordered> {
        let folder = self.image.canonicalize()?;
        let folder = folder.parent().unwrap_or(Path::new("/"));
        let path = named.canonicalize()?;
        if !path.starts_with(folder) {
            let message = format!(
                "it names {}, which is not below its own folder",
                named.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        let options = StorageOpenOptions::new().filename(&path);
        let file = open_locked(&path, Mode::Read)?;
        extensions::check(&file)?;
        Ordered::new(file, options, 0..0)
    }
}

impl ImplicitOpenGate<Ordered> for Below {
    fn open_format<F: FormatDriverBuilder<Ordered>>(
        &mut self,
        builder: F,
    ) -> io::Result<FormatAccess<Ordered>> {
        let named = builder.get_image_path().unwrap_or_default();
        let Some(depth) = self.depth.checked_sub(1) else {
            let message = format!("more than {MOST_BELOW} images below each other");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        };
        let file = self.open(&named)?;
        let image = named;
        let below = F::new(file).open(Self { image, depth })?;
        Ok(FormatAccess::new(below))
    }

    fn open_storage(&mut self, options: StorageOpenOptions) -> io::Result<Ordered> {
        if options.get_writable() {
            let message = "external data files are not supported";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        self.open(options.get_filename().unwrap_or(Path::new("")))
    }
}
