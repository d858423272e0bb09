//! PUSHFD, POPFD, CLI, STI, CLD and STD.
//!
//! The status flags are the host's; IF and DF lie in the context, and the rest of EFLAGS does not change while emitted code runs.

use super::misses::Cause;
use super::transfer::{EQUAL, NOT_EQUAL};
use super::{Emitted, Emitter};
use crate::cpu::eflags::{DF, IF};
use crate::translate::asm::*;
use crate::translate::context::field;
use crate::translate::sequences::{FIXED_FLAGS, context, gather_flags, load_flags_from_r8};
use iced_x86::Instruction;

impl Emitter {
    /// Emits PUSHFD: AH has the low flags as LAHF stores them, AL is OF.
    pub(super) fn pushf(&mut self, raw: &Instruction) -> Emitted {
        let slot = self.below_stack_top(raw);
        self.asm.lea64(R8, slot.mem());
        self.touch_r8();
        self.asm.mov64(R9, RAX);
        gather_flags(&mut self.asm);
        self.store_word(at(R8, 0), RCX);
        self.asm.mov64(RAX, R9);
        self.lea(R12, at(R12, -self.word()));
        Emitted::Inline
    }

    /// Emits POPFD at CPL 0, for the case that it changes status flags, DF and IF only, and no interrupt waits for IF. It cannot
    /// fault once the doubleword is read, so that the old flags are of no more use.
    pub(super) fn popf(&mut self, raw: &Instruction) -> Emitted {
        let probed = self.stack_top(raw);
        self.asm.load32(R8, probed.mem());
        let refused = self.refused(raw);
        let stays_clear = self.asm.label();
        self.asm.mov32(R9, R8);
        self.and_r9(FIXED_FLAGS);
        self.asm.digit_load(0x3b, R9, context(field::EFLAGS_FIXED));
        self.asm.jcc(NOT_EQUAL, refused);
        self.asm.mov32(R9, R8);
        self.and_r9(IF);
        self.asm.jcc(EQUAL, stays_clear);
        let interrupt = self.miss(raw.ip32(), Cause::Refused);
        self.asm.load64(RCX, context(field::NO_INTERRUPT));
        self.asm.jrcxz(interrupt);
        self.asm.bind(stays_clear);
        self.asm.store32(context(field::INTERRUPT_FLAG), R9);
        self.asm.mov32(R9, R8);
        self.and_r9(DF);
        self.asm.store32(context(field::DIRECTION_FLAG), R9);
        self.upward = false;
        self.asm.mov64(R9, RAX);
        load_flags_from_r8(&mut self.asm);
        self.asm.mov64(RAX, R9);
        self.lea(R12, at(R12, self.word()));
        Emitted::Inline
    }

    /// Emits AND R9D, `mask`.
    fn and_r9(&mut self, mask: u32) {
        self.asm.raw(&[0x41, 0x81, 0xe1]);
        self.asm.raw(&mask.to_le_bytes());
    }

    /// Emits CLI.
    pub(super) fn cli(&mut self) -> Emitted {
        self.asm.store_imm32(context(field::INTERRUPT_FLAG), 0);
        Emitted::Inline
    }

    /// Emits CLD.
    pub(super) fn cld(&mut self) -> Emitted {
        self.asm.store_imm32(context(field::DIRECTION_FLAG), 0);
        self.upward = true;
        Emitted::Inline
    }

    /// Emits STD.
    pub(super) fn std(&mut self) -> Emitted {
        self.asm.store_imm32(context(field::DIRECTION_FLAG), DF);
        self.upward = false;
        Emitted::Inline
    }

    /// Emits STI, for the case that no interrupt waits for it. The next instruction must not exit because the budget is used up,
    /// since interrupts are delivered then: its poll is counted here. See [`Emitter::shadow`].
    pub(super) fn sti(&mut self, raw: &Instruction) -> Emitted {
        self.poll(raw);
        let interrupt = self.miss(raw.ip32(), Cause::Refused);
        self.asm.load64(RCX, context(field::NO_INTERRUPT));
        self.asm.jrcxz(interrupt);
        self.asm.store_imm32(context(field::INTERRUPT_FLAG), IF);
        self.shadow = true;
        Emitted::Inline
    }
}
