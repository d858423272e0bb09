//! The mappings of the running program: nothing is writable and executable, at any time.

use std::{fs, thread, time::Duration};

use guest_kernels::Guest;

use crate::{program::Boot, workload};

/// Time between two looks at the mappings.
const INTERVAL: Duration = Duration::from_millis(2);
/// The name of the memory that translated code is in, in /proc/PID/maps.
const CODE: &str = "memfd:replex-code";

/// The permissions of a mapping, one line of /proc/PID/maps.
fn permissions(mapping: &str) -> &str {
    mapping.split(' ').nth(1).unwrap_or_default()
}

/// The lines of `maps` that are writable and executable.
fn writable_and_executable(maps: &str) -> Vec<&str> {
    maps.lines()
        .filter(|line| {
            let permissions = permissions(line);
            permissions.contains('w') && permissions.contains('x')
        })
        .collect()
}

/// Whether translated code is mapped in `maps`, so that it can be executed.
fn has_code(maps: &str) -> bool {
    maps.lines()
        .any(|line| line.contains(CODE) && permissions(line).contains('x'))
}

#[test]
fn nothing_is_writable_and_executable() {
    let Some(boot) = Boot::of(Guest::Debian686Pae) else {
        return;
    };
    let running = boot.with("--exec", workload::SCRIPT).start();
    let mut with_code = false;
    while running.is_open() {
        // Once the program has ended, this is empty or not there.
        let maps = fs::read_to_string(format!("/proc/{}/maps", running.id())).unwrap_or_default();
        assert_eq!(writable_and_executable(&maps), [""; 0]);
        with_code |= has_code(&maps);
        thread::sleep(INTERVAL);
    }
    let ended = running.end();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.text(), workload::OUTPUT);
    assert!(with_code, "no look while there was code");
}

#[test]
fn a_writable_and_executable_mapping_is_found() {
    let shared =
        "7fcdeea8f000-7fcdf0a8f000 rwxs 00000000 00:01 255011      /memfd:replex-code (deleted)";
    let private = "7fce4406a000-7fce440aa000 -wxp 00000000 00:00 0 ";
    let fine = "\
55ad2874f000-55ad2893a000 r-xp 0012e000 fe:00 10084760                   /tmp/rwx
7fcdeea8f000-7fcdf0a8f000 r-xs 00000000 00:01 255011                     /memfd:replex-code (deleted)
7fcdf0a8f000-7fcdf2a8f000 rw-s 00000000 00:01 255011                     /memfd:replex-code (deleted)
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]";
    assert_eq!(writable_and_executable(fine), [""; 0]);
    assert!(has_code(fine));
    let bad = format!("{shared}\n{fine}\n{private}");
    assert_eq!(writable_and_executable(&bad), [shared, private]);
    assert!(!has_code(private));
}
