//! Access to the operands of an instruction, in registers or memory.

use super::exec::Exec;
use super::word::Word;
use crate::decode::{Insn, Operand};
use crate::fault::Fault;

impl Exec<'_> {
    /// Reads operand `index`.
    #[inline(always)]
    pub fn read_operand<W: Word>(&mut self, insn: &Insn, index: usize) -> Result<W, Fault> {
        match insn.ops[index] {
            Operand::Reg(number) => Ok(W::register(&self.cpu.regs, number)),
            Operand::Mem => self.load(insn.mem.segment, insn.effective_address(self.cpu)),
            Operand::Imm | Operand::None => Ok(W::cut(insn.immediate())),
        }
    }

    /// Sets operand `index`.
    #[inline(always)]
    pub fn write_operand<W: Word>(
        &mut self,
        insn: &Insn,
        index: usize,
        value: W,
    ) -> Result<(), Fault> {
        match insn.ops[index] {
            Operand::Mem => self.store(insn.mem.segment, insn.effective_address(self.cpu), value),
            operand => {
                self.set_register(operand, value);
                Ok(())
            }
        }
    }

    /// Replaces operand `index` by the value that `change` makes of it.
    #[inline(always)]
    pub fn modify_operand<W: Word>(
        &mut self,
        insn: &Insn,
        index: usize,
        change: impl FnOnce(&mut Self, W) -> W,
    ) -> Result<(), Fault> {
        match insn.ops[index] {
            Operand::Mem => self.modify(insn.mem.segment, insn.effective_address(self.cpu), change),
            operand => {
                let Operand::Reg(number) = operand else {
                    return Ok(());
                };
                let old = W::register(&self.cpu.regs, number);
                let new = change(self, old);
                new.set_register(&mut self.cpu.regs, number);
                Ok(())
            }
        }
    }

    /// Sets a register operand.
    #[inline(always)]
    pub fn set_register<W: Word>(&mut self, operand: Operand, value: W) {
        if let Operand::Reg(number) = operand {
            value.set_register(&mut self.cpu.regs, number);
        }
    }

    /// Number of the register that operand `index` names; 0 if it is none.
    #[inline(always)]
    pub fn register_number(insn: &Insn, index: usize) -> u8 {
        match insn.ops[index] {
            Operand::Reg(number) => number,
            _ => 0,
        }
    }
}
