//! The scripts on QEMU's translator, which knows nothing of our model.

use std::{
    fs, io,
    process::{Command, Stdio},
};

use tests::{
    report::report,
    torture::{Dialect, Script, Width},
};

use crate::{hashes, kernel, script, seed, steps};

#[test]
fn qemu_agrees_with_the_model() {
    run(seed(1), Width::Narrow, "qemu-system-i386");
}

#[test]
fn qemu_agrees_with_the_model_of_64_bit_code() {
    run(seed(3), Width::Wide, "qemu-system-x86_64");
}

fn run(seed: u64, width: Width, emulator: &str) {
    let folder = tempfile::tempdir().unwrap();
    let [image, module] = ["kernel", "script"].map(|name| folder.path().join(name));
    let script = script(seed, width, Dialect::Qemu);
    fs::write(&image, kernel(width).elf).unwrap();
    fs::write(&module, &script.bytes).unwrap();
    let output = Command::new(emulator)
        .args(["-accel", "tcg", "-cpu", "max", "-nodefaults", "-no-reboot"])
        .args(["-display", "none", "-serial", "null"])
        .args(["-chardev", "stdio,id=debug,signal=off"])
        .args(["-device", "isa-debugcon,iobase=0xe9,chardev=debug"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .args(["-m", &(Script::memory(steps()) >> 20).to_string()])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(module)
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return report(&format!("skipped: {emulator} is not installed"));
        }
        output => output.unwrap(),
    };
    let printed = String::from_utf8_lossy(&output.stdout);
    let hashes = hashes(emulator, &printed, &script);
    report(&format!("{emulator}: {} checkpoints right", hashes.len()));
    assert!(!hashes.is_empty());
}
