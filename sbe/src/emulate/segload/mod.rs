//! Loading and storing segment registers (SDM Vol. 3A, 3.4.3 "Segment Registers", 5.5 to 5.7 on privilege checks;
//! Vol. 2, "MOV", "POP", "LDS/LES/LFS/LGS/LSS").
//!
//! The same checks serve instructions, far returns, inner stacks and task switches. The vector of the fault for an unsuitable
//! segment differs and is a parameter.

use super::descriptors::Entry;
use super::exec::Exec;
use super::word::Word;
use crate::cpu::segment::{Attributes, SegReg, Segment, Selector};
use crate::cpu::{Pending, SegmentLoad};
use crate::decode::{Insn, Operand};
use crate::fault::Fault;

/// Attribute bits that a real-mode load of CS keeps: D/B and G.
const SIZE_BITS: u16 = 0xc000;

impl Exec<'_> {
    /// Loads ES, SS, DS, FS or GS in the current mode.
    pub fn load_segment(&mut self, register: SegReg, selector: Selector) -> Result<(), Fault> {
        if self.cpu.has_paragraph_segments() {
            self.load_paragraph(register, selector);
            return Ok(());
        }
        let segment = if register == SegReg::Ss {
            let is_code64 = self.cpu.is_code64();
            let checked = self.find_stack_segment(selector, self.cpu.cpl, is_code64, Fault::gp)?;
            self.accept_stack_segment(selector, checked)?
        } else {
            let segment = self.load_data_segment(selector, self.cpu.cpl, Fault::gp)?;
            self.cpu.last_load = Some(SegmentLoad {
                selector,
                segment,
                cpl: self.cpu.cpl,
                retired: self.cpu.retired,
            });
            segment
        };
        self.cpu.segs[register as usize] = segment;
        Ok(())
    }

    /// Loads a segment register in real-address or virtual-8086 mode.
    ///
    /// Real mode replaces the base only: limit and attributes stay, so that a segment made large in protected mode stays
    /// large. A register that protected mode left unusable becomes an ordinary one, and code becomes writable.
    pub fn load_paragraph(&mut self, register: SegReg, selector: Selector) {
        let old = self.cpu.seg(register);
        let base = u64::from(selector.0) << 4;
        let segment = if self.cpu.is_v86() {
            Segment::v86(selector)
        } else if register == SegReg::Cs {
            let attributes = Attributes(old.attributes.0 & SIZE_BITS | Attributes::REAL_DATA.0);
            Segment::new(selector, base, old.limit, attributes)
        } else if old.attributes.is_present() {
            Segment::new(selector, base, old.limit, old.attributes)
        } else {
            Segment::real(selector)
        };
        self.cpu.segs[register as usize] = segment;
    }

    /// The segment register that loading `selector` into DS, ES, FS or GS makes at privilege level `level`.
    pub fn load_data_segment(
        &mut self,
        selector: Selector,
        level: u8,
        invalid: fn(u32) -> Fault,
    ) -> Result<Segment, Fault> {
        if selector.is_null() {
            return Ok(Segment::null(selector));
        }
        let entry = self.read_descriptor(selector, invalid)?;
        let attributes = entry.attributes();
        let visible = attributes.is_conforming() || !entry.is_above(level);
        if !attributes.is_readable() || !visible {
            return Err(invalid(entry.error_code()));
        }
        entry.require_present(Fault::np)?;
        self.accept_segment(&entry)
    }

    /// As [`Self::check_stack_segment`]; `None` for a null selector, which is valid for 64-bit code of levels 0 to 2.
    pub fn find_stack_segment(
        &mut self,
        selector: Selector,
        level: u8,
        is_code64: bool,
        invalid: fn(u32) -> Fault,
    ) -> Result<Option<Entry>, Fault> {
        if is_code64 && selector.is_null() && level < 3 && selector.rpl() == level {
            return Ok(None);
        }
        self.check_stack_segment(selector, level, invalid).map(Some)
    }

    /// The register that loading `selector` into SS makes, whose descriptor [`Self::find_stack_segment`] has found.
    pub fn accept_stack_segment(
        &mut self,
        selector: Selector,
        checked: Option<Entry>,
    ) -> Result<Segment, Fault> {
        match checked {
            Some(entry) => self.accept_segment(&entry),
            None => Ok(Segment::null(selector)),
        }
    }

    /// The descriptor of a stack segment for privilege level `level`: writable data with RPL and DPL equal to it.
    pub fn check_stack_segment(
        &mut self,
        selector: Selector,
        level: u8,
        invalid: fn(u32) -> Fault,
    ) -> Result<Entry, Fault> {
        if selector.is_null() {
            return Err(invalid(0));
        }
        let entry = self.read_descriptor(selector, invalid)?;
        let same_level = selector.rpl() == level && entry.dpl() == level;
        if !same_level || !entry.attributes().is_writable() {
            return Err(invalid(entry.error_code()));
        }
        entry.require_present(Fault::ss)?;
        Ok(entry)
    }
}

/// The segment register of this number in an encoding; #UD if there is none.
fn segment_register(number: u8) -> Result<SegReg, Fault> {
    SegReg::ALL
        .get(usize::from(number))
        .copied()
        .ok_or(Fault::ud())
}

/// The segment register that is the destination of `insn`; #UD for CS, which cannot be loaded.
fn loadable_register(insn: &Insn) -> Result<SegReg, Fault> {
    match segment_register(Exec::register_number(insn, 0))? {
        SegReg::Cs => Err(Fault::ud()),
        register => Ok(register),
    }
}

/// MOV Sreg, r/m16. Loading SS inhibits interrupts for one instruction.
pub fn mov_to_sreg(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let register = loadable_register(insn)?;
    let selector = Selector(cx.read_operand(insn, 1)?);
    cx.load_segment(register, selector)?;
    shadow_after(cx, register);
    Ok(())
}

/// POP Sreg. Loading SS inhibits interrupts for one instruction.
pub fn pop_sreg<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let register = loadable_register(insn)?;
    let value = cx.peek::<W>()?;
    // The increment has the address size of the stack that was popped, even if SS changes.
    let top = cx.stack_pointer().wrapping_add(W::BYTES.into());
    let size = cx.cpu.stack_size();
    cx.load_segment(register, Selector(value.zero_extend() as u16))?;
    size.set_pointer(&mut cx.cpu.regs, top);
    shadow_after(cx, register);
    Ok(())
}

/// Inhibits interrupts for one instruction after a load of SS (SDM Vol. 3A, 6.8.3 "Masking Exceptions and Interrupts When
/// Switching Stacks"). LSS has no such effect: it loads SS and ESP together.
fn shadow_after(cx: &mut Exec<'_>, register: SegReg) {
    if register == SegReg::Ss {
        cx.cpu.pending.set(Pending::SHADOW | Pending::SHADOW_SS);
    }
}

/// PUSH Sreg: the selector, zero-extended. (The manual allows a 16-bit store into a 32-bit slot as well; processors
/// differ.)
pub fn push_sreg<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let register = segment_register(Exec::register_number(insn, 0))?;
    let selector = cx.cpu.seg(register).selector;
    cx.push(W::cut(selector.0.into()))
}

/// MOV r/m16, Sreg: a 32- or 64-bit register is zero-extended, memory always receives 16 bits.
pub fn mov_from_sreg<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let register = segment_register(Exec::register_number(insn, 1))?;
    let selector = cx.cpu.seg(register).selector;
    cx.write_selector::<W>(insn, selector)
}

impl Exec<'_> {
    /// Stores a selector into operand 0: all of a register, 16 bits of memory.
    pub fn write_selector<W: Word>(
        &mut self,
        insn: &Insn,
        selector: Selector,
    ) -> Result<(), Fault> {
        if insn.ops[0] == Operand::Mem {
            self.write_operand(insn, 0, selector.0)
        } else {
            self.write_operand(insn, 0, W::cut(selector.0.into()))
        }
    }

    /// Reads the far pointer at the memory operand: offset, then selector.
    pub fn read_far_pointer<W: Word>(&mut self, insn: &Insn) -> Result<(W, Selector), Fault> {
        let address = insn.effective_address(self.cpu);
        let offset = self.load(insn.mem.segment, address)?;
        let selector_address = insn.wrap_address(address.wrapping_add(W::BYTES.into()));
        let selector = self.load(insn.mem.segment, selector_address)?;
        Ok((offset, Selector(selector)))
    }
}

fn load_far_pointer<W: Word>(
    cx: &mut Exec<'_>,
    insn: &Insn,
    register: SegReg,
) -> Result<(), Fault> {
    let (offset, selector) = cx.read_far_pointer::<W>(insn)?;
    cx.load_segment(register, selector)?;
    cx.set_register(insn.ops[0], offset);
    Ok(())
}

/// LES.
pub fn les<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    load_far_pointer::<W>(cx, insn, SegReg::Es)
}

/// LDS.
pub fn lds<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    load_far_pointer::<W>(cx, insn, SegReg::Ds)
}

/// LSS.
pub fn lss<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    load_far_pointer::<W>(cx, insn, SegReg::Ss)
}

/// LFS.
pub fn lfs<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    load_far_pointer::<W>(cx, insn, SegReg::Fs)
}

/// LGS.
pub fn lgs<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    load_far_pointer::<W>(cx, insn, SegReg::Gs)
}

#[cfg(test)]
mod tests;
