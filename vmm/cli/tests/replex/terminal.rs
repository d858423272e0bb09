//! The program on a terminal: keys go to the guest, and the terminal is restored on every way out.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::OwnedFd,
    process::Child,
};

use crate::support::{ECHO, Replex, elf};
use nix::{
    pty::openpty,
    sys::{
        signal::{Signal, kill},
        termios::{InputFlags, LocalFlags, OutputFlags, tcgetattr},
    },
    unistd::Pid,
};

type Flags = (InputFlags, OutputFlags, LocalFlags);

/// The program on a pseudo-terminal, its guest echoing.
struct Session {
    child: Child,
    master: File,
    slave: OwnedFd,
    before: Flags,
    _replex: Replex,
}

fn flags(terminal: &OwnedFd) -> Flags {
    let settings = tcgetattr(terminal).unwrap();
    (
        settings.input_flags,
        settings.output_flags,
        settings.local_flags,
    )
}

impl Session {
    /// Starts the program and waits until its guest says that it is ready.
    fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts the program with more arguments, and waits until its guest says that it is ready.
    fn start_with(args: &[&str]) -> Self {
        let replex = Replex::new();
        let kernel = replex.file("echo", &elf(ECHO));
        let pty = openpty(None, None).unwrap();
        let before = flags(&pty.slave);
        let clone = || pty.slave.try_clone().unwrap();
        let child = replex
            .command(&["boot", "--kernel", &kernel])
            .args(args)
            .stdin(clone())
            .stdout(clone())
            .stderr(clone())
            .spawn()
            .unwrap();
        let mut session = Self {
            child,
            master: pty.master.into(),
            slave: pty.slave,
            before,
            _replex: replex,
        };
        session.expect(b">");
        assert!(
            !flags(&session.slave)
                .2
                .intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
        );
        session
    }

    fn type_keys(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    fn expect(&mut self, text: &[u8]) {
        let mut shown = vec![0; text.len()];
        self.master.read_exact(&mut shown).unwrap();
        assert_eq!(shown, text);
    }

    /// The program's exit status, once the terminal is found restored.
    fn end(mut self) -> Option<i32> {
        let status = self.child.wait().unwrap();
        assert_eq!(flags(&self.slave), self.before);
        status.code()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }
}

#[test]
fn keys_go_to_the_guest_ctrl_c_and_all() {
    let mut session = Session::start();
    session.type_keys(b"a\x03\x1a\r\x01\x01");
    session.expect(b"a\x03\x1a\r\x01");
    session.type_keys(b"\x04");
    assert_eq!(session.end(), Some(42));
}

#[test]
fn ctrl_a_x_quits() {
    let mut session = Session::start();
    session.type_keys(b"\x01x");
    assert_eq!(session.end(), Some(125));
}

#[test]
fn ctrl_a_h_helps() {
    let mut session = Session::start();
    session.type_keys(b"\x01h");
    session.expect(b"\r\nctrl-a x       quit\r\n");
    session.type_keys(b"\x01x");
    assert_eq!(session.end(), Some(125));
}

#[test]
fn signals_restore_the_terminal() {
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
    ] {
        let session = Session::start();
        session.signal(signal);
        assert_eq!(session.end(), Some(128 + signal as i32), "{signal}");
    }
}

#[test]
fn the_event_log_has_it_all_however_the_program_ends() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let args = ["--trace", log.to_str().unwrap(), "--trace-only", "port:3f8"];
    for quit in [true, false] {
        let mut session = Session::start_with(&args);
        session.type_keys(b"a");
        session.expect(b"a");
        if quit {
            session.type_keys(b"\x01x");
        } else {
            session.signal(Signal::SIGTERM);
        }
        session.end();
        let log = fs::read_to_string(&log).unwrap();
        let accesses: Vec<&str> = log
            .lines()
            .map(|line| line.split_once(" port       ").expect("a line").1)
            .collect();
        assert_eq!(
            accesses,
            [
                "out 03f8 byte 3e, at 0010:0010000d",
                "in  03f8 byte 61, at 0010:0010001b",
                "out 03f8 byte 61, at 0010:00100020",
            ]
        );
    }
}
