//! [`Walk`]: all paths through a fragment or trampoline, checked where they leave it.

use super::contract::{Contracts, Linkage};
use super::flow::{Disassembly, Flow, violation};
use super::memory;
use super::registers::{R8, R9, R10, RCX};
use super::rule::{Need, Rule, Violation};
use super::state::{Level, Poll, State};
use super::step::{self, Stepper, number};
use super::value::{Grant, Low, Node, Value, Values};
use crate::translate::emit::entry_bytes;
use crate::translate::fault_map::{FaultMap, FoundCode};
use crate::translate::mode::Mode;
use hashbrown::HashMap;
use iced_x86::{Code, Instruction, OpKind};
use mmu::{LinearWidth, PAGE_SIZE};

/// The entries of fragments, by arena offset.
pub type FragmentEntries = HashMap<u32, FragmentEntry>;

/// The entry of a fragment.
#[derive(Clone, Copy, Debug)]
pub struct FragmentEntry {
    /// Offset in the page.
    pub at: u32,
    /// The mode in which the code executes.
    pub mode: Mode,
}

/// The facts that hold at a branch that may be redirected later.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// The mode in which its code executes.
    pub mode: Mode,
    /// The arena offset to which it led when it was checked.
    pub original: u32,
    /// Whether the guest's registers and the stack are as fragments need them.
    pub open: Result<(), Rule>,
    /// The offset in the page of the value in R8, if that is known; `None` if the value does not have the code's width.
    pub word8: Option<Option<u32>>,
    /// Whether R9 holds an offset in a page.
    pub offset9: bool,
}

/// Branches by the arena offset of their end.
pub type Sites = HashMap<u32, Site>;

/// The operands that the engine may replace in checked code.
#[derive(Default)]
pub struct Found {
    /// Branches that can be redirected.
    pub sites: Sites,
    /// Arena offsets of the ends of 64-bit operands.
    pub numbers: Vec<u32>,
}

/// The code around the code that is walked.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    /// The contracts of the trampolines.
    pub contracts: &'a Contracts,
    /// The entries of the fragments.
    pub entries: &'a FragmentEntries,
    /// The instructions of the guest that code which may fault belongs to.
    pub fault_map: &'a FaultMap,
    /// The width of linear addresses.
    pub tables: LinearWidth,
}

/// The promise of called code to its caller.
pub struct Promise<'a> {
    /// The stack above its level on entry when the code returns.
    pub stack: Vec<Value>,
    /// The check of the registers then.
    pub check: &'a dyn Fn(&Values, &State) -> Result<(), Rule>,
}

/// A walk through one fragment or trampoline.
pub struct Walk<'a> {
    around: Around<'a>,
    disassembly: Disassembly,
    stepper: Stepper,
    /// The states before the instructions.
    states: Vec<Option<Box<State>>>,
    entry: FragmentEntry,
    promise: Promise<'a>,
    found: Found,
}

/// Checks the code of a fragment.
///
/// # Errors
/// The rule that it violates.
pub fn fragment(
    around: Around<'_>,
    code: [&[u8]; 2],
    origins: [u32; 2],
    entry: FragmentEntry,
) -> Result<Found, Violation> {
    let disassembly = Disassembly::decode(code, origins)?;
    let behind_entry = disassembly.number(origins[0] + entry_bytes(around.tables));
    let Some(inside) = behind_entry.filter(|&number| number > 0) else {
        let first = disassembly.instructions.first().copied();
        return Err(violation(&first.unwrap_or_default(), Rule::Target));
    };
    let rights = memory::of_fragment(around.tables, entry.mode);
    let widths = rights.widths;
    let promise = Promise {
        stack: Vec::new(),
        check: &|values, state| match Need::Word8.met(values, widths, state) {
            true => Ok(()),
            false => Err(Rule::Contract(Need::Word8)),
        },
    };
    let mut stepper = Stepper::new(rights);
    let values = &mut stepper.values;
    let mut outside = State::between(values, widths);
    let from_inside = outside.clone();
    // It is entered with EIP in R8, or behind the code that computes its page's address.
    outside.registers[R8] = widths.unknown(values, Low::of(entry.at.into()));
    let mut walk = Walk::new(around, disassembly, stepper, entry, promise);
    walk.start(0, outside);
    walk.start(inside, from_inside);
    walk.follow()
}

impl<'a> Walk<'a> {
    /// Creates a walk through `disassembly`.
    pub fn new(
        around: Around<'a>,
        disassembly: Disassembly,
        stepper: Stepper,
        entry: FragmentEntry,
        promise: Promise<'a>,
    ) -> Self {
        Self {
            around,
            states: vec![None; disassembly.instructions.len()],
            disassembly,
            stepper,
            entry,
            promise,
            found: Found::default(),
        }
    }

    /// Lets the code be entered at instruction `number` with `state`.
    pub fn start(&mut self, number: usize, state: State) {
        self.states[number] = Some(Box::new(state));
    }

    /// Follows the code from its first instruction on.
    ///
    /// # Errors
    /// The rule that it violates.
    pub fn follow(mut self) -> Result<Found, Violation> {
        for number in self.disassembly.order(&[0])? {
            let instruction = self.disassembly.instructions[number];
            self.visit(number, &instruction)
                .map_err(|rule| violation(&instruction, rule))?;
        }
        Ok(self.found)
    }

    fn visit(&mut self, number: usize, instruction: &Instruction) -> Result<(), Rule> {
        // An instruction to which only tests of constants lead is never executed.
        let Some(mut state) = self.states[number].take() else {
            return Ok(());
        };
        let found = self.around.fault_map.find(instruction.ip() as u32);
        if let Some(code) = self.stepper.enter(instruction, found) {
            let moves_pointer = self.moves_pointer(number, code);
            self.stepper.begin(&mut state, code, moves_pointer);
        }
        match Flow::of(instruction) {
            Flow::Next => {
                if instruction.code() == Code::Mov_r64_imm64 {
                    self.found.numbers.push(instruction.next_ip32());
                }
                self.stepper.step(&mut state, instruction)?;
                self.fall(number, state)
            }
            Flow::Jump(target) => {
                self.note(instruction, &state);
                self.jump(target, state)
            }
            Flow::Branch(target) => {
                self.note(instruction, &state);
                self.jump(target, state.clone())?;
                self.fall(number, state)
            }
            Flow::BranchIfZero(target) => {
                let (zero, other) = self.stepper.test(state);
                if let Some(state) = zero {
                    self.jump(target, state)?;
                }
                other.map_or(Ok(()), |state| self.fall(number, state))
            }
            Flow::Call(target) => self.call(number, instruction, target, state),
            Flow::Return => {
                self.leaves(&state, &self.promise.stack)?;
                (self.promise.check)(&self.stepper.values, &state)
            }
            Flow::Indirect => self.indirect(instruction, &state),
        }
    }

    /// Whether `code`, which begins at instruction `number`, names R10 as an operand before its last access to memory other than the
    /// context.
    fn moves_pointer(&self, number: usize, code: FoundCode) -> bool {
        let find = |instruction: &Instruction| {
            let at = instruction.ip() as u32;
            self.around.fault_map.find(at)
        };
        let mut named = false;
        let behind = &self.disassembly.instructions[number..];
        for instruction in behind.iter().take_while(|next| find(next) == Some(code)) {
            if named && step::accesses_memory(instruction) {
                return true;
            }
            named |= step::names(instruction, R10);
        }
        false
    }

    fn fall(&mut self, number: usize, state: Box<State>) -> Result<(), Rule> {
        let next = self.disassembly.next(number).ok_or(Rule::FallsOff)?;
        self.reach(next, state)
    }

    /// Joins `state` into that before instruction `number`.
    fn reach(&mut self, number: usize, state: Box<State>) -> Result<(), Rule> {
        match &mut self.states[number] {
            Some(known) => known
                .join(&state, &mut self.stepper.values)
                .ok_or(Rule::Stack),
            none => {
                *none = Some(state);
                Ok(())
            }
        }
    }

    fn jump(&mut self, target: u32, state: Box<State>) -> Result<(), Rule> {
        if let Some(number) = self.disassembly.number(target) {
            return self.reach(number, state);
        }
        self.leaves(&state, &[])?;
        match self.around.contracts.get(&target) {
            Some(contract) if contract.returns() => Err(Rule::Contract(Need::Linkage)),
            Some(contract) => contract.check(&self.stepper.values, self.stepper.widths(), &state),
            None => self.enters(target, &state),
        }
    }

    /// Checks a branch to a fragment.
    fn enters(&self, target: u32, state: &State) -> Result<(), Rule> {
        let site = self.site(target, state, Ok(()));
        match site.may_enter(self.around.entries, self.around.tables, target) {
            true => Ok(()),
            false => Err(Rule::Target),
        }
    }

    fn call(
        &mut self,
        number: usize,
        instruction: &Instruction,
        target: u32,
        state: Box<State>,
    ) -> Result<(), Rule> {
        let contract = self.around.contracts.get(&target).copied();
        match contract {
            Some(contract) if contract.returns() => {
                self.leaves(&state, &[])?;
                contract.check(&self.stepper.values, self.stepper.widths(), &state)?;
                let state = self.returned(contract.linkage, state);
                self.fall(number, state)
            }
            _ => self.guest_call(number, instruction, target, state),
        }
    }

    /// The state when a trampoline has returned. The engine may have been in control.
    fn returned(&mut self, linkage: Linkage, mut state: Box<State>) -> Box<State> {
        let values = &mut self.stepper.values;
        let address = state.registers[R8];
        let load = values.serial();
        for number in [RCX, R8, R9] {
            state.registers[number] = values.any();
        }
        match linkage {
            Linkage::LoadsFpu => state.fpu = true,
            Linkage::FindsSlot(kind) => {
                state.registers[R8] = address;
                state.registers[RCX] = values.of(Node::Slot(Grant {
                    address,
                    bytes: kind.size().into(),
                    aligned: match kind.may_be_misaligned() {
                        true => 0,
                        false => kind.size().trailing_zeros() as u8,
                    },
                    writes: kind.writes(),
                    load,
                }));
            }
            Linkage::LoadsSegment => {
                state.registers[R10] = values.any();
                state.changed = true;
            }
            Linkage::Jump | Linkage::PolledJump => {}
        }
        state.store(values);
        state
    }

    /// Checks the guest's call, whose page lies on the stack for the code behind the call.
    fn guest_call(
        &mut self,
        number: usize,
        instruction: &Instruction,
        target: u32,
        mut state: Box<State>,
    ) -> Result<(), Rule> {
        let polls = self
            .around
            .contracts
            .get(&target)
            .is_some_and(|contract| contract.linkage == Linkage::PolledJump);
        let open = self.opens(&state);
        let [page] = state.stack[..] else {
            return Err(Rule::Stack);
        };
        let widths = self.stepper.widths();
        if !widths.is_page(&self.stepper.values, page) {
            return Err(Rule::Stack);
        }
        if !polls && state.poll != Poll::Done {
            return Err(Rule::Poll);
        }
        open?;
        let values = &mut self.stepper.values;
        let mut behind = Box::new(State::between(values, widths));
        behind.registers[R8] = widths.unknown(values, Low::UNKNOWN);
        behind.stack = std::mem::take(&mut state.stack);
        state.poll = Poll::None;
        let site = self.site(instruction.near_branch64() as u32, &state, Ok(()));
        self.found.sites.insert(instruction.next_ip32(), site);
        self.jump(target, state)?;
        self.fall(number, behind)
    }

    fn indirect(&mut self, instruction: &Instruction, state: &State) -> Result<(), Rule> {
        self.leaves(state, &[])?;
        if instruction.op0_kind() != OpKind::Register {
            return Err(Rule::Indirect);
        }
        let target = state.registers[number(instruction.op0_register())];
        let eip = state.registers[R8];
        match self.stepper.is_dispatched(target, eip) {
            true => Ok(()),
            false => Err(Rule::Indirect),
        }
    }

    /// Checks that the guest's registers are as fragments need them.
    fn opens(&self, state: &State) -> Result<(), Rule> {
        let (values, widths) = (&self.stepper.values, self.stepper.widths());
        match widths
            .guest()
            .iter()
            .find(|&&number| !widths.fits(values, state.registers[number]))
        {
            Some(&number) => Err(Rule::Wide(number)),
            None => Ok(()),
        }
    }

    /// Checks that control may leave the code, with `stack` above the stack's level on entry.
    fn leaves(&self, state: &State, stack: &[Value]) -> Result<(), Rule> {
        if state.stack != stack {
            return Err(Rule::Stack);
        }
        let [read, others @ ..] = state.tables;
        let mixed = others.iter().any(|&other| other != read) || read == Level::Unknown;
        if mixed && self.stepper.widths().has_wide_tables() {
            return Err(Rule::Tables);
        }
        self.opens(state)
    }

    /// Remembers the facts at a branch whose displacement may be replaced.
    fn note(&mut self, instruction: &Instruction, state: &State) {
        let short = matches!(instruction.code(), Code::Jmp_rel8_64) || instruction.is_jcc_short();
        if !short {
            let open = self.leaves(state, &[]);
            let site = self.site(instruction.near_branch64() as u32, state, open);
            self.found.sites.insert(instruction.next_ip32(), site);
        }
    }

    fn site(&self, original: u32, state: &State, open: Result<(), Rule>) -> Site {
        let (values, widths) = (&self.stepper.values, self.stepper.widths());
        let (r8, r9) = (state.registers[R8], state.registers[R9]);
        let low = values.low(r8);
        let offset = (1 << low.bits == PAGE_SIZE).then_some(low.value as u32);
        debug_assert!(widths.is_page(values, state.present_page(widths)));
        Site {
            original,
            mode: self.entry.mode,
            open,
            word8: widths.fits(values, r8).then_some(offset),
            offset9: values.most(r9) < PAGE_SIZE as u64,
        }
    }
}

impl Site {
    /// Whether the branch may be redirected to the fragment at arena offset `target`, or behind that one's entry, with linear
    /// addresses of the width `tables`.
    pub fn may_enter(&self, entries: &FragmentEntries, tables: LinearWidth, target: u32) -> bool {
        let same = |entry: &&FragmentEntry| entry.mode == self.mode && self.open.is_ok();
        let inside = target.checked_sub(entry_bytes(tables));
        let inside = inside.and_then(|entry| entries.get(&entry));
        let outside = entries.get(&target);
        inside.filter(same).is_some()
            || outside
                .filter(same)
                .is_some_and(|entry| self.word8 == Some(Some(entry.at)))
    }

    /// Whether the branch may be redirected to a trampoline at arena offset `target`.
    pub fn may_leave(&self, contracts: &Contracts, target: u32) -> bool {
        let contract = contracts.get(&target);
        let Some(contract) = contract.filter(|contract| !contract.returns()) else {
            return false;
        };
        self.open.is_ok()
            && contract.needs.iter().all(|need| match need {
                Need::Word8 => self.word8.is_some(),
                Need::Offset9 | Need::Word9 => self.offset9,
                Need::Inverted8 | Need::Long | Need::Linkage => false,
            })
    }
}
