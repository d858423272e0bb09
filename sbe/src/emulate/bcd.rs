//! Decimal adjustments (SDM Vol. 1, 7.3.3 "Decimal Arithmetic Instructions"). Flags the manual leaves undefined follow the
//! result, as processors do.

use super::exec::Exec;
use super::flags::of_result;
use crate::cpu::eflags::{AF, CF, STATUS};
use crate::cpu::regs::EAX;
use crate::decode::Insn;
use crate::fault::{Fault, Vector};

/// Number of AH among the byte registers.
const AH: u8 = EAX | 4;

/// DAA.
pub fn daa(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    decimal(cx, u8::wrapping_add);
    Ok(())
}

/// DAS.
pub fn das(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    let old = cx.cpu.regs.get8(EAX);
    let borrows =
        cx.cpu.eflags & (AF | CF) != 0 && old < 6 && (old & 0xf > 9 || cx.cpu.eflags & AF != 0);
    decimal(cx, u8::wrapping_sub);
    if borrows {
        cx.set_status(CF, CF);
    }
    Ok(())
}

/// Adjusts both digits of AL by 6 with `adjust`.
fn decimal(cx: &mut Exec<'_>, adjust: fn(u8, u8) -> u8) {
    let (old, flags) = (cx.cpu.regs.get8(EAX), cx.cpu.eflags);
    let (mut al, mut status) = (old, 0);
    if old & 0xf > 9 || flags & AF != 0 {
        al = adjust(al, 0x06);
        status |= AF;
    }
    if old > 0x99 || flags & CF != 0 {
        al = adjust(al, 0x60);
        status |= CF;
    }
    cx.cpu.regs.set8(EAX, al);
    cx.set_status(STATUS, status | of_result(al));
}

/// AAA.
pub fn aaa(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    ascii(cx, |ax| ax.wrapping_add(0x106));
    Ok(())
}

/// AAS.
pub fn aas(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    ascii(cx, |ax| ax.wrapping_sub(0x106));
    Ok(())
}

/// Adjusts AX with `adjust` when AL holds no decimal digit, then keeps the low digit of AL.
fn ascii(cx: &mut Exec<'_>, adjust: fn(u16) -> u16) {
    let ax = cx.cpu.regs.get16(EAX);
    let needed = ax & 0xf > 9 || cx.cpu.eflags & AF != 0;
    let ax = if needed { adjust(ax) } else { ax } & 0xff0f;
    cx.cpu.regs.set16(EAX, ax);
    let status = if needed { AF | CF } else { 0 };
    cx.set_status(STATUS, status | of_result(ax as u8));
}

/// AAM: AL is split into digits of base imm8; #DE for base 0.
pub fn aam(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let al = cx.cpu.regs.get8(EAX);
    let base = insn.imm as u8;
    let high = al
        .checked_div(base)
        .ok_or(Fault::plain(Vector::DivideError))?;
    let low = al % base;
    cx.cpu.regs.set8(AH, high);
    cx.cpu.regs.set8(EAX, low);
    cx.set_status(STATUS, of_result(low));
    Ok(())
}

/// AAD: AL = AH * imm8 + AL, AH = 0.
pub fn aad(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let (ah, al) = (cx.cpu.regs.get8(AH), cx.cpu.regs.get8(EAX));
    let value = ah.wrapping_mul(insn.imm as u8).wrapping_add(al);
    cx.cpu.regs.set16(EAX, u16::from(value));
    cx.set_status(STATUS, of_result(value));
    Ok(())
}
