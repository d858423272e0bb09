//! Data transfer: MOV, MOVZX, CMOVcc, XCHG, LEA, XLAT, SETcc, BOUND (SDM Vol. 1, 7.3.1 "Data Transfer Instructions").

use super::exec::Exec;
use super::word::Word;
use crate::cpu::regs::{EAX, EBX};
use crate::decode::{Insn, Operand};
use crate::fault::{Fault, Vector};

/// MOV to a register from a register or an immediate.
pub fn mov<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value = match insn.ops[1] {
        Operand::Reg(number) => W::register(&cx.cpu.regs, number),
        _ => W::cut(insn.imm),
    };
    cx.set_register(insn.ops[0], value);
    Ok(())
}

/// MOV to a register from memory.
pub fn mov_load<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value = cx.load::<W>(insn.mem.segment, insn.effective_address(cx.cpu))?;
    cx.set_register(insn.ops[0], value);
    Ok(())
}

/// MOV to memory from a register or an immediate.
pub fn mov_store<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value = match insn.ops[1] {
        Operand::Reg(number) => W::register(&cx.cpu.regs, number),
        _ => W::cut(insn.imm),
    };
    cx.store(insn.mem.segment, insn.effective_address(cx.cpu), value)
}

/// MOVZX to `D` from `S`.
pub fn movzx<D: Word, S: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value = cx.read_operand::<S>(insn, 1)?;
    cx.set_register(insn.ops[0], D::cut(value.zero_extend()));
    Ok(())
}

/// MOVSX to `D` from `S`.
pub fn movsx<D: Word, S: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value = cx.read_operand::<S>(insn, 1)?;
    cx.set_register(insn.ops[0], D::cut(value.sign_extend()));
    Ok(())
}

/// CMOVcc: the source is read whatever the condition. `insn.aux` is the condition number.
pub fn cmov<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value = cx.read_operand::<W>(insn, 1)?;
    if cx.condition(insn.aux as u8) {
        cx.set_register(insn.ops[0], value);
    }
    Ok(())
}

/// SETcc. `insn.aux` is the condition number.
pub fn setcc(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value = u8::from(cx.condition(insn.aux as u8));
    cx.write_operand(insn, 0, value)
}

/// XCHG.
pub fn xchg<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let second = cx.read_operand::<W>(insn, 1)?;
    cx.modify_operand(insn, 0, |cx, first: W| {
        cx.set_register(insn.ops[1], first);
        second
    })
}

/// LEA.
pub fn lea<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let address = insn.effective_address(cx.cpu);
    cx.set_register(insn.ops[0], W::cut(address));
    Ok(())
}

/// XLAT: AL = segment:[(E)BX + AL].
pub fn xlat(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let index = u32::from(cx.cpu.regs.get8(EAX));
    let address = insn.wrap_address(cx.cpu.regs.get(EBX).wrapping_add(index));
    let value = cx.load::<u8>(insn.mem.segment, address)?;
    cx.cpu.regs.set8(EAX, value);
    Ok(())
}

/// SALC (undocumented): AL = CF ? 0xff : 0.
pub fn salc(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    let value = if cx.carry() != 0 { 0xff } else { 0 };
    cx.cpu.regs.set8(EAX, value);
    Ok(())
}

/// BOUND: #BR when the signed index is outside the pair of bounds in memory.
pub fn bound<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let index = cx.read_operand::<W>(insn, 0)?.sign_extend() as i32;
    let address = insn.effective_address(cx.cpu);
    let lower = cx.load::<W>(insn.mem.segment, address)?.sign_extend() as i32;
    let next = insn.wrap_address(address.wrapping_add(W::BYTES));
    let upper = cx.load::<W>(insn.mem.segment, next)?.sign_extend() as i32;
    if index < lower || index > upper {
        Err(Fault::plain(Vector::BoundRange))
    } else {
        Ok(())
    }
}

/// NOP in all its forms, and cache hints: an operand is not accessed.
pub fn nop(_: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    Ok(())
}

/// UD0, UD1, UD2.
pub fn undefined(_: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    Err(Fault::ud())
}
