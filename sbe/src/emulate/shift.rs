//! Shifts and rotates (SDM Vol. 1, 7.3.6 "Shift and Rotate Instructions").
//!
//! Counts are taken modulo 32. OF is defined for a count of one only; for others it is set as common processors do, by the
//! same formula on the result. A count of zero changes no flag.

use super::exec::Exec;
use super::flags::of_result;
use super::word::Word;
use crate::cpu::eflags::{AF, CF, OF, STATUS};
use crate::cpu::regs::ECX;
use crate::decode::Insn;
use crate::fault::Fault;

/// Mask of shift and rotate counts, which have five bits.
const COUNT_MASK: u32 = 31;

/// One of the eight operations: `(value, count, carry) -> (result, flags, which flags change)`; count is 1..=31.
pub type Operation<W> = fn(W, u32, u32) -> (W, u32, u32);

fn bit(value: bool, flag: u32) -> u32 {
    if value { flag } else { 0 }
}

/// SHL and SAL.
pub fn shl<W: Word>(value: W, count: u32, _: u32) -> (W, u32, u32) {
    let wide = u64::from(value.zero_extend()) << count;
    let result = W::cut(wide as u32);
    let cf = wide >> W::BITS & 1 != 0;
    let of = (result.zero_extend() & W::SIGN != 0) != cf;
    (
        result,
        of_result(result) | bit(cf, CF) | bit(of, OF),
        STATUS & !AF,
    )
}

/// SHR.
pub fn shr<W: Word>(value: W, count: u32, _: u32) -> (W, u32, u32) {
    let value = value.zero_extend();
    let result = W::cut(value >> count);
    let cf = value >> (count - 1) & 1 != 0;
    // The sign changed by the last step: only a count of one can leave a set sign behind.
    let of = count == 1 && value & W::SIGN != 0;
    (
        result,
        of_result(result) | bit(cf, CF) | bit(of, OF),
        STATUS & !AF,
    )
}

/// SAR.
pub fn sar<W: Word>(value: W, count: u32, _: u32) -> (W, u32, u32) {
    let value = value.sign_extend() as i32;
    let result = W::cut((value >> count) as u32);
    let cf = value >> (count - 1) & 1 != 0;
    (result, of_result(result) | bit(cf, CF), STATUS & !AF)
}

/// ROL: CF is the bit that went around; only CF and OF change.
pub fn rol<W: Word>(value: W, count: u32, _: u32) -> (W, u32, u32) {
    let value = value.zero_extend();
    let turn = count % W::BITS;
    let rotated = if turn == 0 {
        value
    } else {
        value << turn | value >> (W::BITS - turn)
    };
    let result = W::cut(rotated).zero_extend();
    let cf = result & 1 != 0;
    let of = (result & W::SIGN != 0) != cf;
    (W::cut(result), bit(cf, CF) | bit(of, OF), CF | OF)
}

/// ROR.
pub fn ror<W: Word>(value: W, count: u32, _: u32) -> (W, u32, u32) {
    let value = value.zero_extend();
    let turn = count % W::BITS;
    let rotated = if turn == 0 {
        value
    } else {
        value >> turn | value << (W::BITS - turn)
    };
    let result = W::cut(rotated).zero_extend();
    let cf = result & W::SIGN != 0;
    let of = cf != (result & W::SIGN >> 1 != 0);
    (W::cut(result), bit(cf, CF) | bit(of, OF), CF | OF)
}

/// RCL: rotates through CF, `W::BITS + 1` positions.
pub fn rcl<W: Word>(value: W, count: u32, carry: u32) -> (W, u32, u32) {
    let (result, cf) = rotate_through_carry::<W>(value, count % (W::BITS + 1), carry);
    let of = (result.zero_extend() & W::SIGN != 0) != cf;
    (result, bit(cf, CF) | bit(of, OF), CF | OF)
}

/// RCR.
pub fn rcr<W: Word>(value: W, count: u32, carry: u32) -> (W, u32, u32) {
    let positions = W::BITS + 1;
    let (result, cf) =
        rotate_through_carry::<W>(value, (positions - count % positions) % positions, carry);
    let top = result.zero_extend();
    let of = (top & W::SIGN != 0) != (top & W::SIGN >> 1 != 0);
    (result, bit(cf, CF) | bit(of, OF), CF | OF)
}

/// Rotates `carry:value` left by `turn` (less than `W::BITS + 1`).
fn rotate_through_carry<W: Word>(value: W, turn: u32, carry: u32) -> (W, bool) {
    let positions = W::BITS + 1;
    let wide = u64::from(carry) << W::BITS | u64::from(value.zero_extend());
    let rotated = wide << turn | wide >> (positions - turn);
    (W::cut(rotated as u32), rotated >> W::BITS & 1 != 0)
}

/// Applies `operation` with the count in operand 1: an immediate or CL.
#[inline(always)]
fn shift<W: Word>(cx: &mut Exec<'_>, insn: &Insn, operation: Operation<W>) -> Result<(), Fault> {
    let count = u32::from(cx.read_operand::<u8>(insn, 1)?) & COUNT_MASK;
    let carry = cx.carry();
    let (mut status, mut mask) = (0, 0);
    // With a count of zero the destination is still read and written.
    cx.modify_operand::<W>(insn, 0, |_, old| {
        if count == 0 {
            return old;
        }
        let new;
        (new, status, mask) = operation(old, count, carry);
        new
    })?;
    cx.set_status(mask, status);
    Ok(())
}

macro_rules! shifts {
    ($($handler:ident => $operation:ident),*) => {$(
        #[doc = concat!("The handler of ", stringify!($operation), ".")]
        pub fn $handler<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
            shift::<W>(cx, insn, $operation)
        }
    )*};
}

shifts!(do_shl => shl, do_shr => shr, do_sar => sar, do_rol => rol, do_ror => ror, do_rcl => rcl, do_rcr => rcr);

/// Count of SHLD and SHRD: operand 2, an immediate or CL.
fn double_count(cx: &Exec<'_>, insn: &Insn) -> u32 {
    let count = match insn.ops[2] {
        crate::decode::Operand::Imm => insn.imm,
        _ => cx.cpu.regs.get(ECX),
    };
    count & COUNT_MASK
}

/// SHLD: bits of the source come in from the right. A count above the width is undefined for 16 bits; the bits then come
/// from the operands repeated.
pub fn shld<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    double_shift::<W>(cx, insn, |high, low, count| {
        let wide = repeated::<W>(high, low);
        let shifted = wide << count;
        (
            (shifted >> (96 - W::BITS)) as u32 & W::MASK,
            shifted >> 96 & 1 != 0,
        )
    })
}

/// SHRD: bits of the source come in from the left.
pub fn shrd<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    double_shift::<W>(cx, insn, |low, high, count| {
        let wide = u128::from(high) << W::BITS | u128::from(low);
        let wide = wide | u128::from(low) << (2 * W::BITS) | u128::from(high) << (3 * W::BITS);
        (
            (wide >> count) as u32 & W::MASK,
            wide >> (count - 1) & 1 != 0,
        )
    })
}

/// `high`, then `low`, then `high` again, from bit 95 down.
fn repeated<W: Word>(high: u32, low: u32) -> u128 {
    let (high, low) = (u128::from(high), u128::from(low));
    high << (96 - W::BITS) | low << (96 - 2 * W::BITS) | high << (96 - 3 * W::BITS)
}

#[inline(always)]
fn double_shift<W: Word>(
    cx: &mut Exec<'_>,
    insn: &Insn,
    operation: impl Fn(u32, u32, u32) -> (u32, bool),
) -> Result<(), Fault> {
    let count = double_count(cx, insn);
    let source = cx.read_operand::<W>(insn, 1)?.zero_extend();
    let (mut status, mut mask) = (0, 0);
    cx.modify_operand::<W>(insn, 0, |_, old| {
        if count == 0 {
            return old;
        }
        let (new, cf) = operation(old.zero_extend(), source, count);
        let of = (old.zero_extend() ^ new) & W::SIGN != 0;
        let new = W::cut(new);
        status = of_result(new) | bit(cf, CF) | bit(of, OF);
        mask = STATUS & !AF;
        new
    })?;
    cx.set_status(mask, status);
    Ok(())
}
