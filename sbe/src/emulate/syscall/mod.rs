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

/// A segment of 4 GiB at 0, present, with these attributes at the privilege level of its selector.
fn flat(selector: Selector, attributes: Attributes) -> Segment {
    Segment::new(selector, 0, u32::MAX, attributes.with_dpl(selector.rpl()))
}

impl Exec<'_> {
    /// Raises #UD unless the processor is in 64-bit mode and EFER.SCE is set.
    fn require_syscall(&self) -> Result<(), Fault> {
        match self.cpu.is_code64() && self.cpu.efer & EFER_SCE != 0 {
            true => Ok(()),
            false => Err(Fault::ud()),
        }
    }

    /// Loads CS, of code with these attributes, and SS.
    fn enter_call_segments(&mut self, (code, stack): (Selector, Selector), attributes: Attributes) {
        self.cpu.segs[SegReg::Ss as usize] = flat(stack, Attributes::FLAT_DATA);
        self.enter_code_segment(flat(code, attributes), code.rpl());
    }

    /// Loads CS and SS of 64-bit code as SYSCALL does, to privilege level 0, or SYSRET, to 3.
    pub fn enter_by_syscall(&mut self, level: u8) {
        let selectors = self.cpu.syscall.selectors(level);
        self.enter_call_segments(selectors, Attributes::FLAT_CODE64);
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
    let cleared = cpu.syscall.fmask;
    cx.set_eflags(flags & !cleared & !(RF | VM));
    cx.enter_by_syscall(0);
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
    let selectors = cx.cpu.syscall.selectors(3);
    sysret(cx, selectors, Attributes::FLAT_CODE64, target);
    Ok(())
}

/// SYSRET to 32-bit code of compatibility mode.
pub fn sysret32(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.require_syscall()?;
    cx.require_cpl0()?;
    let target = cx.cpu.regs.get(ECX).into();
    let selectors = cx.cpu.syscall.selectors32();
    sysret(cx, selectors, Attributes::FLAT_CODE, target);
    Ok(())
}

fn sysret(cx: &mut Exec<'_>, selectors: (Selector, Selector), attributes: Attributes, target: u64) {
    let flags = cx.cpu.regs.get(R11);
    cx.cpu.eip = target;
    cx.enter_call_segments(selectors, attributes);
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
