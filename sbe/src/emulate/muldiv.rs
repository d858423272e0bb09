//! Multiplication, division and sign extension (SDM Vol. 1, 7.3.2 "Binary Arithmetic Instructions").

use super::exec::Exec;
use super::flags::of_result;
use super::word::Word;
use crate::cpu::eflags::{CF, OF, STATUS};
use crate::cpu::regs::{EAX, EDX};
use crate::decode::Insn;
use crate::fault::{Fault, Vector};

impl Exec<'_> {
    /// The double-width accumulator: AX, DX:AX or EDX:EAX.
    fn wide_accumulator<W: Word>(&self) -> u64 {
        let regs = &self.cpu.regs;
        if W::BITS == 8 {
            return u64::from(regs.get16(EAX));
        }
        let high = u64::from(W::register(regs, EDX).zero_extend());
        high << W::BITS | u64::from(W::register(regs, EAX).zero_extend())
    }

    fn set_wide_accumulator<W: Word>(&mut self, value: u64) {
        let regs = &mut self.cpu.regs;
        if W::BITS == 8 {
            regs.set16(EAX, value as u16);
        } else {
            W::cut(value as u32).set_register(regs, EAX);
            W::cut((value >> W::BITS) as u32).set_register(regs, EDX);
        }
    }

    /// Sets the flags of a product: CF and OF tell that it does not fit; SF and PF follow the low half, ZF and AF are cleared
    /// (all undefined).
    fn set_product_flags<W: Word>(&mut self, low: W, overflow: bool) {
        let spill = if overflow { CF | OF } else { 0 };
        self.set_status(STATUS, of_result(low) & !crate::cpu::eflags::ZF | spill);
    }

    /// Stores quotient and remainder, which fit.
    fn set_quotient<W: Word>(&mut self, quotient: u32, remainder: u32) {
        if W::BITS == 8 {
            self.cpu
                .regs
                .set16(EAX, (remainder << 8 | quotient & 0xff) as u16);
        } else {
            W::cut(quotient).set_register(&mut self.cpu.regs, EAX);
            W::cut(remainder).set_register(&mut self.cpu.regs, EDX);
        }
    }
}

const DIVIDE_ERROR: Fault = Fault::plain(Vector::DivideError);

/// MUL.
pub fn mul<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let factor = cx.read_operand::<W>(insn, 0)?.zero_extend();
    let accumulator = W::register(&cx.cpu.regs, EAX).zero_extend();
    let product = u64::from(factor) * u64::from(accumulator);
    cx.set_wide_accumulator::<W>(product);
    cx.set_product_flags(W::cut(product as u32), product >> W::BITS != 0);
    Ok(())
}

/// IMUL with one operand.
pub fn imul1<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let factor = cx.read_operand::<W>(insn, 0)?;
    let accumulator = W::register(&cx.cpu.regs, EAX);
    let product = signed_product(factor, accumulator);
    cx.set_wide_accumulator::<W>(product as u64);
    let low = W::cut(product as u32);
    cx.set_product_flags(low, product != i64::from(low.sign_extend() as i32));
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
    imul_truncated(cx, insn, first, W::cut(insn.imm))
}

fn imul_truncated<W: Word>(
    cx: &mut Exec<'_>,
    insn: &Insn,
    first: W,
    second: W,
) -> Result<(), Fault> {
    let product = signed_product(first, second);
    let low = W::cut(product as u32);
    cx.set_register(insn.ops[0], low);
    cx.set_product_flags(low, product != i64::from(low.sign_extend() as i32));
    Ok(())
}

fn signed_product<W: Word>(a: W, b: W) -> i64 {
    i64::from(a.sign_extend() as i32) * i64::from(b.sign_extend() as i32)
}

/// DIV. All flags are undefined and kept.
pub fn div<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let divisor = u64::from(cx.read_operand::<W>(insn, 0)?.zero_extend());
    let dividend = cx.wide_accumulator::<W>();
    let quotient = dividend.checked_div(divisor).ok_or(DIVIDE_ERROR)?;
    if quotient > u64::from(W::MASK) {
        return Err(DIVIDE_ERROR);
    }
    cx.set_quotient::<W>(quotient as u32, (dividend % divisor) as u32);
    Ok(())
}

/// IDIV. All flags are undefined and kept.
pub fn idiv<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let divisor = i64::from(cx.read_operand::<W>(insn, 0)?.sign_extend() as i32);
    let unused = 64 - 2 * W::BITS;
    let dividend = (cx.wide_accumulator::<W>() << unused) as i64 >> unused;
    let quotient = dividend.checked_div(divisor).ok_or(DIVIDE_ERROR)?;
    if quotient != i64::from(W::cut(quotient as u32).sign_extend() as i32) {
        return Err(DIVIDE_ERROR);
    }
    cx.set_quotient::<W>(quotient as u32, (dividend % divisor) as u32);
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
    cx.cpu.regs.set(EAX, value);
    Ok(())
}

/// CWD and CDQ: the sign of the accumulator fills (E)DX.
pub fn sign_to_edx<W: Word>(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    let negative = W::register(&cx.cpu.regs, EAX).zero_extend() & W::SIGN != 0;
    W::cut(if negative { u32::MAX } else { 0 }).set_register(&mut cx.cpu.regs, EDX);
    Ok(())
}
