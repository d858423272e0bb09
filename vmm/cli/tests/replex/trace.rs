//! The event log of tiny guests.

use std::fs;

use crate::{
    events::{CALL, PAGE_FAULT, TIMER},
    support::{Replex, elf},
};

const ENGINES: [&str; 2] = ["translator", "emulator"];

/// The log of a guest, which ends with this status, without times: these never run backwards.
#[track_caller]
fn log(engine: &str, code: &[u8], args: &[&str], status: i32) -> Vec<String> {
    let replex = Replex::new();
    let kernel = replex.file("guest", &elf(code));
    // No special name.
    let fixed = [
        "boot", "--kernel", &kernel, "--engine", engine, "--trace", "-",
    ];
    let output = replex
        .command(&[&fixed[..], args].concat())
        .current_dir(replex.dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    assert!(output.stdout.is_empty());
    let text = fs::read_to_string(replex.dir.path().join("-")).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    let mut last = 0;
    text.lines()
        .map(|line| {
            let (time, what) = line.trim_start().split_once(' ').expect("columns");
            let (seconds, ns) = time.split_once('.').expect("seconds and nanoseconds");
            assert_eq!(ns.len(), 9, "{line}");
            let time = format!("{seconds}{ns}").parse().unwrap();
            assert!(time >= last, "{text}");
            last = time;
            what.to_owned()
        })
        .collect()
}

/// The exceptions that a guest without handlers comes to at `event` there, and its end.
fn end_of_guest(event: &str, error_code: &str, place: &str) -> [String; 3] {
    [
        format!("exception  vector 0x0d, error code {error_code}, at {place}"),
        format!("exception  vector 0x08, error code 0x0, at {place}"),
        format!(
            "end        triple fault at {place}: {event}, #GP({error_code}), #GP(0x6b), #DF(0x0), #GP(0x43)"
        ),
    ]
}

#[test]
fn events_are_logged_alike_by_both_engines() {
    let call = "software   vector 0x80, at 0010:00100000".to_owned();
    let mut timer: Vec<String> = [
        "20 byte 11, at 0010:00100002",
        "21 byte 20, at 0010:00100006",
        "21 byte 04, at 0010:0010000a",
        "21 byte 01, at 0010:0010000e",
        "21 byte fe, at 0010:00100012",
        "43 byte 34, at 0010:00100016",
        "40 byte 00, at 0010:0010001a",
        "40 byte 10, at 0010:0010001e",
    ]
    .map(|access| format!("port       out 00{access}"))
    .into();
    let behind_hlt = "0010:00100022";
    timer.push(format!("interrupt  vector 0x20, at {behind_hlt}"));
    timer.extend(end_of_guest("interrupt 0x20", "0x103", behind_hlt));
    for engine in ENGINES {
        let [protection, double, end] = end_of_guest("INT 0x80", "0x402", "0010:00100000");
        let expected = [call.clone(), protection, double, end];
        assert_eq!(log(engine, CALL, &[], 123), expected);
        assert_eq!(
            log(engine, PAGE_FAULT, &[], 123),
            [
                "control    CR3 00000000 -> 00200000, at 0010:00100005",
                "control    CR0 00000011 -> 80000011, at 0010:00100010",
                "exception  vector 0x0e, error code 0x0, CR2 00100013, at 0010:00100013",
                "exception  vector 0x08, error code 0x0, at 0010:00100013",
                "end        triple fault at 0010:00100013: #PF(0x0, CR2 00100013), #PF(0x0, CR2 00000070), #DF(0x0), \
                 #PF(0x0, CR2 00000040)",
            ]
        );
        assert_eq!(log(engine, TIMER, &[], 123), timer);
    }
}

#[test]
fn only_what_is_asked_for_is_logged() {
    for engine in ENGINES {
        for (guest, only, count) in [
            (TIMER, "interrupt", 1),
            (TIMER, "interrupt:0x21", 0),
            (TIMER, "exception,interrupt:32", 3),
            (TIMER, "port", 8),
            (TIMER, "port:40-43", 3),
            (TIMER, "port:21,exception:8", 5),
            (CALL, "software:128", 1),
            (CALL, "exception:9-13", 1),
            (PAGE_FAULT, "control", 2),
            (PAGE_FAULT, "control:3", 1),
        ] {
            let lines = log(engine, guest, &["--trace-only", only], 123);
            assert_eq!(lines.len(), count, "{only}: {lines:?}");
            for line in &lines {
                let (kind, _) = line.split_once(' ').expect("columns");
                assert!(only.contains(kind), "{only}: {line}");
            }
        }
    }
}

#[test]
fn what_is_intercepted_is_logged_too() {
    let lines = log("translator", CALL, &["--intercept", "0x80,13"], 123);
    assert_eq!(lines, log("translator", CALL, &[], 123));
}

/// A guest that writes to port 0x80 65,536 times and then ends with status 42.
#[rustfmt::skip]
const MANY_WRITES: &[u8] = &[
    0xb9, 0x00, 0x00, 0x01, 0x00, // mov ecx, 65536
    0xe6, 0x80,                   // again: out 0x80, al
    0xe2, 0xfc,                   // loop again
    0xb0, 42,                     // mov al, 42
    0xe6, 0xf4,                   // out 0xf4, al
];

#[test]
fn much_is_logged_to_the_end() {
    let lines = log("translator", MANY_WRITES, &[], 42);
    assert_eq!(lines.len(), 65_536 + 2);
    assert_eq!(
        lines[65_536..],
        [
            "port       out 00f4 byte 2a, at 0010:0010000b",
            "end        debug exit with 42"
        ]
    );
}

#[test]
fn a_full_disk_is_told_once_and_the_machine_goes_on() {
    let replex = Replex::new();
    let kernel = replex.file("guest", &elf(MANY_WRITES));
    let output = replex.run(&["boot", "--kernel", &kernel, "--trace", "/dev/full"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(42), "{text}");
    assert!(text.starts_with("replex: --trace /dev/full: "), "{text}");
    assert!(
        text.ends_with("; the machine goes on without\n") && text.lines().count() == 1,
        "{text}"
    );
}
