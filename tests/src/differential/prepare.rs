//! The conditions that must hold before an instruction under test runs, and the instructions that establish them.
//!
//! Memory operands must lie where the generator wants them, never in memory that only one engine has mapped. So the generator
//! knows the value of every register that an address is made of: [`Known`] follows the registers through the sequence,
//! [`Needs`] collects what one unit demands, and the difference becomes a few `mov` in front of it.

use super::case::{DS, ES, FS, GS, SS};
use super::layout::{
    FLAT_CODE, FLAT_DATA, SEGMENT_BASE, SEGMENT_DOWN, SEGMENT_LIMITED, SEGMENT_READ_ONLY,
};
use iced_x86::{Code, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

/// Number of ESP in encodings.
pub const ESP: usize = 4;

/// Register contents as far as the generator knows them.
#[derive(Clone, Debug)]
pub struct Known {
    /// General registers in encoding order.
    pub gpr: [Option<u32>; 8],
    /// Segment registers, indexed as in [`super::case::State::segments`].
    pub segments: [Option<u16>; 5],
}

/// Index of the 32-bit register that `register` is part of; `None` if it is not a general register.
pub fn gpr_index(register: Register) -> Option<usize> {
    register
        .is_gpr()
        .then(|| register.full_register32() as usize - Register::EAX as usize)
}

/// Index of a data segment register in [`super::case::State::segments`]; `None` for CS and others.
pub fn segment_index(register: Register) -> Option<usize> {
    match register {
        Register::DS => Some(DS),
        Register::ES => Some(ES),
        Register::FS => Some(FS),
        Register::GS => Some(GS),
        Register::SS => Some(SS),
        _ => None,
    }
}

/// Base of the segment that `selector` names; `None` if it names none that is usable.
fn base(selector: u16) -> Option<u32> {
    match selector {
        FLAT_CODE | FLAT_DATA => Some(0),
        SEGMENT_LIMITED | SEGMENT_DOWN | SEGMENT_READ_ONLY => Some(SEGMENT_BASE),
        _ => None,
    }
}

impl Known {
    /// Base of the segment in `register`; 0 for CS and for what cannot be accessed through anyway.
    pub fn base(&self, register: Register) -> u32 {
        segment_index(register)
            .and_then(|index| self.segments[index])
            .and_then(base)
            .unwrap_or(0)
    }

    /// Forgets the registers that `instruction` overwrites.
    pub fn execute(&mut self, instruction: &Instruction, factory: &mut InstructionInfoFactory) {
        let stack_move = stack_move(instruction);
        for used in factory.info(instruction).used_registers() {
            if matches!(
                used.access(),
                OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess | OpAccess::None
            ) {
                continue;
            }
            match gpr_index(used.register()) {
                Some(ESP) if stack_move.is_some() => {}
                Some(index) => self.gpr[index] = None,
                None => {}
            }
        }
        if let (Some(delta), Some(esp)) = (stack_move, self.gpr[ESP]) {
            self.gpr[ESP] = Some(esp.wrapping_add_signed(delta));
        }
        if let Code::Mov_r32_imm32 = instruction.code() {
            let index =
                gpr_index(instruction.op0_register()).expect("the operand is a general register");
            self.gpr[index] = Some(instruction.immediate32());
        }
    }
}

/// The distance by which `instruction` moves ESP, if that is all it does to it.
fn stack_move(instruction: &Instruction) -> Option<i32> {
    let pops_stack_pointer = instruction.mnemonic() == Mnemonic::Pop
        && instruction.op0_kind() == OpKind::Register
        && gpr_index(instruction.op0_register()) == Some(ESP);
    let plain = instruction.is_stack_instruction()
        && !pops_stack_pointer
        && !matches!(instruction.mnemonic(), Mnemonic::Enter | Mnemonic::Leave);
    plain.then(|| instruction.stack_pointer_increment())
}

/// A value that an instruction of the preparation carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A constant.
    Const(u32),
    /// The address just after the main instruction and its body: where a transfer of control goes.
    Target,
}

impl Value {
    fn resolve(self, target: u32) -> u32 {
        match self {
            Self::Const(value) => value,
            Self::Target => target,
        }
    }
}

/// A preparing instruction. All leave the flags alone, and each has a fixed length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prep {
    /// `mov r32, imm32`.
    Set(usize, Value),
    /// `mov dword ptr ss:[address], imm32`; SS is always flat.
    Store(u32, Value),
    /// `push imm32`.
    Push(Value),
    /// `push imm16`.
    PushWord(Value),
}

impl Prep {
    fn encode(self, target: u32, bytes: &mut Vec<u8>) {
        match self {
            Self::Set(register, value) => {
                bytes.push(0xb8 + register as u8);
                bytes.extend(value.resolve(target).to_le_bytes());
            }
            Self::Store(address, value) => {
                bytes.extend([0x36, 0xc7, 0x05]);
                bytes.extend(address.to_le_bytes());
                bytes.extend(value.resolve(target).to_le_bytes());
            }
            Self::Push(value) => {
                bytes.push(0x68);
                bytes.extend(value.resolve(target).to_le_bytes());
            }
            Self::PushWord(value) => {
                bytes.extend([0x66, 0x68]);
                bytes.extend((value.resolve(target) as u16).to_le_bytes());
            }
        }
    }
}

/// The error of two demands of one unit that contradict each other: another unit is to be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict;

/// The values that one unit needs before its main instruction.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    registers: [Option<Value>; 8],
    stores: Vec<Prep>,
    pushes: Vec<Prep>,
}

impl Needs {
    /// Demands that general register `register` holds `value`.
    pub fn set(&mut self, register: usize, value: Value) -> Result<(), Conflict> {
        match self.registers[register] {
            Some(present) if present != value => Err(Conflict),
            _ => {
                self.registers[register] = Some(value);
                Ok(())
            }
        }
    }

    /// Demands that the doubleword at linear address `address`, which is writable, holds `value`.
    pub fn store(&mut self, address: u32, value: Value) {
        self.stores.push(Prep::Store(address, value));
    }

    /// Demands that `value` is pushed, after all before it.
    pub fn push(&mut self, value: Value) {
        self.pushes.push(Prep::Push(value));
    }

    /// Demands that the low half of `value` is pushed, after all before it.
    pub fn push_word(&mut self, value: Value) {
        self.pushes.push(Prep::PushWord(value));
    }

    /// Whether nothing is pushed.
    pub fn pushes_nothing(&self) -> bool {
        self.pushes.is_empty()
    }

    /// The value of `register` when the main instruction runs, if it is known then.
    pub fn value(&self, register: usize, known: &Known) -> Option<u32> {
        match self.registers[register] {
            Some(Value::Const(value)) => Some(value),
            Some(Value::Target) => None,
            None => known.gpr[register],
        }
    }

    /// The preparing instructions; registers that already hold what is demanded are left alone.
    pub fn encode(&self, known: &Known, target: u32) -> Vec<u8> {
        let sets = self
            .registers
            .iter()
            .enumerate()
            .filter_map(|(register, value)| {
                let value = (*value)?;
                (known.gpr[register].map(Value::Const) != Some(value))
                    .then_some(Prep::Set(register, value))
            });
        let mut bytes = Vec::new();
        for prep in sets
            .chain(self.stores.iter().copied())
            .chain(self.pushes.iter().copied())
        {
            prep.encode(target, &mut bytes);
        }
        bytes
    }
}
