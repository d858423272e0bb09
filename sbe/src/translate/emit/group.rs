//! Groups: several accesses through one register, checked once.
//!
//! Code addresses its stack frame again and again by the same register and constant offsets. Where enough such accesses
//! follow, one check finds out that all of them lie in one page with a slot, and leaves the host address of the first byte in
//! R10; then each access is a single instruction. If they do not, a variant of the fragment without groups goes on.

use super::memory::{Probed, is_addressable, is_in_thread_segment};
use super::{Emitter, PAGE, guest};
use crate::translate::asm::*;
use crate::translate::classify::{Rewrite, Verdict};
use crate::translate::context::WRITE_TABLE;
use iced_x86::{Code, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use mmu::SLOT_PRESENT;
use smallvec::SmallVec;

/// Accesses that a group is made for.
const FEWEST: usize = 3;
/// Bytes that a group spans at most: the more, the likelier that a page boundary lies between.
const MOST_BYTES: i32 = 512;
/// Offsets and changes of ESP beyond these are left alone, so that sums over a fragment fit.
const MOST_OFFSET: i32 = 0x7000_0000;
const MOST_SHIFT: i32 = 1 << 20;

/// An access by a register and a constant.
#[derive(Clone, Copy, Debug)]
struct Access {
    base: Register,
    offset: i32,
    size: i32,
    writes: bool,
}

/// What matters of an instruction for groups.
#[derive(Debug)]
pub(super) struct Plan {
    accesses: SmallVec<[Access; 2]>,
    /// What the instruction adds to ESP.
    shift: i32,
    /// Registers that it writes otherwise.
    written: SmallVec<[Register; 4]>,
    /// Whether its code uses R10.
    takes_pointer: bool,
}

/// Accesses that R10 serves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    base: Register,
    /// Offset of the byte at R10 from `base`, and behind the last byte checked.
    start: i32,
    end: i32,
    writes: bool,
}

impl Group {
    fn serves(&self, access: &Access) -> bool {
        self.base == access.base
            && self.start <= access.offset
            && access.offset + access.size <= self.end
            && (self.writes || !access.writes)
    }

    /// The base register has grown by `amount`.
    fn shift(&mut self, amount: i32) {
        self.start -= amount;
        self.end -= amount;
    }
}

impl Plan {
    /// What `raw`, on which the verdict is `verdict`, accesses and changes.
    pub(super) fn new(
        raw: &Instruction,
        verdict: Verdict,
        info: &mut InstructionInfoFactory,
    ) -> Self {
        let mut plan = Self {
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
        let facts = info.info(raw);
        if let Some(operand) = (0..raw.op_count()).find(|&at| raw.op_kind(at) == OpKind::Memory) {
            let access = facts.op_access(operand);
            let writes = !matches!(access, OpAccess::Read | OpAccess::CondRead);
            plan.accesses.extend(by_constant(raw, writes));
        }
        plan.stack(raw, verdict);
        for used in facts.used_registers() {
            let writes = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead);
            let whole = used.register().full_register32();
            if writes && !(whole == Register::ESP && plan.shift != 0) {
                plan.written.push(whole);
            }
        }
        plan
    }

    /// Adds what the instruction does with the stack.
    fn stack(&mut self, raw: &Instruction, verdict: Verdict) {
        let constant = || raw.immediate(1) as i32;
        let to_esp = raw.op0_kind() == OpKind::Register && raw.op0_register() == Register::ESP;
        let (offset, writes, shift) = match verdict {
            Verdict::Rewrite(Rewrite::Push | Rewrite::PushSegment) => (-4, true, -4),
            Verdict::Rewrite(Rewrite::Pop) if !to_esp => (0, false, 4),
            Verdict::Rewrite(Rewrite::Call | Rewrite::CallIndirect) => (-4, true, -4),
            Verdict::Rewrite(Rewrite::Return) => (0, false, 4),
            Verdict::Copy if to_esp && is_add_or_sub(raw) => {
                return self.shift_by(match raw.mnemonic() {
                    Mnemonic::Add => constant(),
                    _ => constant().wrapping_neg(),
                });
            }
            Verdict::Rewrite(Rewrite::Lea)
                if to_esp
                    && raw.memory_base() == Register::ESP
                    && raw.memory_index() == Register::None =>
            {
                return self.shift_by(raw.memory_displacement32() as i32);
            }
            _ => return,
        };
        self.shift = shift;
        self.accesses.push(Access {
            base: Register::ESP,
            offset,
            size: 4,
            writes,
        });
    }

    /// The instruction adds `amount` to ESP; if that is too much, it is any other write.
    fn shift_by(&mut self, amount: i32) {
        if amount.unsigned_abs() <= MOST_SHIFT.unsigned_abs() {
            self.shift = amount;
        }
    }
}

/// ADD or SUB of a register and a constant.
fn is_add_or_sub(raw: &Instruction) -> bool {
    matches!(
        raw.code(),
        Code::Add_rm32_imm8 | Code::Add_rm32_imm32 | Code::Sub_rm32_imm8 | Code::Sub_rm32_imm32
    )
}

/// The access to the memory operand of `raw`, if its address is a register and a constant.
fn by_constant(raw: &Instruction, writes: bool) -> Option<Access> {
    let base = raw.memory_base();
    let size = raw.memory_size().size();
    let offset = raw.memory_displacement32() as i32;
    (base.is_gpr32()
        && raw.memory_index() == Register::None
        && !is_in_thread_segment(raw)
        && offset.unsigned_abs() <= MOST_OFFSET.unsigned_abs()
        && matches!(size, 1 | 2 | 4 | 8)
        && is_addressable(raw, writes))
    .then_some(Access {
        base,
        offset,
        size: size as i32,
        writes,
    })
}

impl Emitter {
    /// Before the instruction at `index` of the plans: begins a group if it is worth while.
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
            if first.base == Register::ESP {
                moved += plan.shift;
            }
            if moved.abs() > MOST_BYTES {
                break;
            }
        }
        (count >= FEWEST).then_some(group)
    }

    /// Behind the instruction at `index`: what remains of the group.
    pub(super) fn follow_group(&mut self, index: usize) {
        let (Some(mut group), Some(plan)) = (self.group, self.plans.get(index)) else {
            return;
        };
        self.group = follow(&mut group, plan).then_some(group);
    }

    /// Memory of a group, if the present one serves the access.
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
        Some(Probed::at(R10, offset - group.start))
    }

    /// Memory of a group, for the memory operand of `raw`.
    pub(super) fn grouped_operand(&self, raw: &Instruction, writes: bool) -> Option<Probed> {
        let access = by_constant(raw, writes)?;
        self.grouped(access.base, access.offset, access.size, writes)
    }

    /// R10 = host address of the group's first byte; if there is none, the variant without groups goes on.
    fn check_group(&mut self, raw: &Instruction, group: Group) {
        let Some(base) = guest(group.base) else {
            return;
        };
        let (same, plain) = (self.asm.label(), self.open_plain(raw.ip32()));
        let found = self.asm.label();
        self.asm.lea32(R8, at(base, group.start));
        self.asm.lea32(RCX, at(R8, group.end - group.start - 1));
        self.asm.shrx32(RCX, RCX, R13);
        self.asm.shrx32(R9, R8, R13);
        self.asm.not64(R9);
        self.asm.lea64(RCX, indexed(RCX, R9, 0, 1));
        self.asm.jrcxz(same);
        self.asm.bind(found);
        self.asm.jmp(plain);
        self.asm.bind(same);
        let table = if group.writes { WRITE_TABLE } else { 0 };
        self.asm.shrx32(RCX, R8, R13);
        self.asm.load64(RCX, indexed(R14, RCX, 3, table));
        self.asm.jrcxz(found);
        self.asm
            .lea64(R10, indexed(R8, RCX, 0, -(SLOT_PRESENT as i32)));
        debug_assert!(group.end - group.start <= PAGE as i32);
    }
}

/// Lets the instruction of `plan` change `group`; returns whether anything remains of it.
fn follow(group: &mut Group, plan: &Plan) -> bool {
    if plan.takes_pointer || plan.written.contains(&group.base) {
        return false;
    }
    if group.base == Register::ESP {
        group.shift(plan.shift);
    }
    true
}
