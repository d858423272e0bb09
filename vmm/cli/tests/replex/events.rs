//! Interrupts and exceptions of tiny guests, shown and logged.

pub use guest_kernels::tiny::{CALL, TIMER};

use crate::support::{Replex, elf};

/// A guest that turns paging on with an empty page directory at 2 MiB. Nothing can be fetched behind that.
#[rustfmt::skip]
pub const PAGE_FAULT: &[u8] = &[
    0xb8, 0x00, 0x00, 0x20, 0x00, // mov eax, 0x200000
    0x0f, 0x22, 0xd8,             // mov cr3, eax
    0x0f, 0x20, 0xc0,             // mov eax, cr0
    0x0d, 0x00, 0x00, 0x00, 0x80, // or eax, 0x80000000
    0x0f, 0x22, 0xc0,             // mov cr0, eax
];

/// The message about the end of [`CALL`].
const AFTER_CALL: &str = "replex: triple fault at 0010:00100000: INT 0x80, #GP(0x402), #GP(0x6b), #DF(0x0), #GP(0x43) \
                          (--trace-irq logs what interrupts and exceptions came before, --gdb stops here)";

/// The lines on standard error of a guest that ends in a triple fault.
fn shown(engine: &str, code: &[u8], args: &[&str]) -> Vec<String> {
    let replex = Replex::new();
    let kernel = replex.file("guest", &elf(code));
    let fixed = ["boot", "--kernel", &kernel, "--engine", engine];
    let output = replex.run(&[&fixed[..], args].concat());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(123), "{text}");
    assert!(output.stdout.is_empty());
    text.lines().map(String::from).collect()
}

#[test]
fn intercepted_events_are_shown_and_reflected() {
    for engine in ["translator", "emulator"] {
        assert_eq!(
            shown(engine, CALL, &["--intercept", "0x80,13,0x8"]),
            [
                "replex: intercepted vector 0x80, software, at 0010:00100000",
                "replex: intercepted vector 0x0d, exception, error code 0x402, at 0010:00100000",
                "replex: intercepted vector 0x08, exception, error code 0x0, at 0010:00100000",
                AFTER_CALL,
            ]
        );
        assert_eq!(
            shown(engine, PAGE_FAULT, &["--intercept", "14"]),
            [
                "replex: intercepted vector 0x0e, exception, error code 0x0, CR2 00100013, at 0010:00100013",
                "replex: triple fault at 0010:00100013: #PF(0x0, CR2 00100013), #PF(0x0, CR2 00000070), #DF(0x0), \
                 #PF(0x0, CR2 00000040) (--trace-irq logs what interrupts and exceptions came before, --gdb stops here)",
            ]
        );
        assert_eq!(shown(engine, CALL, &["--intercept", "14"]), [AFTER_CALL]);
    }
}

#[test]
fn traced_events_are_logged() {
    for engine in ["translator", "emulator"] {
        for (args, vectors) in [
            (&["--trace-irq"][..], &["0x80", "0x0d", "0x08"][..]),
            (&["--trace-irq", "8,0x80"], &["0x80", "0x08"]),
            (
                &["--trace-irq", "--intercept", "13"],
                &["0x80", "0x0d", "0x08"],
            ),
        ] {
            let lines = shown(engine, CALL, args);
            assert_eq!(lines.len(), vectors.len() + 1, "{lines:?}");
            for (line, vector) in lines.iter().zip(vectors) {
                assert!(line.contains(&format!("vector {vector}, ")), "{lines:?}");
                let intercepted = args.contains(&"13") && *vector == "0x0d";
                assert_eq!(line.contains("INFO  irq]"), !intercepted, "{lines:?}");
            }
        }
    }
}
