//! The kernel's log: whole, and without a complaint.

/// Words that no line of a healthy log contains, in the kernel's spelling: it prints them in capitals when it complains
/// (include/asm-generic/bug.h, lib/bug.c, arch/x86/mm/fault.c), while "debug" and "bugs" are common words.
const COMPLAINTS: [&str; 6] = [
    "BUG",
    "WARNING",
    "Oops",
    "OOPS",
    "Call Trace",
    "Kernel panic",
];
/// A word that no line of a healthy log contains, in any spelling.
const ANY_CASE: &str = "unexpected";

/// First and last thing of a whole log.
const FIRST: &str = "Linux version ";
const LAST: &str = "Run /init as init process";

/// The lines of `log` that complain.
fn complaints(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| {
            COMPLAINTS.iter().any(|word| line.contains(word))
                || line.to_lowercase().contains(ANY_CASE)
        })
        .collect()
}

/// Returns what is wrong with `log`, the output of dmesg, if it is not that of a healthy boot.
pub fn fault(log: &str) -> Option<String> {
    if !log.lines().next().is_some_and(|line| line.contains(FIRST)) {
        return Some(format!("does not begin with {FIRST:?}"));
    }
    if !log.contains(LAST) {
        return Some(format!("{LAST:?} is not in it"));
    }
    let complaints = complaints(log);
    (!complaints.is_empty()).then(|| complaints.join("\n"))
}

/// Requires that `log`, the output of dmesg, is that of a healthy boot.
pub fn assert_healthy(log: &str) {
    assert_eq!(fault(log), None, "{log}");
}

#[test]
fn faults_are_found() {
    let healthy = format!("[    0.0] {FIRST}6.1\n[    1.0] {LAST}\n");
    assert_eq!(fault(&healthy), None);
    for log in [
        "",
        &healthy[1 + healthy.find('\n').unwrap()..],
        healthy.lines().next().unwrap(),
        &format!("{healthy}[    1.0] kernel BUG at mm/slub.c:379!"),
    ] {
        assert!(fault(log).is_some(), "{log}");
    }
}

#[test]
fn complaints_are_found() {
    for line in [
        "BUG: unable to handle page fault for address: fffffff4",
        "kernel BUG at mm/slub.c:379!",
        "WARNING: CPU: 0 PID: 1 at kernel/irq/manage.c:1850 free_irq+0x1f6/0x340",
        "Oops: 0002 [#1] PREEMPT SMP",
        "traps: Unexpected interrupt",
        "unexpected IRQ trap at vector 07",
    ] {
        assert_eq!(
            complaints(&format!("fine\n[    1.0] {line}\nfine")).len(),
            1,
            "{line}"
        );
    }
    for line in [
        "debug: trace event string verifier disabled",
        "x86/mm: Checked W+X mappings: passed, no W+X pages found.",
        "Spectre V1 : Mitigation: usercopy/swapgs barriers, no bugs known",
    ] {
        assert_eq!(complaints(line), [""; 0]);
    }
}
