//! The processor, IA-32 or x86-64: architectural state, the exact one-instruction emulator, and the translator to host code.
//!
//! ```text
//!   Vcpu::run ── events ──> deliver (emulate/interrupt.rs)
//!      │
//!      ├─ translate ──> emitted code runs until an instruction is the emulator's
//!      │
//!      ├─ fetch ──> emulate::Cache ──miss──> decode (iced-x86) ──> Decoded { handler, operands }
//!      │
//!      └─ handler(Exec, Insn) ──> registers, mmu::Mmu, Bus; x87, MMX and SSE by host_fpu
//! ```
//!
//! The emulator is the reference: what it does to registers, flags and memory, and the faults it raises, are those of a
//! processor of the announced model. The translator runs the same code many times faster and leaves to the emulator what is
//! rare. All state of a virtual processor is reachable from its [`Vcpu`], made from a [`VcpuConfig`], and its architectural state
//! is saved and restored as plain data ([`VcpuState`]). The crate has no mutable statics, so any number of processors can live in
//! one program.

mod bus;
mod code_address;
pub mod cpu;
mod debugger;
mod decode;
mod emulate;
mod fault;
mod guest_event;
mod host_fpu;
mod observation;
pub mod policy;
mod serialize;
mod translate;
mod triple_fault;
mod vcpu;
mod width;

pub use bus::{Bus, EmptyBus};
pub use code_address::CodeAddress;
pub use cpu::model::CpuModel;
pub use debugger::{Debugger, WatchHit, Watched, Watchpoint};
pub use emulate::HeldState;
pub use fault::Vector;
pub use guest_event::{Decision, GuestEvent};
pub use observation::{ControlWrite, Direction, Observation, PortAccess};
pub use policy::{Action, EventSource, Policy};
pub use translate::{
    CODE_CACHES, CodePageReport, Exits as CodeExits, NoDump, Stats as TranslationStats, TimeSpent,
    UnknownWindows, Windows,
};
pub use triple_fault::TripleFault;
pub use vcpu::{Engine, Exit, NoWindows, Vcpu, VcpuConfig, VcpuError, VcpuState};
pub use width::Width;
