//! [`TransferStack`]: a stack that a transfer of control writes or reads before it becomes, or stops being, the stack.
//!
//! Calls, interrupts and returns move several items and may change SS, ESP and CPL at once. They work on this copy in
//! four steps, so that a fault leaves nothing changed: `check_room` (limits), `prepare` (paging), `push`, `commit`.

use super::exec::Exec;
use super::word::Word;
use crate::cpu::Cpu;
use crate::cpu::regs::ESP;
use crate::cpu::segment::{SegReg, Segment};
use crate::fault::Fault;
use mmu::{Access, LinearAddr, Privilege};

/// Whose stack it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// What SS and ESP name.
    Current,
    /// The stack of the privilege level that is being entered.
    Next,
}

/// A stack segment with a stack pointer of its own.
#[derive(Clone, Copy, Debug)]
pub struct TransferStack {
    owner: Owner,
    segment: Segment,
    pointer: u32,
    privilege: Privilege,
}

impl TransferStack {
    /// The stack in use.
    pub fn current(cpu: &Cpu) -> Self {
        Self {
            owner: Owner::Current,
            segment: *cpu.seg(SegReg::Ss),
            pointer: cpu.regs.get(ESP),
            privilege: cpu.privilege(),
        }
    }

    /// The stack of privilege level `level`, which is being entered.
    pub fn next(segment: Segment, pointer: u32, level: u8) -> Self {
        let privilege = if level == 3 {
            Privilege::User
        } else {
            Privilege::Supervisor
        };
        Self {
            owner: Owner::Next,
            segment,
            pointer,
            privilege,
        }
    }

    fn wrap(&self, offset: u32) -> u32 {
        if self.segment.attributes.is_big() {
            offset
        } else {
            offset & 0xFFFF
        }
    }

    /// Offset of the item `index` pushes from now, the next one being 0.
    fn slot<W: Word>(&self, index: u32) -> u32 {
        self.wrap(self.pointer.wrapping_sub((index + 1) * W::BYTES))
    }

    /// #SS unless `count` more items stay within the segment. The error code names the segment if it is a new one.
    pub fn check_room<W: Word>(&self, count: u32) -> Result<(), Fault> {
        let fits =
            (0..count).all(|index| self.segment.write.allow(self.slot::<W>(index), W::BYTES));
        match self.owner {
            _ if fits => Ok(()),
            Owner::Current => Err(Fault::ss(0)),
            Owner::Next => Err(Fault::ss(self.segment.selector.error_code())),
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

    fn linear(&self, offset: u32) -> LinearAddr {
        LinearAddr::from(self.segment.base.wrapping_add(offset))
    }

    /// Stores one item below the others.
    pub fn push<W: Word>(&mut self, cx: &mut Exec<'_>, value: W) -> Result<(), Fault> {
        let offset = self.slot::<W>(0);
        cx.store_at(self.linear(offset), self.privilege, value)?;
        self.pointer = offset;
        Ok(())
    }

    /// Takes the topmost item of the stack in use.
    pub fn pop<W: Word>(&mut self, cx: &mut Exec<'_>) -> Result<W, Fault> {
        let value = cx.load(SegReg::Ss, self.wrap(self.pointer))?;
        self.release(W::BYTES);
        Ok(value)
    }

    /// Drops `bytes` bytes.
    pub fn release(&mut self, bytes: u32) {
        self.pointer = self.wrap(self.pointer.wrapping_add(bytes));
    }

    /// Makes it the stack in use. A 16-bit stack leaves the upper half of ESP as it is.
    pub fn commit(self, cpu: &mut Cpu) {
        cpu.segs[SegReg::Ss as usize] = self.segment;
        if self.segment.attributes.is_big() {
            cpu.regs.set(ESP, self.pointer);
        } else {
            cpu.regs.set16(ESP, self.pointer as u16);
        }
    }
}
