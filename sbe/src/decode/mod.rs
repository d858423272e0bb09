//! From instruction bytes to [`Insn`]: what a handler needs to execute one instruction.
//!
//! `iced-x86` decodes; [`decoder`] resolves operands and picks the handler from the instruction table; [`cache`] keeps the
//! result by guest-physical address, so that the same code is decoded once for all address spaces.

pub mod cache;
pub mod decoder;
pub mod insn;

pub use cache::{Cache, Key};
pub use insn::{Flags, Insn, Operand};
