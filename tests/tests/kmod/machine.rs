//! [`Machine`]: the virtual machine, QEMU with its translator.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use ::tests::hang::Guarded;
use guest_kernels::HostFiles;
use tempfile::NamedTempFile;

use crate::tools::{self, QEMU};

/// A kind of virtual machine.
#[derive(Clone, Copy)]
pub struct Machine {
    /// The meaning of time in it.
    pub clock: Clock,
    /// What is to run in it.
    pub purpose: Purpose,
}

/// What the time of the machine is.
#[derive(Clone, Copy)]
pub enum Clock {
    /// The host's. There are two processors.
    Host,
    /// The number of instructions: the time stamp counter counts them. There is one processor.
    Instructions,
}

/// What runs in the machine.
#[derive(Clone, Copy)]
pub enum Purpose {
    /// Programs that have little memory, so that it is short.
    Module,
    /// The program `replex`, or tests of it.
    Replex,
}

impl Purpose {
    /// Memory of the machine in MiB. A kernel that checks itself needs more.
    fn memory(self) -> u32 {
        match self {
            Self::Module if tools::own_tree().is_some() => 768,
            Self::Module => 192,
            Self::Replex => 1024,
        }
    }

    /// The processor. QEMU 7.2 forgets flags in CMPXCHG16B now and then where it runs several processors, and the kernel does
    /// without. In IRET to the same privilege it reads a user's stack as a supervisor, which SMAP forbids, and replex executes
    /// that.
    const fn processor(self) -> &'static str {
        match self {
            Self::Module => "max,cx16=off",
            Self::Replex => "max,cx16=off,smap=off",
        }
    }
}

/// A host that is busy may stop a processor for long, which is no finding: nothing measures whether timers are late.
const COMMAND_LINE: &str =
    "console=ttyS0 quiet panic=-1 no_timer_check nowatchdog rcupdate.rcu_cpu_stall_suppress=1";

impl Machine {
    /// Boots the kernel with an initramfs and returns what it prints, until it resets.
    pub fn run(self, kernel: &HostFiles, initramfs: &[u8]) -> String {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(initramfs).unwrap();
        let mut qemu = Command::new(QEMU);
        qemu.args(["-accel", "tcg", "-cpu", self.purpose.processor()])
            .args(["-m", &self.purpose.memory().to_string()])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .args(["-serial", "stdio", "-append", COMMAND_LINE, "-kernel"])
            .arg(&kernel.kernel)
            .arg("-initrd")
            .arg(file.path());
        match self.clock {
            Clock::Host => qemu.args(["-smp", "2"]),
            Clock::Instructions => qemu.args(["-icount", "shift=0"]),
        };
        let qemu = qemu.stdin(Stdio::null()).stdout(Stdio::piped());
        output(qemu.spawn().unwrap()).replace('\r', "")
    }
}

/// What a program prints until it ends.
///
/// # Panics
/// If it does not end by itself within [`PATIENCE`](::tests::hang::PATIENCE); it is then killed.
fn output(child: Child) -> String {
    let mut guarded = Guarded::new(child);
    let mut bytes = Vec::new();
    let mut stdout = guarded.child.stdout.take().unwrap();
    stdout.read_to_end(&mut bytes).unwrap();
    let status = guarded.wait();
    let output = String::from_utf8_lossy(&bytes).into_owned();
    assert!(status.success(), "{status}:\n{output}");
    output
}
