//! SYSENTER and SYSEXIT: system calls without descriptors (SDM Vol. 2B, "SYSENTER", "SYSEXIT").
//!
//! Both load CS and SS with fixed flat 4-GByte segments; the tables are not read. In IA-32e mode SYSENTER enters 64-bit code, and
//! SYSEXIT with a 64-bit operand size returns to such.

use super::exec::Exec;
use crate::cpu::canonical::is_canonical;
use crate::cpu::eflags::{IF, RF, VM};
use crate::cpu::regs::{ECX, EDX, ESP};
use crate::cpu::segment::{Attributes, SegReg, Segment, Selector};
use crate::decode::Insn;
use crate::fault::Fault;

/// Distance from the SYSENTER CS selector to the kernel's stack selector.
const KERNEL_STACK: u16 = 8;
/// Distance to the user code selector.
const USER_CODE: u16 = 16;
/// Distance to the user stack selector.
const USER_STACK: u16 = 24;
/// Distance to the selector of 64-bit user code.
const USER_CODE64: u16 = 32;
/// Distance to the selector of the stack of 64-bit user code.
const USER_STACK64: u16 = 40;

fn flat(selector: Selector, attributes: Attributes) -> Segment {
    Segment::new(selector, 0, u32::MAX, attributes)
}

/// Selectors of CS and SS that SYSENTER (to level 0) or SYSEXIT (to level 3) loads.
pub fn selectors(sysenter_cs: u32, level: u8) -> (Selector, Selector) {
    let first = sysenter_cs as u16 & !3;
    let (code, stack) = match level {
        0 => (0, KERNEL_STACK),
        _ => (USER_CODE, USER_STACK),
    };
    let selector = |distance| Selector(first.wrapping_add(distance)).with_rpl(level);
    (selector(code), selector(stack))
}

impl Exec<'_> {
    /// #GP(0) if the selector in IA32_SYSENTER_CS; #GP(0) if it is null or the processor is in real-address mode.
    fn require_sysenter_selector(&self) -> Result<(), Fault> {
        if !self.cpu.is_protected() || self.cpu.sysenter_cs as u16 & !3 == 0 {
            return Err(Fault::gp(0));
        }
        Ok(())
    }

    /// Loads flat CS and SS of privilege level `level`, ESP and EIP.
    pub fn enter_flat(&mut self, level: u8, pointer: u32, target: u32) {
        let selectors = selectors(self.cpu.sysenter_cs, level);
        self.enter_flat_segments(selectors, Attributes::FLAT_CODE, level);
        self.cpu.regs.set(ESP, pointer);
        self.cpu.eip = target.into();
    }

    /// Loads flat CS and SS of 64-bit code of privilege level `level`, RSP and RIP.
    fn enter_flat64(&mut self, (code, stack): (Selector, Selector), pointer: u64, target: u64) {
        self.enter_flat_segments((code, stack), Attributes::FLAT_CODE64, code.rpl());
        self.cpu.regs.set64(ESP, pointer);
        self.cpu.eip = target;
    }

    fn enter_flat_segments(
        &mut self,
        (code, stack): (Selector, Selector),
        attributes: Attributes,
        level: u8,
    ) {
        let stack = flat(stack, Attributes::FLAT_DATA.with_dpl(level));
        self.cpu.segs[SegReg::Ss as usize] = stack;
        self.enter_code_segment(flat(code, attributes.with_dpl(level)), level);
    }
}

/// SYSENTER.
pub fn sysenter(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.require_sysenter_selector()?;
    let (pointer, target) = (cx.cpu.sysenter_esp, cx.cpu.sysenter_eip);
    cx.set_eflags(cx.cpu.eflags & !(VM | IF | RF));
    if cx.cpu.is_long() {
        cx.enter_flat64(selectors(cx.cpu.sysenter_cs, 0), pointer, target);
    } else {
        cx.enter_flat(0, pointer as u32, target as u32);
    }
    Ok(())
}

/// SYSEXIT: ECX and EDX hold the new ESP and EIP.
pub fn sysexit(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.require_sysenter_selector()?;
    cx.require_cpl0()?;
    let (pointer, target) = (cx.cpu.regs.get(ECX), cx.cpu.regs.get(EDX));
    cx.enter_flat(3, pointer, target);
    Ok(())
}

/// SYSEXIT with a 64-bit operand size: RCX and RDX hold the new RSP and RIP.
pub fn sysexit64(cx: &mut Exec<'_>, _: &Insn) -> Result<(), Fault> {
    cx.require_sysenter_selector()?;
    cx.require_cpl0()?;
    let (pointer, target) = (cx.cpu.regs.get64(ECX), cx.cpu.regs.get64(EDX));
    if !is_canonical(pointer) || !is_canonical(target) {
        return Err(Fault::gp(0));
    }
    let first = cx.cpu.sysenter_cs as u16 & !3;
    let selector = |distance| Selector(first.wrapping_add(distance)).with_rpl(3);
    let selectors = (selector(USER_CODE64), selector(USER_STACK64));
    cx.enter_flat64(selectors, pointer, target);
    Ok(())
}

#[cfg(test)]
mod tests;
