//! Replies: a header of 16 bytes, then what was asked for.

use fuse_abi::linux as abi;
use rustix::io::Errno;
use zerocopy::{Immutable, IntoBytes};

/// Bytes of a reply's header.
const HEADER: usize = size_of::<abi::fuse_out_header>();

/// A reply in the making, never longer than the room that the driver gave for it.
#[derive(Debug)]
pub struct Reply<'a> {
    bytes: &'a mut Vec<u8>,
    room: usize,
}

impl<'a> Reply<'a> {
    /// Begins a reply of at most `room` bytes, header included, in `bytes`, which are emptied first.
    pub fn new(bytes: &'a mut Vec<u8>, room: usize) -> Reply<'a> {
        bytes.clear();
        bytes.resize(HEADER, 0);
        Reply { bytes, room }
    }

    /// Returns how many more bytes there is room for.
    pub fn room(&self) -> usize {
        self.room.saturating_sub(self.bytes.len())
    }

    /// Appends bytes.
    ///
    /// # Errors
    ///
    /// EINVAL if there is no room for them.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if self.room() < bytes.len() {
            return Err(Errno::INVAL);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends a structure.
    ///
    /// # Errors
    ///
    /// EINVAL if there is no room for it.
    pub fn value<T: IntoBytes + Immutable>(&mut self, value: &T) -> Result<(), Errno> {
        self.bytes(value.as_bytes())
    }

    /// Appends up to `most` bytes that `read` puts into a buffer; fewer where there is less room.
    ///
    /// # Errors
    ///
    /// Those of `read`.
    pub fn read(
        &mut self,
        most: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
    ) -> Result<(), Errno> {
        let start = self.bytes.len();
        self.bytes.resize(start + most.min(self.room()), 0);
        let got = read(&mut self.bytes[start..]);
        self.bytes.truncate(start + got.unwrap_or(0));
        got.map(drop)
    }

    /// Completes the reply to request `unique`; an error takes the place of what was appended.
    ///
    /// Where there is not even room for a header, the reply is empty.
    pub fn finish(self, unique: u64, result: Result<(), Errno>) {
        if self.room < HEADER {
            self.bytes.clear();
            return;
        }
        if result.is_err() {
            self.bytes.truncate(HEADER);
        }
        let header = abi::fuse_out_header {
            len: u32::try_from(self.bytes.len()).unwrap_or(u32::MAX),
            error: result.map_or_else(|error| -error.raw_os_error(), |()| 0),
            unique,
        };
        self.bytes[..HEADER].copy_from_slice(header.as_bytes());
    }
}
