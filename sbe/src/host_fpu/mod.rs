//! The host's FPU, on which x87, MMX and SSE instructions of the guest execute, up to SSE4.2.
//!
//! ```text
//!   decode:   instruction ──> stub::Stub ──> memory::StubMemory (published, deduplicated) ──> TemplateRef
//!   execute:  StubFrame with the guest's state and memory operand ──> HostFpu::run, simd_errors::run ──> StubFrame
//! ```
//!
//! Nothing here knows guest memory or raises an exception: `emulate/fpu` fills the frame, stores what comes out of it, and
//! raises what [`simd_errors`] reports.

mod frame;
mod memory;
pub mod precision;
pub mod simd_errors;
mod stub;
mod unit;

pub use frame::{OPERAND_BYTES, StubFrame};
pub use stub::{Alignment, Class, FlagsUse, GeneralUse, MemoryUse, allows_misalignment};
pub use unit::{HostFpu, Template, TemplateRef, last_opcode};
