//! A range of bytes in one of the host's files.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// A range of bytes in one of the host's files.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub(crate) file: Arc<File>,
    pub(crate) start: u64,
    pub(crate) len: u64,
}

impl Blob {
    /// Returns a reader of the bytes.
    pub(crate) fn reader(&self) -> BlobReader {
        BlobReader { rest: self.clone() }
    }
}

/// A reader of a blob's bytes, which leaves the file's position alone. It ends early where the file does.
pub(crate) struct BlobReader {
    rest: Blob,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &mut self.rest;
        let most = usize::try_from(rest.len).map_or(buffer.len(), |len| len.min(buffer.len()));
        let read = rest.file.read_at(&mut buffer[..most], rest.start)?;
        rest.start += read as u64;
        rest.len -= read as u64;
        Ok(read)
    }
}
