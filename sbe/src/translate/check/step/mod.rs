//! [`Stepper`]: the effect of one instruction on a [`State`], if the instruction is allowed. Instructions that may be only behind
//! tests of their operands are in `guarded`.

mod guarded;

use super::allowed::{Unit, alignment, is_quad, is_string, unit};
use super::memory::{self, Field, Location, Operand, Rights, is_field};
use super::registers::{R8, R9, R10, R13, R14, RCX, RDI, RSI, RSP};
use super::rule::Rule;
use super::state::{Beginning, Level, Poll, State};
use super::value::{
    ARENA, CONTEXT, FIELD_TABLES, Grant, Low, Node, Shift, TABLES, Table, Value, Values, WORD,
};
use super::widths::Widths;
use crate::translate::bounds;
use crate::translate::context::Context;
use crate::translate::fault_map::FoundCode;
use iced_x86::{
    Code, CodeSize, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};
use std::mem::offset_of;

/// The size in bytes of the words of a window's directory.
const DIRECTORY_WORD: u32 = 8;
/// The bits of half a quadword.
const HALF: u8 = 32;
// Offsets of fields whose values matter.
const SCRATCH: u64 = offset_of!(Context, scratch) as u64;
const PAGE: u64 = offset_of!(Context, page) as u64;
const POLLS: u64 = offset_of!(Context, polls) as u64;
const FPU_LIVE: u64 = offset_of!(Context, fpu_live) as u64;
const FPU: u64 = offset_of!(Context, fpu) as u64;
/// The offsets of the stack pointers that the other privilege level has left.
const STACKS: [u64; 2] = [
    offset_of!(Context, stack_bottom) as u64,
    offset_of!(Context, user_stack) as u64,
];
/// The tables of both privilege levels: read, write, fetch and code table.
const ALL_TABLES: Field = field!(tables: u64);
/// The number of tables of a level.
const TABLES_OF_LEVEL: usize = 4;
/// The offsets of the tables of the current level.
const TABLE_FIELDS: [u64; TABLES_OF_LEVEL] = [
    offset_of!(Context, table) as u64,
    offset_of!(Context, write_table) as u64,
    offset_of!(Context, fetch_table) as u64,
    offset_of!(Context, code_table) as u64,
];
/// The masks that choose bits of linear addresses.
const MASKS: Field = field!(masks: u64);

/// The number of the general-purpose register that `register` is a part of.
pub fn number(register: Register) -> usize {
    register.full_register().number()
}

/// An abstract interpreter of single instructions.
pub struct Stepper {
    /// The atoms of all values.
    pub values: Values,
    rights: Rights,
    info: InstructionInfoFactory,
    /// The code in the fault map that the present instruction of the host is part of.
    guest: Option<FoundCode>,
}

impl Stepper {
    /// Creates an interpreter of code with these rights.
    pub fn new(rights: Rights) -> Self {
        Self {
            values: Values::new(),
            rights,
            info: InstructionInfoFactory::new(),
            guest: None,
        }
    }

    /// The widths of addresses and code.
    pub fn widths(&self) -> Widths {
        self.rights.widths
    }

    /// Prepares for an instruction of the host that, where it faults, is part of the guest's instruction with this code, if any.
    /// Returns that code if it begins with the instruction.
    pub fn enter(
        &mut self,
        instruction: &Instruction,
        guest: Option<FoundCode>,
    ) -> Option<FoundCode> {
        self.guest = guest;
        guest.filter(|guest| guest.code == instruction.ip() as u32)
    }

    /// Begins the guest's instruction with this code, which may fault behind a change of R10 only if `moves_pointer`.
    pub fn begin(&mut self, state: &mut State, guest: FoundCode, moves_pointer: bool) {
        state.changed = false;
        self.forget_sums(state);
        if self.begins_anew(guest) {
            self.forget_scratch(state, moves_pointer);
        }
        state.beginning = Some(Beginning {
            code: guest.code,
            pointer: (!moves_pointer).then_some(state.registers[R10]),
        });
    }

    /// Whether emitted code goes on where the guest's instruction with this code begins, after a fault.
    fn begins_anew(&self, guest: FoundCode) -> bool {
        guest.restarts && self.rights.uses_window
    }

    /// Forgets what is another where an instruction begins anew: all scratch registers but R10, that too if the code may have changed it,
    /// and slots, which the engine may have dropped.
    fn forget_scratch(&mut self, state: &mut State, moves_pointer: bool) {
        for number in [RCX, R8, R9] {
            state.registers[number] = self.values.any();
        }
        state.scratch = self.values.any();
        state.touched.clear();
        let is_slot = |atom| matches!(self.values.node(atom), Node::Slot(_));
        let pointer = state.registers[R10];
        if moves_pointer || pointer.parts().any(|(atom, _)| is_slot(atom)) {
            state.registers[R10] = self.values.any();
        }
    }

    /// Forgets what sums the guest's registers hold, so that addresses formed with them stay short enough to be known.
    fn forget_sums(&mut self, state: &mut State) {
        for &number in self.rights.widths.guest() {
            let value = state.registers[number];
            if value.parts().nth(1).is_some() {
                let (most, low) = (self.values.most(value), self.values.low(value));
                state.registers[number] = self.values.unknown(most, low);
            }
        }
    }

    /// Applies an instruction that is no branch.
    pub fn step(&mut self, state: &mut State, instruction: &Instruction) -> Result<(), Rule> {
        if is_string(instruction.code(), self.rights.widths) {
            return self.string(state, instruction);
        }
        if instruction.has_rep_prefix() || instruction.has_repne_prefix() {
            return Err(Rule::Instruction);
        }
        match instruction.code() {
            Code::Push_rm64
                if self.rights.widths.has_wide_tables()
                    && instruction.op0_kind() == OpKind::Memory =>
            {
                let value = self.load(state, instruction)?;
                state.stack.push(value);
                Ok(())
            }
            Code::Push_r64 => {
                let value = state.registers[number(instruction.op0_register())];
                state.stack.push(value);
                Ok(())
            }
            Code::Pop_r64 => {
                let value = state.stack.pop().ok_or(Rule::Stack)?;
                self.set(state, instruction.op0_register(), value)
            }
            Code::Lea_r32_m | Code::Lea_r64_m => {
                let value = self.address(state, instruction)?;
                self.set(state, instruction.op0_register(), value)
            }
            Code::Not_rm64 if instruction.op0_kind() == OpKind::Register => {
                let register = instruction.op0_register();
                let value = self.values.not(state.registers[number(register)]);
                self.set(state, register, value)
            }
            Code::Mov_r64_imm64 => {
                // The engine may replace the number.
                let value = self.values.any();
                self.set(state, instruction.op0_register(), value)
            }
            Code::Mov_rm32_r32
            | Code::Mov_rm64_r64
            | Code::Mov_rm32_imm32
            | Code::Mov_rm64_imm32
                if instruction.op0_kind() == OpKind::Memory =>
            {
                let value = self.source(state, instruction)?;
                self.store(state, instruction, value)
            }
            Code::Mov_r32_rm32
            | Code::Mov_rm32_r32
            | Code::Mov_r64_rm64
            | Code::Mov_rm64_r64
            | Code::Mov_r32_imm32
            | Code::Movzx_r32_rm8
            | Code::Movzx_r32_rm16 => {
                let value = self.source(state, instruction)?;
                self.set(state, instruction.op0_register(), value)
            }
            Code::VEX_Pext_r32_r32_rm32 | Code::VEX_Pext_r64_r64_rm64 => {
                let value = self.extracted(state, instruction)?;
                self.set(state, instruction.op0_register(), value)
            }
            _ => match self.shifted(state, instruction) {
                Some(value) => self.set(state, instruction.op0_register(), value),
                None => self.plain(state, instruction),
            },
        }
    }

    /// The two states behind a test of RCX for zero: that where it is, and that where it is not.
    pub fn test(&mut self, mut state: Box<State>) -> (Option<Box<State>>, Option<Box<State>>) {
        let value = state.registers[RCX];
        match value.known() {
            Some(0) => return (Some(state), None),
            Some(_) => return (None, Some(state)),
            None => {}
        }
        let mut zero = state.clone();
        zero.learn(value, true);
        self.narrow(&mut zero, value);
        zero.registers[RCX] = Value::constant(0);
        state.learn(value, false);
        if state.poll == Poll::Counted(value) {
            state.poll = Poll::Done;
        }
        match value.single().map(|atom| self.values.node(atom)) {
            Some(Node::TableWord(table, index, load)) => {
                let grant = |writes| memory::granted(&self.values, &state, index, writes, load);
                let slot = |writes| Node::Slot(grant(writes));
                let present = match table {
                    Table::Read => Some(slot(false)),
                    Table::Write => Some(slot(true)),
                    Table::Code => Some(Node::CodeSlot(index.address)),
                    Table::Fetch => None,
                };
                if let Some(present) = present {
                    state.registers[RCX] = self.values.of(present);
                }
            }
            Some(Node::Loaded { address, .. })
                if address == Value::atom(CONTEXT).plus(FPU_LIVE) =>
            {
                state.fpu = true;
            }
            _ => {}
        }
        (Some(zero), Some(state))
    }

    /// Applies that `half` is zero: registers whose upper half that is have 32 bits.
    fn narrow(&mut self, state: &mut State, half: Value) {
        let node = |values: &Values, value: Value| value.single().map(|atom| values.node(atom));
        if let Some(Node::Low32(rotated)) = node(&self.values, half)
            && let Some(Node::Shifted(Shift::Rotate64, value, HALF)) = node(&self.values, rotated)
        {
            let word = self.values.low32(value);
            for register in state.registers.iter_mut().filter(|known| **known == value) {
                *register = word;
            }
        }
    }

    /// Whether `value` is the host address of the code for `eip` by the code table, or of the trampoline that looks it up.
    pub fn is_dispatched(&self, value: Value, eip: Value) -> bool {
        let mut atoms = value.parts();
        let (Some(a), Some(b), None) = (atoms.next(), atoms.next(), atoms.next()) else {
            return false;
        };
        value.constant == 0
            && self.rights.widths.fits(&self.values, eip)
            && [(a, b), (b, a)].into_iter().any(|(arena, code)| {
                arena == (ARENA, 1) && code.1 == 1 && self.values.node(code.0) == Node::Code(eip)
            })
    }

    /// Writes a register as an operand names it.
    fn set(&mut self, state: &mut State, register: Register, value: Value) -> Result<(), Rule> {
        let narrow = register.is_gpr32();
        let value = if narrow {
            self.values.low32(value)
        } else {
            value
        };
        let number = number(register);
        let widths = self.rights.widths;
        let value = match number {
            _ if !widths.pins(number) => value,
            R13 if !widths.has_wide_tables() && widths.is_page(&self.values, value) => value,
            R14 if !widths.has_wide_tables() && self.rights.loads_state => {
                let level = self.level_of(value, 0).ok_or(Rule::Pinned(number))?;
                state.tables[0] = Level::Other(level);
                Value::atom(TABLES)
            }
            RSP if self.rights.loads_state
                && STACKS.iter().any(|&at| is_field(&self.values, value, at)) =>
            {
                // None of the calls was made here.
                state.stack.clear();
                return Ok(());
            }
            _ => return Err(Rule::Pinned(number)),
        };
        state.set(number, value);
        Ok(())
    }

    /// The privilege level of which `value` is the table with this number, if it was loaded from where the context has that.
    fn level_of(&self, value: Value, number: usize) -> Option<usize> {
        let offset = memory::field_of(&self.values, value)?;
        let index = ALL_TABLES.index(offset)? as usize;
        (index % TABLES_OF_LEVEL == number).then_some(index / TABLES_OF_LEVEL)
    }

    /// The address of the memory operand, 64 bits wide.
    fn address(&mut self, state: &State, instruction: &Instruction) -> Result<Value, Rule> {
        let (base, index) = (instruction.memory_base(), instruction.memory_index());
        if base == Register::RIP {
            return Ok(match instruction.ip_rel_memory_address() {
                0 => Value::atom(ARENA),
                _ => self.values.any(),
            });
        }
        let of = |register: Register| match register {
            Register::None => Ok(Value::constant(0)),
            Register::RSP => Err(Rule::Pinned(RSP)),
            wide if wide.is_gpr64() => Ok(state.registers[number(wide)]),
            _ => Err(Rule::Segment),
        };
        let scale = u64::from(instruction.memory_index_scale());
        let (base, index) = (of(base)?, of(index)?);
        let sum = self.values.add(base, index.times(scale));
        Ok(sum.plus(instruction.memory_displacement64()))
    }

    /// The value of the last operand of a MOV.
    fn source(&mut self, state: &mut State, instruction: &Instruction) -> Result<Value, Rule> {
        match instruction.op1_kind() {
            OpKind::Register => {
                let register = instruction.op1_register();
                let value = state.registers[number(register)];
                Ok(match register.size() {
                    8 => value,
                    4 => self.values.low32(value),
                    2 => self.values.unknown(u16::MAX.into(), Low::UNKNOWN),
                    _ => self.values.unknown(u8::MAX.into(), Low::UNKNOWN),
                })
            }
            OpKind::Memory => self.load(state, instruction),
            _ => Ok(Value::constant(instruction.immediate(1))),
        }
    }

    /// Locates the memory operand, the only one; `None` if it lies in a window.
    fn operand(
        &mut self,
        state: &mut State,
        instruction: &Instruction,
        writes: bool,
    ) -> Result<Option<(Operand, Location)>, Rule> {
        let is_wide = self.rights.widths.has_wide_tables();
        if self.rights.uses_window && !is_wide && is_in_window(instruction) {
            self.may_fault(state)?;
            return Ok(None);
        }
        if instruction.has_segment_prefix() {
            return Err(Rule::Segment);
        }
        let operand = Operand {
            address: self.address(state, instruction)?,
            bytes: instruction.memory_size().size() as u64,
            writes,
            alignment: alignment(instruction),
        };
        let place = memory::locate(&mut self.values, state, self.rights, operand)?;
        let is_guests = matches!(place, Location::Guest(_) | Location::Window);
        if is_guests && is_wide && instruction.memory_segment() == Register::SS {
            return Err(Rule::Segment);
        }
        match place {
            Location::Guest(slot) => self.touch(state, slot)?,
            Location::Window => self.may_fault(state)?,
            _ => {}
        }
        Ok(Some((operand, place)))
    }

    /// Loads a word of the window's directory, which may fault; `None` if the instruction loads none.
    fn directory_word(
        &mut self,
        state: &State,
        instruction: &Instruction,
    ) -> Result<Option<Value>, Rule> {
        let widths = self.rights.widths;
        let is_word = self.rights.uses_window
            && widths.has_wide_tables()
            && instruction.code() == Code::Mov_r64_rm64
            && instruction.segment_prefix() == Register::GS
            && instruction.memory_base() == Register::None
            && instruction.memory_index().is_gpr64()
            && instruction.memory_index_scale() == DIRECTORY_WORD
            && instruction.memory_displacement64() == 0;
        if !is_word {
            return Ok(None);
        }
        let unit = state.registers[number(instruction.memory_index())];
        if !self.values.is_word(unit) {
            return Err(Rule::Index);
        }
        self.may_fault(state)?;
        Ok(Some(self.values.of(Node::Distance(unit))))
    }

    /// Notes an access through `slot`. With wide tables the first may fault: then the guest's instruction begins anew, so nothing
    /// of the guest's has changed yet, and the host's stack is at its level on entry.
    fn touch(&mut self, state: &mut State, slot: Grant) -> Result<(), Rule> {
        if self.rights.widths.has_wide_tables() && !state.touched.contains(&slot) {
            self.may_fault(state)?;
            state.touched.push(slot);
        }
        Ok(())
    }

    /// Checks that the guest's instruction can begin anew if the host faults here: it has begun where the fault map says, nothing of
    /// the guest's has changed since, and what an exit keeps is as it was.
    fn may_fault(&self, state: &State) -> Result<(), Rule> {
        let (Some(guest), Some(beginning)) = (self.guest, state.beginning) else {
            return Err(Rule::Restart);
        };
        let pointer = beginning.pointer.filter(|_| self.begins_anew(guest));
        let moved = pointer.is_some_and(|pointer| pointer != state.registers[R10]);
        if beginning.code != guest.code || state.changed || moved {
            return Err(Rule::Restart);
        }
        state.stack.is_empty().then_some(()).ok_or(Rule::Stack)
    }

    fn load(&mut self, state: &mut State, instruction: &Instruction) -> Result<Value, Rule> {
        if let Some(distance) = self.directory_word(state, instruction)? {
            return Ok(distance);
        }
        let bytes = instruction.memory_size().size() as u8;
        let most = u64::MAX >> (64 - 8 * bytes.min(8));
        let Some((operand, place)) = self.operand(state, instruction, false)? else {
            return Ok(self.values.unknown(most, Low::UNKNOWN));
        };
        Ok(match place {
            Location::Window => self.values.unknown(most, Low::UNKNOWN),
            Location::Context(SCRATCH) if bytes == 8 => state.scratch,
            Location::Context(PAGE) if bytes == 8 => state.page,
            Location::Context(offset) if bytes == 8 && TABLE_FIELDS.contains(&offset) => {
                let number = TABLE_FIELDS.iter().position(|&field| field == offset);
                let others = FIELD_TABLES.map(|(atom, _)| atom);
                let table = number.and_then(|number| others.get(number.checked_sub(1)?));
                Value::atom(table.copied().unwrap_or(TABLES))
            }
            Location::TableWord(table, index) => {
                let serial = self.values.serial();
                self.values.of(Node::TableWord(table, index, serial))
            }
            Location::Code(eip) => self.values.of(Node::Code(eip)),
            Location::Context(offset) if self.zeros(offset, bytes.into()) > 0 => {
                let low = Low::new(self.zeros(offset, bytes.into()), 0);
                let most = if bytes == 4 { WORD } else { u64::MAX };
                self.values.unknown(most, low)
            }
            Location::Context(_) | Location::Array | Location::Guest(_) => {
                self.values.of(Node::Loaded {
                    address: operand.address,
                    bytes,
                    version: state.version,
                })
            }
        })
    }

    /// The number of low bits of a field that are zeros.
    fn zeros(&self, offset: u64, bytes: u64) -> u8 {
        let mut known = self.rights.aligned.iter();
        let known = known.find(|(field, _)| field.has(offset, bytes));
        known.map_or(0, |known| known.1)
    }

    fn store(
        &mut self,
        state: &mut State,
        instruction: &Instruction,
        value: Value,
    ) -> Result<(), Rule> {
        let placed = self.operand(state, instruction, true)?;
        match placed {
            Some((_, Location::Context(SCRATCH))) => state.scratch = value,
            Some((_, Location::Context(PAGE))) => {
                if !self.rights.widths.is_page(&self.values, value) {
                    return Err(Rule::Field);
                }
                state.changed |= state.page != value;
                state.page = value;
            }
            Some((operand, Location::Context(POLLS))) => {
                let before = self.values.of(Node::Loaded {
                    address: operand.address,
                    bytes: 4,
                    version: state.version,
                });
                let less = self.values.low32(before.plus(u64::MAX));
                if value != less {
                    return Err(Rule::Field);
                }
                state.poll = Poll::Counted(value);
            }
            Some((_, Location::Context(offset))) => {
                let number = TABLE_FIELDS.iter().position(|&field| field == offset);
                if let Some(number) = number.filter(|_| self.rights.widths.has_wide_tables()) {
                    let level = self.level_of(value, number).ok_or(Rule::Field)?;
                    state.tables[number] = Level::Other(level);
                }
                state.changed = true;
            }
            _ => state.changed = true,
        }
        state.store(&mut self.values);
        Ok(())
    }

    /// The result of a shift that leaves the flags alone.
    fn shifted(&mut self, state: &State, instruction: &Instruction) -> Option<Value> {
        use Code::*;
        let code = instruction.code();
        let (shift, narrow) = match code {
            VEX_Rorx_r32_rm32_imm8 => (Shift::Rotate32, true),
            VEX_Rorx_r64_rm64_imm8 => (Shift::Rotate64, false),
            VEX_Shrx_r32_rm32_r32 => (Shift::Right, true),
            VEX_Shrx_r64_rm64_r64 => (Shift::Right, false),
            VEX_Sarx_r32_rm32_r32 => (Shift::Signed32, true),
            VEX_Sarx_r64_rm64_r64 => (Shift::Signed64, false),
            VEX_Shlx_r32_rm32_r32 => (Shift::Left32, true),
            VEX_Shlx_r64_rm64_r64 => return Some(self.values.any()),
            _ => return None,
        };
        if instruction.op1_kind() != OpKind::Register {
            return None;
        }
        let value = state.registers[number(instruction.op1_register())];
        let value = if narrow {
            self.values.low32(value)
        } else {
            value
        };
        let bits = if narrow { 5 } else { 6 };
        let count = if matches!(shift, Shift::Rotate32 | Shift::Rotate64) {
            Low::of(instruction.immediate8().into())
        } else {
            let register = instruction.op2_register();
            self.values.low(state.registers[number(register)])
        };
        if count.bits < bits {
            let most = if narrow { u32::MAX.into() } else { u64::MAX };
            return Some(self.values.unknown(most, Low::UNKNOWN));
        }
        let count = (count.value & ((1 << bits) - 1)) as u8;
        Some(self.values.shift(shift, value, count))
    }

    /// The result of PEXT: bits of an address by a mask of the context, or as many bits as the mask has.
    fn extracted(&mut self, state: &mut State, instruction: &Instruction) -> Result<Value, Rule> {
        let mask = match instruction.op2_kind() {
            OpKind::Register => state.registers[number(instruction.op2_register())],
            _ => self.load(state, instruction)?,
        };
        let source = instruction.op1_register();
        let value = state.registers[number(source)];
        let field = memory::field_of(&self.values, mask);
        let log = field.and_then(|offset| MASKS.index(offset));
        if let (8, Some(log)) = (source.size(), log) {
            return Ok(self.values.of(Node::Extracted(value, log as u8)));
        }
        let all = u64::MAX >> (64 - 8 * source.size());
        let most = mask.known().map_or(all, |mask| {
            u64::MAX
                .checked_shr(64 - (mask & all).count_ones())
                .unwrap_or(0)
        });
        Ok(self.values.unknown(most, Low::UNKNOWN))
    }

    /// Applies an instruction of which only is known what it reads and writes.
    fn plain(&mut self, state: &mut State, instruction: &Instruction) -> Result<(), Rule> {
        match instruction.code() {
            Code::Fldcw_m2byte => return self.load_control_word(state, instruction),
            Code::Fxrstor_m512byte if self.rights.loads_state => {
                return self.load_fpu(state, instruction);
            }
            _ => {}
        }
        let unit = unit(instruction, self.rights.widths).ok_or(Rule::Instruction)?;
        if unit == Unit::Fpu && !state.fpu {
            return Err(Rule::Fpu);
        }
        if matches!(instruction.mnemonic(), Mnemonic::Div | Mnemonic::Idiv) {
            self.divide(state, instruction)?;
        }
        let info = self.info.info(instruction);
        let memory = info.used_memory();
        let explicit =
            (0..instruction.op_count()).find(|&index| instruction.op_kind(index) == OpKind::Memory);
        let access = explicit.map(|index| info.op_access(index));
        if memory.len() != usize::from(explicit.is_some()) {
            return Err(Rule::Instruction);
        }
        let written: Vec<_> = info
            .used_registers()
            .iter()
            .filter(|used| writes(used.access()) && used.register().is_gpr())
            .map(|used| (used.register(), used.access()))
            .collect();
        if let Some(access) = access {
            let writes = writes(access);
            let placed = self.operand(state, instruction, writes)?;
            if let (true, Some((_, place))) = (writes, placed) {
                // What is in the context is written by MOV only.
                if !matches!(place, Location::Guest(_) | Location::Window) {
                    return Err(Rule::Field);
                }
            }
            if writes {
                state.store(&mut self.values);
                state.changed = true;
            }
        }
        state.changed |= unit == Unit::Fpu || instruction.rflags_modified() != 0;
        let bounded = bounds::of_result(instruction);
        for (register, access) in written {
            let number = number(register);
            if self.rights.widths.pins(number) {
                return Err(Rule::Pinned(number));
            }
            let merges = register.size() < 4 || access != OpAccess::Write;
            let merges_wide = merges && !self.values.is_word(state.registers[number]);
            let value = if let Some(amount) = added(instruction) {
                state.registers[number].plus(amount)
            } else if let Some((_, bounds)) =
                bounded.filter(|known| known.0 == register.full_register())
            {
                let span = bounds.high.abs_diff(bounds.low);
                let above = self.values.unknown(span, Low::UNKNOWN);
                above.plus(bounds.low.cast_unsigned())
            } else if is_quad(instruction) || merges_wide {
                self.values.any()
            } else {
                self.values.word()
            };
            state.set(number, value);
        }
        Ok(())
    }

    /// Applies FXRSTOR of the guest's state.
    fn load_fpu(&mut self, state: &mut State, instruction: &Instruction) -> Result<(), Rule> {
        let placed = self.operand(state, instruction, false)?;
        match placed {
            Some((_, Location::Context(FPU))) => {
                state.fpu = true;
                Ok(())
            }
            _ => Err(Rule::Instruction),
        }
    }

    /// Applies a string instruction with a repeat prefix.
    fn string(&mut self, state: &mut State, instruction: &Instruction) -> Result<(), Rule> {
        if !(instruction.has_rep_prefix() || instruction.has_repne_prefix()) {
            return Err(Rule::Instruction);
        }
        let bytes = instruction.memory_size().size() as u64;
        let count = state.registers[RCX];
        let stores = instruction.op0_kind() == OpKind::MemoryESRDI;
        for index in 0..instruction.op_count() {
            let (register, writes) = match instruction.op_kind(index) {
                OpKind::MemoryESRDI => (RDI, is_stored(instruction)),
                OpKind::MemorySegRSI if !instruction.has_segment_prefix() => (RSI, false),
                OpKind::Register => continue,
                _ => return Err(Rule::Segment),
            };
            let pointer = state.registers[register];
            let slot = memory::repeated(&mut self.values, state, pointer, count, bytes, writes)?;
            self.touch(state, slot)?;
            state.registers[register] = self.values.any();
        }
        state.changed = true;
        state.registers[RCX] = if self.values.is_word(count) {
            self.values.word()
        } else {
            self.values.any()
        };
        if stores {
            state.store(&mut self.values);
        }
        Ok(())
    }
}

fn is_stored(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    matches!(
        instruction.mnemonic(),
        Movsb | Movsw | Movsd | Movsq | Stosb | Stosw | Stosd | Stosq
    )
}

/// The constant that the instruction adds to a quadword register, the one that it writes.
fn added(instruction: &Instruction) -> Option<u64> {
    let amount = || instruction.immediate(1);
    match instruction.code() {
        _ if instruction.op0_kind() != OpKind::Register => None,
        Code::Add_rm64_imm8 | Code::Add_rm64_imm32 => Some(amount()),
        Code::Sub_rm64_imm8 | Code::Sub_rm64_imm32 => Some(amount().wrapping_neg()),
        _ => None,
    }
}

/// Whether the instruction has register `wanted` as an operand.
pub fn names(instruction: &Instruction, wanted: usize) -> bool {
    (0..instruction.op_count())
        .filter(|&at| instruction.op_kind(at) == OpKind::Register)
        .any(|at| number(instruction.op_register(at)) == wanted)
}

/// Whether the instruction has an operand in memory other than the context.
pub fn accesses_memory(instruction: &Instruction) -> bool {
    use OpKind::{Memory, MemoryESRDI, MemorySegRSI};
    let is_memory = |kind| matches!(kind, Memory | MemoryESRDI | MemorySegRSI);
    instruction.memory_base() != Register::R15
        && (0..instruction.op_count()).any(|at| is_memory(instruction.op_kind(at)))
}

/// Whether the memory operand lies in the 4 GiB from GS's base on: everything that 32 bits reach there is the guest's.
fn is_in_window(instruction: &Instruction) -> bool {
    let narrow = |register: Register| register == Register::None || register.is_gpr32();
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    let absolute = (base, index) == (Register::None, Register::None);
    let short = if absolute {
        instruction.memory_displ_size() == 4
    } else {
        narrow(base) && narrow(index)
    };
    instruction.segment_prefix() == Register::GS
        && short
        && instruction.code_size() == CodeSize::Code64
}

fn writes(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}
