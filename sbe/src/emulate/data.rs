//! Data transfer: MOV, MOVZX, MOVSXD, CMOVcc, XCHG, LEA, XLAT, SETcc, BOUND (SDM Vol. 1, 7.3.1 "Data Transfer Instructions").

use super::exec::Exec;
use super::word::Word;
use crate::cpu::regs::{EAX, EBX};
use crate::decode::{Insn, Operand};
use crate::fault::{Fault, Vector};

/// MOV to a register from a register or an immediate.
pub fn mov<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value = match insn.ops[1] {
        Operand::Reg(number) => W::register(&cx.cpu.regs, number),
        _ => W::cut(insn.immediate()),
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
        _ => W::cut(insn.immediate()),
    };
    cx.store(insn.mem.segment, insn.effective_address(cx.cpu), value)
}

/// MOVZX to `D` from `S`.
pub fn movzx<D: Word, S: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value = cx.read_operand::<S>(insn, 1)?;
    cx.set_register(insn.ops[0], D::cut(value.zero_extend()));
    Ok(())
}

/// MOVSX and MOVSXD to `D` from `S`.
pub fn movsx<D: Word, S: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value = cx.read_operand::<S>(insn, 1)?;
    cx.set_register(insn.ops[0], D::cut(value.sign_extend()));
    Ok(())
}

/// CMOVcc: the source is read and the destination written whatever the condition, so that the upper half of a 64-bit register is
/// cleared with the lower. `insn.aux` is the condition number.
pub fn cmov<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let moved = cx.read_operand::<W>(insn, 1)?;
    let kept = W::register(&cx.cpu.regs, Exec::register_number(insn, 0));
    let holds = cx.condition(insn.aux as u8);
    cx.set_register(insn.ops[0], if holds { moved } else { kept });
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

/// MOV of a 64-bit immediate.
pub fn mov_immediate64(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.set_register(insn.ops[0], insn.immediate64());
    Ok(())
}

/// MOV to the accumulator from an absolute address.
pub fn mov_load_absolute<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let address = insn.wrap_address(insn.immediate64());
    let value = cx.load::<W>(insn.mem.segment, address)?;
    cx.set_register(insn.ops[0], value);
    Ok(())
}

/// MOV to an absolute address from the accumulator.
pub fn mov_store_absolute<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value = W::register(&cx.cpu.regs, EAX);
    let address = insn.wrap_address(insn.immediate64());
    cx.store(insn.mem.segment, address, value)
}

/// XLAT: AL = segment:[RBX + AL], with EBX or BX by address size.
pub fn xlat(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let index = u64::from(cx.cpu.regs.get8(EAX));
    let address = insn.wrap_address(cx.cpu.regs.get64(EBX).wrapping_add(index));
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
    let index = cx.read_operand::<W>(insn, 0)?.sign_extend() as i64;
    let address = insn.effective_address(cx.cpu);
    let lower = cx.load::<W>(insn.mem.segment, address)?.sign_extend() as i64;
    let next = insn.wrap_address(address.wrapping_add(W::BYTES.into()));
    let upper = cx.load::<W>(insn.mem.segment, next)?.sign_extend() as i64;
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
