//! The archive with all that runs in the virtual machine.

use std::fs;
use std::path::Path;

use guest_kernels::{Archive, DeviceNumber, HostFiles};

use crate::build::Built;

const INIT: &str = include_str!("init.sh");

const FOLDERS: [&str; 8] = [
    "bin",
    "dev",
    "etc",
    "lib",
    "lib/modules",
    "proc",
    "sys",
    "tmp",
];

/// The programs of busybox that init.sh runs.
const APPLETS: [&str; 12] = [
    "cat", "dmesg", "echo", "insmod", "mkswap", "mount", "poweroff", "rmmod", "sed", "sh",
    "swapon", "[",
];

const EXECUTABLE: u32 = 0o755;
const DATA: u32 = 0o644;

/// Makes the archive, with `program` as /bin/test.
pub fn archive(kernel: &HostFiles, built: &Built, program: &str) -> Vec<u8> {
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.folder(folder, EXECUTABLE);
    }
    archive.device("dev/console", 0o600, DeviceNumber { major: 5, minor: 1 });
    add(&mut archive, "bin/busybox", EXECUTABLE, &kernel.busybox);
    for applet in APPLETS {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    for module in &kernel.modules {
        let name = module.file_name().unwrap().to_string_lossy();
        add(&mut archive, &format!("lib/modules/{name}"), DATA, module);
    }
    add(&mut archive, "lib/replex.ko", DATA, &built.module());
    add(
        &mut archive,
        "bin/test",
        EXECUTABLE,
        &built.program(program),
    );
    archive.file("init", EXECUTABLE, INIT.as_bytes());
    archive.finish()
}

fn add(archive: &mut Archive, name: &str, mode: u32, file: &Path) {
    archive.file(name, mode, &fs::read(file).unwrap());
}
