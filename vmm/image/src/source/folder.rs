//! A layout in a folder of the host.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use crate::blob::Blob;
use crate::error::{Fault, file_fault};

/// A layout in a folder of the host. Its files may be links to others, as tools make them that share blobs among layouts; their
/// content counts, which is verified.
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Returns the file with a name, which has no `..`.
    pub(super) fn find(&self, name: &str) -> Result<Option<Blob>, Fault> {
        let Some(name) = super::members::normal(name.as_bytes()) else {
            return Ok(None);
        };
        let Ok(name) = str::from_utf8(&name) else {
            return Ok(None);
        };
        let path = self.path.join(name);
        let found = open(&path).and_then(|file| Ok((file.metadata()?, file)));
        match found {
            Ok((metadata, file)) if metadata.is_file() => Ok(Some(Blob {
                file: Arc::new(file),
                start: 0,
                len: metadata.len(),
            })),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file_fault("open", &path)(error)),
        }
    }
}

/// Opens a file to read, without waiting if it is a FIFO.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}
