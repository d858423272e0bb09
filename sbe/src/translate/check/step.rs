//! [`Stepper`]: the effect of one instruction on a [`State`], if the instruction is allowed.

use super::allowed::{Unit, alignment, is_string, unit};
use super::memory::{self, Location, Operand, Rights};
use super::rule::Rule;
use super::state::{Poll, R13, R14, RAX, RCX, RDI, RDX, RSI, RSP, State};
use super::value::{ARENA, CONTEXT, Low, Node, Shift, TABLES, Table, Value, Values, WORD};
use crate::translate::context::Context;
use iced_x86::{
    Code, CodeSize, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};
use std::mem::offset_of;

/// The position of a doubleword's sign.
const DOUBLEWORD_SIGN: u8 = 31;
/// The position of a quadword's sign.
const QUADWORD_SIGN: u8 = 63;
/// The count of a shift left that leaves bits 5:0, the exception masks of the x87 control word.
const ABOVE_MASKS: u8 = 26;
// Offsets of fields whose values matter.
const SCRATCH: u64 = offset_of!(Context, scratch) as u64;
const POLLS: u64 = offset_of!(Context, polls) as u64;
const FPU_LIVE: u64 = offset_of!(Context, fpu_live) as u64;
const FPU: u64 = offset_of!(Context, fpu) as u64;
/// The offsets of the stack pointers that the other privilege level has left.
const STACKS: [u64; 2] = [
    offset_of!(Context, stack_bottom) as u64,
    offset_of!(Context, user_stack) as u64,
];
const TABLES_0: u64 = offset_of!(Context, tables) as u64;
const TABLES_1: u64 = TABLES_0 + 8;

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
}

impl Stepper {
    /// Creates an interpreter of code with these rights.
    pub fn new(rights: Rights) -> Self {
        Self {
            values: Values::new(),
            rights,
            info: InstructionInfoFactory::new(),
        }
    }

    /// Applies an instruction that is no branch.
    pub fn step(&mut self, state: &mut State, instruction: &Instruction) -> Result<(), Rule> {
        if is_string(instruction.code()) {
            return self.string(state, instruction);
        }
        if instruction.has_rep_prefix() || instruction.has_repne_prefix() {
            return Err(Rule::Instruction);
        }
        match instruction.code() {
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
            Code::Mov_rm32_r32 | Code::Mov_rm64_r64 | Code::Mov_rm32_imm32
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
            Code::VEX_Pext_r32_r32_rm32 => {
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
    pub fn test(&mut self, mut state: State) -> (Option<State>, Option<State>) {
        let value = state.registers[RCX];
        match value.known() {
            Some(0) => return (Some(state), None),
            Some(_) => return (None, Some(state)),
            None => {}
        }
        let mut zero = state.clone();
        zero.learn(value, true);
        zero.registers[RCX] = Value::constant(0);
        state.learn(value, false);
        if state.poll == Poll::Counted(value) {
            state.poll = Poll::Done;
        }
        match value.single().map(|atom| self.values.node(atom)) {
            Some(Node::TableWord(table, index, _)) => {
                let slot =
                    |writes| Node::Slot(memory::granted(&self.values, &state, index, writes));
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

    /// Whether `value` is the host address of the code for `eip` by the code table, or of the trampoline that looks it up.
    pub fn is_dispatched(&self, value: Value, eip: Value) -> bool {
        let mut atoms = value.parts();
        let (Some(a), Some(b), None) = (atoms.next(), atoms.next(), atoms.next()) else {
            return false;
        };
        value.constant == 0
            && self.values.is_word(eip)
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
        let value = match number {
            R13 if State::is_page(&self.values, value) => value,
            R14 if self.rights.loads_state => self.is_table(value).ok_or(Rule::Pinned(number))?,
            RSP if self.rights.loads_state && STACKS.iter().any(|&at| self.is_field(value, at)) => {
                // None of the calls was made here.
                state.stack.clear();
                return Ok(());
            }
            RSP | R13.. => return Err(Rule::Pinned(number)),
            _ => value,
        };
        state.registers[number] = value;
        Ok(())
    }

    /// The read table that `value` is, if it was loaded from where the context has it.
    fn is_table(&self, value: Value) -> Option<Value> {
        let known = [TABLES_0, TABLES_1]
            .into_iter()
            .any(|offset| self.is_field(value, offset));
        known.then_some(Value::atom(TABLES))
    }

    /// Whether `value` was loaded from a quadword of the context.
    fn is_field(&self, value: Value, offset: u64) -> bool {
        let node = value.single().map(|atom| self.values.node(atom));
        let place = Value::atom(CONTEXT).plus(offset);
        matches!(node, Some(Node::Loaded { address, bytes: 8, .. }) if address == place)
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
        state: &State,
        instruction: &Instruction,
        writes: bool,
    ) -> Result<Option<(Operand, Location)>, Rule> {
        if self.rights.uses_window && is_in_window(instruction) {
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
        let place = memory::locate(&mut self.values, self.rights, operand)?;
        Ok(Some((operand, place)))
    }

    fn load(&mut self, state: &State, instruction: &Instruction) -> Result<Value, Rule> {
        let bytes = instruction.memory_size().size() as u8;
        let Some((operand, place)) = self.operand(state, instruction, false)? else {
            let most = u64::MAX >> (64 - 8 * bytes.min(8));
            return Ok(self.values.unknown(most, Low::UNKNOWN));
        };
        Ok(match place {
            Location::Context(SCRATCH) if bytes == 8 => state.scratch,
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
            Location::Context(_) | Location::Array | Location::Guest => {
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
            _ => {}
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
            VEX_Shrx_r32_rm32_r32 => (Shift::Right, true),
            VEX_Shrx_r64_rm64_r64 => (Shift::Right, false),
            VEX_Sarx_r32_rm32_r32 => (Shift::Signed32, true),
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
        let count = if code == VEX_Rorx_r32_rm32_imm8 {
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

    /// The result of PEXT: as many bits as the mask has.
    fn extracted(&mut self, state: &State, instruction: &Instruction) -> Result<Value, Rule> {
        let mask = match instruction.op2_kind() {
            OpKind::Register => state.registers[number(instruction.op2_register())],
            _ => self.load(state, instruction)?,
        };
        let bits = mask.known().map_or(32, |mask| (mask as u32).count_ones());
        Ok(self.values.unknown((1 << bits) - 1, Low::UNKNOWN))
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
        match unit(instruction).ok_or(Rule::Instruction)? {
            Unit::Fpu if !state.fpu => return Err(Rule::Fpu),
            Unit::Fpu | Unit::Integer => {}
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
                if place != Location::Guest {
                    return Err(Rule::Field);
                }
            }
            if writes {
                state.store(&mut self.values);
            }
        }
        for (register, access) in written {
            let number = number(register);
            if matches!(number, RSP | R13..) {
                return Err(Rule::Pinned(number));
            }
            let merges = register.size() < 4 || access != OpAccess::Write;
            let wide = merges && !self.values.is_word(state.registers[number]);
            state.registers[number] = if wide {
                self.values.any()
            } else {
                self.values.word()
            };
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

    /// Checks DIV or IDIV of EDX:EAX: the quotient has to be proven to fit.
    fn divide(&mut self, state: &State, instruction: &Instruction) -> Result<(), Rule> {
        if instruction.op0_kind() != OpKind::Register {
            return Err(Rule::Division);
        }
        let divisor = state.registers[number(instruction.op0_register())];
        let (low, high) = (state.registers[RAX], state.registers[RDX]);
        let words = [divisor, low, high].map(|value| self.values.is_word(value));
        let fits = match instruction.code() {
            Code::Div_rm32 => {
                let difference = self.values.subtract(high, divisor);
                let below = self.values.shift(Shift::Right, difference, QUADWORD_SIGN);
                state.knows(below, false)
            }
            Code::Idiv_rm32 => {
                let sign = self.values.shift(Shift::Signed32, low, DOUBLEWORD_SIGN);
                let extension = self.values.subtract(high, sign);
                let more = self.values.low32(divisor.plus(1));
                state.knows(extension, true)
                    && state.knows(divisor, false)
                    && state.knows(more, false)
            }
            _ => false,
        };
        (fits && words == [true; 3])
            .then_some(())
            .ok_or(Rule::Division)
    }

    /// Checks FLDCW: the low bits of the word have to be proven to be all ones.
    fn load_control_word(&mut self, state: &State, instruction: &Instruction) -> Result<(), Rule> {
        if !state.fpu {
            return Err(Rule::Fpu);
        }
        let (operand, _) = self
            .operand(state, instruction, false)?
            .ok_or(Rule::ControlWord)?;
        let word = self.values.of(Node::Loaded {
            address: operand.address,
            bytes: 2,
            version: state.version,
        });
        let inverted = self.values.not(word);
        let clear = self.values.shift(Shift::Left32, inverted, ABOVE_MASKS);
        state
            .knows(clear, true)
            .then_some(())
            .ok_or(Rule::ControlWord)
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
            memory::repeated(&mut self.values, state, pointer, count, bytes, writes)?;
            state.registers[register] = self.values.any();
        }
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
        Movsb | Movsw | Movsd | Stosb | Stosw | Stosd
    )
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
