//! [`Control`]: the requests that other threads make of a running machine.
//!
//! ```text
//!   other threads                                the machine's thread
//!   pause, quit ──► a bit in `requests` ───────► looked at once a slice
//!        └──────┬─► eventfd ◄────────── poll ─── HLT, or standing still
//!   wake ───────┘
//! ```

use std::{
    io, iter,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        time::TimeSpec,
    },
};

/// A handle by which any thread controls a machine.
///
/// A request takes effect at the machine's next slice, within a millisecond or so; on a halted machine at once. None is
/// lost: a request to a machine that does not run takes effect when it does.
#[derive(Clone, Debug)]
pub struct Control(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    requests: AtomicU8,
    /// Readable while there is something to look at.
    event: EventFd,
}

const PAUSE: u8 = 1 << 0;
const QUIT: u8 = 1 << 1;
const CALL: u8 = 1 << 2;

/// The longest timeout that the host takes on any architecture.
const LONGEST_WAIT: Duration = Duration::from_secs(i32::MAX as u64);

/// A request of another thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Pause,
    Quit,
    /// [`crate::Machine`] has something for its thread.
    Call,
}

impl Control {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(Arc::new(Shared {
            requests: AtomicU8::new(0),
            event: EventFd::from_flags(flags)?,
        })))
    }

    /// Makes [`crate::Vm::run`] return [`crate::StopReason::Paused`], once.
    pub fn pause(&self) {
        self.request(PAUSE);
    }

    /// Makes [`crate::Vm::run`] return [`crate::StopReason::Quit`], now and whenever it is called again.
    pub fn quit(&self) {
        self.request(QUIT);
    }

    /// Makes [`crate::Vm::run_until_called`] return, once.
    pub(crate) fn call(&self) {
        self.request(CALL);
    }

    /// Makes the machine look at its console and its devices again: they have something new of which no file descriptor tells.
    pub fn wake(&self) {
        // Fails only if the counter is at its end, and then it is not zero either.
        let _ = self.0.event.write(1);
    }

    fn request(&self, bit: u8) {
        self.0.requests.fetch_or(bit, Ordering::Release);
        self.wake();
    }

    /// Takes the request, if there is one. A request to quit stays for good; one to pause answers calls, too.
    #[inline]
    pub(crate) fn take(&self) -> Option<Request> {
        if self.0.requests.load(Ordering::Relaxed) == 0 {
            return None;
        }
        if self.is_quitting() {
            return Some(Request::Quit);
        }
        let was = self
            .0
            .requests
            .fetch_and(!(PAUSE | CALL), Ordering::Acquire);
        let pause = was & PAUSE != 0;
        Some(if pause { Request::Pause } else { Request::Call })
    }

    /// Whether the machine was told to quit.
    pub(crate) fn is_quitting(&self) -> bool {
        self.0.requests.load(Ordering::Acquire) & QUIT != 0
    }

    /// Waits until one of `inputs` is readable or another thread wakes this one, at most for `timeout` (none: for ever). May
    /// return early. Uses no processor time meanwhile.
    pub(crate) fn wait<'a>(
        &'a self,
        inputs: impl IntoIterator<Item = BorrowedFd<'a>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let own = self.0.event.as_fd();
        let mut fds: Vec<_> = iter::once(own)
            .chain(inputs)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let timeout = timeout.map(|timeout| TimeSpec::from_duration(timeout.min(LONGEST_WAIT)));
        match ppoll(&mut fds, timeout, None) {
            Ok(_) => self.clear(),
            Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Clears the eventfd. The caller then looks at everything that it may have been raised for.
    fn clear(&self) -> io::Result<()> {
        match self.0.event.read() {
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_taken_once_but_a_quit_stays() {
        let control = Control::new().unwrap();
        assert_eq!(control.take(), None);
        control.pause();
        control.pause();
        assert_eq!(control.take(), Some(Request::Pause));
        assert_eq!(control.take(), None);
        control.call();
        assert_eq!(control.take(), Some(Request::Call));
        assert_eq!(control.take(), None);
        control.clone().quit();
        control.pause();
        assert_eq!(control.take(), Some(Request::Quit));
        assert_eq!(control.take(), Some(Request::Quit));
    }

    #[test]
    fn what_was_asked_for_before_ends_the_wait_for_it() {
        let control = Control::new().unwrap();
        for ask in [Control::wake, Control::pause, Control::quit] {
            ask(&control);
            control.wait(None, None).unwrap();
            control.wait(None, Some(Duration::ZERO)).unwrap();
        }
    }

    #[test]
    fn a_wait_may_be_as_long_as_a_duration() {
        let control = Control::new().unwrap();
        control.wake();
        control.wait(None, Some(Duration::MAX)).unwrap();
    }

    #[test]
    fn input_ends_the_wait() {
        let control = Control::new().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        io::Write::write_all(&mut &writer, b"x").unwrap();
        control.wait(Some(reader.as_fd()), None).unwrap();
        drop(writer);
        control.wait(Some(reader.as_fd()), None).unwrap();
    }
}
