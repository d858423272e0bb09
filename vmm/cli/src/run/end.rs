//! [`End`]: how a run ends, and who finds out.
//!
//! ```text
//!   the status's port ── the thread "end" ──► Command ─┐
//!   --timeout ────────── the thread "end" ──► TimedOut ├─► the machine stops ─► output is drained ─► the program ends
//!   ctrl-] ───────────── the thread "keys" ─► Quit ────┘
//! ```
//!
//! The first end counts, but when the command has ended, what it has written may have a reader that is slow, and the program waits
//! for that without limit; so the time and the user end this wait, too. If the program does not end within [`GRACE`] even then, as
//! nobody reads what it says itself, the thread ends it that wants to.

use std::{
    io::{self, PipeReader, Read as _},
    os::fd::AsFd as _,
    process,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use guest_kernels::{FAILED, Status};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use vmm::{Control, ThreadKind, Threads, stop::status};

use crate::terminal::SavedTerminal;

/// The end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The command has ended.
    Command(Status),
    /// The guest has told something else than the command's status.
    Lost,
    /// The time is over.
    TimedOut(Duration),
    /// The user wants it.
    Quit,
}

impl End {
    /// The program's exit status.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Command(status) => status.code(),
            Self::Lost => FAILED,
            Self::TimedOut(_) => status::TIMEOUT,
            Self::Quit => status::QUIT,
        }
    }
}

/// The end of a run, once it is known. Whoever finds it first ends the machine.
#[derive(Clone)]
pub struct Ending(Arc<Shared>);

struct Shared {
    /// The command's end.
    command: OnceLock<End>,
    /// An end that the time or the user has forced.
    forced: OnceLock<End>,
    /// Whether the program has said all that it has to say.
    told: AtomicBool,
    control: Control,
    terminal: Option<Arc<SavedTerminal>>,
}

/// The most bytes of the line with a status.
const LINE: usize = 64;
/// How long the program may take to end after the time or the user has ended the machine.
const GRACE: Duration = Duration::from_secs(5);
/// The longest timeout that the host takes on any architecture.
const LONGEST_WAIT: Duration = Duration::from_secs(i32::MAX as u64);

impl Ending {
    /// Creates the end of the machine that `control` controls, on `terminal` if that has to be restored.
    pub fn new(control: Control, terminal: Option<Arc<SavedTerminal>>) -> Self {
        Self(Arc::new(Shared {
            command: OnceLock::new(),
            forced: OnceLock::new(),
            told: AtomicBool::new(false),
            control,
            terminal,
        }))
    }

    /// The end, if it is known.
    pub fn get(&self) -> Option<End> {
        let end = self.0.forced.get().or_else(|| self.0.command.get());
        end.copied()
    }

    /// Notes that the program has nothing more to say, and nobody to wait for.
    pub fn set_told(&self) {
        self.0.told.store(true, SeqCst);
    }

    /// Ends the machine by `end`, which the time or the user wants, and the program if it does not end by itself in time.
    pub fn force(&self, end: End) {
        self.set(end);
        thread::sleep(GRACE);
        if self.0.told.load(SeqCst) {
            return;
        }
        if let Some(terminal) = &self.0.terminal {
            terminal.restore();
        }
        process::exit(self.get().unwrap_or(end).exit_status().into());
    }

    /// Ends the machine, unless that has been done.
    fn set(&self, end: End) {
        let place = match end {
            End::Command(_) | End::Lost => &self.0.command,
            End::TimedOut(_) | End::Quit => &self.0.forced,
        };
        let _ = place.set(end);
        self.0.control.quit();
    }

    /// Starts a thread that waits for the command's status, which comes by `status`, and ends the run when `timeout` is over, if
    /// there is one.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn watch(
        &self,
        status: PipeReader,
        timeout: Option<Duration>,
        threads: &Threads,
    ) -> io::Result<()> {
        let ending = self.clone();
        let watch = move || {
            let begin = Instant::now();
            if let Some(end) = wait(status, timeout) {
                ending.set(end);
            }
            if let Some(timeout) = timeout {
                // The command has ended, or the guest has told nothing of use, but the time goes on.
                thread::sleep(timeout.saturating_sub(begin.elapsed()));
                ending.force(End::TimedOut(timeout));
            }
        };
        threads.start(ThreadKind::Other("end"), watch).map(drop)
    }
}

/// Waits for the command's status. Returns nothing if the guest closes the port without a line.
fn wait(mut status: PipeReader, timeout: Option<Duration>) -> Option<End> {
    let timed = timeout.map(|timeout| (timeout, Instant::now().checked_add(timeout)));
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        if let Some((timeout, Some(deadline))) = timed
            && !is_readable_until(&status, deadline)
        {
            return Some(End::TimedOut(timeout));
        }
        let mut bytes = [0; LINE];
        match status.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) | Ok(0) => return None,
            Ok(len) => line.extend(&bytes[..len]),
        }
        if line.len() > LINE {
            return Some(End::Lost);
        }
    }
    let text = std::str::from_utf8(&line).unwrap_or_default();
    let status = Status::parse(text.trim_end_matches('\n'));
    Some(status.map_or(End::Lost, End::Command))
}

/// Waits until `pipe` is readable, and returns whether it is at `deadline`.
fn is_readable_until(pipe: &PipeReader, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match ppoll(
            &mut fds,
            Some(TimeSpec::from_duration(left.min(LONGEST_WAIT))),
            None,
        ) {
            Ok(0) if left.is_zero() => return false,
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) | Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use vmm::{Start, Vm, VmConfig, loader::Rom};

    use super::*;

    /// The end that a guest's line leads to.
    fn end(line: &[u8]) -> Option<End> {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(line).unwrap();
        drop(writer);
        wait(reader, None)
    }

    #[test]
    fn the_guest_tells_how_its_command_has_ended() {
        assert_eq!(end(b"exit 7\n"), Some(End::Command(Status::Exited(7))));
        let killed = Status::Signaled(9);
        assert_eq!(end(b"signal 9\n"), Some(End::Command(killed)));
        for line in [
            &b"\n"[..],
            b"exit 1000\n",
            b"\xff\n",
            b"signal 0\n",
            &[b'x'; 500],
        ] {
            assert_eq!(end(line), Some(End::Lost), "{line:?}");
        }
        // Then the machine's own end tells more.
        for line in [&b""[..], b"exit 7"] {
            assert_eq!(end(line), None, "{line:?}");
        }
    }

    #[test]
    fn the_time_and_the_user_end_a_run_whose_command_has_ended() {
        let command = End::Command(Status::Exited(0));
        let timed_out = End::TimedOut(Duration::from_secs(1));
        let rom = Rom {
            address: 0xffff_fff0,
            bytes: &[0xf4],
        };
        let machine = Vm::power_on(&VmConfig::default(), &[rom], &Start::default()).unwrap();
        for (first, second, expected) in [
            (command, timed_out, timed_out),
            (command, End::Quit, End::Quit),
            (timed_out, command, timed_out),
            (timed_out, End::Quit, timed_out),
            (End::Quit, timed_out, End::Quit),
        ] {
            let ending = Ending::new(machine.control(), None);
            assert_eq!(ending.get(), None);
            ending.set(first);
            ending.set(second);
            assert_eq!(ending.get(), Some(expected), "{first:?}, {second:?}");
        }
    }

    #[test]
    fn the_time_ends() {
        let (reader, _writer) = io::pipe().unwrap();
        let time = Duration::from_millis(1);
        assert_eq!(wait(reader, Some(time)), Some(End::TimedOut(time)));
    }
}
