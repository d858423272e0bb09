//! Segment and control registers, SYSENTER, SYSEXIT and RDTSC.

use super::misses::Cause;
use super::{Emitted, Emitter, home, in_page};
use crate::cpu::segment::SegReg;
use crate::translate::asm::*;
use crate::translate::context::field;
use crate::translate::sequences::context;
use crate::translate::trampoline::Trampoline;
use iced_x86::{Instruction, OpKind, Register};
use mmu::Privilege;

/// The number of bits of each half of EDX:EAX.
const HALF: u32 = 32;

/// The segment register that `register` is.
pub(super) fn segment(register: Register) -> Option<SegReg> {
    Some(match register {
        Register::ES => SegReg::Es,
        Register::CS => SegReg::Cs,
        Register::SS => SegReg::Ss,
        Register::DS => SegReg::Ds,
        Register::FS => SegReg::Fs,
        Register::GS => SegReg::Gs,
        _ => return None,
    })
}

/// The memory operand of the selector in `register`.
fn selector(register: SegReg) -> Mem {
    context(field::SELECTORS + 4 * register as i32)
}

impl Emitter {
    /// Emits PUSH of a segment register.
    pub(super) fn push_segment(&mut self, raw: &Instruction) -> Emitted {
        let Some(register) = segment(raw.op0_register()) else {
            return Emitted::Emulate;
        };
        let slot = self.below_stack_top(raw);
        self.asm.load32(R9, selector(register));
        self.store_word(slot.mem(), R9);
        self.lea(R12, at(R12, -self.word()));
        Emitted::Inline
    }

    /// Emits POP to a segment register.
    pub(super) fn pop_segment(&mut self, raw: &Instruction) -> Emitted {
        let Some(register) = segment(raw.op0_register()) else {
            return Emitted::Emulate;
        };
        let top = self.stack_top(raw);
        self.asm.load16(R8, top.mem());
        self.load_selector(raw, register);
        self.lea(R12, at(R12, self.word()));
        Emitted::Inline
    }

    /// Emits MOV from a segment register.
    pub(super) fn store_segment(&mut self, raw: &Instruction) -> Emitted {
        let Some(register) = segment(raw.op1_register()) else {
            return Emitted::Emulate;
        };
        if raw.op0_kind() != OpKind::Memory {
            let Some(place) = home(raw.op0_register()) else {
                return Emitted::Emulate;
            };
            if raw.op0_register().is_gpr16() {
                let target = self.held_at(place, R9);
                self.asm.move16(target, selector(register));
            } else {
                let target = place.or(R9);
                self.asm.load32(target, selector(register));
            }
            self.put_back(place, R9);
            return Emitted::Inline;
        }
        let Some(probed) = self.probe_operand(raw, true) else {
            return Emitted::Emulate;
        };
        self.asm.load32(R9, selector(register));
        self.asm.store16(probed.mem(), R9);
        Emitted::Inline
    }

    /// Emits MOV from a control register.
    pub(super) fn store_control(&mut self, raw: &Instruction) -> Emitted {
        let Some(place) = home(raw.op0_register()) else {
            return Emitted::Emulate;
        };
        let held = context(field::CONTROL + 8 * raw.op1_register().number() as i32);
        self.load_word(place.or(R9), held);
        self.put_back(place, R9);
        Emitted::Inline
    }

    /// Emits MOV to a segment register.
    pub(super) fn load_segment(&mut self, raw: &Instruction) -> Emitted {
        let Some(register) = segment(raw.op0_register()) else {
            return Emitted::Emulate;
        };
        if raw.op1_kind() == OpKind::Memory {
            let Some(probed) = self.probe_operand(raw, false) else {
                return Emitted::Emulate;
            };
            self.asm.load16(R8, probed.mem());
        } else {
            let Some(source) = self.whole(raw.op1_register()) else {
                return Emitted::Emulate;
            };
            self.asm.movzx16(R8, source);
        }
        self.load_selector(raw, register);
        Emitted::Inline
    }

    /// Emits the loading of the selector in R8D.
    fn load_selector(&mut self, raw: &Instruction, register: SegReg) {
        self.noted.forget_selector();
        self.asm.mov_imm32(R9, raw.ip32());
        self.call_to(Trampoline::LoadSegment(register));
    }

    /// Emits SYSENTER or SYSEXIT: the trampoline continues at the other privilege level.
    pub(super) fn change_level(&mut self, raw: &Instruction, trampoline: Trampoline) -> Emitted {
        self.asm.mov_imm32(R9, raw.ip32());
        self.jmp_to(trampoline);
        Emitted::Ends
    }

    /// Emits SYSCALL or WRMSR: the trampoline needs the address of the next instruction.
    pub(super) fn with_next(&mut self, raw: &Instruction, trampoline: Trampoline) -> Emitted {
        let page = self.page(R8);
        self.lea(R8, at(page, in_page(raw.next_ip32())));
        self.change_level(raw, trampoline)
    }

    /// Emits SWAPGS.
    pub(super) fn swapgs(&mut self) -> Emitted {
        self.asm.load64(RCX, context(field::GS_BASE));
        self.asm.load64(R9, context(field::KERNEL_GS_BASE));
        self.asm.store64(context(field::KERNEL_GS_BASE), RCX);
        self.asm.store64(context(field::GS_BASE), R9);
        Emitted::Inline
    }

    /// Emits RDTSC.
    pub(super) fn rdtsc(&mut self, raw: &Instruction) -> Emitted {
        if self.mode.privilege() == Privilege::User {
            let refused = self.miss(raw.ip32(), Cause::Refused);
            self.asm.load64(RCX, context(field::TSC_USABLE));
            self.asm.jrcxz(refused);
        }
        self.asm.raw(&[0x0f, 0x31]);
        self.asm.mov_imm32(RCX, HALF);
        self.asm.shlx64(RDX, RDX, RCX);
        self.asm.lea64(RAX, indexed(RAX, RDX, 0, 0));
        self.asm.load64(RCX, context(field::TSC_OFFSET));
        self.asm.lea64(RAX, indexed(RAX, RCX, 0, 0));
        self.asm.mov_imm32(RCX, HALF);
        self.asm.shrx64(RDX, RAX, RCX);
        self.asm.mov32(RAX, RAX);
        Emitted::Inline
    }
}
