//! [`Log`]: the guest's console while a command runs. It has no place among the command's streams, so it is kept.

use std::{collections::VecDeque, io, os::fd::BorrowedFd};

use vmm::{
    Console,
    console::{Channel, Input, write_all},
};

/// The last bytes of the guest's console, which are also shown if that is wanted.
#[derive(Debug)]
pub struct Log {
    shown: bool,
    last: VecDeque<u8>,
}

/// The most bytes that are kept.
const KEPT: usize = 16 << 10;
/// The most lines that are told.
const LINES: usize = 60;

impl Log {
    /// Creates an empty log. If it is `shown`, all goes to standard error, too.
    pub fn new(shown: bool) -> Self {
        Self {
            shown,
            last: VecDeque::new(),
        }
    }

    /// Returns the last lines of what was not shown, without control characters.
    pub fn last_lines(&self) -> Vec<String> {
        if self.shown {
            return Vec::new();
        }
        let bytes: Vec<u8> = self.last.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().map(|line| line.replace(char::is_control, ""));
        let lines: Vec<_> = lines.filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LINES)..].to_vec()
    }
}

impl Console for Log {
    fn input(&mut self, _room: usize) -> io::Result<Input> {
        Ok(Input::Bytes(Vec::new()))
    }

    fn output(&mut self, channel: Channel, bytes: &[u8]) -> io::Result<()> {
        match channel {
            Channel::Monitor => return write_all(io::stderr(), bytes),
            Channel::Com2 => return Ok(()),
            Channel::Com1 | Channel::Debug => {}
        }
        if self.shown {
            return write_all(io::stderr(), bytes);
        }
        self.last.extend(bytes);
        let surplus = self.last.len().saturating_sub(KEPT);
        self.last.drain(..surplus);
        Ok(())
    }

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept() {
        let mut log = Log::new(false);
        for number in 0..5000 {
            let line = format!("\x1b[1mline {number}\r\n\n");
            log.output(Channel::Com1, line.as_bytes()).unwrap();
            log.output(Channel::Com2, b"other\n").unwrap();
        }
        assert!(log.last.len() <= KEPT);
        let lines = log.last_lines();
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines[LINES - 1], "[1mline 4999");
    }
}
