//! Notes of which image an archive has, for archives that are compressed as a whole: without one, the archive would have to be
//! uncompressed each time only to find the image in the cache.
//!
//! A [`Memo`] is a small file in the cache with a [`Note`] of the image. It counts while the archive has
//! the [`Stamp`] that it has noted. Every change of a file sets its ctime, whatever its other times are set to; two changes within
//! the resolution of the file system's clock may set the same one, so there is no memo of an archive that was changed a moment
//! ago.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use oci_spec::image::Arch;
use serde::{Deserialize, Serialize};

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::limits::DOCUMENT_BYTES;

/// The version of the file's format.
const VERSION: u32 = 2;

/// The age of a change after which the next one gets another ctime, whatever the file system's clock.
const RESOLUTION: Duration = Duration::from_secs(2);

/// A file, and a version of its content: equal stamps are of equal contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds since 1970 and nanoseconds.
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a change at `now` or later gets another ctime.
    fn is_settled(&self, now: SystemTime) -> bool {
        let changed = u64::try_from(self.ctime.0).unwrap_or(u64::MAX);
        let now = now.duration_since(SystemTime::UNIX_EPOCH);
        let age = now
            .unwrap_or_default()
            .checked_sub(Duration::from_secs(changed));
        age.is_some_and(|age| age > RESOLUTION + Duration::from_secs(1))
    }
}

/// The note of which image an archive has.
pub(crate) struct Memo {
    path: PathBuf,
    stamp: Stamp,
    /// When the stamp was taken.
    now: SystemTime,
}

/// What is known of an image.
pub(crate) struct Note {
    /// The chain ID of its layers.
    pub(crate) key: Digest,
    pub(crate) architecture: Arch,
    pub(crate) config: ImageConfig,
}

/// The content of a memo, a JSON document.
#[derive(Serialize, Deserialize)]
struct Content {
    stamp: Stamp,
    chain_id: String,
    architecture: Arch,
    config: ImageConfig,
}

impl Memo {
    /// The memo in `folder` of the image in an archive that has the name, and is for the first possible one of the architectures.
    /// The archive is read after `now`.
    pub(crate) fn of(
        archive: &Metadata,
        (name, architectures): (Option<&str>, &[Arch]),
        folder: &Path,
        now: SystemTime,
    ) -> Self {
        let stamp = Stamp::of(archive);
        let Stamp { device, inode, .. } = stamp;
        let which = format!("{device} {inode} {name:?} {architectures:?}");
        let which = Digest::of(which.as_bytes()).hex();
        Self {
            path: folder.join(format!("{VERSION}-{which}.memo")),
            stamp,
            now,
        }
    }

    /// Returns what is known of the image, if it is known of this version of the archive.
    pub(crate) fn recall(&self) -> Option<Note> {
        let mut bytes = Vec::new();
        let file = File::open(&self.path).ok()?;
        file.take(DOCUMENT_BYTES).read_to_end(&mut bytes).ok()?;
        let content: Content = serde_json::from_slice(&bytes).ok()?;
        let note = Note {
            key: Digest::parse(&content.chain_id)?,
            architecture: content.architecture,
            config: content.config,
        };
        (content.stamp == self.stamp).then_some(note)
    }

    /// Writes the memo of an archive, all of which has been read, unless the archive may have changed meanwhile. A memo that cannot
    /// be written is done without.
    pub(crate) fn keep(&self, archive: &File, note: &Note) {
        let same = archive
            .metadata()
            .is_ok_and(|metadata| Stamp::of(&metadata) == self.stamp);
        if !same || !self.stamp.is_settled(self.now) {
            return;
        }
        let content = Content {
            stamp: self.stamp,
            chain_id: note.key.to_string(),
            architecture: note.architecture.clone(),
            config: note.config.clone(),
        };
        if let Err(error) = self.write(&content) {
            log::debug!("cannot write {}: {error}", self.path.display());
        }
    }

    fn write(&self, content: &Content) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let file = tempfile::NamedTempFile::new_in(folder)?;
        fs::write(file.path(), serde_json::to_vec(content)?)?;
        file.persist(&self.path)?;
        Ok(())
    }
}
