//! The folder of finished images.
//!
//! ```text
//! FOLDER/
//! ├── 1-KEY.squashfs       a finished image; 1 is the version of the writer
//! ├── .1-KEY.partial       one in the making, locked by the process that makes it
//! └── 1-ARCHIVE.memo       which image an archive has
//! ```
//!
//! KEY is the chain ID of the image's layers (OCI Image Format Specification, "Image Configuration", "Layer ChainID"), which is a
//! digest of the digests of all layers, so images that differ in their configurations only, or in the compression of their layers,
//! are one file. All files may be removed at any time.
//!
//! A process that is killed leaves a partial image, which the next one that wants it overwrites.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::digest::Digest;
use crate::error::{Fault, file_fault};
use crate::progress::{Meter, Report, Step};
use crate::squashfs::is_whole;

/// The version of what [`crate::squashfs`] makes of a root.
const VERSION: u32 = 1;

/// The chain ID of a list of layers, the lowest first.
pub(crate) fn chain_id(diff_ids: &[Digest]) -> Digest {
    let chain = |below: Digest, layer: &Digest| Digest::of(format!("{below} {layer}").as_bytes());
    match diff_ids.split_first() {
        Some((first, others)) => others.iter().fold(*first, chain),
        None => Digest::of(&[]),
    }
}

/// Returns the image with a key, if it is there.
pub(crate) fn find(folder: &Path, key: &Digest) -> Option<PathBuf> {
    let finished = folder.join(format!("{}.squashfs", file_name(key)));
    is_whole(&finished).then_some(finished)
}

/// Returns the image with a key, made by `make` in a new file if it is not there.
pub(crate) fn get(
    folder: &Path,
    key: &Digest,
    report: Report<'_>,
    make: impl FnOnce(&File, &Path, Report<'_>) -> Result<(), Fault>,
) -> Result<PathBuf, Fault> {
    if let Some(finished) = find(folder, key) {
        return Ok(finished);
    }
    let name = file_name(key);
    let finished = folder.join(format!("{name}.squashfs"));
    let path = folder.join(format!(".{name}.partial"));
    let Some(partial) = Partial::lock(path, &finished, report)? else {
        return Ok(finished);
    };
    make(&partial.file, &partial.path, report)?;
    let synced = partial.file.sync_all();
    synced.map_err(file_fault("write", &partial.path))?;
    fs::rename(&partial.path, &finished).map_err(file_fault("rename", &partial.path))?;
    Ok(finished)
}

/// The name of an image's file, without its extension.
fn file_name(key: &Digest) -> String {
    format!("{VERSION}-{}", key.hex())
}

/// An image in the making. It is removed when dropped, unless it has been renamed.
struct Partial {
    path: PathBuf,
    file: File,
}

impl Partial {
    /// Makes and locks an empty file; waits for another process that has it locked. Returns `None` if that has finished the image.
    fn lock(path: PathBuf, finished: &Path, report: Report<'_>) -> Result<Option<Self>, Fault> {
        loop {
            let file = open(&path).map_err(file_fault("make", &path))?;
            lock(&file, report).map_err(file_fault("lock", &path))?;
            let partial = Self {
                path: path.clone(),
                file,
            };
            if is_whole(finished) {
                return Ok(None);
            }
            // The process before may have renamed or removed what it had locked.
            if partial.is_there() {
                partial
                    .file
                    .set_len(0)
                    .map_err(file_fault("write", &path))?;
                return Ok(Some(partial));
            }
        }
    }

    /// Whether the file is the one at its path.
    fn is_there(&self) -> bool {
        let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let there = fs::symlink_metadata(&self.path).map(inode);
        there.is_ok_and(|there| {
            self.file
                .metadata()
                .map(inode)
                .is_ok_and(|own| own == there)
        })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // The lock keeps others from renaming or removing the file meanwhile.
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // The umask applies.
    Ok(rustix::fs::open(path, flags, Mode::from_raw_mode(0o666))?.into())
}

fn lock(file: &File, report: Report<'_>) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
        Err(TryLockError::WouldBlock) => {
            Meter::start(Step::Waiting, 0, report);
            file.lock()
        }
    }
}
