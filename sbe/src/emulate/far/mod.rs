//! Far control transfers: far JMP, CALL and RET (SDM Vol. 3A, 5.8 "Privilege Level Checking When Transferring Program
//! Control Between Code Segments"; Vol. 2, "CALL", "JMP", "RET").
//!
//! ```text
//!   selector ──► code segment ───────────────► same level
//!           ├──► call gate ──► code segment ─┬► same level
//!           │                                └► inner level (CALL): stack from the TSS, parameters copied
//!           └──► task gate ──► TSS ──────────► task switch (not in IA-32e mode)
//! ```

use super::descriptors::{Entry, Kind, Size};
use super::exec::Exec;
use super::task::Nesting;
use super::transfer_stack::TransferStack;
use super::word::Word;
use crate::cpu::Pending;
use crate::cpu::canonical::is_canonical;
use crate::cpu::regs::ESP;
use crate::cpu::segment::{Descriptor, SegReg, Segment, Selector};
use crate::decode::Insn;
use crate::fault::Fault;

/// The kind of a far transfer, by what it leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transfer {
    /// JMP: leaves nothing behind.
    Jump,
    /// CALL: pushes the return address.
    Call,
}

/// A code segment that passed all checks, and the entry point in it.
#[derive(Clone, Copy, Debug)]
pub struct CodeTarget {
    /// The descriptor, accessed bit yet to be set.
    pub entry: Entry,
    /// Offset in the segment.
    pub offset: u64,
    /// Privilege level after the transfer.
    pub level: u8,
}

impl CodeTarget {
    /// Raises #GP(0) unless the offset lies within the segment, or is canonical if the code is 64-bit code.
    pub fn check_offset(&self) -> Result<(), Fault> {
        let is_valid = match self.entry.is_code64() {
            true => is_canonical(self.offset),
            false => self.offset <= self.entry.segment().limit.into(),
        };
        if is_valid { Ok(()) } else { Err(Fault::gp(0)) }
    }
}

impl Exec<'_> {
    /// Loads CS with an accepted code segment; `level` becomes RPL and CPL.
    pub fn enter_code_segment(&mut self, segment: Segment, level: u8) {
        let selector = segment.selector.with_rpl(level);
        self.cpu.segs[SegReg::Cs as usize] = Segment {
            selector,
            ..segment
        };
        self.set_cpl(level);
    }

    /// Sets CS:EIP in real-address and virtual-8086 mode.
    pub fn enter_paragraph(&mut self, selector: Selector, offset: u64) {
        self.load_paragraph(SegReg::Cs, selector);
        self.cpu.eip = offset;
        self.cpu.pending.set(Pending::REFETCH);
    }

    /// Goes to `target` on the stack in use, leaving a return address of width `W` if it is a call.
    fn transfer<W: Word>(&mut self, target: &CodeTarget, kind: Transfer) -> Result<(), Fault> {
        let mut stack = TransferStack::current(self.cpu);
        let back = [u64::from(self.cpu.seg(SegReg::Cs).selector.0), self.cpu.eip];
        let back: &[u64] = if kind == Transfer::Call { &back } else { &[] };
        stack.check_room::<W>(back.len() as u32)?;
        target.check_offset()?;
        self.push_progressively::<W>(&mut stack, back)?;
        let segment = self.accept_segment(&target.entry)?;
        stack.commit(self.cpu);
        self.enter_code_segment(segment, target.level);
        self.cpu.eip = target.offset;
        Ok(())
    }

    /// Pushes a return address on the stack in use. If a later item faults, those before it stay in memory, below ESP, as
    /// processors leave them.
    fn push_progressively<W: Word>(
        &mut self,
        stack: &mut TransferStack,
        items: &[u64],
    ) -> Result<(), Fault> {
        for &item in items {
            stack.prepare::<W>(self, 1)?;
            stack.push(self, W::cut(item))?;
        }
        Ok(())
    }

    fn transfer_paragraph<W: Word>(
        &mut self,
        selector: Selector,
        offset: u64,
        kind: Transfer,
    ) -> Result<(), Fault> {
        let mut stack = TransferStack::current(self.cpu);
        let back = [u64::from(self.cpu.seg(SegReg::Cs).selector.0), self.cpu.eip];
        let back: &[u64] = if kind == Transfer::Call { &back } else { &[] };
        stack.check_room::<W>(back.len() as u32)?;
        self.check_near_target(offset)?;
        self.push_progressively::<W>(&mut stack, back)?;
        stack.commit(self.cpu);
        self.enter_paragraph(selector, offset);
        Ok(())
    }

    fn far_transfer<W: Word>(
        &mut self,
        selector: Selector,
        offset: W,
        kind: Transfer,
    ) -> Result<(), Fault> {
        let offset = offset.zero_extend();
        if self.cpu.has_paragraph_segments() {
            return self.transfer_paragraph::<W>(selector, offset, kind);
        }
        if selector.is_null() {
            return Err(Fault::gp(0));
        }
        let entry = self.read_descriptor(selector, Fault::gp)?;
        match entry.kind() {
            Kind::Code => {
                let offset = match self.cpu.is_long() && !entry.is_code64() {
                    true => u64::from(offset as u32),
                    false => offset,
                };
                let target = self.direct_target(entry, offset)?;
                self.transfer::<W>(&target, kind)
            }
            Kind::CallGate(size) => self.through_call_gate(&entry, size, kind),
            Kind::TaskGate => self.through_task_gate(&entry, kind),
            // IA-32e mode has no task switches.
            Kind::AvailableTss(size) if size != Size::Bits64 => {
                if entry.is_above(self.cpu.cpl) {
                    return Err(Fault::gp(entry.error_code()));
                }
                self.transfer_to_task(selector, kind)
            }
            _ => Err(Fault::gp(entry.error_code())),
        }
    }

    /// Checks a code segment that a far pointer names: the privilege level stays.
    fn direct_target(&self, entry: Entry, offset: u64) -> Result<CodeTarget, Fault> {
        let level = self.cpu.cpl;
        let allowed = if entry.attributes().is_conforming() {
            entry.dpl() <= level
        } else {
            entry.selector.rpl() <= level && entry.dpl() == level
        };
        if !allowed || !entry.has_valid_code_size() {
            return Err(Fault::gp(entry.error_code()));
        }
        entry.require_present(Fault::np)?;
        Ok(CodeTarget {
            entry,
            offset,
            level,
        })
    }

    fn through_call_gate(&mut self, gate: &Entry, size: Size, kind: Transfer) -> Result<(), Fault> {
        self.check_gate(gate)?;
        let target = self.gate_target(gate, size, kind)?;
        match (target.level < self.cpu.cpl, size) {
            (false, Size::Bits16) => self.transfer::<u16>(&target, kind),
            (false, Size::Bits32) => self.transfer::<u32>(&target, kind),
            (false, Size::Bits64) => self.transfer::<u64>(&target, kind),
            (true, Size::Bits16) => {
                self.call_inner::<u16>(&target, gate.descriptor.gate_parameters())
            }
            (true, Size::Bits32) => {
                self.call_inner::<u32>(&target, gate.descriptor.gate_parameters())
            }
            (true, Size::Bits64) => self.call_inner64(&target),
        }
    }

    /// Checks a gate that a far pointer names: #GP by its DPL, #NP if it is absent.
    fn check_gate(&self, gate: &Entry) -> Result<(), Fault> {
        if gate.is_above(self.cpu.cpl) {
            return Err(Fault::gp(gate.error_code()));
        }
        gate.require_present(Fault::np)
    }

    /// Checks the code segment that a call gate names. Only a call to nonconforming code changes the privilege level.
    fn gate_target(
        &mut self,
        gate: &Entry,
        size: Size,
        kind: Transfer,
    ) -> Result<CodeTarget, Fault> {
        let upper = self.read_upper(gate, Fault::gp)?;
        let selector = gate.descriptor.gate_selector();
        if selector.is_null() {
            return Err(Fault::gp(0));
        }
        let entry = self.read_descriptor(selector, Fault::gp)?;
        let (level, attributes) = (self.cpu.cpl, entry.attributes());
        let has_code = entry.kind() == Kind::Code && entry.has_valid_code_size();
        let fits_gate = size != Size::Bits64 || entry.is_code64();
        let to_dpl = kind == Transfer::Call && !attributes.is_conforming();
        let may_differ = kind == Transfer::Call || attributes.is_conforming();
        let allowed = entry.dpl() == level || entry.dpl() < level && may_differ;
        if !has_code || !fits_gate || !allowed {
            return Err(Fault::gp(entry.error_code()));
        }
        entry.require_present(Fault::np)?;
        let level = if to_dpl { entry.dpl() } else { level };
        Ok(CodeTarget {
            entry,
            offset: upper | gate_offset(gate.descriptor, size),
            level,
        })
    }

    /// Calls an inner level: old SS:ESP, `count` parameters and the return address go on the new stack.
    fn call_inner<W: Word>(&mut self, target: &CodeTarget, count: u32) -> Result<(), Fault> {
        const FIXED_ITEMS: u32 = 4;
        let inner = self.inner_stack(target.level)?;
        let mut stack = inner.transfer_stack();
        stack.check_room::<W>(count + FIXED_ITEMS)?;
        target.check_offset()?;
        let parameters = self.read_parameters::<W>(count)?;
        stack.prepare::<W>(self, count + FIXED_ITEMS)?;
        self.accept_segment(inner.entry())?;
        let segment = self.accept_segment(&target.entry)?;
        let cpu = &*self.cpu;
        let old_stack = [cpu.seg(SegReg::Ss).selector.0.into(), cpu.regs.get64(ESP)];
        let back = [cpu.seg(SegReg::Cs).selector.0.into(), cpu.eip];
        for value in old_stack
            .map(W::cut)
            .into_iter()
            .chain(parameters)
            .chain(back.map(W::cut))
        {
            stack.push(self, value)?;
        }
        stack.commit(self.cpu);
        self.enter_code_segment(segment, target.level);
        self.cpu.eip = target.offset;
        Ok(())
    }

    /// Calls an inner level of 64-bit code: SS becomes null; old SS:RSP and the return address go on the new stack.
    fn call_inner64(&mut self, target: &CodeTarget) -> Result<(), Fault> {
        const ITEMS: u32 = 4;
        let pointer = self.stack_pointer64(target.level, 0)?;
        let segment = Segment::null(Selector(target.level.into()));
        let mut stack = TransferStack::next64(segment, pointer, target.level);
        stack.check_room::<u64>(ITEMS)?;
        target.check_offset()?;
        stack.prepare::<u64>(self, ITEMS)?;
        let segment = self.accept_segment(&target.entry)?;
        let cpu = &*self.cpu;
        let items = [
            cpu.seg(SegReg::Ss).selector.0.into(),
            cpu.regs.get64(ESP),
            cpu.seg(SegReg::Cs).selector.0.into(),
            cpu.eip,
        ];
        for item in items {
            stack.push(self, item)?;
        }
        stack.commit(self.cpu);
        self.enter_code_segment(segment, target.level);
        self.cpu.eip = target.offset;
        Ok(())
    }

    /// The `count` items on top of the stack in use, in the order in which they were pushed.
    fn read_parameters<W: Word>(&mut self, count: u32) -> Result<Vec<W>, Fault> {
        let top = self.stack_pointer();
        (0..count)
            .rev()
            .map(|index| {
                let offset = self.wrap_stack(top.wrapping_add((index * W::BYTES).into()));
                self.load(SegReg::Ss, offset)
            })
            .collect()
    }

    fn through_task_gate(&mut self, gate: &Entry, kind: Transfer) -> Result<(), Fault> {
        self.check_gate(gate)?;
        self.transfer_to_task(gate.descriptor.gate_selector(), kind)
    }

    fn transfer_to_task(&mut self, selector: Selector, kind: Transfer) -> Result<(), Fault> {
        let nesting = if kind == Transfer::Call {
            Nesting::Call
        } else {
            Nesting::Jump
        };
        let task = self.find_task(selector, nesting, Fault::gp)?;
        self.run_task(&task, nesting)
    }

    /// Returns to the code segment `selector`, at `offset`, on the stack in use (already popped) or, to an outer level or if
    /// `pops_stack`, on the one whose SS:RSP are the next items. `release` bytes of parameters go from both.
    pub fn return_to_segment<W: Word>(
        &mut self,
        mut stack: TransferStack,
        (selector, offset): (Selector, u64),
        release: u64,
        pops_stack: bool,
    ) -> Result<(), Fault> {
        let target = self.level_target(selector, offset, Fault::gp)?;
        stack.release(release);
        let outer = target.level != self.cpu.cpl;
        if outer || pops_stack {
            let pointer = stack.pop::<W>(self)?.zero_extend();
            let selector = Selector(stack.pop::<W>(self)?.zero_extend() as u16);
            let is_code64 = target.entry.is_code64();
            if is_code64 {
                // Before SS, as AMD's processors do.
                target.check_offset()?;
            }
            let checked = self.find_stack_segment(selector, target.level, is_code64, Fault::gp)?;
            target.check_offset()?;
            let segment = self.accept_stack_segment(selector, checked)?;
            stack = match is_code64 {
                true => TransferStack::next64(segment, pointer, target.level),
                false => TransferStack::next(segment, pointer, target.level),
            };
            stack.release(release);
        } else {
            target.check_offset()?;
        }
        let segment = self.accept_segment(&target.entry)?;
        stack.commit(self.cpu);
        self.enter_code_segment(segment, target.level);
        self.cpu.eip = target.offset;
        if outer {
            self.drop_inner_segments();
        }
        Ok(())
    }

    /// Checks a code segment whose RPL is the level to go to, which must not be an inner one: that of a return address
    /// or of a new task.
    pub fn level_target(
        &mut self,
        selector: Selector,
        offset: u64,
        invalid: fn(u32) -> Fault,
    ) -> Result<CodeTarget, Fault> {
        if selector.is_null() {
            return Err(invalid(0));
        }
        let entry = self.read_descriptor(selector, invalid)?;
        let level = selector.rpl();
        let dpl_fits = if entry.attributes().is_conforming() {
            entry.dpl() <= level
        } else {
            entry.dpl() == level
        };
        let has_code = entry.kind() == Kind::Code && entry.has_valid_code_size();
        if !has_code || level < self.cpu.cpl || !dpl_fits {
            return Err(invalid(entry.error_code()));
        }
        entry.require_present(Fault::np)?;
        Ok(CodeTarget {
            entry,
            offset,
            level,
        })
    }

    /// Empties the data segment registers that the outer level just returned to may not use.
    fn drop_inner_segments(&mut self) {
        for register in [SegReg::Es, SegReg::Ds, SegReg::Fs, SegReg::Gs] {
            let attributes = self.cpu.seg(register).attributes;
            // Null selectors stay in IA-32e mode, and the bases of FS and GS with them.
            if self.cpu.is_long() && !attributes.is_present() {
                continue;
            }
            if attributes.dpl() < self.cpu.cpl && !attributes.is_conforming() {
                self.cpu.segs[register as usize] = Segment::null(Selector(0));
            }
        }
    }
}

/// Offset of the entry point in a call, interrupt or trap gate.
pub fn gate_offset(gate: Descriptor, size: Size) -> u64 {
    let offset = gate.gate_offset();
    if size == Size::Bits16 {
        offset & 0xffff
    } else {
        offset
    }
}

/// JMP ptr16:16, JMP ptr16:32.
pub fn jmp_far_imm<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.far_transfer(
        Selector(insn.aux as u16),
        W::cut(insn.imm.into()),
        Transfer::Jump,
    )
}

/// JMP m16:16, JMP m16:32, JMP m16:64.
pub fn jmp_far_mem<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let (offset, selector) = cx.read_far_pointer::<W>(insn)?;
    cx.far_transfer(selector, offset, Transfer::Jump)
}

/// CALL ptr16:16, CALL ptr16:32.
pub fn call_far_imm<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    cx.far_transfer(
        Selector(insn.aux as u16),
        W::cut(insn.imm.into()),
        Transfer::Call,
    )
}

/// CALL m16:16, CALL m16:32, CALL m16:64.
pub fn call_far_mem<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let (offset, selector) = cx.read_far_pointer::<W>(insn)?;
    cx.far_transfer(selector, offset, Transfer::Call)
}

/// RET far, with `insn.imm` bytes of parameters released.
pub fn ret_far<W: Word>(cx: &mut Exec<'_>, insn: &Insn) -> Result<(), Fault> {
    let mut stack = TransferStack::current(cx.cpu);
    let offset = stack.pop::<W>(cx)?.zero_extend();
    let selector = Selector(stack.pop::<W>(cx)?.zero_extend() as u16);
    if !cx.cpu.has_paragraph_segments() {
        return cx.return_to_segment::<W>(stack, (selector, offset), insn.imm.into(), false);
    }
    cx.check_near_target(offset)?;
    stack.release(insn.imm.into());
    stack.commit(cx.cpu);
    cx.enter_paragraph(selector, offset);
    Ok(())
}

#[cfg(test)]
mod tests;
