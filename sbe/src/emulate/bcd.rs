//! Decimal adjustments (SDM Vol. 1, 7.3.3 "Decimal Arithmetic Instructions").
//!
//! They do not exist in 64-bit mode, so the host cannot execute them. Flags that the manual leaves undefined are those of the
//! addition or subtraction that adjusts: of AL in DAA, DAS and AAD, of AX in AAA and AAS. So AMD processors compute them.

use super::alu::{add, sub};
use super::exec::Exec;
use super::flags::of_result;
use crate::cpu::eflags::{AF, CF, STATUS};
use crate::cpu::regs::{AH, EAX};
use crate::decode::Insn;
use crate::fault::{Fault, Vector};

/// An addition or subtraction: `(value, adjustment, carry) -> (result, flags)`.
type Adjust<W> = fn(W, W, u32) -> (W, u32);

/// DAA.
pub fn daa(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    decimal(cx, add::<u8>);
    Ok(())
}

/// DAS.
pub fn das(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    let old = cx.cpu.regs.get8(EAX);
    let borrows =
        cx.cpu.eflags & (AF | CF) != 0 && old < 6 && (old & 0xf > 9 || cx.cpu.eflags & AF != 0);
    decimal(cx, sub::<u8>);
    if borrows {
        cx.set_status(CF, CF);
    }
    Ok(())
}

/// Adjusts both digits of AL by 6 with `adjust`.
fn decimal(cx: &mut Exec<'_>, adjust: Adjust<u8>) {
    let (old, flags) = (cx.cpu.regs.get8(EAX), cx.cpu.eflags);
    let (mut by, mut carries) = (0, 0);
    if old & 0xf > 9 || flags & AF != 0 {
        by |= 0x06;
        carries |= AF;
    }
    if old > 0x99 || flags & CF != 0 {
        by |= 0x60;
        carries |= CF;
    }
    let (al, status) = adjust(old, by, 0);
    cx.cpu.regs.set8(EAX, al);
    cx.set_status(STATUS, status & !(AF | CF) | carries);
}

/// AAA.
pub fn aaa(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    ascii(cx, add::<u16>);
    Ok(())
}

/// AAS.
pub fn aas(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    ascii(cx, sub::<u16>);
    Ok(())
}

/// Adjusts AX by 0x106 with `adjust` when AL holds no decimal digit, then keeps the low digit of AL.
fn ascii(cx: &mut Exec<'_>, adjust: Adjust<u16>) {
    let ax = cx.cpu.regs.get16(EAX);
    let needed = ax & 0xf > 9 || cx.cpu.eflags & AF != 0;
    let (by, carries) = if needed { (0x106, AF | CF) } else { (0, 0) };
    let (ax, status) = adjust(ax, by, 0);
    cx.cpu.regs.set16(EAX, ax & 0xff0f);
    cx.set_status(STATUS, status & !(AF | CF) | carries);
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
    let (value, flags) = add(al, ah.wrapping_mul(insn.imm as u8), 0);
    cx.cpu.regs.set16(EAX, u16::from(value));
    cx.set_status(STATUS, flags);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use crate::cpu::eflags::{AF, CF, OF, PF, SF, STATUS, ZF};
    use crate::cpu::regs::EAX;

    /// AX and the status flags after the instruction in `bytes`.
    fn adjusted(bytes: &[u8], ax: u32, flags: u32) -> (u32, u32) {
        let mut bench = Bench::real();
        bench.cpu.regs.set(EAX, ax);
        bench.cpu.eflags = bench.cpu.eflags & !STATUS | flags;
        bench.step(bytes).expect("no exception");
        (bench.cpu.regs.get(EAX), bench.cpu.eflags & STATUS)
    }

    /// The values are those of a Zen 4.
    #[test]
    fn undefined_flags_are_those_of_the_adjustment() {
        assert_eq!(adjusted(&[0x27], 0x7a, 0), (0x80, SF | AF | OF), "daa");
        assert_eq!(adjusted(&[0x2f], 0x80, AF), (0x7a, AF | OF), "das");
        assert_eq!(adjusted(&[0x37], 0x7a, 0), (0x100, AF | CF), "aaa");
        assert_eq!(
            adjusted(&[0x3f], 0x06, AF),
            (0xff00, SF | AF | PF | CF),
            "aas"
        );
        assert_eq!(adjusted(&[0x3f], 0x05, 0), (0x05, PF), "aas of a digit");
        assert_eq!(adjusted(&[0xd5, 0x10], 0x080f, 0), (0x8f, SF), "aad");
        assert_eq!(
            adjusted(&[0xd5, 0x10], 0x1001, 0),
            (0x01, 0),
            "aad whose product loses bits"
        );
        assert_eq!(
            adjusted(&[0xd5, 1], 0xff01, 0),
            (0, ZF | PF | AF | CF),
            "aad"
        );
    }
}
