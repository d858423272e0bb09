//! What a register of gdb's stands for in a [`Cpu`], where that takes more than reading a field.

use sbe::cpu::{
    Cpu,
    control::{DR6_FIXED, DR7_FIXED, DR7_WRITABLE},
    eflags,
    regs::ESP,
    segment::SegReg,
};

use super::register::NotWritable;
use crate::linear::Width;

/// The L bit among a segment's attributes: its code is of 64 bits.
const LONG: u16 = 1 << 13;

/// The default size of operands and addresses, in bits: that of the code segment. That of addresses is 64 in 64-bit mode.
pub(super) fn code_bits(cpu: &Cpu) -> u8 {
    let code = cpu.seg(SegReg::Cs);
    if Width::of(cpu) == Width::Bits64 && code.attributes.0 & LONG != 0 {
        return 64;
    }
    match cpu.is_code32() {
        true => 32,
        false => 16,
    }
}

/// The general register `index`, 0 to 15.
pub(super) fn general(cpu: &Cpu, index: u8) -> u64 {
    cpu.regs.get(index).into()
}

/// Sets the general register `index`, 0 to 15.
pub(super) fn set_general(cpu: &mut Cpu, index: u8, value: u64) -> Result<(), NotWritable> {
    cpu.regs.set(index, word(value)?);
    Ok(())
}

/// The linear address of the next instruction.
pub(super) fn linear_ip(cpu: &Cpu) -> u64 {
    cpu.linear_eip().get()
}

/// Sets the instruction pointer to the offset in CS that stands for a linear address.
pub(super) fn set_linear_ip(cpu: &mut Cpu, linear: u64) -> Result<(), NotWritable> {
    let code = cpu.seg(SegReg::Cs);
    let offset = match code_bits(cpu) {
        64 => word(linear)?,
        _ => word(linear)?.wrapping_sub(code.base),
    };
    if code_bits(cpu) != 64 && offset > code.limit {
        return Err(NotWritable);
    }
    cpu.eip = offset;
    Ok(())
}

/// Sets the instruction pointer.
pub(super) fn set_ip(cpu: &mut Cpu, offset: u64) -> Result<(), NotWritable> {
    cpu.eip = word(offset)?;
    Ok(())
}

/// The linear address of the top of the stack.
pub(super) fn linear_sp(cpu: &Cpu) -> u64 {
    if code_bits(cpu) == 64 {
        return general(cpu, ESP);
    }
    let esp = cpu.regs.get(ESP);
    let offset = match cpu.is_stack32() {
        true => esp,
        false => esp & 0xffff,
    };
    cpu.seg(SegReg::Ss).base.wrapping_add(offset).into()
}

/// Sets EFLAGS, except for VM: entering or leaving virtual-8086 mode also changes what the segment registers hold.
pub(super) fn set_eflags(cpu: &mut Cpu, value: u32) {
    let kept = eflags::VM | !eflags::DEFINED;
    cpu.eflags = cpu.eflags & kept | value & !kept;
}

/// Sets CR2.
pub(super) fn set_cr2(cpu: &mut Cpu, value: u64) -> Result<(), NotWritable> {
    cpu.cr2 = word(value)?;
    Ok(())
}

/// Sets debug register `index`.
pub(super) fn set_debug(cpu: &mut Cpu, index: usize, value: u64) -> Result<(), NotWritable> {
    let value = word(value)?;
    cpu.dr[index] = match index {
        6 => value | DR6_FIXED,
        7 => value & DR7_WRITABLE | DR7_FIXED,
        _ => value,
    };
    Ok(())
}

/// A value of as many bits as the processor's registers have.
fn word(value: u64) -> Result<u32, NotWritable> {
    u32::try_from(value).map_err(|_| NotWritable)
}
