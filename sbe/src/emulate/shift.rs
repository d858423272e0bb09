//! Shifts and rotates (SDM Vol. 1, 7.3.6 "Shift and Rotate Instructions").
//!
//! Counts are taken modulo 32, or modulo 64 if the operand has 64 bits. Flags are defined in part only, and results of SHLD and
//! SHRD not for every count; what is undefined is the host's ([`super::host_alu`]).

use super::exec::Exec;
use super::host_alu;
use super::word::Word;
use crate::cpu::eflags::STATUS;
use crate::cpu::regs::ECX;
use crate::decode::Insn;
use crate::fault::Fault;

/// Mask of shift and rotate counts, which have five bits, or six if the operand has 64 bits.
fn count_mask<W: Word>() -> u32 {
    if W::BITS == 64 { 63 } else { 31 }
}

/// One of the seven operations: `(value, count, flags) -> (result, flags)`; count is masked.
type Operation<W> = fn(W, u32, u32) -> (W, u32);

/// Applies `operation` with the count in operand 1: an immediate or CL.
#[inline(always)]
fn shift<W: Word>(cx: &mut Exec<'_>, insn: &Insn, operation: Operation<W>) -> Result<(), Fault> {
    let count = u32::from(cx.read_operand::<u8>(insn, 1)?) & count_mask::<W>();
    let mut flags = cx.cpu.eflags;
    // With a count of zero the destination is still read and written.
    cx.modify_operand::<W>(insn, 0, |_, old| {
        let new;
        (new, flags) = operation(old, count, flags);
        new
    })?;
    cx.set_status(STATUS, flags);
    Ok(())
}

macro_rules! shifts {
    ($($handler:ident => $operation:ident),*) => {$(
        #[doc = concat!("The handler of ", stringify!($operation), ".")]
        pub fn $handler<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
            shift::<W>(cx, insn, host_alu::$operation)
        }
    )*};
}

shifts!(do_shl => shl, do_shr => shr, do_sar => sar, do_rol => rol, do_ror => ror, do_rcl => rcl, do_rcr => rcr);

/// Count of SHLD and SHRD: operand 2, an immediate or CL.
fn double_count<W: Word>(cx: &Exec<'_>, insn: &Insn) -> u32 {
    let count = match insn.ops[2] {
        crate::decode::Operand::Imm => insn.imm,
        _ => cx.cpu.regs.get(ECX),
    };
    count & count_mask::<W>()
}

/// SHLD: bits of the source come in from the right.
pub fn shld<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    double_shift::<W>(cx, insn, host_alu::shld)
}

/// SHRD: bits of the source come in from the left.
pub fn shrd<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    double_shift::<W>(cx, insn, host_alu::shrd)
}

#[inline(always)]
fn double_shift<W: Word>(
    cx: &mut Exec<'_>,
    insn: &Insn,
    operation: fn(W, W, u32, u32) -> (W, u32),
) -> Result<(), Fault> {
    let count = double_count::<W>(cx, insn);
    let source = cx.read_operand::<W>(insn, 1)?;
    let mut flags = cx.cpu.eflags;
    cx.modify_operand::<W>(insn, 0, |_, old| {
        let new;
        (new, flags) = operation(old, source, count, flags);
        new
    })?;
    cx.set_status(STATUS, flags);
    Ok(())
}
