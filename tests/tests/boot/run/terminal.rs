//! A command on a terminal.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    thread::sleep,
    time::Duration,
};

use guest_kernels::Guest;
use nix::{
    libc,
    pty::Winsize,
    sys::{
        signal::{Signal, kill},
        termios::{LocalFlags, tcgetattr},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{
    program::Boot,
    screen::{Screen, start},
};

nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, Winsize);

#[test]
fn a_command_on_a_terminal() {
    let Some(boot) = Boot::run_of(Guest::Debian686) else {
        return;
    };
    let (mut screen, terminal) = Screen::open();
    let settings = || tcgetattr(&terminal).unwrap();
    let before = settings();
    let script = "trap 'echo resized' WINCH; stty size; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo on $TERM $(tty)
        read -r line; echo got $line
        until [ \"$(stty size)\" = '40 120' ]; do sleep 0.1; done; stty size
        trap 'echo interrupted; exit 3' INT
        echo waiting; while :; do sleep 0.1; done";
    let boot = boot
        .flag("-t")
        .with("-e", "TERM=dumb")
        .command_line(&["sh", "-c", script]);
    let running = start(&boot, &terminal);
    screen.expect("33 101\r\non dumb /dev/hvc0\r\n");
    assert!(
        !settings().local_flags.contains(LocalFlags::ICANON),
        "not raw"
    );
    screen.type_keys("typex\x7f\r");
    screen.expect("got type\r\n");
    let size = Winsize {
        ws_row: 40,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads a `Winsize` through its argument and does nothing else with memory.
    unsafe { set_window_size(terminal.as_raw_fd(), &raw const size) }.unwrap();
    // The terminal is not the program's controlling terminal, so nobody else tells it.
    kill(Pid::from_raw(running.child.id() as i32), Signal::SIGWINCH).unwrap();
    screen.expect("resized\r\n");
    screen.expect("40 120\r\n");
    screen.expect("waiting\r\n");
    screen.type_keys("\x03");
    screen.expect("interrupted\r\n");
    assert_eq!(running.wait().code(), Some(3));
    assert_eq!(settings(), before, "the terminal is not restored");
}

#[test]
fn a_shell_runs_at_a_terminal_where_nothing_is_named() {
    let Some(boot) = Boot::run_of(Guest::Debian686Pae) else {
        return;
    };
    let (mut screen, terminal) = Screen::open();
    let running = start(&boot, &terminal);
    screen.expect("# ");
    screen.type_keys("echo $((6 * 7)); exit 4\r");
    screen.expect("\r\n42\r\n");
    assert_eq!(running.wait().code(), Some(4));
}

#[test]
fn escapes_end_the_machine() {
    let Some(boot) = Boot::run_of(Guest::Debian686) else {
        return;
    };
    let (mut screen, terminal) = Screen::open();
    let before = tcgetattr(&terminal).unwrap();
    let boot = boot
        .flag("-t")
        .command_line(&["sh", "-c", "echo ready; sleep 1000000"]);
    let running = start(&boot, &terminal);
    screen.expect("ready\r\n");
    screen.type_keys("\x1d\x1d\x1d");
    screen.expect("replex: ended by ctrl-]");
    assert_eq!(running.wait().code(), Some(125));
    assert_eq!(tcgetattr(&terminal).unwrap(), before);
}

/// Waits until the terminal is raw.
fn await_raw(terminal: &OwnedFd) {
    let flags = || tcgetattr(terminal).unwrap().local_flags;
    while flags().contains(LocalFlags::ICANON) {
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn keys_pressed_before_the_command_begins_are_its() {
    let script = "read -r line; echo got $line; exit 5";
    for (keys, command, shown, status) in [
        ("\x03", ["sleep", "1000000"].as_slice(), "^C", 130),
        ("early\r", &["sh", "-c", script], "got early\r\n", 5),
    ] {
        let Some(boot) = Boot::run_of(Guest::Debian686) else {
            return;
        };
        let (mut screen, terminal) = Screen::open();
        let running = start(&boot.flag("-t").command_line(command), &terminal);
        await_raw(&terminal);
        screen.type_keys(keys);
        screen.expect(shown);
        assert_eq!(running.wait().code(), Some(status));
    }
}

#[test]
fn a_stopped_machine_leaves_the_terminal_to_others() {
    let Some(boot) = Boot::run_of(Guest::Debian686) else {
        return;
    };
    let (mut screen, terminal) = Screen::open();
    let before = tcgetattr(&terminal).unwrap();
    let script = "echo ready; read -r line; echo got $line; exit 6";
    let boot = boot.flag("-t").command_line(&["sh", "-c", script]);
    let running = start(&boot, &terminal);
    screen.expect("ready\r\n");
    let pid = Pid::from_raw(running.child.id() as i32);
    kill(pid, Signal::SIGTSTP).unwrap();
    let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert_eq!(stopped, WaitStatus::Stopped(pid, Signal::SIGSTOP));
    assert_eq!(tcgetattr(&terminal).unwrap(), before);
    kill(pid, Signal::SIGCONT).unwrap();
    await_raw(&terminal);
    screen.type_keys("again\r");
    screen.expect("got again\r\n");
    assert_eq!(running.wait().code(), Some(6));
}
