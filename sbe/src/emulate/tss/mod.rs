//! Inner stacks and the I/O permission bitmap: the parts of the current task-state segment that are read outside of task
//! switches (SDM Vol. 3A, 7.2.1 "Task-State Segment (TSS)").

use super::descriptors::{Entry, Kind, Size};
use super::exec::Exec;
use super::transfer_stack::TransferStack;
use crate::cpu::segment::Selector;
use crate::fault::Fault;
use mmu::{LinearAddr, Privilege};

/// Offset of the bitmap's offset in a 32-bit or 64-bit TSS.
const IO_MAP_BASE: u32 = 0x66;
/// Limit of the smallest 32-bit or 64-bit TSS.
pub const MIN_LIMIT32: u32 = 0x67;

/// A stack of an inner privilege level whose descriptor passed all checks, accessed bit yet to be set.
#[derive(Clone, Copy, Debug)]
pub struct InnerStack {
    entry: Entry,
    pointer: u64,
}

impl InnerStack {
    /// The stack to push on.
    pub fn transfer_stack(&self) -> TransferStack {
        TransferStack::next(self.entry.segment(), self.pointer, self.entry.dpl())
    }

    /// The descriptor of the stack segment.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }
}

impl Exec<'_> {
    /// Linear address of `offset` in the current TSS.
    fn tss_address(&self, offset: u32) -> LinearAddr {
        self.cpu.system_address(self.cpu.tr.base, offset)
    }

    /// RSP that the current 64-bit TSS has for privilege level `level` (0..=2), or that of its interrupt stack number `number` if
    /// that is not 0 (SDM Vol. 3A, 7.7 "Task Management in 64-bit Mode").
    ///
    /// # Errors
    /// #TS if the TSS is too short.
    pub fn stack_pointer64(&mut self, level: u8, number: u8) -> Result<u64, Fault> {
        const RSP0: u32 = 0x04;
        const IST1: u32 = 0x24;
        const BYTES: u32 = 8;
        let offset = match number.checked_sub(1) {
            None => RSP0 + u32::from(level) * BYTES,
            Some(index) => IST1 + u32::from(index) * BYTES,
        };
        if offset + BYTES - 1 > self.cpu.tr.limit {
            return Err(Fault::ts(self.cpu.tr.selector.error_code()));
        }
        self.load_at(self.tss_address(offset), Privilege::Supervisor)
    }

    /// The stack that the current TSS names for privilege level `level` (0..=2), checked.
    ///
    /// # Errors
    /// #TS and #SS as for call gates and interrupts to inner levels (SDM Vol. 2A, "CALL", "INT n").
    pub fn inner_stack(&mut self, level: u8) -> Result<InnerStack, Fault> {
        let level32 = u32::from(level);
        let (offset, size) = match Kind::of(self.cpu.tr.attributes, false) {
            Kind::AvailableTss(Size::Bits16) | Kind::BusyTss(Size::Bits16) => {
                (level32 * 4 + 2, Size::Bits16)
            }
            _ => (level32 * 8 + 4, Size::Bits32),
        };
        let bytes = if size == Size::Bits16 { 4 } else { 6 };
        if offset + bytes - 1 > self.cpu.tr.limit {
            return Err(Fault::ts(self.cpu.tr.selector.error_code()));
        }
        let address = self.tss_address(offset);
        let (pointer, selector) = match size {
            Size::Bits16 => {
                let pointer = self.load_at::<u16>(address, Privilege::Supervisor)?;
                (
                    u32::from(pointer),
                    self.load_at(address.wrapping_add32(2), Privilege::Supervisor)?,
                )
            }
            _ => {
                let pointer = self.load_at::<u32>(address, Privilege::Supervisor)?;
                (
                    pointer,
                    self.load_at(address.wrapping_add32(4), Privilege::Supervisor)?,
                )
            }
        };
        let entry = self.check_stack_segment(Selector(selector), level, Fault::ts)?;
        Ok(InnerStack {
            entry,
            pointer: pointer.into(),
        })
    }

    /// Raises #GP(0) unless the program may access the `bytes` ports from `port` (SDM Vol. 1, 19.5.2 "I/O Permission Bit Map").
    pub fn io_allowed(&mut self, port: u16, bytes: u32) -> Result<(), Fault> {
        let cpu = &*self.cpu;
        if !cpu.is_protected() || !cpu.is_v86() && cpu.cpl <= cpu.iopl() {
            return Ok(());
        }
        let kind = Kind::of(cpu.tr.attributes, cpu.is_long());
        let has_map = matches!(kind, Kind::BusyTss(Size::Bits32 | Size::Bits64));
        let limit = cpu.tr.limit;
        if !has_map || limit < MIN_LIMIT32 {
            return Err(Fault::gp(0));
        }
        let map: u16 = self.load_at(self.tss_address(IO_MAP_BASE), Privilege::Supervisor)?;
        // The processor always reads two bytes, so that an access to ports in two bytes of the map is covered.
        let offset = u32::from(map) + u32::from(port) / 8;
        if offset + 1 > limit {
            return Err(Fault::gp(0));
        }
        let bits: u16 = self.load_at(self.tss_address(offset), Privilege::Supervisor)?;
        let wanted = (1 << bytes) - 1;
        if bits >> (port % 8) & wanted == 0 {
            Ok(())
        } else {
            Err(Fault::gp(0))
        }
    }
}

#[cfg(test)]
mod tests;
