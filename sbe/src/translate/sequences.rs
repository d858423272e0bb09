//! Sequences of host instructions that trampolines and fragments have in common.

use super::asm::*;
use super::context::field;
use crate::cpu::eflags::{DEFINED, DF, IF, OF, STATUS};

/// The host registers that hold the guest's, by the guest's numbers.
pub const GUEST: [Reg; 8] = [RAX, R11, RDX, RBX, R12, RBP, RSI, RDI];

/// The host registers that hold guest R13 and R14 where linear addresses have 48 bits, with the guest's numbers.
pub const UPPER_GUEST: [(usize, Reg); 2] = [(13, R13), (14, R14)];

/// The rotation to the right that scales an address by the bytes of an entry table's words, and keeps all its bits.
pub const WORD_ROTATION: u8 = u64::BITS as u8 - 2;

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

/// The part of EFLAGS that does not change while emitted code runs.
pub const FIXED_FLAGS: u32 = DEFINED & !(STATUS | IF | DF);

/// Emits RCX = EFLAGS, with R10 and RAX as scratch.
pub fn gather_flags(asm: &mut Asm) {
    save_flags_to_ax(asm);
    asm.raw(&[0x0f, 0xb6, 0xcc]); // movzx ecx, ah
    asm.raw(&[0x0f, 0xb6, 0xc0]); // movzx eax, al
    asm.mov_imm32(R10, OF.trailing_zeros());
    asm.shlx32(R10, RAX, R10);
    asm.lea32(RCX, indexed(RCX, R10, 0, 0));
    asm.load32(R10, context(field::EFLAGS_DELTA));
    asm.lea32(RCX, indexed(RCX, R10, 0, 0));
    for flag in [field::INTERRUPT_FLAG, field::DIRECTION_FLAG] {
        asm.load32(R10, context(flag));
        asm.lea32(RCX, indexed(RCX, R10, 0, 0));
    }
}

/// Emits the loading of the status flags from the EFLAGS image in R8D, with RAX as scratch.
pub fn load_flags_from_r8(asm: &mut Asm) {
    asm.mov32(RAX, R8);
    asm.raw(&[0xc1, 0xe0, 0x08]); // shl eax, 8
    asm.raw(&[0x41, 0x0f, 0xba, 0xe0, OF.trailing_zeros() as u8]); // bt r8d, 11
    asm.raw(&[0x0f, 0x92, 0xc0]); // setc al
    load_flags_from_ax(asm);
}

/// Emits a poll: counts the polls down and jumps to `expired` after the last. Keeps flags; RCX is scratch.
pub fn poll(asm: &mut Asm, expired: Label) {
    asm.load32(RCX, context(field::POLLS));
    asm.lea32(RCX, at(RCX, -1));
    asm.store32(context(field::POLLS), RCX);
    asm.jrcxz(expired);
}
