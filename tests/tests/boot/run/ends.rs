//! Ends of runs that are not the command's exit: signals, the time, the guest's own end.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
};

use guest_kernels::Guest;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::hang::Guarded;

use crate::program::Boot;

/// Runs `script` and compares exit status and the last line of standard error.
fn assert_end(options: &[(&str, &str)], script: &str, status: i32, message: &str) {
    let Some(mut boot) = Boot::run_of(Guest::Debian686) else {
        return;
    };
    for (option, value) in options {
        boot = boot.with(option, value);
    }
    let ended = boot.script(script);
    assert_eq!(ended.code(), Some(status), "{script}: {}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert_eq!(last, message, "{script}: {}", ended.stderr);
}

#[test]
fn a_signal_that_ends_the_command_is_its_status() {
    assert_end(&[], "kill -9 $$", 128 + 9, "");
    assert_end(&[], "kill -TERM $$", 128 + 15, "");
}

#[test]
fn the_end_is_known_whatever_the_command_has_done_to_the_tree() {
    assert_end(&[], "rm -rf /replex; exit 3", 3, "");
    assert_end(
        &[],
        "dd if=/dev/zero of=/full bs=64k 2> /dev/null; exit 4",
        4,
        "",
    );
    assert_end(&[], "kill -9 -1", 128 + 9, "");
}

#[test]
fn statuses_of_the_machine_are_told() {
    assert_end(
        &[("--timeout", "0.75")],
        "sleep 1000000",
        119,
        "replex: the time of --timeout, 0.75 s, is over",
    );
    assert_end(
        &[],
        "poweroff -f",
        120,
        "replex: the guest powered off, and the command had not ended",
    );
    assert_end(&[], "reboot -f", 121, "replex: reboot");
    assert_end(
        &[],
        "echo c > /proc/sysrq-trigger",
        122,
        "replex: guest kernel panic",
    );
}

/// The guest's console is shown where there is no command to show anything.
#[test]
fn a_guest_that_does_not_come_to_the_command_shows_its_console() {
    let Some(boot) = Boot::run_of(Guest::Debian686Pae) else {
        return;
    };
    let ended = boot
        .with("--append", "rdinit=/nowhere root=/dev/nowhere")
        .script("echo never");
    assert_eq!(ended.code(), Some(122), "{}", ended.stderr);
    assert_eq!(ended.text(), "");
    assert!(ended.stderr.contains("Kernel panic"), "{}", ended.stderr);
    assert!(
        ended.stderr.ends_with("replex: guest kernel panic\n"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_root_that_cannot_be_mounted_is_told() {
    let Some(boot) = Boot::run_of(Guest::Debian686) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let volume = format!("{}:/proc/none", folder.path().display());
    let ended = boot.with("-v", &volume).script("echo never");
    assert_eq!(ended.code(), Some(124), "{}", ended.stderr);
    assert_eq!(ended.text(), "");
    assert!(ended.stderr.contains("/proc/none"), "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .ends_with("replex: the guest could not start the command\n"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_console_is_shown_where_it_is_asked_for() {
    let Some(boot) = Boot::run_of(Guest::Debian686) else {
        return;
    };
    let ended = boot.flag("--console").script("echo of the command");
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.text(), "of the command\n");
    assert!(ended.stderr.contains("Linux version"), "{}", ended.stderr);
}

#[test]
fn a_signal_ends_the_machine() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let Some(boot) = Boot::run_of(Guest::Debian686) else {
            return;
        };
        let mut child = boot
            .command_line(&["sh", "-c", "echo ready; sleep 1000000"])
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let pid = Pid::from_raw(child.id() as i32);
        let program = Guarded::new(child);
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        kill(pid, signal).unwrap();
        assert_eq!(program.wait().code(), Some(128 + signal as i32));
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
    }
}

/// Signals that the program ignores when it begins, as nohup(1) has it, it ignores to the end.
#[test]
fn an_ignored_signal_does_not_end_the_machine() {
    let Some(boot) = Boot::run_of(Guest::Debian686) else {
        return;
    };
    let command = boot
        .command_line(&["sh", "-c", "echo ready; read -r line; exit 9"])
        .command();
    let mut child = Command::new("sh")
        .args(["-c", "trap '' HUP; exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGHUP).unwrap();
    drop(child.stdin.take());
    assert_eq!(Guarded::new(child).wait().code(), Some(9));
}
