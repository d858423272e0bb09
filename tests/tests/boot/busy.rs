//! Busy processes that together walk more memory than the machine has (`tests/native/busy.c`): 64 of 32 MiB each in 1 GiB, of which
//! each has 24 MiB in common with all others and writes 8 MiB. Whatever has windows, none of them reads anything wrong, and the
//! program stays below the host's limit on mappings.
//!
//! The suite runs a few, for a moment. By hand, 60 s of 64 processes without windows, by default, and with windows always, which
//! prints what each has done:
//!
//! ```text
//! cargo test --release -p tests --test boot -- --ignored --nocapture sixty_four_busy
//! ```

use std::{fs, thread, time::Duration};

use guest_kernels::Guest;
use tempfile::TempDir;
use tests::differential::{mode::Mode, toolchain};
use tests::report::report;

use crate::{kernel_log, program::Boot};

/// Time between two looks at the mappings.
const INTERVAL: Duration = Duration::from_millis(50);
const SOURCES: [(&str, &str); 2] = [
    ("busy.c", include_str!("../../native/busy.c")),
    ("linux.h", include_str!("../../native/linux.h")),
];

/// The most mappings that a process of the host may have.
fn limit() -> usize {
    let limit = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    limit.trim().parse().unwrap()
}

/// The program, called `busy`, in a folder.
pub fn program() -> TempDir {
    toolchain::build(Mode::Protected, 32, &SOURCES, &["-o", "busy", "busy.c"]).unwrap()
}

/// Runs as many processes, for as many seconds of the guest's, and reports what they did.
fn run(guest: Guest, windows: &str, processes: u32, seconds: u32) {
    let Some(boot) = Boot::of(guest) else { return };
    let built = program();
    let program = built.path().join("busy");
    let running = boot
        .with("--mem", "1G")
        .with("--windows", windows)
        .with("--add", &format!("{}:/bin/", program.to_str().unwrap()))
        .with("--exec", &format!("busy {processes} {seconds}; dmesg"))
        .start();
    let mut most = 0;
    while running.is_open() {
        let maps = fs::read_to_string(format!("/proc/{}/maps", running.id())).unwrap_or_default();
        most = most.max(maps.lines().count());
        assert!(most < limit(), "{most} mappings");
        thread::sleep(INTERVAL);
    }
    let ended = running.end();
    let text = ended.text();
    assert_eq!(ended.code(), Some(0), "{text}{}", ended.stderr);
    assert_eq!(ended.stderr, "", "{text}");
    let (done, log) = text.split_once('\n').unwrap();
    report(&format!(
        "{guest}, windows {windows}, {seconds} s: {done}; {most} of {} mappings",
        limit()
    ));
    assert!(
        done.starts_with(&format!("{processes} processes: ")),
        "{text}"
    );
    assert!(done.ends_with(", failures 0"), "{text}");
    kernel_log::assert_healthy(log);
}

#[test]
fn a_few_busy_processes() {
    run(Guest::Debian686, "always", 3, 1);
    run(Guest::Debian686Pae, "auto", 3, 1);
}

#[test]
#[ignore = "long: see the head of this file"]
fn sixty_four_busy_processes_in_1_gib() {
    for windows in ["never", "auto", "always"] {
        run(Guest::Debian686Pae, windows, 64, 60);
    }
}
