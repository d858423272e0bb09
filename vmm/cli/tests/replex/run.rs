//! The program running tiny guests: how each way to stop ends the process, and where input and output go.

use std::{
    fs::File,
    io::{Read, Write},
    process::Stdio,
};

use guest_kernels::tiny::{INITIALIZE_PICS, MASK_PICS};

use crate::support::{ECHO, Replex, elf};

/// The exit status of a guest made of these instructions.
fn status(code: &[u8]) -> Option<i32> {
    Replex::new().run_guest(code).status.code()
}

/// mov al, 0; out 0xf4, al
const EXIT: &[u8] = &[0xb0, 0, 0xe6, 0xf4];
/// cli; hlt
const HALT: &[u8] = &[0xfa, 0xf4];

#[test]
fn halting_with_interrupts_off_in_good_order_is_power_off() {
    let output = Replex::new().run_guest(&[INITIALIZE_PICS, MASK_PICS, HALT].concat());
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{:?}", output.stderr);
}

#[test]
fn a_hang_is_told() {
    let output = Replex::new().run_guest(HALT);
    assert_eq!(output.status.code(), Some(120));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "replex: HLT with interrupts disabled at 0010:00100001 (nothing can wake the guest; --gdb stops here, \
         --trace FILE logs what came before)\n"
    );
}

#[test]
fn debug_exit_is_the_status() {
    for value in [0, 3, 255] {
        // mov al, value; out 0xf4, al
        assert_eq!(status(&[0xb0, value, 0xe6, 0xf4]), Some(i32::from(value)));
    }
}

#[test]
fn resets_are_reboots_unless_linux_panicked() {
    // mov al, 0xfe; out 0x64, al
    let reset = [0xb0, 0xfe, 0xe6, 0x64];
    assert_eq!(status(&reset), Some(121));
    // mov word [0x472], 0x1234
    let warm = [0x66, 0xc7, 0x05, 0x72, 0x04, 0x00, 0x00, 0x34, 0x12];
    assert_eq!(status(&[&warm[..], &reset].concat()), Some(121));
    // mov al, 0xfe; out 0x21, al
    let timer = [0xb0, 0xfe, 0xe6, 0x21];
    let panic = [INITIALIZE_PICS, MASK_PICS, &timer, &warm, &reset].concat();
    assert_eq!(status(&panic), Some(122));
}

#[test]
fn a_triple_fault_is_told() {
    // ud2, with no interrupt table
    let output = Replex::new().run_guest(&[0x0f, 0x0b]);
    assert_eq!(output.status.code(), Some(123));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "replex: triple fault at 0010:00100000: #UD, #GP(0x33), #GP(0x6b), #DF(0x0), #GP(0x43) (--trace-irq logs what \
         interrupts and exceptions came before, --gdb stops here)\n"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn the_debug_console_goes_to_standard_output() {
    // mov al, 'h'; out 0xe9, al; mov al, 'i'; out 0xe9, al
    let hi = [0xb0, b'h', 0xe6, 0xe9, 0xb0, b'i', 0xe6, 0xe9];
    let output = Replex::new().run_guest(&[&hi, EXIT].concat());
    assert_eq!(output.stdout, b"hi");
    assert!(output.stderr.is_empty(), "{:?}", output.stderr);
}

#[test]
fn piped_input_reaches_the_guest_whole_and_in_order() {
    let replex = Replex::new();
    let kernel = replex.file("echo", &elf(ECHO));
    let mut child = replex
        .command(&["boot", "--kernel", &kernel])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
    text.retain(|&byte| byte != 4);
    let mut stdin = child.stdin.take().unwrap();
    let sent = text.clone();
    let sender = std::thread::spawn(move || {
        stdin.write_all(&sent).unwrap();
        stdin.write_all(&[4]).unwrap();
    });
    let mut received = Vec::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut received)
        .unwrap();
    sender.join().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(42));
    assert_eq!(received[0], b'>');
    assert!(
        received[1..] == text,
        "{} bytes of {}",
        received.len() - 1,
        text.len()
    );
}

#[test]
fn nobody_reading_the_output_ends_the_program_like_a_signal() {
    let replex = Replex::new();
    // again: mov al, 'y'; out 0xe9, al; jmp again
    let kernel = replex.file("yes", &elf(&[0xb0, b'y', 0xe6, 0xe9, 0xeb, 0xfa]));
    let mut child = replex
        .command(&["boot", "--kernel", &kernel])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut some = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty(), "{:?}", output.stderr);
}

#[test]
fn output_that_cannot_be_written_is_told() {
    let replex = Replex::new();
    // mov al, 'y'; out 0xe9, al
    let kernel = replex.file("y", &elf(&[&[0xb0, b'y', 0xe6, 0xe9], EXIT].concat()));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = replex
        .command(&["boot", "--kernel", &kernel])
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_eq!(output.status.code(), Some(117));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "replex: console: No space left on device (os error 28)\n"
    );
}

/// The report of a guest that reads port 0x99, where nobody is, writes port 0x80 and ends.
fn report(engine: &str) -> String {
    let replex = Replex::new();
    // in al, 0x99; out 0x80, al
    let code = [&[0xe4, 0x99, 0xe6, 0x80], EXIT].concat();
    let kernel = replex.file("guest", &elf(&code));
    let output = replex.run(&["boot", "--kernel", &kernel, "--engine", engine, "--stats"]);
    assert_eq!(output.status.code(), Some(0));
    let report = String::from_utf8(output.stderr).unwrap();
    for line in [
        "port 0080     0 reads, 1 writes",
        "port 0099     1 reads, 0 writes, nobody there",
    ] {
        assert!(report.lines().any(|l| l == line), "{report}");
    }
    report
}

#[test]
fn the_emulators_statistics_are_reported_on_standard_error() {
    let report = report("emulator");
    assert!(
        report.lines().any(|line| line == "instructions  4"),
        "{report}"
    );
    assert!(!report.contains("translated"), "{report}");
}

#[test]
fn the_translators_statistics_are_reported_on_standard_error() {
    let report = report("translator");
    assert!(
        report
            .lines()
            .any(|line| line.starts_with("scanned       1 pages")),
        "{report}"
    );
}

#[test]
fn translated_code_is_shown_on_standard_error() {
    let replex = Replex::new();
    // inc eax
    let kernel = replex.file("guest", &elf(&[&[0x40], EXIT].concat()));
    let shown = |engine| {
        let pages = "0x100002,100abc,200000";
        let args = ["boot", "--kernel", &kernel, "--engine", engine];
        let output = replex.run(&[&args[..], &["--dump-code", pages]].concat());
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    let text = shown("translator");
    assert_eq!(text.matches("page 00100000").count(), 1, "{text}");
    for part in ["inc %eax", "replex: --dump-code: page 00200000: nothing"] {
        assert!(text.contains(part), "{text}");
    }
    let text = shown("emulator");
    assert!(
        text.lines()
            .all(|line| line.ends_with("the emulator runs the guest")),
        "{text}"
    );
    assert_eq!(text.lines().count(), 2, "{text}");
}
