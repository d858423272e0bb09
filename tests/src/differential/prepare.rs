//! The conditions that must hold before an instruction under test runs, and the instructions that establish them.
//!
//! Memory operands must lie where the generator wants them, never in memory that only one engine has mapped. So the generator
//! knows the value of every register that an address is made of: [`Known`] follows the registers through the sequence,
//! [`Needs`] collects what one unit demands, and the difference becomes a few `mov` in front of it.

use super::case::{DS, ES, FS, GS, SS, Template};
use super::segments::Segment;
use super::selectors::Selectors;
use fastrand::Rng;
use iced_x86::{Code, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use std::sync::Arc;

/// Number of ESP in encodings.
pub const ESP: usize = 4;

/// Register contents as far as the generator knows them.
#[derive(Clone, Debug)]
pub struct Known {
    /// General registers in encoding order.
    pub gpr: [Option<u32>; 8],
    /// Segment registers, indexed as in [`super::case::State::segments`].
    pub segments: [Option<u16>; 5],
    /// CS.
    pub code_segment: u16,
    /// NT, with which IRET would return from a nested task.
    pub nested: bool,
    /// The LDT, among other things.
    pub template: Arc<Template>,
    /// Whether the case uses the LDT.
    pub local: bool,
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

impl Known {
    /// The segment in `register`, if it is known and usable.
    pub fn segment(&self, register: Register) -> Option<Segment> {
        let selector = match segment_index(register) {
            Some(index) => self.segments[index]?,
            None => self.code_segment,
        };
        self.template.segments.segment(selector)
    }

    /// Base of the segment in `register`; 0 for what cannot be accessed through anyway.
    pub fn base(&self, register: Register) -> u32 {
        self.segment(register).map_or(0, |segment| segment.base)
    }

    /// Bits of the code segment: 16 or 32.
    pub fn bits(&self) -> u32 {
        self.segment(Register::CS)
            .map_or(32, |segment| segment.bits())
    }

    /// The selectors that the case may try.
    pub fn selectors(&self) -> Selectors<'_> {
        Selectors {
            segments: &self.template.segments,
            local: self.local,
        }
    }

    /// The place after the unit as an offset in the code segment.
    pub fn target(&self) -> Value {
        Value::Target {
            base: self.base(Register::CS),
        }
    }

    /// The place after the unit as an offset in the code segment that `selector` names.
    pub fn target_in(&self, selector: u16) -> Value {
        let segment = self.template.segments.segment(selector);
        Value::Target {
            base: segment.map_or(0, |segment| segment.base),
        }
    }

    /// A linear address of `size` bytes, drawn by `draw`, that mostly lies inside the segment in `register`.
    pub fn inside(
        &self,
        register: Register,
        size: u32,
        rng: &mut Rng,
        draw: impl Fn(&mut Rng) -> u32,
    ) -> u32 {
        const ATTEMPTS: usize = 16;
        let mut linear = draw(rng);
        let Some(segment) = self.segment(register).filter(|_| self.local) else {
            return linear;
        };
        let patience = if rng.u32(0..20) == 0 { 0 } else { ATTEMPTS };
        for _ in 0..patience {
            if segment.contains(linear.wrapping_sub(segment.base), size) {
                break;
            }
            linear = draw(rng);
        }
        linear
    }

    /// The value of ESP, or EBP, that points at the linear address `linear` of the stack. A 16-bit stack uses the low half
    /// only: the upper one is noise.
    pub fn stack_offset(&self, linear: u32, rng: &mut Rng) -> Result<u32, Conflict> {
        let Some(stack) = self.segment(Register::SS) else {
            return Ok(linear);
        };
        let offset = linear.wrapping_sub(stack.base);
        match u16::try_from(offset) {
            _ if stack.big => Ok(offset),
            Ok(offset) => Ok(rng.u32(..) & !0xffff | u32::from(offset)),
            Err(_) => Err(Conflict),
        }
    }

    /// The linear address that the value of ESP points at.
    pub fn stack_linear(&self, esp: u32) -> u32 {
        match self.segment(Register::SS) {
            Some(stack) if stack.big => stack.base.wrapping_add(esp),
            Some(stack) => stack.base.wrapping_add(esp & 0xffff),
            None => esp,
        }
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
            let moved = esp.wrapping_add_signed(delta);
            let is_16 = self.segment(Register::SS).is_some_and(|stack| !stack.big);
            let kept = if is_16 { !0xffff } else { 0 };
            self.gpr[ESP] = Some(esp & kept | moved & !kept);
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
    /// The place just after the main instruction and its body, where a transfer of control goes, as an offset from `base`.
    Target {
        /// Base of the code segment that it lies in.
        base: u32,
    },
}

impl Value {
    /// The number, if the main instruction and its body end at the linear address `target`.
    pub fn resolve(self, target: u32) -> u32 {
        match self {
            Self::Const(value) => value,
            Self::Target { base } => target.wrapping_sub(base),
        }
    }
}

/// A preparing instruction. All leave the flags alone, and each has a fixed length in its code segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prep {
    /// `mov r32, imm32`.
    Set(usize, Value),
    /// `mov dword ptr [address], imm32`, through a segment that reaches the linear address.
    Store(u32, Value),
    /// `push imm32`.
    Push(Value),
    /// `push imm16`.
    PushWord(Value),
}

impl Prep {
    fn encode(self, known: &Known, target: u32, bytes: &mut Vec<u8>) -> Result<(), Conflict> {
        let wide = if known.bits() == 16 { &[0x66][..] } else { &[] };
        let word = if known.bits() == 16 { &[][..] } else { &[0x66] };
        match self {
            Self::Set(register, value) => {
                bytes.extend(wide);
                bytes.push(0xb8 + register as u8);
                bytes.extend(value.resolve(target).to_le_bytes());
            }
            Self::Store(address, value) => {
                bytes.extend(wide);
                bytes.extend(store_address(known, address, 4)?);
                bytes.extend(value.resolve(target).to_le_bytes());
            }
            Self::Push(value) => {
                bytes.extend(wide);
                bytes.push(0x68);
                bytes.extend(value.resolve(target).to_le_bytes());
            }
            Self::PushWord(value) => {
                bytes.extend(word);
                bytes.push(0x68);
                bytes.extend((value.resolve(target) as u16).to_le_bytes());
            }
        }
        Ok(())
    }
}

/// Prefixes, opcode and address of a `mov` of a constant to `size` bytes at the linear address `linear`, by 32-bit addressing
/// and the first segment register that reaches it. Flat ones come first.
fn store_address(known: &Known, linear: u32, size: u32) -> Result<Vec<u8>, Conflict> {
    const REGISTERS: [(Register, u8); 5] = [
        (Register::SS, 0x36),
        (Register::DS, 0x3e),
        (Register::ES, 0x26),
        (Register::FS, 0x64),
        (Register::GS, 0x65),
    ];
    let reached = REGISTERS.into_iter().find_map(|(register, prefix)| {
        let segment = known.segment(register)?;
        let offset = linear.wrapping_sub(segment.base);
        let reaches = segment.is_writable() && segment.contains(offset, size);
        reaches.then_some((prefix, offset))
    });
    let (prefix, offset) = reached.ok_or(Conflict)?;
    let mut bytes = vec![prefix];
    if known.bits() == 16 {
        bytes.push(0x67);
    }
    bytes.extend([0xc7, 0x05]);
    bytes.extend(offset.to_le_bytes());
    Ok(bytes)
}

/// `mov word ptr [linear], 0`, as [`Needs::store`] reaches memory.
pub fn zero_word(known: &Known, linear: u32) -> Result<Vec<u8>, Conflict> {
    let mut bytes = if known.bits() == 16 {
        Vec::new()
    } else {
        vec![0x66]
    };
    bytes.extend(store_address(known, linear, 2)?);
    bytes.extend([0, 0]);
    Ok(bytes)
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
            Some(Value::Target { .. }) => None,
            None => known.gpr[register],
        }
    }

    /// Whether a value of `register` is demanded.
    pub fn demands(&self, register: usize) -> bool {
        self.registers[register].is_some()
    }

    /// The preparing instructions; registers that already hold what is demanded are left alone.
    ///
    /// # Errors
    /// No segment register reaches the memory that is to be stored to.
    pub fn encode(&self, known: &Known, target: u32) -> Result<Vec<u8>, Conflict> {
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
            prep.encode(known, target, &mut bytes)?;
        }
        Ok(bytes)
    }
}
