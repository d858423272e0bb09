//! The decoder: from the bytes of one instruction to its operands, an [`Insn`].
//!
//! `iced-x86` decodes; [`decoder`] refuses what this processor does not have, and resolves operands. The instruction table
//! (`emulate/table.rs`) adds the handler.

pub mod decoder;
pub mod insn;

pub use insn::{Flags, Insn, Operand};
