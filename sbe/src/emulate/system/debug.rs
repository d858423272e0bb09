//! Moves to and from debug registers (SDM Vol. 3B, 17.2 "Debug Registers").

use crate::cpu::control::{
    CR4_DE, DR6_BD, DR6_FIXED, DR6_WRITABLE, DR7_FIXED, DR7_GD, DR7_WRITABLE,
};
use crate::decode::Insn;
use crate::emulate::exec::Exec;
use crate::emulate::word::Word;
use crate::fault::{Fault, Vector};

/// Checks privilege, resolves DR4 and DR5 (aliases of 6 and 7 unless CR4.DE) and checks DR7.GD, in this order.
fn checked_number(cx: &mut Exec<'_>, number: u8) -> Result<usize, Fault> {
    cx.require_cpl0()?;
    let number = match number {
        4 | 5 if cx.cpu.cr4 & CR4_DE != 0 => return Err(Fault::ud()),
        4 | 5 => number + 2,
        0..=7 => number,
        _ => return Err(Fault::ud()),
    };
    if cx.cpu.dr[7] & DR7_GD != 0 {
        cx.cpu.dr[6] |= DR6_BD;
        return Err(Fault::plain(Vector::Debug));
    }
    Ok(usize::from(number))
}

/// MOV r32, DRn and MOV r64, DRn.
pub fn mov_from_dr<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let number = checked_number(cx, Exec::register_number(insn, 1))?;
    cx.set_register(insn.ops[0], W::cut(cx.cpu.dr[number]));
    Ok(())
}

/// MOV DRn, r32 and MOV DRn, r64. The upper halves of DR6 and DR7 must be zero, or #GP(0).
pub fn mov_to_dr<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let number = checked_number(cx, Exec::register_number(insn, 0))?;
    let value = cx.read_operand::<W>(insn, 1)?.zero_extend();
    if number >= 6 && value > u32::MAX.into() {
        return Err(Fault::gp(0));
    }
    cx.cpu.dr[number] = match number {
        6 => value & DR6_WRITABLE | DR6_FIXED,
        7 => value & DR7_WRITABLE | DR7_FIXED,
        _ => value,
    };
    cx.update_access_checks();
    Ok(())
}
