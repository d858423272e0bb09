//! Entering a handler through the IDT in protected mode outside of IA-32e mode (SDM Vol. 3A, 6.11 "IDT Descriptors", 6.12 "Exception and
//! Interrupt Handling", 20.3 "Interrupt and Exception Handling in Virtual-8086 Mode").
//!
//! ```text
//!   pushed:   from v86      inner level    same level
//!             GS FS DS ES
//!             SS ESP        SS ESP
//!             EFLAGS CS EIP EFLAGS CS EIP  EFLAGS CS EIP
//!             error code, if the exception has one
//! ```

use super::descriptors::{DESCRIPTOR_BYTES, Entry, Kind, Size};
use super::event::Event;
use super::exec::Exec;
use super::far::{CodeTarget, gate_offset};
use super::task::{Nesting, SwitchFault};
use super::transfer_stack::TransferStack;
use super::word::Word;
use crate::cpu::Cpu;
use crate::cpu::eflags::{IF, NT, RF, TF, VM};
use crate::cpu::regs::ESP;
use crate::cpu::segment::{Descriptor, SegReg, Segment, Selector};
use crate::fault::Fault;
use mmu::Privilege;

/// EFLAGS bits that every handler starts without.
pub const HANDLER_CLEARS: u32 = TF | NT | RF | VM;

/// The interrupted program's privilege, compared with its handler's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The program was in virtual-8086 mode.
    V86,
    /// The program was at an outer privilege level.
    Outer,
    /// The program was at the same privilege level.
    Same,
}

/// The items of a handler's frame in the order in which they are pushed.
fn frame(cpu: &Cpu, event: Event, origin: Origin) -> [Option<u32>; 10] {
    let selector = |register, wanted: bool| wanted.then(|| u32::from(cpu.seg(register).selector.0));
    let v86 = origin == Origin::V86;
    let switches_stack = origin != Origin::Same;
    [
        selector(SegReg::Gs, v86),
        selector(SegReg::Fs, v86),
        selector(SegReg::Ds, v86),
        selector(SegReg::Es, v86),
        selector(SegReg::Ss, switches_stack),
        switches_stack.then(|| cpu.regs.get(ESP)),
        Some(event.flags_image(cpu.eflags)),
        selector(SegReg::Cs, true),
        Some(cpu.eip as u32),
        event.error_code(),
    ]
}

impl Exec<'_> {
    /// Delivers `event` in protected or virtual-8086 mode.
    pub fn deliver_protected(&mut self, event: Event) -> Result<(), SwitchFault> {
        let gate = self.read_gate(event)?;
        match Kind::of(gate.attributes(), false) {
            Kind::TaskGate => self.enter_task(event, gate.gate_selector()),
            Kind::InterruptGate(size) => {
                Ok(self.enter_gate(event, gate, size, HANDLER_CLEARS | IF)?)
            }
            Kind::TrapGate(size) => Ok(self.enter_gate(event, gate, size, HANDLER_CLEARS)?),
            _ => Err(Fault::gp(event.gate_code()).into()),
        }
    }

    /// Reads the gate of `event` and checks its type, its DPL and that it is present.
    fn read_gate(&mut self, event: Event) -> Result<Descriptor, Fault> {
        let offset = u32::from(event.vector()) * DESCRIPTOR_BYTES;
        if offset + DESCRIPTOR_BYTES - 1 > u32::from(self.cpu.idtr.limit) {
            return Err(Fault::gp(event.gate_code()));
        }
        let address = self.cpu.system_address(self.cpu.idtr.base, offset);
        let gate = Descriptor(self.load_at(address, Privilege::Supervisor)?);
        let attributes = gate.attributes();
        let is_gate = matches!(
            Kind::of(attributes, false),
            Kind::TaskGate | Kind::InterruptGate(_) | Kind::TrapGate(_)
        );
        let callable = !event.is_software() || attributes.dpl() >= self.cpu.cpl;
        if !is_gate || !callable {
            return Err(Fault::gp(event.gate_code()));
        }
        if !attributes.is_present() {
            return Err(Fault::np(event.gate_code()));
        }
        Ok(gate)
    }

    fn enter_gate(
        &mut self,
        event: Event,
        gate: Descriptor,
        size: Size,
        clears: u32,
    ) -> Result<(), Fault> {
        let (origin, target) = self.handler_target(gate, size)?;
        match size {
            Size::Bits16 => self.enter_handler::<u16>(event, origin, &target)?,
            _ => self.enter_handler::<u32>(event, origin, &target)?,
        }
        self.set_eflags(self.cpu.eflags & !clears);
        Ok(())
    }

    /// The handler's code segment and entry point.
    fn handler_target(
        &mut self,
        gate: Descriptor,
        size: Size,
    ) -> Result<(Origin, CodeTarget), Fault> {
        let selector = gate.gate_selector();
        if selector.is_null() {
            return Err(Fault::gp(0));
        }
        let entry = self.read_descriptor(selector, Fault::gp)?;
        let (cpl, dpl) = (self.cpu.cpl, entry.dpl());
        if entry.kind() != Kind::Code || dpl > cpl {
            return Err(Fault::gp(entry.error_code()));
        }
        entry.require_present(Fault::np)?;
        let inward = dpl < cpl && !entry.attributes().is_conforming();
        let origin = match (self.cpu.is_v86(), inward) {
            (true, true) if dpl == 0 => Origin::V86,
            (true, _) => return Err(Fault::gp(entry.error_code())),
            (false, true) => Origin::Outer,
            (false, false) => Origin::Same,
        };
        let level = if inward { dpl } else { cpl };
        Ok((
            origin,
            CodeTarget {
                entry,
                offset: gate_offset(gate, size),
                level,
            },
        ))
    }

    /// Builds the frame and moves SS:ESP, CS:EIP and CPL to the handler.
    fn enter_handler<W: Word>(
        &mut self,
        event: Event,
        origin: Origin,
        target: &CodeTarget,
    ) -> Result<(), Fault> {
        let inner = match origin {
            Origin::Same => None,
            Origin::V86 | Origin::Outer => Some(self.inner_stack(target.level)?),
        };
        let mut stack = match &inner {
            Some(inner) => inner.transfer_stack(),
            None => TransferStack::current(self.cpu),
        };
        let items = frame(self.cpu, event, origin);
        let count = items.iter().flatten().count() as u32;
        stack.check_room::<W>(count)?;
        target.check_offset()?;
        stack.prepare::<W>(self, count)?;
        if let Some(inner) = &inner {
            self.accept_segment(inner.entry())?;
        }
        let segment = self.accept_segment(&target.entry)?;
        for item in items.into_iter().flatten() {
            stack.push(self, W::cut(item.into()))?;
        }
        stack.commit(self.cpu);
        if origin == Origin::V86 {
            for register in [SegReg::Es, SegReg::Ds, SegReg::Fs, SegReg::Gs] {
                self.cpu.segs[register as usize] = Segment::null(Selector(0));
            }
        }
        self.enter_code_segment(segment, target.level);
        self.cpu.eip = target.offset;
        Ok(())
    }

    /// Switches to the handler's task and leaves the error code on its stack.
    fn enter_task(&mut self, event: Event, selector: Selector) -> Result<(), SwitchFault> {
        let task = self.find_task(selector, Nesting::Call, Fault::gp)?;
        let flags = event.flags_image(self.cpu.eflags);
        self.switch_task(&task, Nesting::Call, flags)?;
        self.push_task_error(&task, event)
            .map_err(SwitchFault::NewTask)
    }

    fn push_task_error(&mut self, task: &Entry, event: Event) -> Result<(), Fault> {
        match (event.error_code(), task.kind()) {
            (None, _) => Ok(()),
            (Some(code), Kind::AvailableTss(Size::Bits16)) => self.push(code as u16),
            (Some(code), _) => self.push(code),
        }
    }
}

#[cfg(test)]
mod tests;
