//! [`Doorbell`]: how other threads tell the machine that a function's interrupt, or more, has changed.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;

/// A doorbell, which any thread rings and the machine's thread answers. Looking whether it has rung costs a load.
#[derive(Clone, Debug)]
pub struct Doorbell(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    rung: AtomicBool,
    /// Held while `rung` and `event` change, which agree otherwise: a bell that has rung without being readable would wake
    /// nobody, however often it is rung again.
    changing: Mutex<()>,
    /// Readable when the bell has rung, so that a halted processor wakes.
    event: EventFd,
}

impl Doorbell {
    /// Creates a doorbell.
    ///
    /// # Errors
    /// If the host does not grant an eventfd.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(Arc::new(Shared {
            rung: AtomicBool::new(false),
            changing: Mutex::new(()),
            event: EventFd::from_flags(flags)?,
        })))
    }

    /// Rings. Whatever the caller has changed before is seen by who answers.
    pub fn ring(&self) {
        // This access, the one that answers, and those to the state behind the bell are in one order. So either the bell is
        // still to be answered, by somebody who then sees the state, or it is rung again.
        if self.0.rung.load(SeqCst) {
            return;
        }
        let _changing = self.0.changing.lock();
        if !self.0.rung.load(SeqCst) {
            // Fails only if the counter is at its end, and then it is not zero either.
            let _ = self.0.event.write(1);
            self.0.rung.store(true, SeqCst);
        }
    }

    /// Returns whether the bell has rung since the last call.
    #[inline]
    pub(super) fn answer(&self) -> bool {
        if !self.0.rung.load(SeqCst) {
            return false;
        }
        let _changing = self.0.changing.lock();
        let _ = self.0.event.read();
        self.0.rung.swap(false, SeqCst)
    }

    /// The descriptor that becomes readable when the bell rings.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn is_readable(bell: &Doorbell) -> bool {
        let mut event = [PollFd::new(bell.descriptor(), PollFlags::POLLIN)];
        poll(&mut event, PollTimeout::ZERO) == Ok(1)
    }

    #[test]
    fn a_bell_that_has_rung_is_readable_until_it_is_answered() {
        let bell = Doorbell::new().unwrap();
        for _ in 0..3 {
            assert!(!is_readable(&bell) && !bell.answer());
            bell.ring();
            bell.clone().ring();
            assert!(is_readable(&bell) && bell.answer());
        }
    }
}
