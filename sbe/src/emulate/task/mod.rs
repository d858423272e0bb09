//! Hardware task switches (SDM Vol. 3A, 7.3 "Task Switching"), which IA-32e mode does not have.
//!
//! ```text
//!   find_task: TSS descriptor checked      fault ─► old task, nothing changed
//!   switch_task:
//!     read the new TSS, prepare all writes fault ─► old task, nothing changed
//!     ── commit ── save the old task, busy bits, back link, TR, CR0.TS, registers
//!     CR3, LDTR, CS, SS, data segments     fault ─► new task, at its first instruction
//! ```
//!
//! Both formats hold EIP, EFLAGS, the general registers, the segment selectors and the LDT selector in consecutive slots,
//! of 2 or 4 bytes; they differ in where these start and how many segment registers there are.

use super::descriptors::{Entry, Kind, Size};
use super::exec::Exec;
use super::tss::MIN_LIMIT32;
use crate::cpu::Pending;
use crate::cpu::control::{CR0_TS, ControlRegister, DR6_BT, DR7_LOCAL};
use crate::cpu::eflags::{NT, VM};
use crate::cpu::segment::{SegReg, Segment, Selector};
use crate::fault::Fault;
use mmu::{LinearAddr, Privilege};

/// The kind of a task switch, by what it does to the task that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nesting {
    /// JMP: it becomes available.
    Jump,
    /// CALL, interrupt or exception: it stays busy and the new task links back to it.
    Call,
    /// IRET: it becomes available, the new task was busy.
    Return,
}

/// A fault of a task switch, by the task in whose context it is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchFault {
    /// A fault before the switch: nothing has changed.
    OldTask(Fault),
    /// A fault after the switch: EIP and all other registers are the new task's.
    NewTask(Fault),
}

impl SwitchFault {
    /// Applies `change` to the fault and keeps its context.
    pub fn map(self, change: impl FnOnce(Fault) -> Fault) -> Self {
        match self {
            Self::OldTask(fault) => Self::OldTask(change(fault)),
            Self::NewTask(fault) => Self::NewTask(change(fault)),
        }
    }
}

impl From<Fault> for SwitchFault {
    fn from(fault: Fault) -> Self {
        Self::OldTask(fault)
    }
}

impl From<SwitchFault> for Fault {
    fn from(fault: SwitchFault) -> Self {
        let (SwitchFault::OldTask(fault) | SwitchFault::NewTask(fault)) = fault;
        fault
    }
}

/// Offset of the back link.
const LINK: u32 = 0;
/// Offset of CR3 in a 32-bit TSS.
const CR3: u32 = 0x1c;
/// Offset of the debug trap flag in a 32-bit TSS.
const TRAP: u32 = 0x64;
/// Debug trap flag: raise #DB when the task has been switched to.
const TRAP_FLAG: u16 = 1;
/// Offset of EIP in a 32-bit TSS, of IP in a 16-bit one.
const STATE32: u32 = 0x20;
const STATE16: u32 = 0x0e;
/// Limit of the smallest 16-bit TSS.
const MIN_LIMIT16: u32 = 0x2b;
/// Number of slots before the segment selectors: EIP, EFLAGS, eight general registers.
const GENERAL_SLOTS: u32 = 10;
/// The upper halves of the general registers after a switch to a 16-bit task: ones.
const UPPER_HALF16: u32 = 0xffff_0000;

/// The format of a task-state segment.
#[derive(Clone, Copy, Debug)]
struct Layout {
    size: Size,
    state: u32,
    segments: u32,
    min_limit: u32,
}

impl Layout {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::AvailableTss(Size::Bits16) | Kind::BusyTss(Size::Bits16) => Self {
                size: Size::Bits16,
                state: STATE16,
                segments: 4,
                min_limit: MIN_LIMIT16,
            },
            _ => Self {
                size: Size::Bits32,
                state: STATE32,
                segments: 6,
                min_limit: MIN_LIMIT32,
            },
        }
    }

    fn slot_bytes(self) -> u32 {
        if self.size == Size::Bits16 { 2 } else { 4 }
    }

    /// Offset of slot `index`.
    fn slot(self, index: u32) -> u32 {
        self.state + index * self.slot_bytes()
    }
}

/// The contents of a task-state segment that a switch to its task loads.
#[derive(Clone, Copy, Debug)]
struct TaskState {
    eip: u32,
    eflags: u32,
    general: [u32; 8],
    segments: [Selector; 6],
    ldt: Selector,
    cr3: Option<u32>,
    trap: bool,
}

fn at(base: u64, offset: u32) -> LinearAddr {
    LinearAddr::from((base as u32).wrapping_add(offset))
}

impl Exec<'_> {
    /// The back link of the current task.
    pub fn task_link(&mut self) -> Result<Selector, Fault> {
        let link = self.load_at(at(self.cpu.tr.base, LINK), Privilege::Supervisor)?;
        Ok(Selector(link))
    }

    /// The task-state segment that `selector` names, if a switch of this kind may go to it.
    ///
    /// # Errors
    /// `invalid(selector)` for anything but a TSS that is available (for a return: busy), #NP, and #TS if it is too short.
    pub fn find_task(
        &mut self,
        selector: Selector,
        nesting: Nesting,
        invalid: fn(u32) -> Fault,
    ) -> Result<Entry, Fault> {
        let entry = self.read_global_descriptor(selector, invalid)?;
        let fits = match entry.kind() {
            Kind::AvailableTss(_) => nesting != Nesting::Return,
            Kind::BusyTss(_) => nesting == Nesting::Return,
            _ => false,
        };
        if !fits {
            return Err(invalid(entry.error_code()));
        }
        entry.require_present(Fault::np)?;
        if entry.descriptor.limit() < Layout::of(entry.kind()).min_limit {
            return Err(Fault::ts(entry.error_code()));
        }
        Ok(entry)
    }

    /// Switches to `task` on behalf of an instruction, and raises a fault that belongs to the new task.
    pub fn run_task(&mut self, task: &Entry, nesting: Nesting) -> Result<(), Fault> {
        match self.switch_task(task, nesting, self.cpu.eflags) {
            Err(SwitchFault::NewTask(fault)) => self.raise_fault(fault),
            other => Ok(other?),
        }
    }

    /// Switches to `task`, which [`Self::find_task`] found. `flags` is the EFLAGS image to save.
    pub fn switch_task(
        &mut self,
        task: &Entry,
        nesting: Nesting,
        flags: u32,
    ) -> Result<(), SwitchFault> {
        let old = Layout::of(Kind::of(self.cpu.tr.attributes, false));
        if self.cpu.tr.limit < old.min_limit {
            return Err(Fault::ts(self.cpu.tr.selector.error_code()).into());
        }
        let new = self.read_task(task)?;
        let left = self
            .find_descriptor(self.cpu.tr.selector)?
            .filter(|_| nesting != Nesting::Call);
        let saved_bytes = (GENERAL_SLOTS + old.segments) * old.slot_bytes();
        self.prepare_write(
            at(self.cpu.tr.base, old.state),
            saved_bytes,
            Privilege::Supervisor,
        )?;
        if let Some(left) = &left {
            self.prepare_mark(left)?;
        }
        if nesting == Nesting::Call {
            self.prepare_write(at(task.descriptor.base(), LINK), 2, Privilege::Supervisor)?;
        }
        if nesting != Nesting::Return {
            self.prepare_mark(task)?;
        }
        self.save_task(
            old,
            if nesting == Nesting::Return {
                flags & !NT
            } else {
                flags
            },
        )?;
        if let Some(left) = &left {
            self.mark_available(left)?;
        }
        self.take_task_register(task, nesting)?;
        self.load_registers(&new, nesting);
        self.load_environment(&new).map_err(SwitchFault::NewTask)
    }

    fn read_task(&mut self, task: &Entry) -> Result<TaskState, Fault> {
        let layout = Layout::of(task.kind());
        let base = task.descriptor.base();
        let mut slots = [0; 17];
        for (slot, index) in slots.iter_mut().zip(0..=GENERAL_SLOTS + layout.segments) {
            let address = at(base, layout.slot(index));
            *slot = match layout.size {
                Size::Bits16 => self.load_at::<u16>(address, Privilege::Supervisor)?.into(),
                _ => self.load_at(address, Privilege::Supervisor)?,
            };
        }
        let [eip, eflags, general @ .., _, _, _, _, _, _, _] = slots;
        let (mut segments, upper) = (
            [Selector(0); 6],
            if layout.size == Size::Bits16 {
                UPPER_HALF16
            } else {
                0
            },
        );
        let (count, first) = (layout.segments as usize, GENERAL_SLOTS as usize);
        for (segment, &slot) in segments.iter_mut().zip(&slots[first..first + count]) {
            *segment = Selector(slot as u16);
        }
        let (cr3, trap) = match layout.size {
            Size::Bits16 => (None, 0),
            _ => (
                Some(self.load_at(at(base, CR3), Privilege::Supervisor)?),
                self.load_at::<u16>(at(base, TRAP), Privilege::Supervisor)?,
            ),
        };
        Ok(TaskState {
            eip,
            eflags,
            general: general.map(|value| value | upper),
            segments,
            ldt: Selector(slots[first + count] as u16),
            cr3,
            trap: trap & TRAP_FLAG != 0,
        })
    }

    fn save_task(&mut self, layout: Layout, flags: u32) -> Result<(), Fault> {
        let base = self.cpu.tr.base;
        let general = (0..8).map(|register| self.cpu.regs.get(register));
        let slots: Vec<u32> = [self.cpu.eip as u32, flags]
            .into_iter()
            .chain(general)
            .collect();
        for (value, index) in slots.into_iter().zip(0..) {
            let address = at(base, layout.slot(index));
            match layout.size {
                Size::Bits16 => self.store_at(address, Privilege::Supervisor, value as u16)?,
                _ => self.store_at(address, Privilege::Supervisor, value)?,
            }
        }
        for index in 0..layout.segments {
            let selector = self.cpu.segs[index as usize].selector;
            let address = at(base, layout.slot(GENERAL_SLOTS + index));
            self.store_at(address, Privilege::Supervisor, selector.0)?;
        }
        Ok(())
    }

    /// Writes the back link, sets the busy bit and loads TR.
    fn take_task_register(&mut self, task: &Entry, nesting: Nesting) -> Result<(), Fault> {
        if nesting == Nesting::Call {
            let link = at(task.descriptor.base(), LINK);
            self.store_at(link, Privilege::Supervisor, self.cpu.tr.selector.0)?;
        }
        self.cpu.tr = if nesting == Nesting::Return {
            task.segment()
        } else {
            self.mark_busy(task, task.segment())?
        };
        Ok(())
    }

    /// Loads everything that cannot fault. Segment registers get their selectors and stay unusable for now.
    fn load_registers(&mut self, new: &TaskState, nesting: Nesting) {
        let cpu = &mut *self.cpu;
        let old = cpu.cr0;
        cpu.cr0 |= CR0_TS;
        cpu.dr[7] &= !DR7_LOCAL;
        cpu.eip = new.eip.into();
        for (&value, register) in new.general.iter().zip(0..) {
            cpu.regs.set(register, value);
        }
        cpu.segs = new.segments.map(Segment::null);
        cpu.ldtr = Segment::null(new.ldt);
        if new.trap {
            cpu.debug_hits |= DR6_BT;
            cpu.pending.set(Pending::DEBUG_TRAP);
        }
        let nested = if nesting == Nesting::Call { NT } else { 0 };
        self.set_eflags(new.eflags | nested);
        let code = new.segments[SegReg::Cs as usize];
        self.set_cpl(if new.eflags & VM != 0 { 3 } else { code.rpl() });
        self.observe_control(ControlRegister::Cr0, old.into(), 0);
    }

    /// Loads CR3, LDTR and the segment registers, which are checked in the order of SDM Vol. 3A, Table 7-1.
    fn load_environment(&mut self, new: &TaskState) -> Result<(), Fault> {
        if let Some(cr3) = new
            .cr3
            .map(u64::from)
            .filter(|&cr3| self.cpu.is_paging() && cr3 != self.cpu.cr3)
        {
            let old = self.cpu.cr3;
            self.write_cr3(cr3)?;
            self.observe_control(ControlRegister::Cr3, old, 0);
        }
        let ldt = self.load_ldt(new.ldt, Fault::ts)?;
        if !new.ldt.is_null() && !ldt.attributes.is_present() {
            return Err(Fault::ts(new.ldt.error_code()));
        }
        self.cpu.ldtr = ldt;
        if self.cpu.is_v86() {
            self.cpu.segs = new.segments.map(Segment::v86);
        } else {
            self.load_task_segments(&new.segments)?;
        }
        self.check_near_target(self.cpu.eip)
    }

    fn load_task_segments(&mut self, selectors: &[Selector; 6]) -> Result<(), Fault> {
        let level = self.cpu.cpl;
        let code = self.level_target(selectors[SegReg::Cs as usize], self.cpu.eip, Fault::ts)?;
        let segment = self.accept_segment(&code.entry)?;
        self.enter_code_segment(segment, level);
        let stack = self.check_stack_segment(selectors[SegReg::Ss as usize], level, Fault::ts)?;
        self.cpu.segs[SegReg::Ss as usize] = self.accept_segment(&stack)?;
        for register in [SegReg::Es, SegReg::Ds, SegReg::Fs, SegReg::Gs] {
            let index = register as usize;
            self.cpu.segs[index] = self.load_data_segment(selectors[index], level, Fault::ts)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
