//! PUSH, POP and LEAVE.

use super::memory::{Probed, is_addressable};
use super::{Emitted, Emitter, guest};
use crate::translate::asm::*;
use iced_x86::{Instruction, MemorySize, OpKind, Register};

impl Emitter {
    /// Finds the doubleword below the top of stack, for writing.
    pub(super) fn below_stack_top(&mut self, raw: &Instruction) -> Probed {
        if let Some(grouped) = self.grouped(Register::ESP, -4, 4, true) {
            return grouped;
        }
        if let Some(slot) = self.in_window(R12, -4) {
            return slot;
        }
        self.asm.lea32(R8, at(R12, -4));
        self.probe(raw, R8, 4, true)
    }

    /// Finds the doubleword at the top of stack, for reading.
    pub(super) fn stack_top(&mut self, raw: &Instruction) -> Probed {
        self.grouped(Register::ESP, 0, 4, false)
            .unwrap_or_else(|| self.probe(raw, R12, 4, false))
    }

    /// Emits PUSH.
    pub(super) fn push(&mut self, raw: &Instruction) -> Emitted {
        match raw.op0_kind() {
            OpKind::Register => {
                let Some(register) = guest(raw.op0_register()) else {
                    return Emitted::Emulate;
                };
                let slot = self.below_stack_top(raw);
                self.asm.store32(slot.mem(), register);
            }
            OpKind::Memory => {
                if raw.memory_size() != MemorySize::UInt32 || !is_addressable(raw, false) {
                    return Emitted::Emulate;
                }
                let Some(source) = self.probe_operand(raw, false) else {
                    return Emitted::Emulate;
                };
                self.asm.load32(R9, source.mem());
                let slot = self.keeping(R9, |emitter| emitter.below_stack_top(raw));
                self.asm.store32(slot.mem(), R9);
            }
            _ => {
                let slot = self.below_stack_top(raw);
                self.asm.store_imm32(slot.mem(), raw.immediate(0) as u32);
            }
        }
        self.asm.lea32(R12, at(R12, -4));
        Emitted::Inline
    }

    /// Emits POP to a register.
    pub(super) fn pop(&mut self, raw: &Instruction) -> Emitted {
        let Some(register) = guest(raw.op0_register()) else {
            return Emitted::Emulate;
        };
        let top = self.stack_top(raw);
        if register == R12 {
            self.asm.load32(R12, top.mem());
        } else {
            self.asm.load32(register, top.mem());
            self.asm.lea32(R12, at(R12, 4));
        }
        Emitted::Inline
    }

    /// Emits POP to memory. An address by ESP is that after the pop (SDM Vol. 2B, POP), and left to the emulator.
    pub(super) fn pop_memory(&mut self, raw: &Instruction) -> Emitted {
        let by_esp = [raw.memory_base(), raw.memory_index()].contains(&Register::ESP);
        if by_esp || raw.memory_size() != MemorySize::UInt32 || !is_addressable(raw, true) {
            return Emitted::Emulate;
        }
        let top = self.stack_top(raw);
        self.asm.load32(R9, top.mem());
        let target = self.keeping(R9, |emitter| emitter.probe_operand(raw, true));
        let Some(target) = target else {
            return Emitted::Emulate;
        };
        self.asm.store32(target.mem(), R9);
        self.asm.lea32(R12, at(R12, 4));
        Emitted::Inline
    }

    /// Emits LEAVE.
    pub(super) fn leave_frame(&mut self, raw: &Instruction) -> Emitted {
        let saved = self.probe(raw, RBP, 4, false);
        self.asm.load32(R9, saved.mem());
        self.asm.lea32(R12, at(RBP, 4));
        self.asm.mov32(RBP, R9);
        Emitted::Inline
    }
}
