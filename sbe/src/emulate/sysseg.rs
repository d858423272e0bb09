//! LDTR and TR: LLDT, LTR, SLDT, STR (SDM Vol. 3A, 2.4 "Memory-Management Registers").

use super::descriptors::Kind;
use super::exec::Exec;
use super::word::Word;
use crate::cpu::segment::{Segment, Selector};
use crate::decode::Insn;
use crate::fault::Fault;

impl Exec<'_> {
    /// Raises #UD in real-address and virtual-8086 mode, which do not recognize the instruction.
    pub fn require_selectors(&self) -> Result<(), Fault> {
        if self.cpu.has_paragraph_segments() {
            Err(Fault::ud())
        } else {
            Ok(())
        }
    }

    /// The LDTR that loading `selector` makes. A null selector makes a table without entries.
    pub fn load_ldt(
        &mut self,
        selector: Selector,
        invalid: fn(u32) -> Fault,
    ) -> Result<Segment, Fault> {
        if selector.is_null() {
            return Ok(Segment::null(selector));
        }
        let entry = self.read_global_descriptor(selector, invalid)?;
        if entry.kind() != Kind::Ldt {
            return Err(invalid(entry.error_code()));
        }
        self.system_segment(&entry, invalid)
    }
}

/// LLDT.
pub fn lldt(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.require_selectors()?;
    cx.require_cpl0()?;
    let selector = Selector(cx.read_operand(insn, 0)?);
    let ldt = cx.load_ldt(selector, Fault::gp)?;
    if !selector.is_null() && !ldt.attributes.is_present() {
        return Err(Fault::np(selector.error_code()));
    }
    cx.cpu.ldtr = ldt;
    Ok(())
}

/// LTR: marks the task-state segment busy.
pub fn ltr(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.require_selectors()?;
    cx.require_cpl0()?;
    let selector = Selector(cx.read_operand(insn, 0)?);
    if selector.is_null() {
        return Err(Fault::gp(0));
    }
    let entry = cx.read_global_descriptor(selector, Fault::gp)?;
    let Kind::AvailableTss(_) = entry.kind() else {
        return Err(Fault::gp(entry.error_code()));
    };
    entry.require_present(Fault::np)?;
    let segment = cx.system_segment(&entry, Fault::gp)?;
    cx.cpu.tr = cx.mark_busy(&entry, segment)?;
    Ok(())
}

/// SLDT.
pub fn sldt<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.require_selectors()?;
    cx.write_selector::<W>(insn, cx.cpu.ldtr.selector)
}

/// STR.
pub fn str<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.require_selectors()?;
    cx.write_selector::<W>(insn, cx.cpu.tr.selector)
}
