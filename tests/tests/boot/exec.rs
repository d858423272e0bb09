//! `--exec`: the command's output and status, on both guests, with little and much memory, on both processors and engines,
//! and with every kind of standard input. The options are spread over the boots so that each value occurs.

use std::time::{SystemTime, UNIX_EPOCH};

use guest_kernels::Guest;

use crate::{
    kernel_log,
    program::{Boot, Ended, Input},
};

/// Whole seconds by which the guest's clock may be off, which a moment is enough for.
const CLOCK_TOLERANCE: u64 = 1;
/// Binary logarithm of the number of times that [`whole_session`] sends every byte value.
const DOUBLINGS: u32 = 9;

/// KiB that a 32-bit Linux maps linearly at most: 1 GiB less what it wants for vmalloc (arch/x86/mm/init_32.c, `MAXMEM`).
const LOW_MEMORY: u64 = 896 << 10;

/// Seconds since 1970 on the host.
fn host_time() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Takes the first line off `bytes`.
fn line<'a>(bytes: &mut &'a [u8]) -> &'a str {
    let end = bytes
        .iter()
        .position(|&byte| byte == b'\n')
        .expect("a line");
    let line = std::str::from_utf8(&bytes[..end]).unwrap();
    *bytes = &bytes[end + 1..];
    line
}

/// One boot: the release, the time of day, 128 KiB of all byte values, the kernel's log, and status 3.
fn whole_session(boot: Boot) {
    let release = boot.release.clone();
    let all_bytes: Vec<u8> = (0..=u8::MAX).collect();
    let octal: String = all_bytes
        .iter()
        .map(|byte| format!("\\{byte:03o}"))
        .collect();
    let script = format!(
        "uname -r; date +%s
         printf '{octal}' > /tmp/a
         for i in $(seq {DOUBLINGS}); do cat /tmp/a /tmp/a > /tmp/b; mv /tmp/b /tmp/a; done
         cat /tmp/a; dmesg; exit 3"
    );
    let before = host_time();
    let ended = boot.exec(&script);
    let after = host_time();

    assert_eq!(ended.code(), Some(3), "{}", ended.stderr);
    assert_eq!(ended.stderr, "");
    let mut rest = ended.stdout.as_slice();
    assert_eq!(line(&mut rest), release);
    let time: u64 = line(&mut rest).parse().unwrap();
    assert!(
        (before - CLOCK_TOLERANCE..=after + CLOCK_TOLERANCE).contains(&time),
        "guest {time}, host {before} to {after}"
    );
    let sent = all_bytes.repeat(1 << DOUBLINGS);
    assert!(
        rest.starts_with(&sent),
        "{} bytes, not those sent",
        rest.len()
    );
    kernel_log::assert_healthy(std::str::from_utf8(&rest[sent.len()..]).unwrap());
}

/// KiB that the guest's /proc/meminfo has in `field`.
fn kibibytes(ended: &Ended, field: &str) -> u64 {
    let text = ended.text();
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or_else(|| panic!("{field}: {text}"))
}

/// Requires that the guest says it has `mebibytes` of memory, less what its kernel keeps for itself, and that it has some of
/// it out of the kernel's linear mapping if there is more than that can hold.
fn assert_memory(ended: &Ended, mebibytes: u64) {
    let total = kibibytes(ended, "MemTotal");
    let given = mebibytes << 10;
    assert!(
        (given * 2 / 3..given).contains(&total),
        "{total} of {given} KiB"
    );
    let high = kibibytes(ended, "HighTotal");
    let expected = match given.checked_sub(LOW_MEMORY) {
        Some(beyond) => beyond..beyond + LOW_MEMORY / 8,
        None => 0..1,
    };
    assert!(expected.contains(&high), "{high} KiB, not {expected:?}");
}

#[test]
fn a_whole_session_on_debian_686() {
    if let Some(boot) = Boot::of(Guest::Debian686) {
        whole_session(boot);
    }
}

#[test]
fn a_whole_session_on_debian_686_pae_with_stdin_closed() {
    if let Some(boot) = Boot::of(Guest::Debian686Pae) {
        whole_session(boot.input(Input::Closed));
    }
}

#[test]
fn a_whole_session_by_the_emulator() {
    if let Some(boot) = Boot::of(Guest::Debian686) {
        whole_session(boot.with("--engine", "emulator"));
    }
}

#[test]
fn several_lines_on_a_pentium_4_with_64_mib() {
    let Some(boot) = Boot::of(Guest::Debian686) else {
        return;
    };
    let script = "uname -r\nfor i in 1 2 3\ndo\n  echo \"line  $i\"\ndone\n\
                  grep -E '(Mem|High)Total' /proc/meminfo; grep family /proc/cpuinfo\necho 'an error' >&2\nkill -9 $$\necho never";
    let expected = format!("{}\nline  1\nline  2\nline  3\nMemTotal:", boot.release);
    let ended = boot
        .with("--mem", "64M")
        .with("--cpu", "pentium4")
        .input(Input::Closed)
        .exec(script);
    assert_eq!(ended.code(), Some(128 + 9), "{}", ended.stderr);
    assert!(ended.text().starts_with(&expected), "{}", ended.text());
    assert!(
        ended.text().ends_with("\ncpu family\t: 15\n"),
        "{}",
        ended.text()
    );
    // The shell that ran the script reports how its script ended.
    assert_eq!(ended.stderr, "an error\nKilled\n");
    assert_memory(&ended, 64);
}

#[test]
fn piped_input_is_not_the_commands_on_pae_with_2_gib() {
    let Some(boot) = Boot::of(Guest::Debian686Pae) else {
        return;
    };
    let release = boot.release.clone();
    let ended = boot
        .with("--mem", "2G")
        .input(Input::Pipe("not for the guest\n".into()))
        .exec("uname -r; cat; grep -E '(Mem|High)Total' /proc/meminfo; exit 255");
    assert_eq!(ended.code(), Some(255), "{}", ended.stderr);
    assert!(
        ended.text().starts_with(&format!("{release}\nMemTotal:")),
        "{}",
        ended.text()
    );
    assert_eq!(ended.text().lines().count(), 3, "{}", ended.text());
    assert_memory(&ended, 2048);
}

#[test]
fn power_off_with_2_gib() {
    let Some(boot) = Boot::of(Guest::Debian686) else {
        return;
    };
    let ended = boot
        .with("--mem", "2G")
        .exec("grep -E '(Mem|High)Total' /proc/meminfo; poweroff -f; exit 9");
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_memory(&ended, 2048);
}

#[test]
fn reboot_on_pae_with_64_mib() {
    let Some(boot) = Boot::of(Guest::Debian686Pae) else {
        return;
    };
    let ended = boot
        .with("--mem", "64M")
        .exec("grep -E '(Mem|High)Total' /proc/meminfo; reboot -f; exit 9");
    assert_eq!(ended.code(), Some(121), "{}", ended.stderr);
    assert!(
        ended.stderr.ends_with("\nreplex: reboot\n"),
        "{}",
        ended.stderr
    );
    assert_memory(&ended, 64);
}

#[test]
fn a_kernel_panic() {
    let Some(boot) = Boot::of(Guest::Debian686) else {
        return;
    };
    let ended = boot.exec("echo c > /proc/sysrq-trigger; exit 9");
    assert_eq!(ended.code(), Some(122), "{}", ended.stderr);
    assert!(ended.stdout.is_empty(), "{}", ended.text());
    assert!(ended.stderr.contains("Kernel panic"), "{}", ended.stderr);
    assert!(
        ended.stderr.ends_with("\nreplex: guest kernel panic\n"),
        "{}",
        ended.stderr
    );
}

/// The exit status of `guest` that runs `command` with a kernel parameter.
fn status_with(guest: Guest, parameter: &str, command: &str) -> Option<Option<i32>> {
    let boot = Boot::of(guest)?.with("--append", parameter);
    Some(boot.exec(&format!("{command}; exit 9")).code())
}

/// Each way to reset that the user can choose, and each kind of end. The emergency restart of SysRq B with `reboot=warm` leaves what
/// a panic leaves.
#[test]
fn reboots_and_panics_are_told_apart_whatever_resets_the_machine() {
    const CRASH: &str = "echo c > /proc/sysrq-trigger";
    const EMERGENCY: &str = "echo b > /proc/sysrq-trigger";
    for (guest, parameter, command, expected) in [
        (Guest::Debian686, "reboot=warm", "reboot -f", 121),
        (Guest::Debian686Pae, "reboot=warm", CRASH, 122),
        (Guest::Debian686Pae, "reboot=triple", "reboot -f", 121),
        (Guest::Debian686, "reboot=triple", CRASH, 122),
        (Guest::Debian686, "reboot=triple", EMERGENCY, 121),
        (Guest::Debian686, "reboot=pci", CRASH, 122),
        (Guest::Debian686Pae, "quiet", EMERGENCY, 121),
    ] {
        if let Some(status) = status_with(guest, parameter, command) {
            assert_eq!(status, Some(expected), "{parameter}, {command}");
        }
    }
}

#[test]
fn halt_on_pae_is_power_off() {
    if let Some(boot) = Boot::of(Guest::Debian686Pae) {
        let ended = boot.exec("halt -f; exit 9");
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        assert!(!ended.stderr.contains("replex: "), "{}", ended.stderr);
    }
}

#[test]
fn success_on_pae_on_a_pentium_4() {
    let Some(boot) = Boot::of(Guest::Debian686Pae) else {
        return;
    };
    let ended = boot
        .with("--cpu", "pentium4")
        .exec("grep -c '^flags.* pae .*nx' /proc/cpuinfo");
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.text(), "1\n");
    assert_eq!(ended.stderr, "");
}

/// Without a terminal and without a command, a shell reads standard input. The end of the input ends nothing, and nothing is
/// lost of input that waits long before the shell runs.
#[test]
fn a_piped_shell() {
    const LINES: usize = 4_000;
    let Some(boot) = Boot::of(Guest::Debian686Pae) else {
        return;
    };
    let release = boot.release.clone();
    let count = "n=$((n+1))\n".repeat(LINES);
    let script = format!("stty -echo; n=0\n{count}echo counted $n on $(uname -r)\nexit\n");
    let ended = boot.input(Input::Pipe(script)).run();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.stderr, "");
    let counted = format!("counted {LINES} on {release}\r\n");
    assert!(ended.text().contains(&counted), "{}", ended.text());
}

/// The archive named here does not exist, so this needs no network.
#[test]
fn a_guest_that_cannot_be_fetched_is_one_line_naming_the_reason() {
    let cache = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(tests::built::replex())
        .args(["boot", "--exec", "true"])
        .env("REPLEX_CACHE", cache.path())
        .env("REPLEX_DEBIAN_MIRROR", "file:///nonexistent/debian")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty());
    assert!(
        stderr.starts_with("replex: guest debian-686: ") && stderr.contains("/nonexistent/debian"),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}
