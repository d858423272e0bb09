//! The conditions that must hold before an instruction under test runs, and the instructions that establish them.
//!
//! Memory operands must lie where the generator wants them, never in memory that only one engine has mapped. So the generator
//! knows the value of every register that an address is made of: [`Known`] follows the registers through the sequence,
//! [`Needs`] collects what one unit demands, and the difference becomes a few `mov` in front of it.

use super::address;
use super::case::{DS, ES, FS, GS, SS, Template, place_of_code};
use super::layout::PLACES;
use super::segments::Segment;
use super::selectors::Selectors;
use super::values::{self, percent};
use fastrand::Rng;
use iced_x86::{Code, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use std::sync::Arc;

/// Number of ESP in encodings.
pub const ESP: usize = 4;

/// Register contents as far as the generator knows them.
#[derive(Clone, Debug)]
pub struct Known {
    /// General registers in encoding order.
    pub gpr: [Option<u64>; 16],
    /// Segment registers, indexed as in [`super::case::State::segments`].
    pub segments: [Option<u16>; 5],
    /// Bases of FS and GS in 64-bit mode.
    pub bases: [u64; 2],
    /// Linear address of the code of the case.
    pub at: u64,
    /// CS.
    pub code_segment: u16,
    /// NT, with which IRET would return from a nested task.
    pub nested: bool,
    /// The LDT, among other things.
    pub template: Arc<Template>,
    /// Whether the case uses the LDT.
    pub local: bool,
}

/// The places in which a memory operand can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of them.
    Any,
    /// Those that [`Needs::store`] reaches.
    Stored,
    /// Those with addresses of 32 bits.
    Low,
    /// The first: its addresses fit in a sign-extended displacement.
    First,
    /// The place of the code.
    Own,
}

impl Reach {
    /// Those of the places that [`Needs::store`] reaches.
    pub fn stored(self) -> Self {
        match self {
            Self::Any => Self::Stored,
            Self::Low => Self::First,
            _ => self,
        }
    }
}

/// Index of the full register that `register` is part of; `None` if it is not a general register.
pub fn gpr_index(register: Register) -> Option<usize> {
    register
        .is_gpr()
        .then(|| register.full_register() as usize - Register::RAX as usize)
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

    /// Whether 64-bit code runs.
    pub fn is_64(&self) -> bool {
        self.bits() == 64
    }

    /// Base of the segment in `register`; 0 for what cannot be accessed through anyway. In 64-bit mode only FS and GS have one.
    pub fn base(&self, register: Register) -> u64 {
        match (self.is_64(), register) {
            (true, Register::FS) => self.bases[0],
            (true, Register::GS) => self.bases[1],
            (true, _) => 0,
            (false, _) => self
                .segment(register)
                .map_or(0, |segment| segment.base.into()),
        }
    }

    /// Follows the load of `selector` into a segment register, by its index in [`super::case::State::segments`].
    pub fn load_segment(&mut self, index: usize, selector: u16) {
        self.segments[index] = Some(selector);
        if let FS | GS = index {
            let segment = self.template.segments.segment(selector);
            self.bases[index - FS] = segment.map_or(0, |segment| segment.base.into());
        }
    }

    /// Bits of the code segment: 16, 32 or 64.
    pub fn bits(&self) -> u32 {
        self.segment(Register::CS)
            .map_or(self.template.mode.bits(), |segment| segment.bits())
    }

    /// A value for a general register or immediate.
    pub fn integer(&self, rng: &mut Rng) -> u64 {
        values::register(self.bits(), rng)
    }

    /// `value` in the low `bytes` bytes of a register, and noise above them, up to the register's end.
    pub fn with_noise(&self, value: u64, bytes: usize, rng: &mut Rng) -> u64 {
        match (bytes, self.is_64()) {
            (2, false) => u64::from(rng.u32(..) & !0xffff) | value,
            (2 | 4, true) => rng.u64(..) << (8 * bytes) | value,
            _ => value,
        }
    }

    /// The places that are in reach; mostly that of the code.
    pub fn places(&self, reach: Reach, rng: &mut Rng) -> &'static [u64] {
        let places = self.template.mode.places();
        if places.len() == 1 {
            return places;
        }
        let own = place_of_code(self.template.mode, self.at);
        let own = &places[own..=own];
        match reach {
            Reach::Any if percent(rng, 60) => places,
            Reach::Stored if percent(rng, 25) => &PLACES[..1],
            Reach::Low => &PLACES[..2],
            Reach::First => &PLACES[..1],
            Reach::Any | Reach::Stored | Reach::Own => own,
        }
    }

    /// A linear address of `size` bytes, of any kind.
    pub fn any_address(&self, reach: Reach, size: u32, rng: &mut Rng) -> u64 {
        let places = self.places(reach, rng);
        if reach == Reach::Any && places.len() > 1 && percent(rng, 8) {
            return address::strange(places, size, rng);
        }
        address::any(places, size, rng)
    }

    /// The selectors that the case may try.
    pub fn selectors(&self) -> Selectors<'_> {
        Selectors {
            mode: self.template.mode,
            segments: &self.template.segments,
            local: self.local,
        }
    }

    /// The place after the unit as an offset in the code segment.
    pub fn target(&self) -> Value {
        Value::Target {
            base: self.base(Register::CS) as u32,
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
        draw: impl Fn(&mut Rng) -> u64,
    ) -> u64 {
        const ATTEMPTS: usize = 16;
        let mut linear = draw(rng);
        let has_limit = self.local && !self.is_64();
        let Some(segment) = self.segment(register).filter(|_| has_limit) else {
            return linear;
        };
        let patience = if rng.u32(0..20) == 0 { 0 } else { ATTEMPTS };
        for _ in 0..patience {
            if segment.contains((linear as u32).wrapping_sub(segment.base), size) {
                break;
            }
            linear = draw(rng);
        }
        linear
    }

    /// The value of RSP, or RBP, that points at the linear address `linear` of the stack. A 16-bit stack uses the low half
    /// only: the upper one is noise.
    pub fn stack_offset(&self, linear: u64, rng: &mut Rng) -> Result<u64, Conflict> {
        let Some(stack) = self.stack() else {
            return Ok(linear);
        };
        let offset = (linear as u32).wrapping_sub(stack.base);
        match u16::try_from(offset) {
            _ if stack.big => Ok(offset.into()),
            Ok(offset) => Ok(self.with_noise(offset.into(), 2, rng)),
            Err(_) => Err(Conflict),
        }
    }

    /// The segment in SS, if it means something.
    fn stack(&self) -> Option<Segment> {
        self.segment(Register::SS).filter(|_| !self.is_64())
    }

    /// The linear address that the value of RSP points at.
    pub fn stack_linear(&self, rsp: u64) -> u64 {
        match self.stack() {
            Some(stack) if stack.big => stack.base.wrapping_add(rsp as u32).into(),
            Some(stack) => stack.base.wrapping_add(rsp as u32 & 0xffff).into(),
            None => rsp,
        }
    }

    /// The bits of RSP that pushes and pops change.
    fn stack_mask(&self) -> u64 {
        match self.stack() {
            Some(stack) if !stack.big => 0xffff,
            _ if self.is_64() => u64::MAX,
            _ => u32::MAX.into(),
        }
    }

    /// Forgets the registers that `instruction` overwrites.
    pub fn execute(&mut self, instruction: &Instruction, factory: &mut InstructionInfoFactory) {
        let stack_move = stack_move(instruction, self.is_64());
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
            let moved = esp.wrapping_add_signed(delta.into());
            let mask = self.stack_mask();
            self.gpr[ESP] = Some(esp & !mask | moved & mask);
        }
        if let Code::Mov_r32_imm32 | Code::Mov_r64_imm64 = instruction.code() {
            let index =
                gpr_index(instruction.op0_register()).expect("the operand is a general register");
            self.gpr[index] = Some(instruction.immediate(1));
        }
    }
}

/// The distance by which `instruction` moves RSP, if that is all it does to it. In 64-bit mode IRET always loads RSP.
fn stack_move(instruction: &Instruction, is_64: bool) -> Option<i32> {
    let pops_stack_pointer = instruction.mnemonic() == Mnemonic::Pop
        && instruction.op0_kind() == OpKind::Register
        && gpr_index(instruction.op0_register()) == Some(ESP);
    let loads_stack_pointer = match instruction.mnemonic() {
        Mnemonic::Enter | Mnemonic::Leave => true,
        _ => is_64 && is_iret(instruction) || pops_stack_pointer,
    };
    let plain = instruction.is_stack_instruction() && !loads_stack_pointer;
    plain.then(|| instruction.stack_pointer_increment())
}

/// Whether the instruction is IRET of any operand size.
pub fn is_iret(instruction: &Instruction) -> bool {
    matches!(
        instruction.mnemonic(),
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq
    )
}

/// A value that an instruction of the preparation carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A constant.
    Const(u64),
    /// The place just after the main instruction and its body, where a transfer of control goes, as an offset from `base`.
    Target {
        /// Base of the code segment that it lies in.
        base: u32,
    },
}

impl Value {
    /// The number, if the main instruction and its body end at the linear address `target`.
    pub fn resolve(self, target: u64) -> u64 {
        match self {
            Self::Const(value) => value,
            Self::Target { base: 0 } => target,
            Self::Target { base } => (target as u32).wrapping_sub(base).into(),
        }
    }

    /// Whether the number may have more than 32 bits, and is not `fitting` as a constant.
    fn is_wide(self, fitting: impl Fn(u64) -> bool) -> bool {
        match self {
            Self::Const(value) => !fitting(value),
            Self::Target { .. } => true,
        }
    }
}

/// A preparing instruction, or several. All leave the flags alone, and each has a length that the place of the code does not
/// decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prep {
    /// `mov r32, imm32`, or `mov r64, imm64` for what does not fit.
    Set(usize, Value),
    /// `mov dword ptr [address], imm32`, through a segment that reaches the linear address: the value's bits from this one on.
    Store(u64, Value, u32),
    /// A push of 2, 4 or 8 bytes.
    Push(Value, usize),
}

impl Prep {
    /// Appends the instruction, which is placed at the linear address `at`; `target` is as in [`Value::resolve`].
    fn encode(
        self,
        known: &Known,
        target: u64,
        at: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Conflict> {
        match self {
            Self::Set(register, value) => set(known, register, value, target, bytes),
            Self::Store(address, value, shift) => {
                let value = (value.resolve(target) >> shift).to_le_bytes();
                bytes.extend(store(known, address, &value[..4], at)?);
            }
            Self::Push(value, size) if known.is_64() => push_64(value, size, target, bytes),
            Self::Push(value, size) => {
                if (size == 4) == (known.bits() == 16) {
                    bytes.push(OPERAND_SIZE);
                }
                bytes.push(PUSH_IMM);
                bytes.extend(&value.resolve(target).to_le_bytes()[..size]);
            }
        }
        Ok(())
    }
}

/// The operand-size prefix.
const OPERAND_SIZE: u8 = 0x66;
/// `push` of an immediate.
const PUSH_IMM: u8 = 0x68;

fn set(known: &Known, register: usize, value: Value, target: u64, bytes: &mut Vec<u8>) {
    let wide = known.is_64() && value.is_wide(|value| u32::try_from(value).is_ok());
    let rex = u8::from(wide) << 3 | (register >> 3) as u8;
    if known.bits() == 16 {
        bytes.push(OPERAND_SIZE);
    }
    if rex != 0 {
        bytes.push(0x40 | rex);
    }
    bytes.push(0xb8 + (register & 7) as u8);
    let length = if wide { 8 } else { 4 };
    bytes.extend(&value.resolve(target).to_le_bytes()[..length]);
}

/// Pushes `size` bytes in 64-bit mode, which has pushes of 2 bytes, and of 8 with a sign-extended immediate.
fn push_64(value: Value, size: usize, target: u64, bytes: &mut Vec<u8>) {
    let number = value.resolve(target).to_le_bytes();
    let mut push_word = |word: &[u8]| bytes.extend([&[OPERAND_SIZE, PUSH_IMM], word].concat());
    match size {
        2 => push_word(&number[..2]),
        4 => {
            push_word(&number[2..4]);
            push_word(&number[..2]);
        }
        _ => {
            bytes.push(PUSH_IMM);
            bytes.extend(&number[..4]);
            if value.is_wide(|value| i32::try_from(value as i64).is_ok()) {
                // mov dword ptr [rsp + 4], imm32
                bytes.extend([0xc7, 0x44, 0x24, 4]);
                bytes.extend(&number[4..]);
            }
        }
    }
}

/// `mov` of a constant of 2 or 4 bytes to the linear address `linear`; the instruction is placed at `at`. 32-bit addresses go by
/// the first segment register that reaches them, flat ones first; 64-bit ones by a displacement, sign-extended or relative to RIP.
pub fn store(known: &Known, linear: u64, value: &[u8], at: u64) -> Result<Vec<u8>, Conflict> {
    const REGISTERS: [(Register, u8); 5] = [
        (Register::SS, 0x36),
        (Register::DS, 0x3e),
        (Register::ES, 0x26),
        (Register::FS, 0x64),
        (Register::GS, 0x65),
    ];
    let mut bytes = Vec::new();
    if (value.len() == 4) == (known.bits() == 16) {
        bytes.push(OPERAND_SIZE);
    }
    if known.is_64() {
        let next = at + bytes.len() as u64 + 6 + value.len() as u64;
        let (modrm, displacement) = match i32::try_from(linear) {
            Ok(absolute) => (&[0x04, 0x25][..], absolute),
            Err(_) => {
                let distance = linear.wrapping_sub(next) as i64;
                (&[0x05][..], i32::try_from(distance).or(Err(Conflict))?)
            }
        };
        bytes.push(0xc7);
        bytes.extend(modrm);
        bytes.extend(displacement.to_le_bytes());
    } else {
        let linear = linear as u32;
        let reached = REGISTERS.into_iter().find_map(|(register, prefix)| {
            let segment = known.segment(register)?;
            let offset = linear.wrapping_sub(segment.base);
            let reaches = segment.is_writable() && segment.contains(offset, value.len() as u32);
            reaches.then_some((prefix, offset))
        });
        let (prefix, offset) = reached.ok_or(Conflict)?;
        bytes.push(prefix);
        if known.bits() == 16 {
            bytes.push(0x67);
        }
        bytes.extend([0xc7, 0x05]);
        bytes.extend(offset.to_le_bytes());
    }
    bytes.extend(value);
    Ok(bytes)
}

/// The error of two demands of one unit that contradict each other: another unit is to be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict;

/// The values that one unit needs before its main instruction.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    registers: [Option<Value>; 16],
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
    pub fn store(&mut self, address: u64, value: Value) {
        self.stores.push(Prep::Store(address, value, 0));
    }

    /// Demands that the quadword at linear address `address`, which is writable, holds `value`.
    pub fn store_wide(&mut self, address: u64, value: Value) {
        let high = address.wrapping_add(4);
        self.stores.push(Prep::Store(address, value, 0));
        self.stores.push(Prep::Store(high, value, 32));
    }

    /// Demands that the low `size` bytes of `value`, 2, 4 or 8, are pushed, after all before it.
    pub fn push(&mut self, value: Value, size: usize) {
        self.pushes.push(Prep::Push(value, size));
    }

    /// Whether nothing is pushed.
    pub fn pushes_nothing(&self) -> bool {
        self.pushes.is_empty()
    }

    /// The value of `register` when the main instruction runs, if it is known then.
    pub fn value(&self, register: usize, known: &Known) -> Option<u64> {
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

    /// The preparing instructions, the first of them at the linear address `at`; registers that already hold what is demanded are
    /// left alone.
    ///
    /// # Errors
    /// No segment register reaches the memory that is to be stored to.
    pub fn encode(&self, known: &Known, target: u64, at: u64) -> Result<Vec<u8>, Conflict> {
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
            prep.encode(known, target, at + bytes.len() as u64, &mut bytes)?;
        }
        Ok(bytes)
    }
}
