//! `--trace`: the event log of a boot, kind by kind.

use std::fs;

use guest_kernels::Guest;

use crate::program::Boot;

/// The text that the guest prints.
const GREETING: &str = "hello, log\n";

/// The log of a boot, only of `kind`: its lines behind that column.
fn events(kind: &str) -> Option<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let ended = Boot::of(Guest::Debian686)?
        .with("--trace", log.to_str().unwrap())
        .with("--trace-only", kind)
        .exec(&format!("printf '{GREETING}'"));
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.text(), GREETING);
    let text = fs::read_to_string(log).unwrap();
    let mut last = 0.0;
    let event = |line: &str| {
        let (time, what) = line.trim_start().split_once(' ').expect("columns");
        let time: f64 = time.parse().unwrap();
        assert!(time >= last, "{line}");
        last = time;
        let what = what.strip_prefix(kind).expect("nothing else");
        what.trim_start().to_owned()
    };
    Some(text.lines().map(event).collect())
}

#[test]
fn the_timer_interrupts() {
    if let Some(events) = events("interrupt") {
        // Linux, arch/x86/include/asm/irq_vectors.h: ISA_IRQ_VECTOR(0).
        let timer = "vector 0x30, at 0060:";
        assert!(
            events.iter().any(|what| what.starts_with(timer)),
            "{events:?}"
        );
    }
}

#[test]
fn programs_call_the_kernel() {
    if let Some(events) = events("software") {
        let call = "vector 0x80, at 0073:";
        assert!(
            events.iter().any(|what| what.starts_with(call)),
            "{events:?}"
        );
    }
}

#[test]
fn programs_and_the_kernel_have_page_faults_at_addresses() {
    if let Some(events) = events("exception") {
        for place in [", at 0060:", ", at 0073:"] {
            let is_fault = |what: &&String| {
                let fault = what.starts_with("vector 0x0e, error code 0x");
                fault && what.contains(", CR2 ") && what.contains(place)
            };
            assert!(
                events.iter().filter(is_fault).count() >= 10,
                "{place}: {events:?}"
            );
        }
    }
}

#[test]
fn address_spaces_are_switched() {
    if let Some(events) = events("control") {
        let old_and_new = |what: &str| {
            let (old, new) = what.strip_prefix("CR3 ")?.get(..20)?.split_once(" -> ")?;
            Some((old.to_owned(), new.to_owned()))
        };
        let writes: Vec<(String, String)> =
            events.iter().filter_map(|what| old_and_new(what)).collect();
        assert!(writes.len() >= 100, "{events:?}");
        for pair in writes.windows(2) {
            assert_eq!(pair[0].1, pair[1].0, "none is missed");
        }
        assert!(writes.iter().any(|(old, new)| old != new));
        for register in ["CR0 ", "CR4 "] {
            assert!(events.iter().any(|what| what.starts_with(register)));
        }
    }
}

/// The console of `--exec` is COM2.
#[test]
fn what_the_guest_sends_goes_through_a_port() {
    if let Some(events) = events("port") {
        let sent = |what: &String| {
            let digits = what.strip_prefix("out 02f8 byte ")?.get(..2)?;
            u8::from_str_radix(digits, 16).ok()
        };
        let sent: Vec<u8> = events.iter().filter_map(sent).collect();
        let sent = String::from_utf8_lossy(&sent);
        assert!(sent.contains(GREETING), "{sent:?}");
    }
}
