//! Sequences of host instructions that trampolines and fragments have in common.

use super::asm::*;
use super::context::field;

/// The host registers that hold the guest's, by the guest's numbers.
pub const GUEST: [Reg; 8] = [RAX, R11, RDX, RBX, R12, RBP, RSI, RDI];

/// The number that added to AL = 0 or 1 leaves OF = 0 or 1.
const OVERFLOW_MAKER: u8 = 0x7f;

/// The memory operand of a field of the context.
pub fn context(name: i32) -> Mem {
    at(R15, name)
}

/// Emits LAHF and SETO AL: the status flags, in AX.
pub fn save_flags_to_ax(asm: &mut Asm) {
    asm.raw(&[0x9f, 0x0f, 0x90, 0xc0]); // lahf; seto al
}

/// Emits the restoration of the status flags from AX, as [`save_flags_to_ax`] leaves them.
pub fn load_flags_from_ax(asm: &mut Asm) {
    asm.raw(&[0x04, OVERFLOW_MAKER, 0x9e]); // add al, imm8; sahf
}

/// Emits a poll: counts the polls down and jumps to `expired` after the last. Keeps flags; RCX is scratch.
pub fn poll(asm: &mut Asm, expired: Label) {
    asm.load32(RCX, context(field::POLLS));
    asm.lea32(RCX, at(RCX, -1));
    asm.store32(context(field::POLLS), RCX);
    asm.jrcxz(expired);
}
