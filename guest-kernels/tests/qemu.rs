//! Each test kernel on QEMU's translator, a processor model that shares nothing with ours. The expectations in the
//! kernels hold there too, except in the listed cases, in which QEMU deviates from the manual.

use std::{
    fs,
    io::{self, Write as _},
    process::{Command, Stdio},
};

use guest_kernels::test_kernel::{self, TestKernel, Verdict};

mod qemu_deviations;

/// The emulator of a processor that executes the kernel.
fn emulator(kernel: &TestKernel) -> &'static str {
    match kernel.bits {
        64 => "qemu-system-x86_64",
        _ => "qemu-system-i386",
    }
}

#[test]
fn qemu_agrees_with_every_kernel() {
    let kernels = test_kernel::all().iter();
    let surprises: Vec<_> = kernels
        .filter(|kernel| installed(kernel))
        .flat_map(|kernel| surprises(kernel, "-kernel", kernel.elf))
        .collect();
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}

/// The ROM is where the processor starts, here as there.
#[test]
fn qemu_agrees_with_a_rom() {
    let mut kernels = test_kernel::all().iter();
    let kernel = kernels.find(|kernel| kernel.name == "selfmod").unwrap();
    if !installed(kernel) {
        return;
    }
    let surprises = surprises(kernel, "-bios", kernel.rom);
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}

#[test]
fn every_listed_deviation_names_a_case() {
    for kernel in qemu_deviations::kernels() {
        assert!(
            test_kernel::all().iter().any(|k| k.name == kernel),
            "no kernel {kernel}"
        );
    }
    for (kernel, case) in qemu_deviations::cases() {
        let path = format!("{}/kernels/{kernel}.S", env!("CARGO_MANIFEST_DIR"));
        let source = fs::read_to_string(&path).unwrap();
        assert!(source.contains(case), "{kernel} has no case {case}");
    }
}

/// Returns the failures of `kernel`, whose `image` is given by `option`, on QEMU that are not known deviations, a line for each.
fn surprises(kernel: &TestKernel, option: &str, image: &[u8]) -> Vec<String> {
    let output = run(emulator(kernel), option, image);
    let verdict = Verdict::parse(&output).unwrap_or_else(|e| panic!("{}: {e}", kernel.name));
    let (known, unknown): (Vec<_>, Vec<_>) = verdict
        .failures
        .iter()
        .partition(|f| qemu_deviations::citation(kernel.name, &f.case).is_some());
    println!(
        "{}: {} cases, {} known QEMU deviations",
        kernel.name,
        verdict.cases,
        known.len()
    );
    for failure in known {
        let citation = qemu_deviations::citation(kernel.name, &failure.case).unwrap_or_default();
        println!(
            "  known QEMU deviation: {} {} ({citation})",
            failure.case, failure.detail
        );
    }
    unknown
        .iter()
        .map(|f| format!("{}: {} {}", kernel.name, f.case, f.detail))
        .collect()
}

/// Whether the emulator for a kernel is installed.
fn installed(kernel: &TestKernel) -> bool {
    let emulator = emulator(kernel);
    match Command::new(emulator)
        .arg("--version")
        .stdout(Stdio::null())
        .status()
    {
        Ok(status) => status.success(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // Past the test runner's capture: a skipped test must not look like one that ran.
            let _ = writeln!(
                io::stderr(),
                "skipped: {}, as {emulator} is not installed",
                kernel.name
            );
            false
        }
        Err(e) => panic!("{emulator}: {e}"),
    }
}

/// Runs an image, which is given by `option`, on QEMU's `emulator` and returns its output on the debug port.
fn run(emulator: &str, option: &str, image: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), image).unwrap();
    let output = Command::new(emulator)
        .args([
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-m",
            "64",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "null",
        ])
        .args([
            "-chardev",
            "stdio,id=debug,signal=off",
            "-device",
            "isa-debugcon,iobase=0xe9,chardev=debug",
        ])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", option])
        .arg(file.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
