//! The replex virtual machine monitor: boot protocol, devices, run loop. The `replex` program is a thin user of it.
//!
//! * [`loader`] puts a kernel into guest memory, as the boot protocol says.
//! * [`board`] is the interrupt controllers and the [`bus`]; [`devices`] are a PC's devices on it.
//! * [`vm`] runs a processor on the board; what is at the other end of its serial cables is a [`console`].
//! * [`control`] pauses, wakes and ends a running machine from other threads; [`inspect`] looks into one that stands still.
//! * [`trace`] tells what the processor does.
//!
//! Any number of machines can live in one process: the only per-process resource is the SIGSEGV handler of [`sbe`], and nothing
//! touches the terminal, the standard streams or other signals.
//!
//! # A machine from parts
//!
//! The guest here is six instructions; a Linux kernel is read by [`Kernel::read`] and told [`loader::linux_cmdline`].
//!
//! ```
//! use std::time::Duration;
//! use vmm::{BootSource, Kernel, Machine, StopReason, Vm, VmConfig, console::pipe};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let kernel = Kernel::flat(vec![
//!     0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8  ; COM1
//!     0xb0, b'!', // mov al, '!'
//!     0xee, // out dx, al
//!     0xfb, // sti
//!     0xf4, // again: hlt
//!     0xeb, 0xfd, // jmp again
//! ]);
//! let config = VmConfig {
//!     memory: 16 << 20,
//!     ..VmConfig::default()
//! };
//! let source = BootSource {
//!     kernel: &kernel,
//!     initrd: &[],
//!     cmdline: "",
//! };
//! let vm = Vm::boot(&config, &source)?;
//! let (line, mut terminal) = pipe()?;
//! let (machine, _events) = Machine::start(vm, line)?;
//!
//! terminal.read_until("!", Duration::from_secs(60))?;
//! machine.pause()?;
//! let al = machine.inspect(|vm| vm.vcpu().cpu.regs.get8(0))?;
//! assert_eq!(al, b'!');
//! machine.resume()?;
//! machine.stop();
//! let (vm, stop) = machine.join()?;
//! assert!(matches!(stop, StopReason::Quit));
//! print!("{}", vm.stats());
//! # Ok(())
//! # }
//! ```
//!
//! A machine without a thread of its own runs where [`Vm::run`] is called, until it stops or a [`Control`] ends it. Other parts:
//!
//! * a [`Device`] of the program, put on free ports, addresses and interrupt lines by [`Vm::attach`];
//! * a [`Console`] of the program instead of [`console::pipe`];
//! * a [`Policy`] that stops the machine at interrupts and exceptions ([`Vm::set_policy`], [`Machine::decide`]);
//! * breakpoints and watchpoints ([`Vm::debugger_mut`]); registers, statistics and the guest's code ([`Vm::vcpu`]);
//! * memory, read and written by guest-linear and guest-physical address ([`Vm::read_memory`], [`Vm::write_physical`]).
//!
//! A machine that stands still is saved as plain data and goes on in this process or another ([`Vm::save`], [`Vm::restore`]).
//!
//! Disks, shared directories, networks and random numbers are virtio devices behind a host bridge of PCI, which
//! [`devices::virtio::VirtioDevices`] puts together.
//!
//! `examples/two_machines.rs` boots two Linux machines at once and lets them talk to each other; `examples/devices.rs` gives one
//! a disk and a directory.

pub mod board;
pub mod bus;
pub mod clock;
pub mod console;
pub mod control;
pub mod devices;
mod ending;
pub mod gdb;
pub mod inspect;
pub mod kmod;
pub mod linear;
pub mod loader;
pub mod machine;
mod pace;
pub mod parse;
mod polling;
pub mod ports;
pub mod state;
pub mod stats;
pub mod stop;
pub mod threads;
pub mod trace;
pub mod tsc;
pub mod vm;

// The machine's interface names their types: no program needs to depend on these crates itself.
pub use {fuse, irq, mmu, net, sbe};

pub use board::Board;
pub use bus::{
    AttachError, Device, DeviceContext, DeviceStateError, IoAccess, IoRegion, PortWidth, Resources,
    Stop,
};
pub use console::Console;
pub use control::Control;
pub use inspect::AccessError;
pub use irq::{Irq, Level};
pub use kmod::{KmodConfig, KmodRefusal, KmodUse};
pub use loader::{BootSource, Entry, Kernel, Rom};
pub use machine::{Machine, MachineError, MachineEvent};
pub use mmu::{GuestPhys, LinearAddr, NoTranslation, NotRam};
pub use sbe::{
    Action, CodeAddress, CpuModel, Debugger, Decision, Engine, EventSource, GuestEvent, Policy,
    TripleFault, VcpuConfig, VcpuError, WatchHit, Watched, Watchpoint, Windows, cpu,
};
pub use state::{RestoreError, VmState};
pub use stats::Stats;
pub use stop::StopReason;
pub use threads::{ThreadKind, Threads};
pub use vm::{Start, Vm, VmConfig, VmError};
