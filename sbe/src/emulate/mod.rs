//! The reference emulator: one exact handler for each instruction form.
//!
//! A handler is called with RIP already past its instruction. It returns a [`Fault`] with nothing changed that the guest
//! can see, and the caller sets it back; so handlers do what may fault first and move registers last.

mod alu;
mod bcd;
#[cfg(test)]
mod bench;
mod bits;
mod branch;
mod cache;
mod data;
mod decoded;
mod descriptors;
mod double_fault;
mod event;
mod exec;
mod far;
mod flags;
pub mod fpu;
mod gate;
mod host_alu;
mod intercept;
mod interceptor;
mod interrupt;
mod io;
mod iret;
mod long_gate;
mod memory;
mod muldiv;
mod observe;
mod operand;
#[cfg(test)]
mod real64;
mod segcheck;
mod segload;
mod shift;
mod stack;
mod string;
mod syscall;
pub mod sysenter;
mod sysseg;
mod system;
mod table;
mod task;
#[cfg(test)]
mod tests64;
mod transfer_stack;
mod tss;
mod word;

pub use cache::{Cache, Key};
pub use decoded::{Decoded, decode, is_undefined_opcode};
pub use event::Event;
pub use exec::Exec;
pub use interceptor::{HeldState, Interceptor};
