//! [`Output`]: the way of a port's bytes from the guest to the host.
//!
//! ```text
//!   transmitq ── machine's thread, or the port's ──► bytes, bounded ── the port's thread ──► file
//! ```
//!
//! Bytes are copied out of the ring as soon as there is room for them, on the thread that was notified. So a driver that waits
//! for its buffer, as Linux does with terminals, gets it back at once, and what was sent survives the driver's reset. A reader
//! that is slow stops the port's thread only; when there is no more room, requests wait in the ring.

use std::{
    io::{self, ErrorKind, Read},
    os::fd::OwnedFd,
    sync::Arc,
    thread::JoinHandle,
    time::Instant,
};

use parking_lot::{Condvar, Mutex};

use super::super::queue::{Malformed, Reader, VirtQueue};
use crate::{
    console::write_all,
    threads::{ThreadKind, Threads},
};

/// The number of bytes from which on requests wait in the ring.
const ROOM: usize = 1 << 20;
/// The most bytes of a request. Linux sends up to 32 KiB, or what a pipe holds: 1 MiB if its size was set so.
const MOST: usize = 4 << 20;

/// The transmit queue of a port, and the thread that writes.
pub struct Output {
    drain: Drain,
    thread: Option<JoinHandle<()>>,
}

/// A way to wait for what the guest has sent, and to learn what has become of it.
#[derive(Clone)]
pub struct Drain(Arc<Shared>);

struct Shared {
    queue: VirtQueue,
    state: Mutex<State>,
    /// Notified when `state` changes.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// What the guest has sent and nobody has written.
    bytes: Vec<u8>,
    /// Whether the thread writes some that it has taken out of `bytes`.
    writing: bool,
    /// Whether there is a file. Without, what the guest sends is dropped.
    open: bool,
    /// Whether the file is to be closed behind what the guest has sent.
    closing: bool,
    /// The error by which output was lost, unless there was nobody to read it.
    error: Option<io::Error>,
    quit: bool,
}

impl Output {
    /// Starts to serve `queue`. `ended` is called, on a thread of the port's, when the file was closed: since the guest has
    /// closed the port, or nobody can write to the file any more.
    ///
    /// # Errors
    /// If the host refuses a thread.
    pub fn start(
        queue: &VirtQueue,
        file: Option<OwnedFd>,
        threads: &Threads,
        ended: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: queue.clone(),
            state: Mutex::new(State {
                bytes: Vec::new(),
                writing: false,
                open: file.is_some(),
                closing: false,
                error: None,
                quit: false,
            }),
            changed: Condvar::new(),
        });
        let thread = match file {
            Some(file) => {
                let shared = Arc::clone(&shared);
                Some(threads.start(ThreadKind::Other("console-out"), move || {
                    if shared.serve(&file) {
                        ended();
                    }
                })?)
            }
            None => None,
        };
        Ok(Self {
            drain: Drain(shared),
            thread,
        })
    }

    /// Takes what the guest has sent.
    pub fn take(&self) {
        let mut state = self.drain.0.state.lock();
        state.fill(&self.drain.0.queue);
        self.drain.0.changed.notify_all();
    }

    /// Closes the file behind what the guest has sent.
    pub fn close(&self) {
        self.drain.0.state.lock().closing = true;
        self.take();
    }

    /// Whether the file is to be closed.
    pub fn is_closing(&self) -> bool {
        self.drain.0.state.lock().closing
    }

    /// Returns a way to wait for what the guest has sent.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }
}

impl Drain {
    /// Waits until all that the guest has sent is written, or `deadline` has come. Returns whether it is.
    pub fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.0.state.lock();
        loop {
            state.fill(&self.0.queue);
            if state.is_idle() {
                return true;
            }
            // The guest may not have told of what was just taken.
            self.0.changed.notify_all();
            match deadline {
                None => self.0.changed.wait(&mut state),
                Some(deadline) => {
                    if self.0.changed.wait_until(&mut state, deadline).timed_out() {
                        return state.is_idle();
                    }
                }
            }
        }
    }

    /// Takes the error by which output was lost, if there was one other than that nobody reads any more.
    pub fn take_error(&self) -> Option<io::Error> {
        self.0.state.lock().error.take()
    }
}

impl Shared {
    /// Writes what the guest sends until the file is to be closed, or cannot be written to; returns true then. At the end of
    /// the device returns false.
    fn serve(&self, file: &OwnedFd) -> bool {
        let mut bytes = Vec::new();
        while let Some(closing) = self.next(&mut bytes) {
            if closing {
                return true;
            }
            let written = write_all(file, &bytes);
            let mut state = self.state.lock();
            state.writing = false;
            if let Err(error) = written {
                if error.kind() != ErrorKind::BrokenPipe {
                    log::warn!("virtio-console: output of the guest is lost: {error}");
                    state.error = Some(error);
                }
                state.abandon(&self.queue);
            }
            self.changed.notify_all();
            if !state.open {
                return true;
            }
        }
        false
    }

    /// Waits for bytes that are to be written, and takes them. Returns whether the file is to be closed instead, or `None` at
    /// the end.
    fn next(&self, bytes: &mut Vec<u8>) -> Option<bool> {
        let mut state = self.state.lock();
        loop {
            state.fill(&self.queue);
            if !state.bytes.is_empty() {
                break;
            }
            if state.closing {
                state.abandon(&self.queue);
                return Some(true);
            }
            if state.quit {
                return None;
            }
            self.changed.notify_all();
            self.changed.wait(&mut state);
        }
        bytes.clear();
        std::mem::swap(bytes, &mut state.bytes);
        state.writing = true;
        // There is room again.
        state.fill(&self.queue);
        Some(false)
    }
}

impl State {
    /// Copies what the guest has sent, as far as there is room.
    fn fill(&mut self, queue: &VirtQueue) {
        loop {
            while self.bytes.len() < ROOM && queue.serve_next(|sent, _| self.put(sent)) {}
            if self.bytes.len() >= ROOM {
                queue.set_notifications(false);
                return;
            }
            if !queue.set_notifications(true) {
                return;
            }
        }
    }

    fn put(&mut self, mut sent: Reader<'_>) -> Result<u32, Malformed> {
        let (at, len) = (self.bytes.len(), sent.available_bytes());
        if len > MOST {
            return Err(Malformed);
        }
        if self.open {
            self.bytes.resize(at + len, 0);
            if let Err(error) = sent.read_exact(&mut self.bytes[at..]) {
                self.bytes.truncate(at);
                return Err(error.into());
            }
        }
        Ok(0)
    }

    /// Drops what the guest has sent, and what it will send.
    fn abandon(&mut self, queue: &VirtQueue) {
        self.open = false;
        self.bytes = Vec::new();
        self.fill(queue);
    }

    fn is_idle(&self) -> bool {
        self.bytes.is_empty() && !self.writing
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let shared = &self.drain.0;
        let mut state = shared.state.lock();
        state.quit = true;
        state.fill(&shared.queue);
        shared.changed.notify_all();
        let is_idle = state.is_idle();
        drop(state);
        // A thread that has something to write may have to wait for the reader; it ends by itself.
        if let (true, Some(thread)) = (is_idle, self.thread.take()) {
            // A panic has been reported by now.
            let _ = thread.join();
        }
    }
}
