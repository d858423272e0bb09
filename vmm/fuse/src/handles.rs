//! Files and directories that the guest has open.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;

/// Open files and directories by their handles, which are never used twice.
#[derive(Debug)]
pub struct Handles {
    open: HashMap<u64, OwnedFd>,
    next: u64,
    limit: usize,
}

impl Handles {
    /// Returns a table in which at most `limit` are open.
    pub fn new(limit: usize) -> Handles {
        Handles {
            open: HashMap::new(),
            next: 1,
            limit,
        }
    }

    /// Closes all.
    pub fn clear(&mut self) {
        self.open.clear();
    }

    /// Returns how many are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Returns an error if no more may be opened.
    ///
    /// # Errors
    ///
    /// ENFILE.
    pub fn check_room(&self) -> Result<(), Errno> {
        if self.open.len() < self.limit {
            Ok(())
        } else {
            Err(Errno::NFILE)
        }
    }

    /// Adds a file or directory and returns its handle.
    pub fn add(&mut self, file: OwnedFd) -> u64 {
        let handle = self.next;
        self.next += 1;
        self.open.insert(handle, file);
        handle
    }

    /// Returns the descriptor behind a handle.
    ///
    /// # Errors
    ///
    /// EBADF if nothing is open by this handle.
    pub fn get(&self, handle: u64) -> Result<BorrowedFd<'_>, Errno> {
        self.open.get(&handle).map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    /// Closes a file or directory.
    ///
    /// # Errors
    ///
    /// EBADF if nothing is open by this handle.
    pub fn close(&mut self, handle: u64) -> Result<(), Errno> {
        self.open.remove(&handle).map(drop).ok_or(Errno::BADF)
    }
}
