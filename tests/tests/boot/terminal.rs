//! An interactive session on a terminal, and the memory the program needs for it.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    process::Child,
};

use guest_kernels::Guest;
use nix::{
    pty::{Winsize, openpty},
    sys::termios::{LocalFlags, tcgetattr},
};

use crate::{hang::Guarded, program::Boot};

const PROMPT: &str = "root@replex:~# ";
/// What the program may use beside the guest's memory, in KiB.
const OVERHEAD: u64 = 64 << 10;
/// The name of the guest's memory in /proc/PID/smaps.
const GUEST_RAM: &str = "memfd:guest-ram";

/// The keyboard and the screen of a running machine.
struct Screen {
    terminal: File,
    /// What was shown and not yet looked for.
    shown: String,
}

impl Screen {
    /// Reads until `text` is shown and returns what came before.
    fn expect(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                let mut before = std::mem::replace(&mut self.shown, rest);
                before.truncate(at);
                return before;
            }
            let mut chunk = [0; 4096];
            let len = self.terminal.read(&mut chunk).unwrap_or(0);
            assert!(len > 0, "ended before {text:?}: {}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&chunk[..len]));
        }
    }

    /// Types `command` at the prompt and returns what is shown until the next one, the echo included.
    fn command(&mut self, command: &str) -> String {
        self.type_keys(&format!("{command}\r"));
        self.expect(PROMPT)
    }

    fn type_keys(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }
}

/// Resident KiB of `child`: guest memory, and everything else. By proportional set sizes, so that what is mapped twice, as
/// translated code is, counts once.
fn resident(child: &Child) -> (u64, u64) {
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", child.id())).unwrap();
    let (mut guest, mut rest) = (0, 0);
    let mut in_guest_ram = false;
    for line in smaps.lines() {
        if let Some(pss) = line.strip_prefix("Pss:") {
            let kib: u64 = pss.trim().strip_suffix(" kB").unwrap().parse().unwrap();
            *(if in_guest_ram { &mut guest } else { &mut rest }) += kib;
        } else if line
            .split(' ')
            .next()
            .is_some_and(|range| range.contains('-'))
        {
            in_guest_ram = line.contains(GUEST_RAM);
        }
    }
    (guest, rest)
}

#[test]
fn a_shell_on_a_terminal() {
    let Some(boot) = Boot::of(Guest::Debian686) else {
        return;
    };
    let size = Winsize {
        ws_row: 33,
        ws_col: 101,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(&size, None).unwrap();
    let settings = || tcgetattr(&pty.slave).unwrap();
    let before = settings();
    let clone = || pty.slave.try_clone().unwrap();
    let child = boot
        .command()
        .stdin(clone())
        .stdout(clone())
        .stderr(clone())
        .spawn()
        .unwrap();
    let running = Guarded::new(child);
    let mut screen = Screen {
        terminal: pty.master.into(),
        shown: String::new(),
    };

    screen.expect(PROMPT);
    assert!(
        !settings().local_flags.contains(LocalFlags::ICANON),
        "not raw"
    );
    assert!(screen.command("stty size").contains("\r\n33 101\r\n"));

    let (guest, rest) = resident(&running.child);
    assert!(
        guest > OVERHEAD / 4,
        "only {guest} KiB of guest memory: is it {GUEST_RAM}?"
    );
    assert!(rest < OVERHEAD, "{rest} KiB beside the guest's {guest}");

    // Busy and waiting programs alike are the guest's to interrupt.
    for endless in ["while :; do :; done", "sleep 1000000"] {
        screen.type_keys(&format!("echo $((6 * 7)); {endless}\r"));
        screen.expect("\r\n42\r\n");
        screen.type_keys("\x03");
        screen.expect(PROMPT);
        assert!(
            screen
                .command("echo status $?")
                .contains("\r\nstatus 130\r\n")
        );
    }

    screen.type_keys("poweroff\r");
    screen.expect("reboot: ");
    assert_eq!(running.wait().code(), Some(0));
    assert_eq!(settings(), before, "the terminal is not restored");
}
