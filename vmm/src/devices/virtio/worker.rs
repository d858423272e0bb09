//! [`Worker`]: a thread that serves a device's queues, while the guest goes on computing.

use std::{io, sync::Arc, thread::JoinHandle};

use parking_lot::{Condvar, Mutex};

use crate::threads::{ThreadKind, Threads};

/// A thread that serves queues when it is notified of them. It ends when this is dropped.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    /// A bit for each queue with a notification that has not been served.
    queues: u64,
    quit: bool,
}

impl Worker {
    /// Starts a thread, which calls `serve` with the number of each queue that it is notified of.
    ///
    /// # Errors
    /// If the host refuses a thread, or the thread cannot begin as `threads` says.
    pub fn start(
        threads: &Threads,
        kind: ThreadKind,
        mut serve: impl FnMut(usize) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let thread = threads.start(kind, move || {
            while let Some(mut queues) = theirs.wait() {
                while queues != 0 {
                    let queue = queues.trailing_zeros();
                    queues &= queues - 1;
                    serve(queue as usize);
                }
            }
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Notifies the thread of a queue, one of the first 64. Does not wait.
    pub fn notify(&self, queue: usize) {
        self.shared.pending.lock().queues |= 1 << queue;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    /// Waits for notifications, and takes them all. Returns `None` at the end.
    fn wait(&self) -> Option<u64> {
        let mut pending = self.pending.lock();
        while pending.queues == 0 && !pending.quit {
            self.changed.wait(&mut pending);
        }
        (!pending.quit).then(|| std::mem::take(&mut pending.queues))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.pending.lock().quit = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by now.
            let _ = thread.join();
        }
    }
}
