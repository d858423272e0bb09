//! [`End`]: how a run ends, and who finds out.

use std::{
    io::{self, PipeReader, Read as _},
    os::fd::AsFd as _,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use guest_kernels::Status;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use vmm::{Control, ThreadKind, Threads};

/// The end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The command has ended.
    Command(Status),
    /// The time is over.
    TimedOut(Duration),
    /// The user wants it.
    Quit,
}

/// The end of a run, once it is known. Whoever finds it first ends the machine.
#[derive(Clone)]
pub struct Ending {
    end: Arc<OnceLock<End>>,
    control: Control,
}

/// The most bytes of the line with a status.
const LINE: usize = 64;
/// The longest timeout that the host takes on any architecture.
const LONGEST_WAIT: Duration = Duration::from_secs(i32::MAX as u64);

impl Ending {
    /// Creates the end of the machine that `control` controls.
    pub fn new(control: Control) -> Self {
        Self {
            end: Arc::default(),
            control,
        }
    }

    /// The end, if it is known.
    pub fn get(&self) -> Option<End> {
        self.end.get().copied()
    }

    /// Ends the machine, unless that has been done.
    pub fn set(&self, end: End) {
        let _ = self.end.set(end);
        self.control.quit();
    }

    /// Starts a thread that waits for the command's status, which comes by `status`, for `timeout` at most (none: for ever).
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
            } else if let Some(timeout) = timeout {
                // The guest has told nothing of use, but the time goes on.
                thread::sleep(timeout.saturating_sub(begin.elapsed()));
                ending.set(End::TimedOut(timeout));
            }
        };
        threads.start(ThreadKind::Other("end"), watch).map(drop)
    }
}

/// Waits for the command's status. Returns nothing if there is none to come.
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
            return None;
        }
    }
    let line = std::str::from_utf8(&line).ok()?;
    Status::parse(line.trim_end_matches('\n')).map(End::Command)
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
            &b""[..],
            b"\n",
            b"exit 7",
            b"exit 1000\n",
            b"\xff\n",
            &[b'x'; 500],
        ] {
            assert_eq!(end(line), None, "{line:?}");
        }
    }

    #[test]
    fn the_time_ends() {
        let (reader, _writer) = io::pipe().unwrap();
        let time = Duration::from_millis(1);
        assert_eq!(wait(reader, Some(time)), Some(End::TimedOut(time)));
    }
}
