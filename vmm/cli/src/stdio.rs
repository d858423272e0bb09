//! The program's standard streams as the machine's console.
//!
//! | | COM1 to | COM2 to | debug console to | input from |
//! |---|---|---|---|---|
//! | interactive | stdout | nowhere | stdout | stdin |
//! | with `--exec` | stderr | stdout | stderr | nowhere |
//!
//! The end of standard input is not the end of the guest: it merely gets no more input. Nothing read is lost; reading
//! pauses when the guest has too much to take ([`QUEUE`]).

use std::{
    collections::VecDeque,
    io::{self, Stderr, Stdin, Stdout},
    os::fd::{AsFd, BorrowedFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd,
};

use vmm::{
    Console,
    console::{Channel, Input, write_all},
};

use crate::escape::{Escape, HELP, Key};

/// The standard streams.
#[derive(Debug)]
pub struct Stdio {
    wiring: Wiring,
    stdin: Option<Stdin>,
    stdout: Stdout,
    stderr: Stderr,
    queue: VecDeque<u8>,
    requests: VecDeque<Input>,
    escape: Escape,
}

/// The connections between the streams and the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// A raw terminal to COM1: ctrl-a escapes, and lines of our own need a carriage return.
    Terminal,
    /// Pipes and files to COM1, byte for byte.
    Streams,
    /// Standard output to COM2, standard error to COM1, no input.
    Exec,
}

/// Bytes of input that may wait for the guest before reading pauses.
const QUEUE: usize = 64 << 10;
/// Bytes read at once.
const CHUNK: usize = 4096;

impl Stdio {
    /// Connects the standard streams as `wiring` says.
    pub fn new(wiring: Wiring) -> Self {
        Self {
            wiring,
            stdin: (wiring != Wiring::Exec).then(io::stdin),
            stdout: io::stdout(),
            stderr: io::stderr(),
            queue: VecDeque::new(),
            requests: VecDeque::new(),
            escape: Escape::default(),
        }
    }

    /// Reads input that has arrived, without waiting.
    fn fill(&mut self) -> io::Result<()> {
        let Some(stdin) = self.readable() else {
            return Ok(());
        };
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        if retry(|| poll(&mut fds, PollTimeout::ZERO))? == 0 {
            return Ok(());
        }
        let mut chunk = [0; CHUNK];
        match unistd::read(stdin, &mut chunk) {
            // The terminal is gone: its hang-up signal follows.
            Ok(0) | Err(Errno::EIO) => self.stdin = None,
            Ok(len) => self.typed(&chunk[..len])?,
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Returns standard input if it is open and there is room for more.
    fn readable(&self) -> Option<&Stdin> {
        self.stdin.as_ref().filter(|_| self.queue.len() < QUEUE)
    }

    /// Takes bytes that were typed or piped: keys for the monitor become requests, all others go to the guest.
    fn typed(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.wiring != Wiring::Terminal {
            self.queue.extend(bytes);
            return Ok(());
        }
        for &byte in bytes {
            match self.escape.key(byte) {
                Key::Send(byte) => self.queue.push_back(byte),
                Key::Swallowed => {}
                Key::Help => self.output(Channel::Monitor, HELP.as_bytes())?,
                Key::Break => self.requests.push_back(Input::Break),
                Key::Stats => self.requests.push_back(Input::ShowStats),
                Key::Quit => self.requests.push_back(Input::Quit),
            }
        }
        Ok(())
    }
}

impl Console for Stdio {
    fn input(&mut self, room: usize) -> io::Result<Input> {
        self.fill()?;
        if let Some(request) = self.requests.pop_front() {
            return Ok(request);
        }
        let len = room.min(self.queue.len());
        Ok(Input::Bytes(self.queue.drain(..len).collect()))
    }

    fn output(&mut self, channel: Channel, bytes: &[u8]) -> io::Result<()> {
        let exec = self.wiring == Wiring::Exec;
        let to: BorrowedFd<'_> = match channel {
            Channel::Com2 if exec => self.stdout.as_fd(),
            Channel::Com2 => return Ok(()),
            Channel::Monitor => self.stderr.as_fd(),
            Channel::Com1 | Channel::Debug if exec => self.stderr.as_fd(),
            Channel::Com1 | Channel::Debug => self.stdout.as_fd(),
        };
        // COM1 and COM2 carry bytes of the guest's own terminal driver; the others carry plain lines.
        match channel {
            Channel::Debug | Channel::Monitor if self.wiring == Wiring::Terminal => {
                write_all(to, &with_carriage_returns(bytes))
            }
            _ => write_all(to, bytes),
        }
    }

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        self.readable().map(AsFd::as_fd)
    }
}

fn with_carriage_returns(text: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    lines.join(&b"\r\n"[..])
}

/// Repeats a system call while signals interrupt it.
fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(input: Input) -> Vec<u8> {
        match input {
            Input::Bytes(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    /// Streams whose only input is typed by the test.
    fn unconnected(wiring: Wiring) -> Stdio {
        let mut stdio = Stdio::new(wiring);
        stdio.stdin = None;
        stdio
    }

    #[test]
    fn the_guest_gets_no_more_than_it_has_room_for() {
        let mut stdio = unconnected(Wiring::Streams);
        stdio.typed(b"\x01x\x01").unwrap();
        assert_eq!(
            bytes(stdio.input(2).unwrap()),
            b"\x01x",
            "no escapes in a stream"
        );
        assert_eq!(bytes(stdio.input(0).unwrap()), b"");
        assert_eq!(bytes(stdio.input(9).unwrap()), b"\x01");
    }

    #[test]
    fn requests_go_before_bytes() {
        let mut stdio = unconnected(Wiring::Terminal);
        stdio.typed(b"ab\x01sc\x01x").unwrap();
        assert_eq!(stdio.input(9).unwrap(), Input::ShowStats);
        assert_eq!(stdio.input(9).unwrap(), Input::Quit);
        assert_eq!(bytes(stdio.input(9).unwrap()), b"abc");
    }

    #[test]
    fn reading_pauses_while_the_guest_takes_nothing() {
        let mut stdio = Stdio::new(Wiring::Streams);
        assert!(stdio.ready().is_some());
        stdio.typed(&vec![0; QUEUE]).unwrap();
        assert!(stdio.ready().is_none());
    }

    #[test]
    fn lines_of_our_own_return_the_carriage() {
        assert_eq!(with_carriage_returns(b"a\nb\n"), b"a\r\nb\r\n");
        assert_eq!(with_carriage_returns(b""), b"");
    }
}
