//! What a register of gdb's stands for in a [`Cpu`], where that takes more than reading a field.

use mmu::LinearAddr;
use sbe::cpu::{
    Cpu,
    control::{DR6_FIXED, DR6_WRITABLE, DR7_FIXED, DR7_WRITABLE},
    eflags,
    regs::ESP,
    segment::SegReg,
};

use super::register::NotWritable;

/// The default size of operands and addresses, in bits: that of the code segment. That of addresses is 64 in 64-bit mode.
pub(super) fn code_bits(cpu: &Cpu) -> u8 {
    match (cpu.is_code64(), cpu.is_code32()) {
        (true, _) => 64,
        (false, true) => 32,
        (false, false) => 16,
    }
}

/// The general register `index`, 0 to 15.
pub(super) fn general(cpu: &Cpu, index: u8) -> u64 {
    cpu.regs.get64(index)
}

/// Sets the general register `index`, 0 to 15.
pub(super) fn set_general(cpu: &mut Cpu, index: u8, value: u64) {
    cpu.regs.set64(index, value);
}

/// The linear address of the next instruction.
pub(super) fn linear_ip(cpu: &Cpu) -> u64 {
    cpu.linear_eip().get()
}

/// Sets the instruction pointer to the offset in CS that stands for a linear address.
pub(super) fn set_linear_ip(cpu: &mut Cpu, linear: u64) -> Result<(), NotWritable> {
    if cpu.is_code64() {
        return set_ip(cpu, linear);
    }
    let code = cpu.seg(SegReg::Cs);
    let offset = (linear as u32).wrapping_sub(code.base as u32);
    if linear > u32::MAX.into() || offset > code.limit {
        return Err(NotWritable);
    }
    cpu.eip = offset.into();
    Ok(())
}

/// Sets the instruction pointer.
pub(super) fn set_ip(cpu: &mut Cpu, offset: u64) -> Result<(), NotWritable> {
    let exists = match cpu.is_code64() {
        true => LinearAddr::new(offset).is_canonical(),
        false => u32::try_from(offset).is_ok(),
    };
    if !exists {
        return Err(NotWritable);
    }
    cpu.eip = offset;
    Ok(())
}

/// The linear address of the top of the stack.
pub(super) fn linear_sp(cpu: &Cpu) -> u64 {
    let offset = cpu.stack_size().wrap(general(cpu, ESP));
    cpu.linear(SegReg::Ss, offset).get()
}

/// Sets EFLAGS, except for VM: entering or leaving virtual-8086 mode also changes what the segment registers hold.
pub(super) fn set_eflags(cpu: &mut Cpu, value: u32) {
    let kept = eflags::VM | !eflags::DEFINED;
    cpu.eflags = cpu.eflags & kept | value & !kept;
}

/// Sets debug register `index`.
pub(super) fn set_debug(cpu: &mut Cpu, index: usize, value: u64) {
    cpu.dr[index] = match index {
        6 => value & DR6_WRITABLE | DR6_FIXED,
        7 => value & DR7_WRITABLE | DR7_FIXED,
        _ => value,
    };
}
