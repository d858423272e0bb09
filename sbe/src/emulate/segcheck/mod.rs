//! Questions about a selector that is not loaded: LAR, LSL, VERR, VERW, ARPL (SDM Vol. 3A, 5.10 "Pointer Validation").
//!
//! The instructions answer in ZF; an unsuitable selector is no fault.

use super::descriptors::{Entry, Kind};
use super::exec::Exec;
use super::word::Word;
use crate::cpu::eflags::ZF;
use crate::cpu::segment::Selector;
use crate::decode::Insn;
use crate::fault::Fault;

/// The bits of a descriptor's upper doubleword that LAR keeps: the access byte, and the byte of G, D/B, AVL and limit 19:16.
const ACCESS_RIGHTS: u32 = 0x00ff_ff00;

impl Exec<'_> {
    fn set_zero_flag(&mut self, value: bool) {
        self.cpu.eflags = self.cpu.eflags & !ZF | if value { ZF } else { 0 };
    }

    /// The descriptor that operand `index` names, if CPL and RPL may see it. Conforming code is seen from everywhere.
    fn visible_descriptor(&mut self, insn: &Insn, index: usize) -> Result<Option<Entry>, Fault> {
        self.require_selectors()?;
        let selector = Selector(self.read_operand(insn, index)?);
        if selector.is_null() {
            return Ok(None);
        }
        let level = self.cpu.cpl;
        let entry = self.find_descriptor(selector)?;
        Ok(entry.filter(|entry| entry.attributes().is_conforming() || !entry.is_above(level)))
    }
}

/// LAR.
pub fn lar<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let rights = cx
        .visible_descriptor(insn, 1)?
        .filter(|entry| {
            !matches!(
                entry.kind(),
                Kind::InterruptGate(_) | Kind::TrapGate(_) | Kind::Reserved
            )
        })
        .map(|entry| (entry.descriptor.0 >> 32) as u32 & ACCESS_RIGHTS);
    answer::<W>(cx, insn, rights);
    Ok(())
}

/// LSL: the limit in bytes.
pub fn lsl<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let has_limit = |kind| {
        matches!(
            kind,
            Kind::Code | Kind::Data | Kind::Ldt | Kind::AvailableTss(_) | Kind::BusyTss(_)
        )
    };
    let limit = cx
        .visible_descriptor(insn, 1)?
        .filter(|entry| has_limit(entry.kind()))
        .map(|entry| entry.descriptor.limit());
    answer::<W>(cx, insn, limit);
    Ok(())
}

fn answer<W: Word>(cx: &mut Exec<'_>, insn: &Insn, value: Option<u32>) {
    if let Some(value) = value {
        cx.set_register(insn.ops[0], W::cut(value.into()));
    }
    cx.set_zero_flag(value.is_some());
}

/// VERR.
pub fn verr(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let entry = cx.visible_descriptor(insn, 0)?;
    cx.set_zero_flag(entry.is_some_and(|entry| entry.attributes().is_readable()));
    Ok(())
}

/// VERW.
pub fn verw(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let entry = cx.visible_descriptor(insn, 0)?;
    cx.set_zero_flag(entry.is_some_and(|entry| entry.attributes().is_writable()));
    Ok(())
}

/// ARPL: raises the RPL of operand 0 to that of operand 1.
pub fn arpl(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.require_selectors()?;
    let floor = Selector(cx.read_operand(insn, 1)?).rpl();
    let selector = Selector(cx.read_operand(insn, 0)?);
    let raised = selector.rpl() < floor;
    if raised {
        cx.write_operand(insn, 0, selector.with_rpl(floor).0)?;
    }
    cx.set_zero_flag(raised);
    Ok(())
}

#[cfg(test)]
mod tests;
