//! The IA-32 processor: architectural state, decoding and the exact one-instruction emulator.
//!
//! ```text
//!   Vcpu::run ── events ──> deliver (emulate/interrupt)
//!      │
//!      ├─ fetch ──> decode::Cache ──miss──> decode (iced-x86) ──> Insn { handler, operands }
//!      │
//!      └─ handler(Exec, Insn) ──> registers, mmu::Mmu, Bus
//! ```
//!
//! The emulator is the reference: what it does to registers, flags, memory and what it faults with is what an IA-32
//! processor of the announced model does. Everything a virtual processor owns is reachable from its [`Vcpu`]; the crate
//! has no mutable statics, so any number of processors can live in one program.

mod bus;
pub mod cpu;
mod debugger;
mod decode;
mod emulate;
mod fault;
mod guest_event;
mod host_fpu;
mod observation;
pub mod policy;
mod translate;
mod vcpu;
mod width;

pub use bus::{Bus, EmptyBus};
pub use cpu::model::CpuModel;
pub use debugger::{WatchHit, Watched, Watchpoint};
pub use emulate::HeldState;
pub use fault::{Exception, Fault, Unsupported, Vector};
pub use guest_event::{Decision, GuestEvent};
pub use observation::{ControlWrite, Direction, Observation, PortAccess};
pub use policy::{Action, Policy, Source};
pub use translate::{
    CODE_CACHES, CodePageReport, Exits, NoDump, Stats as TranslationStats, UnknownWindows, Windows,
};
pub use vcpu::{CODE_CACHE, Engine, Exit, Vcpu, VcpuState};
pub use width::Width;
