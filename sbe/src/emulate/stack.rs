//! The stack: PUSH, POP, PUSHA, POPA, ENTER, LEAVE (SDM Vol. 1, 6.2 "Stacks").
//!
//! A push stores first and moves the stack pointer last; a pop loads first. A fault therefore leaves ESP as it was.

use super::exec::Exec;
use super::word::Word;
use crate::cpu::regs::{EBP, ESP};
use crate::cpu::segment::SegReg;
use crate::decode::{Insn, Operand};
use crate::fault::Fault;

/// Mask of the nesting level of ENTER, which is taken modulo 32.
const LEVEL_MASK: u32 = 31;

impl Exec<'_> {
    /// Cuts `offset` to the stack's address size.
    #[inline(always)]
    pub fn wrap_stack(&self, offset: u64) -> u64 {
        self.cpu.stack_size().wrap(offset)
    }

    /// The stack pointer, by the stack's address size: RSP, ESP or SP.
    #[inline(always)]
    pub fn stack_pointer(&self) -> u64 {
        self.wrap_stack(self.cpu.regs.get64(ESP))
    }

    /// Sets RSP, ESP or SP.
    #[inline(always)]
    pub fn set_stack_pointer(&mut self, value: u64) {
        self.cpu.stack_size().set_pointer(&mut self.cpu.regs, value);
    }

    /// Pushes a value.
    #[inline(always)]
    pub fn push<W: Word>(&mut self, value: W) -> Result<(), Fault> {
        let top = self.wrap_stack(self.stack_pointer().wrapping_sub(W::BYTES.into()));
        self.store(SegReg::Ss, top, value)?;
        self.set_stack_pointer(top);
        Ok(())
    }

    /// The value at the top of the stack.
    #[inline(always)]
    pub fn peek<W: Word>(&mut self) -> Result<W, Fault> {
        self.load(SegReg::Ss, self.stack_pointer())
    }

    /// Pops a value.
    #[inline(always)]
    pub fn pop<W: Word>(&mut self) -> Result<W, Fault> {
        let value = self.peek()?;
        self.release_stack(W::BYTES.into());
        Ok(value)
    }

    /// Moves the stack pointer up by `bytes`.
    #[inline(always)]
    pub fn release_stack(&mut self, bytes: u64) {
        self.set_stack_pointer(self.stack_pointer().wrapping_add(bytes));
    }
}

/// PUSH of a register, memory or immediate.
pub fn push<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value = cx.read_operand::<W>(insn, 0)?;
    cx.push(value)
}

/// POP to a register or memory. A memory address that uses ESP is computed after the pop.
pub fn pop<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value = cx.peek::<W>()?;
    let before = cx.cpu.regs.get64(ESP);
    cx.release_stack(W::BYTES.into());
    let stored = cx.write_operand(insn, 0, value);
    if stored.is_err() && insn.ops[0] == Operand::Mem {
        cx.cpu.regs.set64(ESP, before);
    }
    stored
}

/// PUSHA: all eight registers, with ESP as it was. A fault on the way leaves the pushes before it in memory.
pub fn pusha<W: Word>(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    let mut offset = cx.stack_pointer();
    for register in 0..8 {
        offset = cx.wrap_stack(offset.wrapping_sub(W::BYTES.into()));
        let value = W::register(&cx.cpu.regs, register);
        cx.store(SegReg::Ss, offset, value)?;
    }
    cx.set_stack_pointer(offset);
    Ok(())
}

/// POPA: the stored stack pointer is skipped. A fault on the way leaves the registers loaded before it, and ESP as it was.
pub fn popa<W: Word>(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    let mut offset = cx.stack_pointer();
    for register in (0..8).rev() {
        let value = cx.load::<W>(SegReg::Ss, offset)?;
        if register != ESP {
            value.set_register(&mut cx.cpu.regs, register);
        }
        offset = cx.wrap_stack(offset.wrapping_add(W::BYTES.into()));
    }
    cx.release_stack(8 * u64::from(W::BYTES));
    Ok(())
}

/// ENTER: frame of `insn.imm` bytes at nesting level `insn.aux` (SDM Vol. 2A, "ENTER"). A fault in the middle leaves ESP
/// and EBP alone but not what was pushed before, as on processors.
pub fn enter<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let level = insn.aux & LEVEL_MASK;
    let frame = cx.wrap_stack(cx.stack_pointer().wrapping_sub(W::BYTES.into()));
    // The new frame pointer is as wide as the operand: of a 16-bit stack it keeps the upper half of ESP.
    let frame_pointer = W::cut(frame | cx.cpu.regs.get64(ESP) & !cx.wrap_stack(u64::MAX));
    let mut top = frame;
    cx.store(SegReg::Ss, top, W::register(&cx.cpu.regs, EBP))?;
    for index in 1..=level {
        let display = if index == level {
            frame_pointer
        } else {
            let outer = cx.cpu.regs.get64(EBP);
            let outer = outer.wrapping_sub((index * W::BYTES).into());
            cx.load(SegReg::Ss, cx.wrap_stack(outer))?
        };
        top = cx.wrap_stack(top.wrapping_sub(W::BYTES.into()));
        cx.store(SegReg::Ss, top, display)?;
    }
    let bottom = cx.wrap_stack(top.wrapping_sub(insn.imm.into()));
    // The manual's last step: a write at the new top must be possible.
    cx.probe_write(SegReg::Ss, bottom, W::BYTES)?;
    frame_pointer.set_register(&mut cx.cpu.regs, EBP);
    cx.set_stack_pointer(bottom);
    Ok(())
}

/// LEAVE.
pub fn leave<W: Word>(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    let frame = cx.wrap_stack(cx.cpu.regs.get64(EBP));
    let value = cx.load::<W>(SegReg::Ss, frame)?;
    cx.set_stack_pointer(frame.wrapping_add(W::BYTES.into()));
    value.set_register(&mut cx.cpu.regs, EBP);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use crate::cpu::regs::{EBP, ESP};

    #[test]
    fn enter_with_a_doubleword_operand_keeps_the_upper_half_of_esp_on_a_16_bit_stack() {
        let mut bench = Bench::real();
        bench.cpu.regs.set(ESP, 0xabcd_8000);
        bench.cpu.regs.set(EBP, 0x1234_5678);
        // enterd 0x10, 1
        bench
            .step(&[0x66, 0xc8, 0x10, 0x00, 0x01])
            .expect("no fault");
        assert_eq!(bench.cpu.regs.get(EBP), 0xabcd_7ffc);
        assert_eq!(bench.cpu.regs.get(ESP), 0xabcd_7fe8);
        assert_eq!(bench.peek::<u32>(0x7ffc), 0x1234_5678);
        assert_eq!(bench.peek::<u32>(0x7ff8), 0xabcd_7ffc);
    }
}
