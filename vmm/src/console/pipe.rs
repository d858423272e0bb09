//! [`pipe`]: a console whose other end is the program's.
//!
//! ```text
//!   Terminal::send ──────────► input  ──► Line::input ──► COM1
//!   Terminal::read_until ◄──── screen ◄── Line::output ◄─ COM1, debug console
//! ```
//!
//! The machine never waits for a reader: of unread output the newest [`SCREEN`] bytes are kept.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::{Condvar, Mutex};
use thiserror::Error;

use super::{Channel, Console, Input};

/// The most bytes of unread output that are kept.
pub const SCREEN: usize = 1 << 20;

/// Creates a machine's console and the user's end of it.
///
/// # Errors
/// If the host grants no eventfd.
pub fn pipe() -> io::Result<(Line, Terminal)> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        changed: Condvar::new(),
        typed: EventFd::from_flags(flags)?,
    });
    Ok((Line(Arc::clone(&shared)), Terminal(shared)))
}

/// The machine's end of a [`pipe`].
#[derive(Debug)]
pub struct Line(Arc<Shared>);

/// The user's end of a [`pipe`].
#[derive(Debug)]
pub struct Terminal(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Notified when the guest has sent something, or the machine's end is gone.
    changed: Condvar,
    /// Readable while the machine has not looked at what was typed.
    typed: EventFd,
}

#[derive(Debug, Default)]
struct State {
    input: VecDeque<u8>,
    screen: VecDeque<u8>,
    /// Whether the machine's end is gone.
    ended: bool,
}

/// The error of waiting for a text of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The text was not shown in time. The output stays there to be read.
    #[error("{expected:?} was not shown in time, but {shown:?}")]
    TimedOut {
        /// The text that was waited for.
        expected: String,
        /// The output meanwhile.
        shown: String,
    },
    /// The machine has ended, or its end was dropped.
    #[error("ended before {expected:?} was shown: {shown:?}")]
    Ended {
        /// The text that was waited for.
        expected: String,
        /// The last output.
        shown: String,
    },
}

impl State {
    /// The error that `expected` cannot be read.
    fn missing(&mut self, expected: &str) -> ReadError {
        let expected = expected.to_owned();
        let shown = String::from_utf8_lossy(self.screen.make_contiguous()).into_owned();
        if self.ended {
            ReadError::Ended { expected, shown }
        } else {
            ReadError::TimedOut { expected, shown }
        }
    }
}

impl Terminal {
    /// Types `bytes`. The guest takes them when it has room. Lines end with `\r`, the enter key, for a guest's terminal driver.
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        self.0.state.lock().input.extend(bytes.as_ref());
        // Fails only if the counter is at its end, and then it is not zero either.
        let _ = self.0.typed.write(1);
    }

    /// Waits until the guest has sent `text`, at most for `timeout`, and takes `text` and the output before it off the
    /// screen. Returns the output before it. Bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// If the guest has not sent it by then, or sends nothing any more. Nothing is taken off the screen.
    pub fn read_until(&mut self, text: &str, timeout: Duration) -> Result<String, ReadError> {
        let start = Instant::now();
        let mut state = self.0.state.lock();
        loop {
            let screen = state.screen.make_contiguous();
            if let Some(at) = find(screen, text.as_bytes()) {
                let before = String::from_utf8_lossy(&screen[..at]).into_owned();
                state.screen.drain(..at + text.len());
                return Ok(before);
            }
            let left = timeout.saturating_sub(start.elapsed());
            if state.ended || left.is_zero() {
                return Err(state.missing(text));
            }
            self.0.changed.wait_for(&mut state, left);
        }
    }

    /// Waits for the next line of the guest and returns it without its end.
    ///
    /// # Errors
    /// As [`Self::read_until`].
    pub fn read_line(&mut self, timeout: Duration) -> Result<String, ReadError> {
        let line = self.read_until("\n", timeout)?;
        Ok(line.trim_end_matches('\r').to_owned())
    }

    /// Takes all output off the screen.
    pub fn take(&mut self) -> String {
        let shown: Vec<u8> = self.0.state.lock().screen.drain(..).collect();
        String::from_utf8_lossy(&shown).into_owned()
    }
}

/// The offset of the first occurrence of `text`.
fn find(screen: &[u8], text: &[u8]) -> Option<usize> {
    if text.is_empty() {
        return Some(0);
    }
    screen.windows(text.len()).position(|window| window == text)
}

impl Console for Line {
    fn input(&mut self, room: usize) -> io::Result<Input> {
        // What is typed from here on sets the counter again. Fails only if it is zero.
        let _ = self.0.typed.read();
        let mut state = self.0.state.lock();
        let len = room.min(state.input.len());
        Ok(Input::Bytes(state.input.drain(..len).collect()))
    }

    fn output(&mut self, channel: Channel, bytes: &[u8]) -> io::Result<()> {
        match channel {
            Channel::Com1 | Channel::Debug => {}
            Channel::Com2 | Channel::Monitor => return Ok(()),
        }
        let mut state = self.0.state.lock();
        state.screen.extend(bytes);
        let excess = state.screen.len().saturating_sub(SCREEN);
        state.screen.drain(..excess);
        self.0.changed.notify_all();
        Ok(())
    }

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.typed.as_fd())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.state.lock().ended = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn what_comes_before_a_text_is_read_with_it() {
        let (mut line, mut terminal) = pipe().unwrap();
        line.output(Channel::Com1, b"one\r\ntwo$ ").unwrap();
        line.output(Channel::Com2, b"unseen").unwrap();
        line.output(Channel::Debug, b"three").unwrap();
        assert_eq!(terminal.read_line(LONG).unwrap(), "one");
        assert_eq!(terminal.read_until("$ ", LONG).unwrap(), "two");
        let error = terminal.read_until("four", Duration::ZERO).unwrap_err();
        let [expected, shown] = ["four", "three"].map(String::from);
        assert_eq!(error, ReadError::TimedOut { expected, shown });
        drop(line);
        let error = terminal.read_until("four", LONG).unwrap_err();
        assert!(matches!(error, ReadError::Ended { .. }), "{error}");
        assert_eq!(terminal.take(), "three");
    }

    #[test]
    fn a_reader_waits_for_the_rest() {
        let (mut line, mut terminal) = pipe().unwrap();
        thread::scope(|scope| {
            let reader = scope.spawn(|| terminal.read_until("ab", LONG));
            for byte in b"xaab" {
                line.output(Channel::Com1, &[*byte]).unwrap();
            }
            assert_eq!(reader.join().unwrap().unwrap(), "xa");
        });
    }

    #[test]
    fn the_guest_gets_what_was_typed_as_it_has_room() {
        let (mut line, terminal) = pipe().unwrap();
        terminal.send("abc");
        for (room, bytes) in [(0, ""), (2, "ab"), (2, "c"), (2, "")] {
            assert_eq!(line.input(room).unwrap(), Input::Bytes(bytes.into()));
        }
    }

    #[test]
    fn the_newest_output_is_kept() {
        let (mut line, mut terminal) = pipe().unwrap();
        line.output(Channel::Com1, b"old").unwrap();
        line.output(Channel::Com1, &vec![b'x'; SCREEN]).unwrap();
        assert_eq!(terminal.take(), "x".repeat(SCREEN));
    }
}
