//! [`Group`]: several accesses through one register, checked once.
//!
//! Code addresses its stack frame again and again by the same register and constant offsets. Where enough such accesses
//! follow, one check makes sure that all of them lie in one page with a slot, and leaves the host address of the first byte in
//! R10; then each access is a single instruction. If they do not, the *plain* variant of the fragment, without groups, continues.
//!
//! In 64-bit code with a window, a group is what follows through one register, wherever it lies: R10 is the distance of host addresses
//! from linear addresses in the unit of the register's value. There is nothing to check.

use super::memory::{Probed, is_in_thread_segment};
use super::{Emitter, Home, PAGE, home};
use crate::translate::asm::*;
use crate::translate::bounds;
use crate::translate::classify::{Rewrite, Verdict};
use crate::translate::context::WRITE_TABLE;
use iced_x86::{
    Code, Instruction, InstructionInfoFactory, InstructionInfoOptions, Mnemonic, OpAccess, OpKind,
    Register,
};
use mmu::SLOT_PRESENT;
use smallvec::SmallVec;

/// The fewest accesses for which a group is made.
const FEWEST: usize = 3;
/// The fewest for which one is made in a window.
const FEWEST_IN_WINDOW: usize = 2;
/// The most bytes between the value that a group's register had at first and an access of the group, in a window. What it moves by in a
/// fragment is less than what is left of [`REACH`](mmu::REACH).
const MOST_DISTANCE: i32 = 1 << 30;
/// The most bytes that a group spans: the more, the likelier that a page boundary lies between.
const MOST_BYTES: i32 = 512;
/// Offsets beyond this are not grouped, so that sums over a fragment fit.
const MOST_OFFSET: i32 = 0x7000_0000;
/// Changes of ESP beyond this count as any other write, for the same reason.
const MOST_SHIFT: i32 = 1 << 20;

/// An access by a register and a constant offset.
#[derive(Clone, Copy, Debug)]
struct Access {
    base: Register,
    offset: i32,
    size: i32,
    writes: bool,
}

/// An instruction looked ahead at, and its effects that matter for groups.
#[derive(Debug)]
pub(super) struct Plan {
    /// The instruction.
    pub raw: Instruction,
    /// Its classification.
    pub verdict: Verdict,
    accesses: SmallVec<[Access; 2]>,
    /// The amount that the instruction adds to RSP.
    shift: i32,
    /// Registers that the instruction writes otherwise.
    written: SmallVec<[Register; 4]>,
    /// Whether the instruction's code uses R10.
    takes_pointer: bool,
}

/// The accesses that R10 serves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    base: Register,
    /// Offset from `base` of the byte at R10, and of the end of the bytes checked.
    start: i32,
    end: i32,
    writes: bool,
}

impl Group {
    /// Whether the group's check covers `access`.
    fn serves(&self, access: &Access) -> bool {
        self.base == access.base
            && self.start <= access.offset
            && access.offset + access.size <= self.end
            && (self.writes || !access.writes)
    }

    /// Accounts for `amount` added to the base register.
    fn shift(&mut self, amount: i32) {
        self.start -= amount;
        self.end -= amount;
    }
}

impl Plan {
    /// The plan of `raw`, classified as `verdict`.
    pub(super) fn new(
        raw: &Instruction,
        verdict: Verdict,
        info: &mut InstructionInfoFactory,
        is_64: bool,
    ) -> Self {
        let mut plan = Self {
            raw: *raw,
            verdict,
            accesses: SmallVec::new(),
            shift: 0,
            written: SmallVec::new(),
            takes_pointer: matches!(
                verdict,
                Verdict::Rewrite(
                    Rewrite::RepeatedString
                        | Rewrite::Pushf
                        | Rewrite::LoadSegment
                        | Rewrite::PopSegment
                )
            ),
        };
        let facts = info.info_options(raw, InstructionInfoOptions::NO_MEMORY_USAGE);
        if let Some(operand) = (0..raw.op_count()).find(|&at| raw.op_kind(at) == OpKind::Memory) {
            let access = facts.op_access(operand);
            let writes = !matches!(access, OpAccess::Read | OpAccess::CondRead);
            plan.accesses.extend(by_constant(raw, writes, is_64));
        }
        plan.stack(raw, verdict, is_64);
        for used in facts.used_registers() {
            let writes = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead);
            let whole = used.register().full_register();
            if writes && !(whole == Register::RSP && plan.shift != 0) {
                plan.written.push(whole);
            }
        }
        plan
    }

    /// Adds the instruction's effect on the stack.
    fn stack(&mut self, raw: &Instruction, verdict: Verdict, is_64: bool) {
        let constant = || raw.immediate(1) as i32;
        let (esp, word) = match is_64 {
            true => (Register::RSP, 8),
            false => (Register::ESP, 4),
        };
        let to_esp = raw.op0_kind() == OpKind::Register && raw.op0_register() == esp;
        let (offset, writes, shift) = match verdict {
            Verdict::Rewrite(Rewrite::Push | Rewrite::PushSegment) => (-word, true, -word),
            Verdict::Rewrite(Rewrite::Pop) if !to_esp => (0, false, word),
            Verdict::Rewrite(Rewrite::Call | Rewrite::CallIndirect) => (-word, true, -word),
            Verdict::Rewrite(Rewrite::Return) => (0, false, word),
            Verdict::Copy if to_esp && is_add_or_sub(raw) => {
                return self.shift_by(match raw.mnemonic() {
                    Mnemonic::Add => constant(),
                    _ => constant().wrapping_neg(),
                });
            }
            Verdict::Rewrite(Rewrite::Lea)
                if to_esp && raw.memory_base() == esp && raw.memory_index() == Register::None =>
            {
                return self.shift_by(displacement(raw));
            }
            _ => return,
        };
        self.shift = shift;
        self.accesses.push(Access {
            base: Register::RSP,
            offset,
            size: word,
            writes,
        });
    }

    /// Notes that the instruction adds `amount` to ESP, unless that is too much.
    fn shift_by(&mut self, amount: i32) {
        if amount.unsigned_abs() <= MOST_SHIFT.unsigned_abs() {
            self.shift = amount;
        }
    }
}

/// Whether `raw` is ADD or SUB of a register and a constant.
fn is_add_or_sub(raw: &Instruction) -> bool {
    matches!(
        raw.code(),
        Code::Add_rm32_imm8
            | Code::Add_rm32_imm32
            | Code::Add_rm64_imm8
            | Code::Add_rm64_imm32
            | Code::Sub_rm32_imm8
            | Code::Sub_rm32_imm32
            | Code::Sub_rm64_imm8
            | Code::Sub_rm64_imm32
    )
}

/// The access to the memory operand of `raw`, if its address is a register and a constant.
fn by_constant(raw: &Instruction, writes: bool, is_64: bool) -> Option<Access> {
    let base = raw.memory_base();
    let size = raw.memory_size().size();
    let offset = displacement(raw);
    let is_word = match is_64 {
        true => base.is_gpr64(),
        false => base.is_gpr32(),
    };
    (is_word
        && raw.memory_index() == Register::None
        && !is_in_thread_segment(raw)
        && offset.unsigned_abs() <= MOST_OFFSET.unsigned_abs()
        && matches!(size, 1 | 2 | 4 | 8)
        && !(writes && raw.memory_segment() == Register::CS && !is_64))
        .then_some(Access {
            base: base.full_register(),
            offset,
            size: size as i32,
            writes,
        })
}

/// The displacement of a memory operand by a general register.
fn displacement(raw: &Instruction) -> i32 {
    raw.memory_displacement64() as i32
}

impl Emitter {
    /// Begins a group before the instruction at `index` of the plans, if that is worth while.
    pub(super) fn begin_group(&mut self, raw: &Instruction, index: usize) {
        let Some(plan) = self.plans.get(index) else {
            return;
        };
        let served = |group: &Group| plan.accesses.iter().any(|access| group.serves(access));
        let Some(first) = plan.accesses.first().copied() else {
            return;
        };
        if self.group.is_some_and(|group| {
            served(&group) || (group.base != first.base && self.is_used_again(group, index))
        }) {
            return;
        }
        if let Some(group) = self.worth_while(first, index) {
            if self.is_wide() {
                // The room for an instruction is none for this check.
                self.islands(true);
            }
            self.check_group(raw, group);
            self.group = Some(group);
        }
    }

    /// Whether an instruction from `index` on will find its access served by `group`.
    fn is_used_again(&self, mut group: Group, index: usize) -> bool {
        for plan in &self.plans[index..] {
            if plan.accesses.iter().any(|access| group.serves(access)) {
                return true;
            }
            if !follow(&mut group, plan) {
                return false;
            }
        }
        false
    }

    /// The group that begins with `first` at `index`, if enough accesses follow.
    fn worth_while(&self, first: Access, index: usize) -> Option<Group> {
        if self.windowed {
            return self.worth_while_in_window(first, index);
        }
        let mut group = Group {
            base: first.base,
            start: first.offset,
            end: first.offset + first.size,
            writes: first.writes,
        };
        // Offset of the base from where it was at `index`.
        let mut moved = 0;
        let mut count = 0;
        for plan in &self.plans[index..] {
            for access in plan
                .accesses
                .iter()
                .filter(|access| access.base == first.base)
            {
                let start = group.start.min(access.offset.checked_add(moved)?);
                let end = group.end.max(access.offset + moved + access.size);
                if end.checked_sub(start)? <= MOST_BYTES {
                    (group.start, group.end) = (start, end);
                    group.writes |= access.writes;
                    count += 1;
                }
            }
            if plan.takes_pointer || plan.written.contains(&first.base) {
                break;
            }
            if first.base == Register::RSP {
                moved += plan.shift;
            }
            if moved.abs() > MOST_BYTES {
                break;
            }
        }
        (count >= FEWEST).then_some(group)
    }

    /// The group that begins with `first` at `index` in a window, if enough accesses follow through a register of the host. With
    /// 32-bit linear addresses a window needs none.
    fn worth_while_in_window(&self, first: Access, index: usize) -> Option<Group> {
        if !self.is_wide() || !matches!(home(first.base), Some(Home::Register(_))) {
            return None;
        }
        let whole = Group {
            base: first.base,
            start: -MOST_DISTANCE,
            end: MOST_DISTANCE,
            writes: true,
        };
        let mut group = whole;
        let mut count = 0;
        for plan in &self.plans[index..] {
            let served = plan.accesses.iter().filter(|access| group.serves(access));
            count += served.count();
            if count >= FEWEST_IN_WINDOW {
                return Some(whole);
            }
            if !follow(&mut group, plan) {
                break;
            }
        }
        None
    }

    /// The register that holds the distance of host addresses in the unit of a register's value, if the present group does: the
    /// register has not moved since.
    pub(super) fn distance_by(&self, base: Register) -> Option<Reg> {
        let group = self.group.filter(|_| self.windowed)?;
        let is_there = group.base == base.full_register() && group.start == -MOST_DISTANCE;
        is_there.then_some(R10)
    }

    /// Keeps the bounds of registers that the instruction `raw` at `index` leaves alone, and notes those of what it writes; in windows,
    /// where operands by two registers need them. What lies in the context has bounds for as long as R9 has the copy that was written.
    pub(super) fn follow_bounds(&mut self, raw: &Instruction, index: usize) {
        let Some(plan) = self.plans.get(index).filter(|_| self.windowed) else {
            return;
        };
        let moved = (plan.shift != 0).then_some(Register::RSP);
        let written = plan.written.iter().copied().chain(moved);
        for register in written.filter(|register| register.is_gpr()) {
            self.bounds[register.number()] = None;
        }
        let copied = self.copied();
        for (number, bounds) in self.bounds.iter_mut().enumerate() {
            let register = Register::RAX + number as u32;
            if !matches!(home(register), Some(Home::Register(_))) {
                *bounds = None;
            }
        }
        if let Some((register, bounds)) = bounds::of_result(raw)
            && (matches!(home(register), Some(Home::Register(_))) || copied == Some(register))
        {
            self.bounds[register.number()] = Some(bounds);
        }
    }

    /// Keeps the group behind the instruction at `index`, as far as that leaves it valid.
    pub(super) fn follow_group(&mut self, index: usize) {
        let (Some(mut group), Some(plan)) = (self.group, self.plans.get(index)) else {
            return;
        };
        self.group = follow(&mut group, plan).then_some(group);
    }

    /// The memory of an access, if the present group serves it.
    pub(super) fn grouped(
        &self,
        base: Register,
        offset: i32,
        size: i32,
        writes: bool,
    ) -> Option<Probed> {
        let access = Access {
            base,
            offset,
            size,
            writes,
        };
        let group = self.group.filter(|group| group.serves(&access))?;
        if !self.windowed {
            return Some(Probed::at(R10, offset - group.start));
        }
        match home(base)? {
            Home::Register(base) => Some(Probed::by_distance(R10, base, offset)),
            Home::Context(_) => None,
        }
    }

    /// The memory operand of `raw`, if the present group serves it.
    pub(super) fn grouped_operand(&self, raw: &Instruction, writes: bool) -> Option<Probed> {
        let access = by_constant(raw, writes, self.mode.is_64())?;
        self.grouped(access.base, access.offset, access.size, writes)
    }

    /// Emits the check of `group`: R10 = host address of its first byte; if that has none, the plain variant continues. In a window
    /// there is nothing to check, and R10 = the distance of host addresses.
    fn check_group(&mut self, raw: &Instruction, group: Group) {
        let Some(base) = self.held(group.base, R8) else {
            return;
        };
        if self.windowed {
            return self.load_distance(R10, base);
        }
        let (same, plain) = (self.asm.label(), self.open_plain(raw.ip32()));
        let found = self.asm.label();
        self.lea(R8, at(base, group.start));
        self.lea(RCX, at(R8, group.end - group.start - 1));
        let shift = self.page_shift(R9);
        if self.mode.is_64() {
            self.asm.shrx64(RCX, RCX, shift);
            self.asm.shrx64(R9, R8, shift);
        } else {
            self.asm.shrx32(RCX, RCX, shift);
            self.asm.shrx32(R9, R8, shift);
        }
        self.asm.not64(R9);
        self.asm.lea64(RCX, indexed(RCX, R9, 0, 1));
        self.asm.jrcxz(same);
        self.asm.bind(found);
        self.asm.jmp(plain);
        self.asm.bind(same);
        if self.is_wide() {
            self.load_slot(R8, 0, group.writes);
        } else {
            let table = if group.writes { WRITE_TABLE } else { 0 };
            self.asm.shrx32(RCX, R8, R13);
            self.asm.load64(RCX, indexed(R14, RCX, 3, table));
        }
        self.asm.jrcxz(found);
        self.asm
            .lea64(R10, indexed(R8, RCX, 0, -(SLOT_PRESENT as i32)));
        debug_assert!(group.end - group.start <= PAGE as i32);
    }
}

/// Applies the instruction of `plan` to `group`. Returns whether the group is still valid.
fn follow(group: &mut Group, plan: &Plan) -> bool {
    if plan.takes_pointer || plan.written.contains(&group.base) {
        return false;
    }
    if group.base == Register::RSP {
        group.shift(plan.shift);
    }
    true
}
