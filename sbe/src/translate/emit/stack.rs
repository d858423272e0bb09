//! PUSH, POP and LEAVE.

use super::{Emitted, Emitter, Result, guest, probed};
use crate::translate::context::offset;
use iced_x86::code_asm::*;
use iced_x86::{Instruction, MemorySize, OpKind};

impl Emitter {
    /// R8D = new top of stack, probed for writing a doubleword.
    pub(super) fn open_slot(&mut self, raw: &Instruction) -> Result<()> {
        self.code.lea(r8d, dword_ptr(r12 - 4))?;
        self.probe(raw, 4, true)
    }

    /// R9D = doubleword at the top of stack.
    pub(super) fn top_of_stack(&mut self, raw: &Instruction) -> Result<()> {
        self.code.mov(r8d, r12d)?;
        self.probe(raw, 4, false)?;
        self.code.mov(r9d, probed())
    }

    pub(super) fn push(&mut self, raw: &Instruction) -> Result<Emitted> {
        if raw.op_code().operand_size() != 32 {
            return Ok(Emitted::Emulate);
        }
        match raw.op0_kind() {
            OpKind::Register => {
                let Some(register) = guest(raw.op0_register()) else {
                    return Ok(Emitted::Emulate);
                };
                self.open_slot(raw)?;
                self.code.mov(probed(), register)?;
            }
            OpKind::Memory => {
                if raw.memory_size() != MemorySize::UInt32 || !self.probe_operand(raw, false)? {
                    return Ok(Emitted::Emulate);
                }
                self.code.mov(r9d, probed())?;
                self.code.mov(dword_ptr(r15 + offset::SCRATCH), r9d)?;
                self.pads(true)?;
                self.open_slot(raw)?;
                self.code.mov(r10d, dword_ptr(r15 + offset::SCRATCH))?;
                self.code.mov(probed(), r10d)?;
            }
            _ => {
                self.open_slot(raw)?;
                self.code.mov(probed(), raw.immediate(0) as i32)?;
            }
        }
        self.code.mov(r12d, r8d)?;
        Ok(Emitted::Inline)
    }

    pub(super) fn pop(&mut self, raw: &Instruction) -> Result<Emitted> {
        let Some(register) =
            guest(raw.op0_register()).filter(|_| raw.op0_kind() == OpKind::Register)
        else {
            return Ok(Emitted::Emulate);
        };
        self.top_of_stack(raw)?;
        self.code.lea(r12d, dword_ptr(r12 + 4))?;
        self.code.mov(register, r9d)?;
        Ok(Emitted::Inline)
    }

    pub(super) fn leave_frame(&mut self, raw: &Instruction) -> Result<Emitted> {
        if raw.op_code().operand_size() != 32 {
            return Ok(Emitted::Emulate);
        }
        self.code.mov(r8d, ebp)?;
        self.probe(raw, 4, false)?;
        self.code.mov(r9d, probed())?;
        self.code.lea(r12d, dword_ptr(rbp + 4))?;
        self.code.mov(ebp, r9d)?;
        Ok(Emitted::Inline)
    }
}
