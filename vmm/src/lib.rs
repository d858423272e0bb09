//! The replex virtual machine monitor: boot protocol, devices, run loop, command line.
//!
//! * [`loader`] puts a kernel into guest memory, as the boot protocol says.
//! * [`board`] wires the [`devices`] to I/O ports and interrupt lines.
//! * [`vm`] runs a processor on the board; what is at the other end of its serial cables is a [`console`].
//! * [`control`] pauses, wakes and ends a running machine from other threads; [`inspect`] looks into one that stands still.
//! * [`trace`] tells what the processor does.
//! * [`cli`] is the `replex` program: everything else is a library that it is a thin user of.
//!
//! Any number of machines can live in one process: nothing here is global but the terminal and the signals, and only
//! [`cli`] touches those.

pub mod board;
pub mod cli;
pub mod clock;
pub mod console;
pub mod control;
pub mod devices;
pub mod gdb;
pub mod inspect;
pub mod loader;
pub mod machine;
mod pace;
mod parse;
pub mod ports;
pub mod slots;
pub mod stats;
pub mod stop;
pub mod trace;
pub mod tsc;
pub mod vm;

pub use board::Board;
pub use console::Console;
pub use control::Control;
pub use inspect::AccessError;
pub use irq::{Irq, Level};
pub use loader::{Kernel, Source};
pub use machine::{Machine, MachineError, MachineEvent};
pub use mmu::{GuestPhys, LinearAddr};
pub use sbe::{
    Action, CpuModel, Decision, GuestEvent, NoDump, Policy, Source as EventSource, Windows, cpu,
};
pub use slots::{AttachError, Device};
pub use stats::Stats;
pub use stop::StopReason;
pub use vm::{Engine, Vm, VmConfig, VmError};
