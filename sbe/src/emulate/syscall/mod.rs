//! SYSCALL, SYSRET and SWAPGS: system calls of 64-bit mode (SDM Vol. 2B, "SYSCALL", "SYSRET", "SWAPGS").
//!
//! CS and SS get fixed flat segments; the tables are not read. As on Intel's processors, SYSCALL and SYSRET exist in 64-bit mode
//! only, and SYSRET raises #GP before it changes the privilege level.

use super::exec::Exec;
use crate::cpu::canonical::is_canonical;
use crate::cpu::control::EFER_SCE;
use crate::cpu::eflags::{FIXED, RF, VM};
use crate::cpu::regs::{ECX, R11};
use crate::cpu::segment::{Attributes, SegReg, Segment, Selector};
use crate::decode::Insn;
use crate::fault::Fault;

/// Position of the selectors of SYSCALL in IA32_STAR.
const SYSCALL_SHIFT: u32 = 32;
/// Position of the selectors of SYSRET in IA32_STAR.
const SYSRET_SHIFT: u32 = 48;
/// Distance from the selector in IA32_STAR to the stack segment's.
const STACK: u16 = 8;
/// Distance from the selector for SYSRET to that of 64-bit code.
const CODE64: u16 = 16;

/// A segment of 4 GiB at 0, present, with these attributes at privilege level `level`.
fn flat(selector: u16, attributes: Attributes, level: u8) -> Segment {
    let selector = Selector(selector).with_rpl(level);
    Segment::new(selector, 0, u32::MAX, attributes.with_dpl(level))
}

impl Exec<'_> {
    /// Raises #UD unless the processor is in 64-bit mode and EFER.SCE is set.
    fn require_syscall(&self) -> Result<(), Fault> {
        match self.cpu.is_code64() && self.cpu.efer & EFER_SCE != 0 {
            true => Ok(()),
            false => Err(Fault::ud()),
        }
    }

    /// Loads CS and SS for privilege level `level`.
    fn enter_call_segments(&mut self, code: Segment, stack: u16, level: u8) {
        let stack = flat(stack, Attributes::FLAT_DATA, level);
        self.cpu.segs[SegReg::Ss as usize] = stack;
        self.enter_code_segment(code, level);
    }
}

/// SYSCALL.
pub fn syscall(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.require_syscall()?;
    let cpu = &mut *cx.cpu;
    let flags = cpu.eflags;
    cpu.regs.set64(ECX, cpu.eip);
    cpu.regs.set64(R11, (flags & !RF).into());
    cpu.eip = cpu.syscall.lstar;
    let selector = (cpu.syscall.star >> SYSCALL_SHIFT) as u16;
    let cleared = cpu.syscall.fmask;
    cx.set_eflags(flags & !cleared & !(RF | VM));
    let code = flat(selector, Attributes::FLAT_CODE64, 0);
    cx.enter_call_segments(code, selector.wrapping_add(STACK), 0);
    Ok(())
}

/// SYSRET to 64-bit code.
pub fn sysret64(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.require_syscall()?;
    cx.require_cpl0()?;
    let target = cx.cpu.regs.get64(ECX);
    if !is_canonical(target) {
        return Err(Fault::gp(0));
    }
    let selector = (cx.cpu.syscall.star >> SYSRET_SHIFT) as u16;
    let code = flat(selector.wrapping_add(CODE64), Attributes::FLAT_CODE64, 3);
    sysret(cx, code, selector, target);
    Ok(())
}

/// SYSRET to 32-bit code of compatibility mode.
pub fn sysret32(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.require_syscall()?;
    cx.require_cpl0()?;
    let target = cx.cpu.regs.get(ECX).into();
    let selector = (cx.cpu.syscall.star >> SYSRET_SHIFT) as u16;
    let code = flat(selector, Attributes::FLAT_CODE, 3);
    sysret(cx, code, selector, target);
    Ok(())
}

fn sysret(cx: &mut Exec<'_>, code: Segment, selector: u16, target: u64) {
    let flags = cx.cpu.regs.get(R11);
    cx.cpu.eip = target;
    cx.enter_call_segments(code, selector.wrapping_add(STACK), 3);
    cx.set_eflags(flags & !(RF | VM) | FIXED);
    cx.mmu.fill_after_fault();
}

/// SWAPGS.
pub fn swapgs(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    if !cx.cpu.is_code64() {
        return Err(Fault::ud());
    }
    cx.require_cpl0()?;
    let cpu = &mut *cx.cpu;
    std::mem::swap(
        &mut cpu.segs[SegReg::Gs as usize].base,
        &mut cpu.kernel_gs_base,
    );
    Ok(())
}

#[cfg(test)]
mod tests;
