//! [`TransferStack`]: the stack on which a far transfer pushes or pops before it commits SS and RSP.
//!
//! Calls, interrupts and returns move several items and may change SS, ESP and CPL at once. They work on this copy in
//! four steps, so that a fault leaves nothing changed: `check_room` (limits), `prepare` (paging), `push`, `commit`.

use super::exec::Exec;
use super::word::Word;
use crate::cpu::canonical::is_canonical_span;
use crate::cpu::regs::ESP;
use crate::cpu::segment::{SegReg, Segment};
use crate::cpu::{AddressSize, Cpu};
use crate::fault::Fault;
use mmu::{Access, LinearAddr, Privilege};

/// The owner of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// The stack that SS and ESP name.
    Current,
    /// The stack of the privilege level that is being entered.
    Next,
}

/// A stack segment with a stack pointer of its own.
#[derive(Clone, Copy, Debug)]
pub struct TransferStack {
    owner: Owner,
    segment: Segment,
    pointer: u64,
    size: AddressSize,
    privilege: Privilege,
}

impl TransferStack {
    /// The stack in use.
    pub fn current(cpu: &Cpu) -> Self {
        Self {
            owner: Owner::Current,
            segment: *cpu.seg(SegReg::Ss),
            pointer: cpu.regs.get64(ESP),
            size: cpu.stack_size(),
            privilege: cpu.privilege(),
        }
    }

    /// The stack of privilege level `level`, which is being entered in another than 64-bit mode.
    pub fn next(segment: Segment, pointer: u64, level: u8) -> Self {
        Self::entered(segment, pointer, segment.stack_size(), level)
    }

    /// The stack of privilege level `level` at RSP = `pointer`, on which 64-bit mode is entered with `segment` in SS.
    pub fn next64(segment: Segment, pointer: u64, level: u8) -> Self {
        Self::entered(segment, pointer, AddressSize::Bits64, level)
    }

    fn entered(segment: Segment, pointer: u64, size: AddressSize, level: u8) -> Self {
        let privilege = if level == 3 {
            Privilege::User
        } else {
            Privilege::Supervisor
        };
        Self {
            owner: Owner::Next,
            segment,
            pointer,
            size,
            privilege,
        }
    }

    /// The offset of an item: index 0 is the next to be pushed.
    fn slot<W: Word>(&self, index: u32) -> u64 {
        let distance = u64::from((index + 1) * W::BYTES);
        self.size.wrap(self.pointer.wrapping_sub(distance))
    }

    /// Raises #SS unless `count` more items stay within the segment, or have canonical addresses. The error code names the segment
    /// if it is a new one with a limit.
    pub fn check_room<W: Word>(&self, count: u32) -> Result<(), Fault> {
        let fits = (0..count).all(|index| self.is_writable(self.slot::<W>(index), W::BYTES));
        match self.owner {
            _ if fits => Ok(()),
            Owner::Next if self.size != AddressSize::Bits64 => {
                Err(Fault::ss(self.segment.selector.error_code()))
            }
            Owner::Next | Owner::Current => Err(Fault::ss(0)),
        }
    }

    fn is_writable(&self, offset: u64, size: u32) -> bool {
        match self.size {
            AddressSize::Bits64 => is_canonical_span(offset, size),
            _ => self.segment.write.allow(offset as u32, size),
        }
    }

    /// Makes sure that `count` items, for which there is room, can be pushed without a fault.
    pub fn prepare<W: Word>(&self, cx: &mut Exec<'_>, count: u32) -> Result<(), Fault> {
        for index in 0..count {
            let offset = self.slot::<W>(index);
            let linear = match self.owner {
                Owner::Current => cx.writable(SegReg::Ss, offset, W::BYTES)?,
                Owner::Next => {
                    let linear = self.linear(offset);
                    cx.debugger.accessed(linear, W::BYTES, Access::Write);
                    linear
                }
            };
            cx.prepare_write(linear, W::BYTES, self.privilege)?;
        }
        Ok(())
    }

    fn linear(&self, offset: u64) -> LinearAddr {
        match self.size {
            AddressSize::Bits64 => LinearAddr::new(offset),
            _ => self.segment.linear32(offset as u32),
        }
    }

    /// Pushes one item.
    pub fn push<W: Word>(&mut self, cx: &mut Exec<'_>, value: W) -> Result<(), Fault> {
        let offset = self.slot::<W>(0);
        cx.store_at(self.linear(offset), self.privilege, value)?;
        self.pointer = offset;
        Ok(())
    }

    /// Pops one item off the stack in use.
    pub fn pop<W: Word>(&mut self, cx: &mut Exec<'_>) -> Result<W, Fault> {
        let value = cx.load(SegReg::Ss, self.size.wrap(self.pointer))?;
        self.release(W::BYTES.into());
        Ok(value)
    }

    /// Moves the pointer up by `bytes`.
    pub fn release(&mut self, bytes: u64) {
        self.pointer = self.size.wrap(self.pointer.wrapping_add(bytes));
    }

    /// Makes this the stack in use. A 16-bit stack leaves the upper half of ESP as it is.
    pub fn commit(self, cpu: &mut Cpu) {
        cpu.segs[SegReg::Ss as usize] = self.segment;
        self.size.set_pointer(&mut cpu.regs, self.pointer);
    }
}
