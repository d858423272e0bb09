//! The program on a terminal: keys go to the guest, and the terminal is restored on every way out.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::OwnedFd,
    os::unix::process::ExitStatusExt,
    process::{Child, ExitStatus},
};

use crate::support::{ECHO, Replex, elf};
use nix::{
    libc,
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
        Self::start_in(Replex::new(), args)
    }

    /// Starts the program with a thread of each kind.
    fn start_with_devices() -> Self {
        let replex = Replex::new();
        let disk = replex.file("disk", &[0; 4096]);
        let share = format!("{}:/share", replex.dir.path().display());
        let socket = format!("unix:{}", replex.dir.path().join("gdb").display());
        let devices = ["--disk", &disk, "--net", "user", "--volume", &share];
        Self::start_in(replex, &[&devices[..], &["--gdb", &socket]].concat())
    }

    fn start_in(replex: Replex, args: &[&str]) -> Self {
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
        let mut shown = [0];
        while shown != *b">" {
            session.master.read_exact(&mut shown).unwrap();
        }
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
    fn end(self) -> Option<i32> {
        self.wait().code()
    }

    /// The way in which the program ends, once the terminal is found restored.
    fn wait(mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        assert_eq!(flags(&self.slave), self.before, "{status}");
        status
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Sends a signal to the thread of this name.
    fn signal_thread(&self, name: &str, signal: Signal) {
        let process = self.child.id();
        let mut tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let task = tasks.find_map(|task| {
            let task = task.unwrap();
            let comm = fs::read_to_string(task.path().join("comm")).unwrap();
            (comm.trim() == name).then(|| task.file_name())
        });
        let task: i32 = task.expect(name).to_str().unwrap().parse().unwrap();
        // SAFETY: sends a signal to another process, and touches no memory.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, task, signal as i32) };
        assert_eq!(sent, 0, "{name}");
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
fn signals_of_a_broken_program_restore_the_terminal() {
    for signal in [
        Signal::SIGABRT,
        Signal::SIGBUS,
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGSEGV,
    ] {
        let session = Session::start();
        session.signal(signal);
        assert_eq!(session.wait().signal(), Some(signal as i32));
    }
    let session = Session::start_with(&["--sandbox", "off"]);
    session.signal(Signal::SIGSYS);
    assert_eq!(session.wait().signal(), Some(Signal::SIGSYS as i32));
}

/// Each thread may restore the terminal, whatever else the sandbox takes from it.
#[test]
fn whichever_thread_is_broken_the_terminal_is_restored() {
    for thread in ["gdb", "net", "replex", "signals", "virtio-blk", "virtio-fs"] {
        let session = Session::start_with_devices();
        session.signal_thread(thread, Signal::SIGSEGV);
        let status = session.wait();
        assert_eq!(status.signal(), Some(Signal::SIGSEGV as i32), "{thread}");
        let session = Session::start_with_devices();
        session.signal_thread(thread, Signal::SIGSYS);
        let status = session.wait();
        // Where the host has no filters, the sandbox's handler is there all the same.
        assert_eq!(status.code(), Some(118), "{thread}: {status}");
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
