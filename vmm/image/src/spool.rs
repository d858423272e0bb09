//! The contents of files between the layers and the squashfs image.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blob::Blob;
use crate::error::{Fault, file_fault};

/// An unnamed file that contents are appended to. Blocks of zeros are holes in it.
pub(crate) struct Spool {
    file: Arc<File>,
    folder: PathBuf,
    end: u64,
}

/// A content in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    start: u64,
    len: u64,
}

impl Extent {
    /// The number of bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}

/// A content could not be added.
pub(crate) enum SpoolError {
    /// The content could not be read.
    Read(io::Error),
    /// The content could not be written.
    Write(Fault),
}

/// Bytes that are read and written at once.
const BLOCK: usize = 1 << 16;

impl Spool {
    /// Makes an unnamed file in a folder; it goes away with the process.
    pub(crate) fn new(folder: &Path) -> Result<Self, Fault> {
        let file = tempfile::tempfile_in(folder).map_err(file_fault("make a file in", folder))?;
        Ok(Self {
            file: Arc::new(file),
            folder: folder.to_owned(),
            end: 0,
        })
    }

    /// Appends all that `reader` gives.
    pub(crate) fn add(&mut self, reader: &mut impl Read) -> Result<Extent, SpoolError> {
        let start = self.end;
        let mut block = vec![0; BLOCK];
        loop {
            let read = match reader.read(&mut block) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(SpoolError::Read(error)),
            };
            if read == 0 {
                break;
            }
            let bytes = &block[..read];
            if bytes.iter().any(|&byte| byte != 0) {
                let written = self.file.write_all_at(bytes, self.end);
                written.map_err(|error| self.cannot_write(error))?;
            }
            self.end += read as u64;
        }
        // A hole at the end belongs to the file, too.
        let resized = self.file.set_len(self.end);
        resized.map_err(|error| self.cannot_write(error))?;
        Ok(Extent {
            start,
            len: self.end - start,
        })
    }

    fn cannot_write(&self, error: io::Error) -> SpoolError {
        SpoolError::Write(file_fault("write a file in", &self.folder)(error))
    }

    /// Returns the bytes of a content.
    pub(crate) fn blob(&self, extent: Extent) -> Blob {
        Blob {
            file: self.file.clone(),
            start: extent.start,
            len: extent.len,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(spool: &Spool, extent: Extent) -> Vec<u8> {
        let mut bytes = Vec::new();
        spool.blob(extent).reader().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn contents_come_back_with_their_holes() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(folder.path()).unwrap();
        let mut add = |bytes: &[u8]| spool.add(&mut &*bytes).ok().unwrap();
        let zeros = vec![0; BLOCK * 2 + 5];
        let (a, b, c, d) = (add(b"abc"), add(&zeros), add(b""), add(b"def"));
        assert_eq!(contents(&spool, a), b"abc");
        assert_eq!(contents(&spool, b), zeros);
        assert_eq!(contents(&spool, c), b"");
        assert_eq!(contents(&spool, d), b"def");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
