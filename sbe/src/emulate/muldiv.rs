//! Multiplication, division and sign extension (SDM Vol. 1, 7.3.2 "Binary Arithmetic Instructions").
//!
//! They leave flags undefined, which are the host's ([`super::host_alu`]).

use super::exec::Exec;
use super::host_alu;
use super::word::Word;
use crate::cpu::eflags::STATUS;
use crate::cpu::regs::{EAX, EDX};
use crate::decode::Insn;
use crate::fault::{Fault, Vector};

impl Exec<'_> {
    /// Sets RAX and RDX, whose parts of width `W` are a product, or quotient and remainder, and the status flags.
    #[inline(always)]
    fn set_accumulator(&mut self, (low, high, flags): (u64, u64, u32)) {
        self.cpu.regs.set64(EAX, low);
        self.cpu.regs.set64(EDX, high);
        self.set_status(STATUS, flags);
    }
}

const DIVIDE_ERROR: Fault = Fault::plain(Vector::DivideError);

/// MUL.
pub fn mul<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let factor = cx.read_operand::<W>(insn, 0)?;
    let (low, high) = (cx.cpu.regs.get64(EAX), cx.cpu.regs.get64(EDX));
    cx.set_accumulator(host_alu::multiply(low, high, factor, cx.cpu.eflags));
    Ok(())
}

/// IMUL with one operand.
pub fn imul1<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let factor = cx.read_operand::<W>(insn, 0)?;
    let (low, high) = (cx.cpu.regs.get64(EAX), cx.cpu.regs.get64(EDX));
    cx.set_accumulator(host_alu::multiply_signed(low, high, factor, cx.cpu.eflags));
    Ok(())
}

/// IMUL with two operands.
pub fn imul2<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let first = cx.read_operand::<W>(insn, 0)?;
    let second = cx.read_operand::<W>(insn, 1)?;
    imul_truncated(cx, insn, first, second)
}

/// IMUL with three operands; the last is immediate.
pub fn imul3<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let first = cx.read_operand::<W>(insn, 1)?;
    imul_truncated(cx, insn, first, W::cut(insn.immediate()))
}

fn imul_truncated<W: Word>(
    cx: &mut Exec<'_>,
    insn: &Insn,
    first: W,
    second: W,
) -> Result<(), Fault> {
    let (product, flags) = host_alu::imul(first, second, cx.cpu.eflags);
    cx.set_register(insn.ops[0], product);
    cx.set_status(STATUS, flags);
    Ok(())
}

/// DIV.
pub fn div<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let divisor = cx.read_operand::<W>(insn, 0)?;
    let (low, high) = (cx.cpu.regs.get64(EAX), cx.cpu.regs.get64(EDX));
    let divided = host_alu::divide(low, high, divisor, cx.cpu.eflags).ok_or(DIVIDE_ERROR)?;
    cx.set_accumulator(divided);
    Ok(())
}

/// IDIV.
pub fn idiv<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let divisor = cx.read_operand::<W>(insn, 0)?;
    let (low, high) = (cx.cpu.regs.get64(EAX), cx.cpu.regs.get64(EDX));
    let divided = host_alu::divide_signed(low, high, divisor, cx.cpu.eflags).ok_or(DIVIDE_ERROR)?;
    cx.set_accumulator(divided);
    Ok(())
}

/// CBW.
pub fn cbw(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    let value = cx.cpu.regs.get8(EAX).sign_extend();
    cx.cpu.regs.set16(EAX, value as u16);
    Ok(())
}

/// CWDE.
pub fn cwde(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    let value = cx.cpu.regs.get16(EAX).sign_extend();
    cx.cpu.regs.set(EAX, value as u32);
    Ok(())
}

/// CDQE.
pub fn cdqe(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    let value = cx.cpu.regs.get(EAX).sign_extend();
    cx.cpu.regs.set64(EAX, value);
    Ok(())
}

/// CWD, CDQ and CQO: the sign of the accumulator fills DX, EDX or RDX.
pub fn sign_to_edx<W: Word>(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    let negative = W::register(&cx.cpu.regs, EAX).zero_extend() & W::SIGN != 0;
    W::cut(if negative { u64::MAX } else { 0 }).set_register(&mut cx.cpu.regs, EDX);
    Ok(())
}
