//! An interactive session on a terminal, and the memory the program needs for it.

use std::{fs, process::Child};

use guest_kernels::Guest;
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::{
    program::Boot,
    screen::{PROMPT, Screen, start},
};

/// Memory that the program may use beside the guest's, in KiB.
const OVERHEAD: u64 = 64 << 10;
/// The name of the guest's memory in /proc/PID/smaps.
const GUEST_RAM: &str = "memfd:guest-ram";

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
    let (mut screen, terminal) = Screen::open();
    let settings = || tcgetattr(&terminal).unwrap();
    let before = settings();
    let running = start(&boot, &terminal);

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
    // What waits prints the number itself: then ctrl-c is for it already, and no longer for the shell that starts it.
    for endless in [
        "echo $((6 * 7)); while :; do :; done",
        "(echo $((6 * 7)); exec sleep 1000000)",
    ] {
        screen.type_keys(&format!("{endless}\r"));
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
