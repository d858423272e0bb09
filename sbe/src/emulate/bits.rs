//! Bit tests, bit scans, bit counts, sums of bits and byte swaps (SDM Vol. 1, 7.3.7 "Bit and Byte Instructions"). What they leave
//! undefined is the host's ([`super::host_alu`]).

use super::exec::Exec;
use super::host_alu;
use super::word::Word;
use crate::cpu::eflags::STATUS;
use crate::decode::{Insn, Operand};
use crate::fault::Fault;

/// BT, BTS, BTR or BTC on the host.
pub trait BitOp {
    /// Whether the operand is written.
    const WRITES: bool = true;
    /// Executes it with the bit offset `offset` modulo the width: the operand after it, and the status flags.
    fn apply<W: Word>(value: W, offset: W, flags: u32) -> (W, u32);
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
    fn apply<W: Word>(value: W, offset: W, flags: u32) -> (W, u32) {
        host_alu::bt(value, offset, flags)
    }
}

impl BitOp for Set {
    fn apply<W: Word>(value: W, offset: W, flags: u32) -> (W, u32) {
        host_alu::bts(value, offset, flags)
    }
}

impl BitOp for Reset {
    fn apply<W: Word>(value: W, offset: W, flags: u32) -> (W, u32) {
        host_alu::btr(value, offset, flags)
    }
}

impl BitOp for Complement {
    fn apply<W: Word>(value: W, offset: W, flags: u32) -> (W, u32) {
        host_alu::btc(value, offset, flags)
    }
}

/// BT, BTS, BTR, BTC: CF receives the bit. A register bit offset reaches beyond the memory operand.
pub fn bit_test<O: BitOp, W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let offset = cx.read_operand::<W>(insn, 1)?;
    let flags = cx.cpu.eflags;
    let flags = if insn.ops[0] == Operand::Mem {
        let reach = match insn.ops[1] {
            Operand::Imm => 0,
            _ => (offset.sign_extend() as i64).div_euclid(W::BITS.into()) * i64::from(W::BYTES),
        };
        let address = insn.wrap_address(insn.effective_address(cx.cpu).wrapping_add(reach as u64));
        memory_bit::<O, W>(cx, insn, address, offset)?
    } else {
        let old = cx.read_operand::<W>(insn, 0)?;
        let (new, flags) = O::apply(old, offset, flags);
        if O::WRITES {
            cx.set_register(insn.ops[0], new);
        }
        flags
    };
    cx.set_status(STATUS, flags);
    Ok(())
}

/// Applies the operation to the word at `address`; returns the status flags.
fn memory_bit<O: BitOp, W: Word>(
    cx: &mut Exec<'_>,
    insn: &Insn,
    address: u64,
    offset: W,
) -> Result<u32, Fault> {
    let mut flags = cx.cpu.eflags;
    if !O::WRITES {
        let value = cx.load::<W>(insn.mem.segment, address)?;
        return Ok(O::apply(value, offset, flags).1);
    }
    cx.modify::<W>(insn.mem.segment, address, |_, old| {
        let new;
        (new, flags) = O::apply(old, offset, flags);
        new
    })?;
    Ok(flags)
}

/// BSF. The result is undefined if the source is zero.
pub fn bsf<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    scan::<W>(cx, insn, host_alu::bsf)
}

/// BSR. The result is undefined if the source is zero.
pub fn bsr<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    scan::<W>(cx, insn, host_alu::bsr)
}

fn scan<W: Word>(
    cx: &mut Exec<'_>,
    insn: &Insn,
    operation: fn(u64, W, u32) -> (u64, u32),
) -> Result<(), Fault> {
    let source = cx.read_operand::<W>(insn, 1)?;
    let register = Exec::register_number(insn, 0);
    let destination = cx.cpu.regs.get64(register);
    let (found, flags) = operation(destination, source, cx.cpu.eflags);
    cx.cpu.regs.set64(register, found);
    cx.set_status(STATUS, flags);
    Ok(())
}

/// POPCNT.
pub fn popcnt<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let source = cx.read_operand::<W>(insn, 1)?;
    let (count, flags) = host_alu::popcnt(W::cut(0), source, cx.cpu.eflags);
    cx.set_register(insn.ops[0], count);
    cx.set_status(STATUS, flags);
    Ok(())
}

/// CRC32 of a source of this width. The sum has 32 bits, in a register of 32 or 64.
pub fn crc32<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let source = cx.read_operand::<W>(insn, 1)?;
    let register = Exec::register_number(insn, 0);
    let sum = host_alu::crc32(cx.cpu.regs.get(register), source);
    cx.cpu.regs.set64(register, sum.into());
    Ok(())
}

/// BSWAP of a 64-bit register.
pub fn bswap64(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value = cx.read_operand::<u64>(insn, 0)?;
    cx.set_register(insn.ops[0], value.swap_bytes());
    Ok(())
}

/// BSWAP of a 32-bit register.
pub fn bswap32(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value = cx.read_operand::<u32>(insn, 0)?;
    cx.set_register(insn.ops[0], value.swap_bytes());
    Ok(())
}

/// BSWAP of a 16-bit register, whose result is undefined.
pub fn bswap16(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let value = cx.read_operand::<u16>(insn, 0)?;
    cx.set_register(insn.ops[0], host_alu::bswap16(value));
    Ok(())
}
