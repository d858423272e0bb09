//! [`Watch`]: the console of a test kernel.

use std::{io, os::fd::BorrowedFd};

use vmm::{
    Console,
    console::{Channel, Input},
};

/// Keeps what the kernel prints, and quits when its slices are used up.
pub struct Watch {
    /// What the kernel has printed on port 0xe9.
    pub printed: Vec<u8>,
    /// Slices that are left.
    pub slices: u32,
}

impl Console for Watch {
    fn input(&mut self, _room: usize) -> io::Result<Input> {
        let Some(left) = self.slices.checked_sub(1) else {
            return Ok(Input::Quit);
        };
        self.slices = left;
        Ok(Input::Bytes(Vec::new()))
    }

    fn output(&mut self, channel: Channel, bytes: &[u8]) -> io::Result<()> {
        if channel == Channel::Debug {
            self.printed.extend(bytes);
        }
        Ok(())
    }

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
