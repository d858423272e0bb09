//! The virtual machine: QEMU with its translator, two processors or one that counts.

use std::io::Write as _;
use std::process::{Command, Stdio};

use guest_kernels::HostFiles;
use tempfile::NamedTempFile;

use crate::tools::QEMU;

/// What the time of the machine is.
#[derive(Clone, Copy)]
pub enum Clock {
    /// The host's. There are two processors.
    Host,
    /// The number of instructions: the time stamp counter counts them. There is one processor.
    Instructions,
}

/// QEMU 7.2 forgets flags in CMPXCHG16B now and then where it runs several processors, and the kernel does without.
const PROCESSOR: &str = "max,cx16=off";

/// A host that is busy may stop a processor for long, which is no finding.
const COMMAND_LINE: &str =
    "console=ttyS0 quiet panic=-1 rcupdate.rcu_cpu_stall_suppress=1 nowatchdog";

/// Boots the kernel with an initramfs and returns what it prints, until it powers off.
pub fn run(kernel: &HostFiles, initramfs: &[u8], clock: Clock) -> String {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(initramfs).unwrap();
    let mut qemu = Command::new(QEMU);
    qemu.args(["-accel", "tcg", "-cpu", PROCESSOR, "-m", "192"])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-serial", "stdio", "-append", COMMAND_LINE, "-kernel"])
        .arg(&kernel.kernel)
        .arg("-initrd")
        .arg(file.path());
    match clock {
        Clock::Host => qemu.args(["-smp", "2"]),
        Clock::Instructions => qemu.args(["-icount", "shift=0"]),
    };
    let output = qemu
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).replace('\r', "")
}
