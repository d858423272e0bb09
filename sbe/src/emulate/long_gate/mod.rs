//! Entering a handler through the IDT in IA-32e mode (SDM Vol. 3A, 6.14 "Exception and Interrupt Handling in 64-bit Mode").
//!
//! ```text
//!   stack:    the gate's IST, else RSP of the TSS for an inner level, else RSP as it is; aligned to 16 bytes
//!   pushed:   SS RSP RFLAGS CS RIP, quadwords; error code, if the exception has one
//!   handler:  64-bit code; at an inner level SS is null
//! ```

use super::descriptors::{Entry, Kind, LONG_DESCRIPTOR_BYTES};
use super::event::Event;
use super::exec::Exec;
use super::far::CodeTarget;
use super::gate::HANDLER_CLEARS;
use super::transfer_stack::TransferStack;
use crate::cpu::eflags::IF;
use crate::cpu::regs::ESP;
use crate::cpu::segment::{Descriptor, SegReg, Segment, Selector};
use crate::fault::Fault;
use mmu::Privilege;

/// Mask of a stack pointer that is aligned to 16 bytes.
const ALIGNED: u64 = !0xf;
/// Bytes of half a gate.
const HALF: u32 = 8;

/// An interrupt or trap gate of 16 bytes.
#[derive(Clone, Copy, Debug)]
struct Gate {
    lower: Descriptor,
    /// Bits 63:32 of the offset, in their place.
    upper_offset: u64,
    is_interrupt_gate: bool,
}

impl Exec<'_> {
    /// Delivers `event` in IA-32e mode.
    pub fn deliver_long(&mut self, event: Event) -> Result<(), Fault> {
        let gate = self.read_long_gate(event)?;
        let target = self.long_handler(gate)?;
        let stack = self.handler_stack(&target, gate.lower.interrupt_stack())?;
        self.enter_long_handler(event, &target, stack)?;
        let clears = HANDLER_CLEARS | if gate.is_interrupt_gate { IF } else { 0 };
        self.set_eflags(self.cpu.eflags & !clears);
        Ok(())
    }

    /// Reads the gate of `event` and checks its type, its DPL and that it is present.
    fn read_long_gate(&mut self, event: Event) -> Result<Gate, Fault> {
        let offset = u32::from(event.vector()) * LONG_DESCRIPTOR_BYTES;
        if offset + LONG_DESCRIPTOR_BYTES - 1 > u32::from(self.cpu.idtr.limit) {
            return Err(Fault::gp(event.gate_code()));
        }
        let base = self.cpu.idtr.base;
        let address = self.cpu.system_address(base, offset);
        let lower = Descriptor(self.load_at(address, Privilege::Supervisor)?);
        let address = self.cpu.system_address(base, offset + HALF);
        let upper: u64 = self.load_at(address, Privilege::Supervisor)?;
        let attributes = lower.attributes();
        let is_interrupt_gate = match Kind::of(attributes, true) {
            Kind::InterruptGate(_) => true,
            Kind::TrapGate(_) => false,
            _ => return Err(Fault::gp(event.gate_code())),
        };
        if event.is_software() && attributes.dpl() < self.cpu.cpl {
            return Err(Fault::gp(event.gate_code()));
        }
        if !attributes.is_present() {
            return Err(Fault::np(event.gate_code()));
        }
        Ok(Gate {
            lower,
            upper_offset: upper << 32,
            is_interrupt_gate,
        })
    }

    /// The handler's code segment, which must be one of 64-bit code, and its entry point.
    fn long_handler(&mut self, gate: Gate) -> Result<CodeTarget, Fault> {
        let selector = gate.lower.gate_selector();
        if selector.is_null() {
            return Err(Fault::gp(0));
        }
        let entry = self.read_descriptor(selector, Fault::gp)?;
        let (cpl, dpl) = (self.cpu.cpl, entry.dpl());
        if dpl > cpl || !is_handler(&entry) {
            return Err(Fault::gp(entry.error_code()));
        }
        entry.require_present(Fault::np)?;
        let is_inward = dpl < cpl && !entry.attributes().is_conforming();
        Ok(CodeTarget {
            entry,
            offset: gate.upper_offset | gate.lower.gate_offset(),
            level: if is_inward { dpl } else { cpl },
        })
    }

    /// The stack on which the handler starts, `number` being the gate's IST.
    fn handler_stack(&mut self, target: &CodeTarget, number: u8) -> Result<TransferStack, Fault> {
        let is_inward = target.level < self.cpu.cpl;
        let pointer = match is_inward || number != 0 {
            true => self.stack_pointer64(target.level, number)?,
            false => self.cpu.regs.get64(ESP),
        };
        let segment = match is_inward {
            true => Segment::null(Selector(target.level.into())),
            false => *self.cpu.seg(SegReg::Ss),
        };
        Ok(TransferStack::next64(
            segment,
            pointer & ALIGNED,
            target.level,
        ))
    }

    /// Builds the frame and moves SS:RSP, CS:RIP and CPL to the handler.
    fn enter_long_handler(
        &mut self,
        event: Event,
        target: &CodeTarget,
        mut stack: TransferStack,
    ) -> Result<(), Fault> {
        let cpu = &*self.cpu;
        let items = [
            Some(cpu.seg(SegReg::Ss).selector.0.into()),
            Some(cpu.regs.get64(ESP)),
            Some(event.flags_image(cpu.eflags).into()),
            Some(cpu.seg(SegReg::Cs).selector.0.into()),
            Some(cpu.eip),
            event.error_code().map(u64::from),
        ];
        let count = items.iter().flatten().count() as u32;
        stack.check_room::<u64>(count)?;
        target.check_offset()?;
        stack.prepare::<u64>(self, count)?;
        let segment = self.accept_segment(&target.entry)?;
        for item in items.into_iter().flatten() {
            stack.push(self, item)?;
        }
        stack.commit(self.cpu);
        self.enter_code_segment(segment, target.level);
        self.cpu.eip = target.offset;
        Ok(())
    }
}

/// Whether `entry` is a segment of 64-bit code, as handlers have.
fn is_handler(entry: &Entry) -> bool {
    entry.is_code64() && entry.has_valid_code_size()
}

#[cfg(test)]
mod tests;
