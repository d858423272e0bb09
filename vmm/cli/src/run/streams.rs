//! The command's streams: ports of a virtio console, with this program's own streams at their other ends.
//!
//! ```text
//!   stdin  ───────────────────► replex.stdin  │        on a terminal:
//!   stdout ◄─────────────────── replex.stdout │          stdin ──► Keys ──► terminal
//!   stderr ◄─────────────────── replex.stderr │          stdout ◄────────── terminal
//!   End    ◄──────────────────── replex.status            End    ◄── replex.status
//! ```

use std::{
    fs::File,
    io::{self, IsTerminal as _, PipeReader, PipeWriter, Read as _, Write as _},
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Context, Result};
use guest_kernels::{STATUS, STDERR, STDIN, STDOUT};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm::{
    ThreadKind, Threads,
    devices::virtio::{ConsolePort, VirtioConsole},
};

/// The key that ends the machine when it is typed [`TIMES`] times in a row: ctrl-].
const ESCAPE: u8 = 0x1d;
const TIMES: usize = 3;
/// The name of the terminal's port.
const TERMINAL: &str = "replex.terminal";

/// The ends of the command's streams that are this program's.
pub struct Streams {
    /// The line with the command's status.
    pub status: PipeReader,
    /// The way of typed keys to the terminal, if there is one.
    pub keys: Option<PipeWriter>,
}

/// What is to be read as the command's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard input.
    Stdin,
    /// Nothing.
    Nothing,
}

impl Source {
    /// Chooses by the options and by what standard input is: a terminal is read if that is asked for, everything else anyway.
    /// On a terminal of its own, the command gets what is typed at this program's.
    pub fn choose(interactive: bool, on_terminal: bool) -> Self {
        let wanted = match on_terminal {
            true => io::stdin().is_terminal(),
            false => interactive || !io::stdin().is_terminal(),
        };
        if wanted { Self::Stdin } else { Self::Nothing }
    }
}

/// Makes the console for a command with separate streams.
///
/// # Errors
/// If the host has no descriptors left.
pub fn separate(source: Source) -> Result<(VirtioConsole, Streams)> {
    let (status, status_port) = io::pipe().context("pipe")?;
    let input = match source {
        Source::Stdin => own(io::stdin())?,
        Source::Nothing => File::open("/dev/null").context("/dev/null")?.into(),
    };
    let console = VirtioConsole::new(vec![
        ConsolePort::generic(STDIN).input(input),
        ConsolePort::generic(STDOUT).output(own(io::stdout())?),
        ConsolePort::generic(STDERR).output(own(io::stderr())?),
        ConsolePort::generic(STATUS).output(status_port),
    ]);
    Ok((console, Streams { status, keys: None }))
}

/// Makes the console for a command on a terminal.
///
/// # Errors
/// If the host has no descriptors left.
pub fn on_terminal() -> Result<(VirtioConsole, Streams)> {
    let (status, status_port) = io::pipe().context("pipe")?;
    let (typed, keys) = io::pipe().context("pipe")?;
    let console = VirtioConsole::new(vec![
        ConsolePort::console(TERMINAL)
            .input(typed)
            .output(own(io::stdout())?),
        ConsolePort::generic(STATUS).output(status_port),
    ]);
    let keys = Some(keys);
    Ok((console, Streams { status, keys }))
}

/// A descriptor of our own for a standard stream.
fn own(stream: impl AsFd) -> Result<OwnedFd> {
    let stream = stream.as_fd().try_clone_to_owned();
    stream.context("standard streams")
}

/// Starts a thread that passes typed keys on, and calls `quit` when the user wants the end of the machine.
///
/// # Errors
/// If the thread cannot be started.
pub fn pass_keys(
    mut to: PipeWriter,
    threads: &Threads,
    quit: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let pass = move || {
        let mut keys = [0; 4096];
        let mut escapes = 0;
        loop {
            let len = match io::stdin().read(&mut keys) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Another program that has the terminal, too, made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let stdin = io::stdin();
                    let mut terminal = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
                    let _ = poll(&mut terminal, PollTimeout::NONE);
                    continue;
                }
                // The terminal is gone: its hang-up signal follows.
                Err(_) | Ok(0) => return,
                Ok(len) => len,
            };
            if escaped(&keys[..len], &mut escapes) {
                return quit();
            }
            // A terminal that the guest has closed takes no keys, but the machine can still be ended.
            let _ = to.write_all(&keys[..len]);
        }
    };
    threads.start(ThreadKind::Other("keys"), pass).map(drop)
}

/// Counts escapes in a row, and returns whether there were enough.
fn escaped(keys: &[u8], escapes: &mut usize) -> bool {
    keys.iter().any(|&key| {
        *escapes = if key == ESCAPE { *escapes + 1 } else { 0 };
        *escapes == TIMES
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_escapes_in_a_row_are_the_end() {
        let mut escapes = 0;
        assert!(!escaped(b"\x1d\x1da\x1d", &mut escapes));
        assert!(!escaped(b"\x1d", &mut escapes));
        assert!(!escaped(b"b\x1d\x1d", &mut escapes));
        assert!(escaped(b"\x1d", &mut escapes));
    }
}
