//! [`StubFrame`]: the inputs and outputs of an instruction that the host executes.

use crate::cpu::fpu::FxState;

/// Largest memory operand of a stub in bytes.
pub const OPERAND_BYTES: usize = 16;

/// The state and the operands that a stub works on.
#[derive(Clone)]
#[repr(C)]
pub struct StubFrame {
    /// x87, MMX and SSE state.
    pub image: FxState,
    /// The memory operand, at RDI.
    pub operand: [u8; OPERAND_BYTES],
    /// RAX.
    pub general: u64,
    /// RCX, which string comparisons write.
    pub index: u64,
    /// RDX, which string comparisons read.
    pub length: u64,
    /// Status flags. Afterwards they are meaningful only if the instruction writes them.
    pub flags: u32,
}
