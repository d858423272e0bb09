//! [`Input`]: the way of a port's bytes from the host to the guest.
//!
//! ```text
//!   file ── the port's thread ──► pending bytes ──► receiveq
//! ```
//!
//! The thread reads only while the guest has the port open and has given buffers. So what the host has for a port that nobody
//! has opened stays in the file, and so does all that comes after the machine was saved.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};
use parking_lot::{Condvar, Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use super::{
    super::queue::{Malformed, VirtQueue, Writer},
    link::ControlLink,
};
use crate::threads::{ThreadKind, Threads};

/// The most bytes read at once, and so the most that are pending.
const CHUNK: usize = 128 << 10;

/// How long saving and restoring wait for a read of a file that was readable. It takes long only if another process has taken the
/// bytes.
const PATIENCE: Duration = Duration::from_secs(1);

/// The receive queue of a port, and the thread that reads.
pub struct Input {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A way to end an input.
#[derive(Clone)]
pub struct Stopper(Arc<Shared>);

struct Shared {
    port: usize,
    queue: VirtQueue,
    link: ControlLink,
    state: Mutex<State>,
    /// Notified when a read has ended.
    has_read: Condvar,
    /// Readable when `state` or `queue` has changed.
    wake: EventFd,
}

#[derive(Default)]
struct State {
    /// Read bytes, of which those from `next` to `end` are pending.
    buffer: Vec<u8>,
    next: usize,
    end: usize,
    /// Whether the guest has the port open.
    open: bool,
    /// Whether the file is at its end.
    ended: bool,
    /// Whether the thread is reading, and has the buffer.
    reading: bool,
    quit: bool,
}

/// The saved state of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputState {
    pending: Vec<u8>,
    ended: bool,
}

/// The thread's next step.
enum Step {
    Quit,
    Wait,
    Read,
}

impl Input {
    /// Starts to serve the receive queue of `port`.
    ///
    /// # Errors
    /// If the host refuses a thread or an eventfd.
    pub fn start(
        port: usize,
        queue: &VirtQueue,
        file: OwnedFd,
        link: &ControlLink,
        threads: &Threads,
    ) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let shared = Arc::new(Shared {
            port,
            queue: queue.clone(),
            link: link.clone(),
            state: Mutex::default(),
            has_read: Condvar::new(),
            wake: EventFd::from_flags(flags)?,
        });
        let theirs = Arc::clone(&shared);
        let thread = threads.start(ThreadKind::Other("console-in"), move || {
            theirs.serve(File::from(file));
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Lets the thread look for buffers of the driver's.
    pub fn wake(&self) {
        self.shared.wake();
    }

    /// Notes whether the guest has the port open.
    pub fn set_open(&self, open: bool) {
        self.shared.state.lock().open = open;
        self.shared.wake();
    }

    /// Returns a way to end the input.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.shared))
    }

    /// The state to be saved, or `None` if the thread does not return from reading.
    pub fn save(&self) -> Option<InputState> {
        let state = self.shared.settled()?;
        Some(InputState {
            pending: state.pending().to_vec(),
            ended: state.ended,
        })
    }

    /// Restores a saved state, and returns whether it can be one of an input.
    pub fn restore(&self, saved: InputState) -> bool {
        let end = saved.pending.len();
        let (true, Some(mut state)) = (end <= CHUNK, self.shared.settled()) else {
            return false;
        };
        state.buffer = saved.pending;
        (state.next, state.end) = (0, end);
        state.ended = saved.ended;
        drop(state);
        self.shared.wake();
        true
    }
}

impl Stopper {
    /// Ends the input and closes its file.
    pub fn stop(&self) {
        self.0.state.lock().quit = true;
        self.0.wake();
    }
}

impl Shared {
    fn wake(&self) {
        // Fails only if the counter is at its end, and then it is not zero either.
        let _ = self.wake.write(1);
    }

    /// The state while the thread is not reading, or `None` if it does not return from there.
    fn settled(&self) -> Option<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        while state.reading {
            if self.has_read.wait_for(&mut state, PATIENCE).timed_out() {
                return None;
            }
        }
        Some(state)
    }

    fn serve(&self, mut file: File) {
        loop {
            match self.next_step() {
                Step::Quit => return,
                Step::Wait => {
                    self.wait(None);
                }
                Step::Read => {
                    if self.wait(Some(&file)) {
                        self.read(&mut file);
                    }
                }
            }
        }
    }

    /// Gives the guest what it has room for, and returns what to wait for then.
    fn next_step(&self) -> Step {
        // Whoever wakes the thread from now on has something new.
        let _ = self.wake.read();
        let mut state = self.state.lock();
        if state.quit {
            return Step::Quit;
        }
        if state.open {
            self.place(&mut state);
        }
        // What is pending waits for the guest to open the port, or for a buffer, of which the driver notifies.
        if !state.pending().is_empty() {
            return Step::Wait;
        }
        if state.ended {
            self.link.update(|control| control.close(self.port));
            return Step::Quit;
        }
        match state.open && self.has_room() {
            true => Step::Read,
            false => Step::Wait,
        }
    }

    /// Puts pending bytes into the driver's buffers, as far as there are enough.
    fn place(&self, state: &mut State) {
        while !state.pending().is_empty() && self.has_room() {
            let mut placed = 0;
            self.queue.serve_next(|_, room| {
                placed = put(state.pending(), room)?;
                Ok(placed as u32)
            });
            state.next += placed;
        }
    }

    /// Whether there are buffers of the driver's; if not, it notifies of the next one.
    fn has_room(&self) -> bool {
        !self.queue.is_empty() || self.queue.set_notifications(true)
    }

    /// Waits until `file` is readable, or something else has changed. Returns whether it is.
    fn wait(&self, file: Option<&File>) -> bool {
        let wake = PollFd::new(self.wake.as_fd(), PollFlags::POLLIN);
        let fds = file.map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN));
        let mut fds: Vec<_> = [wake].into_iter().chain(fds).collect();
        // Fails only if a signal comes, or memory is short.
        let ready = poll(&mut fds, PollTimeout::NONE);
        let is_readable = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        ready.is_ok() && fds.get(1).is_some_and(is_readable)
    }

    /// Reads from `file`, which is readable, if the bytes are still wanted. Nothing is pending.
    fn read(&self, file: &mut File) {
        let mut state = self.state.lock();
        if state.quit || !state.open || !self.has_room() {
            return;
        }
        let mut buffer = std::mem::take(&mut state.buffer);
        state.reading = true;
        drop(state);
        buffer.resize(CHUNK, 0);
        let result = file.read(&mut buffer);
        let mut state = self.state.lock();
        state.reading = false;
        state.buffer = buffer;
        (state.next, state.end) = (0, 0);
        match result {
            Ok(0) => state.ended = true,
            Ok(len) => state.end = len,
            Err(error) if is_passing(&error) => {}
            Err(error) => {
                log::error!("virtio-console: the guest's input ends: {error}");
                state.ended = true;
            }
        }
        self.has_read.notify_all();
    }
}

impl State {
    fn pending(&self) -> &[u8] {
        &self.buffer[self.next..self.end]
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.quit = true;
        let is_reading = state.reading;
        drop(state);
        self.shared.wake();
        // A read of a file that was readable ends at once, unless another process has taken the bytes; then it ends some time.
        if let (false, Some(thread)) = (is_reading, self.thread.take()) {
            // A panic has been reported by now.
            let _ = thread.join();
        }
    }
}

/// Puts as many bytes into a buffer of the driver's as it has room for.
fn put(bytes: &[u8], mut room: Writer<'_>) -> Result<usize, Malformed> {
    let len = room.available_bytes().min(bytes.len());
    // The driver asks for something.
    if len == 0 {
        return Err(Malformed);
    }
    room.write_all(&bytes[..len])?;
    Ok(len)
}

/// Whether an error says no more than that there is nothing to read now.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
}
