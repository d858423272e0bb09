//! The IA-32 processor: architectural state, decoding, the exact one-instruction emulator and the translator.
//!
//! ```text
//!   Vcpu::run ── events ──> deliver (emulate/interrupt)
//!      │
//!      ├─ translate ──> host code made from the guest's, page by page ──> registers, mmu::Mmu
//!      │
//!      ├─ fetch ──> decode::Cache ──miss──> decode (iced-x86) ──> Insn { handler, operands }
//!      │
//!      └─ handler(Exec, Insn) ──> registers, mmu::Mmu, Bus
//! ```
//!
//! The emulator is the reference: what it does to registers, flags and memory, and the faults it raises, are those of an IA-32
//! processor of the announced model. The translator runs the same guest faster, and leaves to the emulator what is rare. All
//! state of a virtual processor is reachable from its [`Vcpu`], made from a [`VcpuConfig`]; the crate has no mutable statics, so
//! any number of processors can live in one program.

mod bus;
pub mod cpu;
mod debugger;
mod decode;
mod emulate;
mod fault;
mod guest_event;
mod observation;
pub mod policy;
mod translate;
mod vcpu;

pub use bus::{Bus, EmptyBus, Width};
pub use cpu::model::CpuModel;
pub use debugger::{Debugger, WatchHit, Watched, Watchpoint};
pub use fault::Vector;
pub use guest_event::{Decision, GuestEvent};
pub use observation::{ControlWrite, Direction, Observation, PortAccess};
pub use policy::{Action, EventSource, Policy};
pub use translate::{
    CODE_CACHES, CodePageReport, Exits as CodeExits, NoDump, Stats as TranslationStats,
    UnknownWindows, Windows,
};
pub use vcpu::{Engine, Exit, Vcpu, VcpuConfig, VcpuError};
