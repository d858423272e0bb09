//! [`Threads`]: how the threads begin that a machine has beside its own, one for each disk, directory and network card, one for
//! each direction of a console's port, and one for gdb.

use std::{
    fmt, io,
    sync::{Arc, mpsc::sync_channel},
    thread::{self, JoinHandle},
};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// The work of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ThreadKind {
    /// Reads and writes a disk's image.
    Disk,
    /// Finds, reads and changes files of a shared directory.
    Files,
    /// Carries the guest's connections.
    Net,
    /// Accepts gdb and reads what it sends.
    Gdb,
    /// Serves a device of the program's, which names the thread.
    Other(&'static str),
}

impl ThreadKind {
    /// The name that the thread has on the host.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disk => "virtio-blk",
            Self::Files => "virtio-fs",
            Self::Net => "net",
            Self::Gdb => "gdb",
            Self::Other(name) => name,
        }
    }
}

/// Called by each thread before anything else, with its kind.
type Begin = dyn Fn(ThreadKind) -> io::Result<()> + Send + Sync;

/// Starts the threads of a machine. A program that confines its threads says here how each begins; by default nothing is done.
///
/// ```
/// use vmm::{ThreadKind, Threads};
///
/// # fn main() -> std::io::Result<()> {
/// let threads = Threads::that_begin(|kind| {
///     // Here the program would give up the rights that a thread of this kind does not need.
///     assert_eq!(std::thread::current().name(), Some(kind.name()));
///     Ok(())
/// });
/// let thread = threads.start(ThreadKind::Disk, || ())?;
/// assert!(thread.join().is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Threads(Option<Arc<Begin>>);

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Threads").field(&self.0.is_some()).finish()
    }
}

impl Threads {
    /// Threads that call `begin` before anything else. If it fails, so does what needs the thread.
    pub fn that_begin(
        begin: impl Fn(ThreadKind) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(begin)))
    }

    /// Starts a thread, and returns when it has begun. It blocks the signals that come from outside, as those are the program's
    /// business.
    ///
    /// # Errors
    /// If the host refuses a thread, or the thread cannot begin as it should.
    pub fn start(
        &self,
        kind: ThreadKind,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let Self(begin) = self.clone();
        let (sender, begun) = sync_channel(1);
        let thread = spawn(kind, move || {
            let result = begin.map_or(Ok(()), |begin| begin(kind));
            let goes_on = result.is_ok();
            // Whoever starts the thread waits below.
            let _ = sender.send(result);
            if goes_on {
                body();
            }
        })?;
        // A thread that panics sends nothing, and has reported that.
        let panicked = || io::Error::other(format!("the thread {} panicked", kind.name()));
        begun.recv().unwrap_or_else(|_| Err(panicked()))?;
        Ok(thread)
    }
}

/// Starts a thread that blocks the signals from outside.
fn spawn(kind: ThreadKind, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let mut blocked = SigSet::all();
    for own in [
        Signal::SIGBUS,
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGSEGV,
        Signal::SIGSYS,
    ] {
        blocked.remove(own);
    }
    // The new thread inherits the mask.
    let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let thread = thread::Builder::new().name(kind.name().into()).spawn(body);
    before.thread_set_mask()?;
    thread
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use super::*;

    #[test]
    fn a_thread_begins_before_it_is_there_and_does_nothing_if_that_fails() {
        let begun = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&begun);
        let threads = Threads::that_begin(move |kind| {
            theirs.store(true, SeqCst);
            match kind {
                ThreadKind::Net => Err(io::Error::other("no network")),
                _ => Ok(()),
            }
        });
        let thread = threads.start(ThreadKind::Other("x"), || ()).unwrap();
        assert!(begun.load(SeqCst));
        thread.join().unwrap();
        let refused = threads.start(ThreadKind::Net, || panic!("must not run"));
        assert_eq!(refused.unwrap_err().to_string(), "no network");
    }

    #[test]
    fn signals_from_outside_are_blocked_and_faults_are_not() {
        let blocked = |signal| {
            let (sender, answer) = sync_channel(1);
            let body = move || {
                let mask = SigSet::thread_get_mask().unwrap();
                sender.send(mask.contains(signal)).unwrap();
            };
            let thread = Threads::default().start(ThreadKind::Other("x"), body);
            thread.unwrap().join().unwrap();
            answer.recv().unwrap()
        };
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGWINCH] {
            assert!(blocked(signal), "{signal}");
        }
        for signal in [Signal::SIGSEGV, Signal::SIGSYS, Signal::SIGBUS] {
            assert!(!blocked(signal), "{signal}");
        }
    }
}
