//! A bound on what a reader of tar archives takes into memory.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

use crate::limits::HEADER_BYTES;

/// A reader below a reader of tar archives, which fails when an entry's headers, extensions included, are too long. Without it
/// an archive could have any number of bytes read into memory as a name.
pub(crate) struct HeaderGuard<R> {
    inner: R,
    budget: Budget,
}

/// The bytes that may be read through a [`HeaderGuard`].
#[derive(Clone)]
pub(crate) struct Budget(Rc<Cell<u64>>);

impl Budget {
    /// Lets the headers of one entry be read, and no more.
    pub(crate) fn expect_header(&self) {
        self.0.set(HEADER_BYTES);
    }

    /// Lets any number of bytes be read: an entry's content.
    pub(crate) fn expect_content(&self) {
        self.0.set(u64::MAX);
    }
}

impl<R> HeaderGuard<R> {
    pub(crate) fn new(inner: R) -> (Self, Budget) {
        let budget = Budget(Rc::new(Cell::new(HEADER_BYTES)));
        let guard = Self {
            inner,
            budget: budget.clone(),
        };
        (guard, budget)
    }
}

impl<R: Read> Read for HeaderGuard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.budget.0.get();
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 && !buffer.is_empty() {
            let message = format!("an entry has more than {HEADER_BYTES} bytes of headers");
            return Err(io::Error::other(message));
        }
        let read = self.inner.read(&mut buffer[..most])?;
        if left != u64::MAX {
            self.budget.0.set(left - read as u64);
        }
        Ok(read)
    }
}

impl<R: Seek> Seek for HeaderGuard<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
