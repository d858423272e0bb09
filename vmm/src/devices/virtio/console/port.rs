//! [`ConsolePort`]: the description of a port, from which the device is made.

use std::os::fd::OwnedFd;

/// A port of a [`VirtioConsole`](super::VirtioConsole): its name, its kind, and the host's files at its other end.
#[derive(Debug)]
pub struct ConsolePort {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) input: Option<OwnedFd>,
    pub(super) output: Option<OwnedFd>,
}

/// The use that the guest makes of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A terminal.
    Console,
    /// A stream of bytes.
    Generic,
}

impl ConsolePort {
    /// Describes a terminal, `/dev/hvcN` on Linux, which has no input and drops its output.
    pub fn console(name: impl Into<String>) -> Self {
        Self::new(name.into(), Kind::Console)
    }

    /// Describes a stream of bytes, `/dev/vportNpM` on Linux, which has no input and drops its output.
    pub fn generic(name: impl Into<String>) -> Self {
        Self::new(name.into(), Kind::Generic)
    }

    /// Lets the guest read from `file`: a file, pipe, socket or terminal.
    #[must_use]
    pub fn input(mut self, file: impl Into<OwnedFd>) -> Self {
        self.input = Some(file.into());
        self
    }

    /// Lets the guest write to `file`: a file, pipe, socket or terminal.
    #[must_use]
    pub fn output(mut self, file: impl Into<OwnedFd>) -> Self {
        self.output = Some(file.into());
        self
    }

    fn new(name: String, kind: Kind) -> Self {
        Self {
            name,
            kind,
            input: None,
            output: None,
        }
    }
}
