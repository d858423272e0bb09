//! Bit tests, bit scans and byte swaps (SDM Vol. 1, 7.3.7 "Bit and Byte Instructions").

use super::exec::Exec;
use super::word::Word;
use crate::cpu::eflags::{CF, ZF};
use crate::decode::{Insn, Operand};
use crate::fault::Fault;

/// The change that BT, BTS, BTR or BTC makes to the bit.
pub trait BitOp {
    /// Whether the operand is written.
    const WRITES: bool = true;
    /// The operand with the bit in `mask` changed.
    fn apply(value: u32, mask: u32) -> u32;
}

/// BT: the bit stays.
pub struct Test;
/// BTS: the bit is set.
pub struct Set;
/// BTR: the bit is cleared.
pub struct Reset;
/// BTC: the bit is complemented.
pub struct Complement;

impl BitOp for Test {
    const WRITES: bool = false;
    fn apply(value: u32, _: u32) -> u32 {
        value
    }
}

impl BitOp for Set {
    fn apply(value: u32, mask: u32) -> u32 {
        value | mask
    }
}

impl BitOp for Reset {
    fn apply(value: u32, mask: u32) -> u32 {
        value & !mask
    }
}

impl BitOp for Complement {
    fn apply(value: u32, mask: u32) -> u32 {
        value ^ mask
    }
}

/// BT, BTS, BTR, BTC: CF receives the bit. A register bit offset reaches beyond the memory operand.
pub fn bit_test<O: BitOp, W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let offset = cx.read_operand::<W>(insn, 1)?;
    let mask = 1 << (offset.zero_extend() % W::BITS);
    let carry = if insn.ops[0] == Operand::Mem {
        let reach = match insn.ops[1] {
            Operand::Imm => 0,
            _ => (offset.sign_extend() as i32).div_euclid(W::BITS as i32) * W::BYTES as i32,
        };
        let address = insn.wrap_address(insn.effective_address(cx.cpu).wrapping_add(reach as u32));
        memory_bit::<O, W>(cx, insn, address, mask)?
    } else {
        let old = cx.read_operand::<W>(insn, 0)?.zero_extend();
        cx.set_register(insn.ops[0], W::cut(O::apply(old, mask)));
        old & mask != 0
    };
    cx.set_status(CF, if carry { CF } else { 0 });
    Ok(())
}

fn memory_bit<O: BitOp, W: Word>(
    cx: &mut Exec<'_>,
    insn: &Insn,
    address: u32,
    mask: u32,
) -> Result<bool, Fault> {
    if !O::WRITES {
        return Ok(cx.load::<W>(insn.mem.segment, address)?.zero_extend() & mask != 0);
    }
    let mut before = 0;
    cx.modify::<W>(insn.mem.segment, address, |_, old| {
        before = old.zero_extend();
        W::cut(O::apply(before, mask))
    })?;
    Ok(before & mask != 0)
}

/// BSF: a zero source sets ZF and leaves the destination as it was.
pub fn bsf<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    scan::<W>(cx, insn, |value| value.trailing_zeros())
}

/// BSR.
pub fn bsr<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    scan::<W>(cx, insn, |value| value.ilog2())
}

fn scan<W: Word>(cx: &mut Exec<'_>, insn: &Insn, find: impl Fn(u32) -> u32) -> Result<(), Fault> {
    let value = cx.read_operand::<W>(insn, 1)?.zero_extend();
    if value == 0 {
        cx.set_status(ZF, ZF);
    } else {
        cx.set_register(insn.ops[0], W::cut(find(value)));
        cx.set_status(ZF, 0);
    }
    Ok(())
}

/// BSWAP of a 32-bit register.
pub fn bswap32(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value = cx.read_operand::<u32>(insn, 0)?;
    cx.set_register(insn.ops[0], value.swap_bytes());
    Ok(())
}

/// BSWAP of a 16-bit register: undefined; processors clear it.
pub fn bswap16(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.set_register(insn.ops[0], 0u16);
    Ok(())
}
