//! PUSH, POP and LEAVE.

use super::memory::Probed;
use super::{Emitted, Emitter, Home, home};
use crate::translate::asm::*;
use iced_x86::{Instruction, OpKind, Register};

impl Emitter {
    /// Finds the slot below the top of stack, for writing.
    pub(super) fn below_stack_top(&mut self, raw: &Instruction) -> Probed {
        let word = self.word();
        if let Some(grouped) = self.grouped(Register::RSP, -word, word, true) {
            return grouped;
        }
        if let Some(slot) = self.in_window(R12, -word) {
            return slot;
        }
        self.lea(R8, at(R12, -word));
        self.probe(raw, R8, word as u32, true)
    }

    /// Finds the slot at the top of stack, for reading.
    pub(super) fn stack_top(&mut self, raw: &Instruction) -> Probed {
        let word = self.word();
        self.grouped(Register::RSP, 0, word, false)
            .unwrap_or_else(|| self.probe(raw, R12, word as u32, false))
    }

    /// Emits PUSH.
    pub(super) fn push(&mut self, raw: &Instruction) -> Emitted {
        match raw.op0_kind() {
            OpKind::Register => {
                if !self.is_word(raw.op0_register()) {
                    return Emitted::Emulate;
                }
                let slot = self.below_stack_top(raw);
                let Some(register) = self.held(raw.op0_register(), R9) else {
                    return Emitted::Emulate;
                };
                self.store_word(slot.mem(), register);
            }
            OpKind::Memory => {
                if raw.memory_size().size() as i32 != self.word()
                    || !self.is_addressable(raw, false)
                {
                    return Emitted::Emulate;
                }
                let Some(source) = self.probe_operand(raw, false) else {
                    return Emitted::Emulate;
                };
                self.load_word(R9, source.mem());
                let slot = self.keeping(R9, |emitter| emitter.below_stack_top(raw));
                self.store_word(slot.mem(), R9);
            }
            _ => {
                let slot = self.below_stack_top(raw);
                match self.mode.is_64() {
                    true => self.asm.store_imm64(slot.mem(), raw.immediate(0) as i32),
                    false => self.asm.store_imm32(slot.mem(), raw.immediate(0) as u32),
                }
            }
        }
        self.lea(R12, at(R12, -self.word()));
        Emitted::Inline
    }

    /// Emits POP to a register.
    pub(super) fn pop(&mut self, raw: &Instruction) -> Emitted {
        let target = home(raw.op0_register());
        let Some(target) = target.filter(|_| self.is_word(raw.op0_register())) else {
            return Emitted::Emulate;
        };
        let top = self.stack_top(raw);
        match target {
            Home::Register(R12) => {
                self.load_word(R12, top.mem());
                return Emitted::Inline;
            }
            Home::Register(register) => self.load_word(register, top.mem()),
            Home::Context(place) => {
                self.load_word(R9, top.mem());
                self.store_word(place, R9);
            }
        }
        self.lea(R12, at(R12, self.word()));
        Emitted::Inline
    }

    /// Emits POP to memory. An address by RSP is that after the pop (SDM Vol. 2B, POP), and left to the emulator.
    pub(super) fn pop_memory(&mut self, raw: &Instruction) -> Emitted {
        let by_stack = raw.memory_base().full_register() == Register::RSP;
        let is_slot = raw.memory_size().size() as i32 == self.word();
        if raw.op0_kind() != OpKind::Memory
            || by_stack
            || !is_slot
            || !self.is_addressable(raw, true)
        {
            return Emitted::Emulate;
        }
        let top = self.stack_top(raw);
        self.load_word(R9, top.mem());
        let target = self.keeping(R9, |emitter| emitter.probe_operand(raw, true));
        let Some(target) = target else {
            return Emitted::Emulate;
        };
        self.store_word(target.mem(), R9);
        self.lea(R12, at(R12, self.word()));
        Emitted::Inline
    }

    /// Emits LEAVE.
    pub(super) fn leave_frame(&mut self, raw: &Instruction) -> Emitted {
        let word = self.word();
        let saved = self.probe(raw, RBP, word as u32, false);
        self.load_word(R9, saved.mem());
        self.lea(R12, at(RBP, word));
        self.mov(RBP, R9);
        Emitted::Inline
    }
}
