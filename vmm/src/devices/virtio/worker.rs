//! [`Worker`]: a thread that serves a device's queues, while the guest goes on computing.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Instant,
};

use parking_lot::{Condvar, Mutex};

use crate::{
    polling::Polling,
    threads::{ThreadKind, Threads},
};

/// A thread that serves queues when it is notified of them. It ends when this is dropped.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    /// Whether there is something in `pending`, to be seen without its lock. It changes under the lock.
    is_pending: AtomicBool,
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
            let mut polling = Polling::default();
            while let Some(mut queues) = theirs.wait(&mut polling) {
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
        self.shared.change(|pending| pending.queues |= 1 << queue);
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Pending)) {
        let mut pending = self.pending.lock();
        change(&mut pending);
        self.is_pending.store(true, Relaxed);
        drop(pending);
        self.changed.notify_one();
    }

    /// Waits for notifications, and takes them all. Returns `None` at the end.
    fn wait(&self, polling: &mut Polling) -> Option<u64> {
        let start = Instant::now();
        polling.look(start, || self.is_pending.load(Relaxed));
        let mut pending = self.pending.lock();
        while pending.queues == 0 && !pending.quit {
            self.changed.wait(&mut pending);
        }
        polling.adapt(start.elapsed());
        self.is_pending.store(false, Relaxed);
        (!pending.quit).then(|| std::mem::take(&mut pending.queues))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.change(|pending| pending.quit = true);
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by now.
            let _ = thread.join();
        }
    }
}
