//! The end of a run whose output nobody takes: a command that has written less than the machine holds has ended by then.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use guest_kernels::Guest;
use nix::{
    pty::openpty,
    sys::{
        signal::{Signal, kill},
        termios::tcgetattr,
    },
    unistd::Pid,
};
use tests::hang::Guarded;

use crate::program::Boot;

/// Writes more than a pipe holds, and says in a file that it has.
const WRITE: &str = "head -c 900000 /dev/zero; echo > /told/done";

/// The command that runs [`WRITE`], whose directory /told is `folder`.
fn writing(boot: Boot, folder: &Path) -> Command {
    let volume = format!("{}:/told", folder.display());
    let boot = boot.with("-v", &volume);
    boot.command_line(&["sh", "-c", WRITE]).command()
}

/// Waits until all is written, and then for so long that the command has ended, usually.
fn wait_for_end(folder: &Path) {
    while !folder.join("done").exists() {
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_secs(1));
}

#[test]
fn the_time_ends_it() {
    for is_stderr_stalled in [false, true] {
        let Some(boot) = Boot::run_of(Guest::Debian686) else {
            return;
        };
        let (_reader, stalled) = io::pipe().unwrap();
        let stderr = match is_stderr_stalled {
            true => stalled.try_clone().unwrap().into(),
            false => Stdio::null(),
        };
        let child = boot
            .with("--timeout", "4")
            .command_line(&["head", "-c", "900000", "/dev/zero"])
            .command()
            .stdin(Stdio::null())
            .stdout(stalled)
            .stderr(stderr)
            .spawn();
        assert_eq!(Guarded::new(child.unwrap()).wait().code(), Some(119));
    }
}

#[test]
fn a_signal_ends_it() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let Some(boot) = Boot::run_of(Guest::Debian686) else {
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let (_reader, stalled) = io::pipe().unwrap();
        let child = writing(boot, folder.path())
            .stdin(Stdio::null())
            .stdout(stalled)
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let program = Guarded::new(child);
        wait_for_end(folder.path());
        kill(pid, signal).unwrap();
        assert_eq!(program.wait().code(), Some(128 + signal as i32));
    }
}

#[test]
fn escapes_end_it_and_the_terminal_is_restored() {
    for is_stderr_stalled in [false, true] {
        let Some(boot) = Boot::run_of(Guest::Debian686) else {
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let (_reader, stalled) = io::pipe().unwrap();
        let stderr = match is_stderr_stalled {
            true => stalled.try_clone().unwrap().into(),
            false => Stdio::null(),
        };
        let pty = openpty(None, None).unwrap();
        let mut keyboard = File::from(pty.master);
        let before = tcgetattr(&pty.slave).unwrap();
        let child = writing(boot.flag("-t"), folder.path())
            .stdin(pty.slave.try_clone().unwrap())
            .stdout(stalled)
            .stderr(stderr)
            .spawn();
        let program = Guarded::new(child.unwrap());
        wait_for_end(folder.path());
        keyboard.write_all(b"\x1d\x1d\x1d").unwrap();
        assert_eq!(program.wait().code(), Some(125));
        assert_eq!(tcgetattr(&pty.slave).unwrap(), before);
    }
}
