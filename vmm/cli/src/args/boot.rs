//! The arguments of `replex boot`.

use std::path::PathBuf;

use clap::Args;
use guest_kernels::Addition;
use vmm::Entry;

use super::{DebugArgs, DeviceArgs, KernelArgs, MachineArgs};
use crate::rom::RomFile;

/// Exit statuses, as `--help` shows them.
const EXIT_STATUSES: &str = "\
In the terminal, ctrl-a x quits, ctrl-a h lists what else ctrl-a does. Input that ends does not end the guest.

Exit status:
  0       the guest powered off or halted in good order
  2       bad usage or input
  117     standard output or another stream has failed, such as by a full disk
  118     denied by --sandbox: a thread has tried what it may not do
  120     the guest hangs: it halted with interrupts disabled, but not in good order
  121     the guest rebooted
  122     the guest's kernel panicked
  123     triple fault
  124     unsupported guest behaviour, or an internal error
  125     quit by ctrl-a x
  128+n   ended by signal n
With --exec, the command's own exit status. A guest that writes a byte to I/O port 0xf4 ends with that byte.

Environment:
  REPLEX_CACHE   folder for guests and unpacked kernels (default: in the user's cache)
  RUST_LOG       what to log to standard error, e.g. debug";

/// Boot a kernel.
#[derive(Args, Debug)]
#[command(after_help = EXIT_STATUSES)]
pub struct BootArgs {
    /// Run this shell command in the guest, its output on standard output, the console on standard error.
    #[arg(long, value_name = "CMD", allow_hyphen_values = true)]
    pub exec: Option<String>,
    /// Run the command, or the shell, in this directory of the host as its root. Changes are in memory, and gone at the end.
    #[arg(long, value_name = "DIR", conflicts_with = "kernel")]
    pub root: Option<PathBuf>,
    /// With --root: make changes in the directory itself.
    #[arg(long, requires = "root")]
    pub rw: bool,
    /// With --root and --rw: nobody else changes the directory, and it need not outlast a crash of the host.
    #[arg(long, requires = "rw", hide = true)]
    pub volatile: bool,
    /// Add FILE to the guest's initramfs as PATH, an absolute path, or in the folder PATH if that ends in /. Of a folder, all that
    /// is in it goes to PATH. PATH begins behind the last colon that a slash follows. May be given several times.
    #[arg(long, value_name = "FILE:PATH")]
    pub add: Vec<Addition>,
    /// The kernel and what it is told.
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// Initial RAM disk; of a Multiboot kernel, its module. Default: the guest's, or none with --kernel.
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// Put FILE at guest-physical ADDR: read-only, or in RAM where there is RAM. ADDR is hexadecimal with 0x, or decimal, also with
    /// suffix K, M or G. May be given several times. Without --kernel the processor starts at the reset vector, f000:fff0 at
    /// 0xfffffff0 in real mode.
    #[arg(long, value_name = "FILE@ADDR", conflicts_with = "guest")]
    pub rom: Vec<RomFile>,
    /// With --rom, start elsewhere: at guest-physical ADDR in flat 32-bit protected mode, or at real:SEGMENT:OFFSET (hexadecimal)
    /// in real mode.
    #[arg(long, value_name = "ADDR", requires = "rom", conflicts_with = "kernel")]
    pub entry: Option<Entry>,
    /// The machine without its devices.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Devices.
    #[command(flatten)]
    pub devices: DeviceArgs,
    /// What shows how the guest runs.
    #[command(flatten)]
    pub debug: DebugArgs,
}
