//! [`Asm`]: an assembler for the few forms of host instructions that emitted code is made of. Guest instructions that the host
//! executes go through iced's encoder.
//!
//! Encodings: SDM Vol. 2A, chapter 2 "Instruction Format"; displacements of branches are resolved by [`Asm::finish`].

mod operand;

use iced_x86::{Encoder, IcedError, Instruction};
pub use operand::*;

/// A position in the code, which may still have to be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(u32);

/// The reason why code could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum AsmError {
    /// iced refused the guest's instruction in its host form.
    #[error(transparent)]
    Guest(#[from] IcedError),
    /// A short branch does not reach its target.
    #[error("a short branch spans {0} bytes")]
    Reach(i64),
}

/// The operand size of an instruction: its REX.W.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wide {
    No,
    Yes,
}

const UNBOUND: u32 = u32::MAX;
/// Prefixes (SDM Vol. 2A, 2.1.1 "Instruction Prefixes").
const GS_PREFIX: u8 = 0x65;
const ADDRESS_SIZE_PREFIX: u8 = 0x67;

/// Opcode map and mandatory prefix of a VEX encoding.
#[derive(Clone, Copy)]
struct Vex {
    map: u8,
    prefix: u8,
    opcode: u8,
}

const PEXT: Vex = Vex {
    map: 2,
    prefix: 2,
    opcode: 0xf5,
};
const RORX: Vex = Vex {
    map: 3,
    prefix: 3,
    opcode: 0xf0,
};
const SARX: Vex = Vex {
    map: 2,
    prefix: 2,
    opcode: 0xf7,
};
const SHLX: Vex = Vex {
    map: 2,
    prefix: 1,
    opcode: 0xf7,
};
const SHRX: Vex = Vex {
    map: 2,
    prefix: 3,
    opcode: 0xf7,
};

/// One of the two streams of code, kept apart for the instruction cache's sake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Usually executed.
    Hot = 0,
    /// Rarely executed.
    Cold = 1,
}

/// The code of one section.
#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    /// Arena offset of the first byte.
    origin: u32,
}

/// A displacement that is still to be resolved.
#[derive(Clone, Copy)]
struct Fixup {
    section: Section,
    /// Index of its first byte.
    place: u32,
    label: Label,
}

/// An assembler whose code will lie at known offsets of the arena.
pub struct Asm {
    streams: [Stream; 2],
    section: Section,
    /// Arena offsets.
    labels: Vec<u32>,
    /// 32-bit and 8-bit displacements.
    long: Vec<Fixup>,
    short: Vec<Fixup>,
    encoder: Encoder,
}

impl Asm {
    /// Creates an assembler without code.
    pub fn new() -> Self {
        Self {
            streams: Default::default(),
            section: Section::Hot,
            labels: Vec::new(),
            long: Vec::new(),
            short: Vec::new(),
            encoder: Encoder::new(64),
        }
    }

    /// Drops all code and labels, and begins code whose sections lie at the arena offsets `origins`, hot first.
    pub fn restart(&mut self, origins: [u32; 2]) {
        for (stream, origin) in self.streams.iter_mut().zip(origins) {
            stream.bytes.clear();
            stream.origin = origin;
        }
        self.section = Section::Hot;
        self.labels.clear();
        self.long.clear();
        self.short.clear();
    }

    /// Continues in `section`.
    pub fn switch_to(&mut self, section: Section) {
        self.section = section;
    }

    /// The present section.
    pub fn section(&self) -> Section {
        self.section
    }

    fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.streams[self.section as usize].bytes
    }

    /// The arena offset of the next byte.
    pub fn here(&self) -> u32 {
        let stream = &self.streams[self.section as usize];
        stream.origin + stream.bytes.len() as u32
    }

    /// Creates a label to be bound later.
    pub fn label(&mut self) -> Label {
        self.labels.push(UNBOUND);
        Label(self.labels.len() as u32 - 1)
    }

    /// Binds `label` to the next byte.
    pub fn bind(&mut self, label: Label) {
        self.labels[label.0 as usize] = self.here();
    }

    /// The arena offset of a bound label.
    pub fn offset_of(&self, label: Label) -> u32 {
        self.labels[label.0 as usize]
    }

    /// Resolves all branches and returns the code of both sections.
    ///
    /// # Errors
    /// A short branch that does not reach.
    pub fn finish(&mut self) -> Result<[&[u8]; 2], AsmError> {
        while let Some(fixup) = self.long.pop() {
            let distance = self.distance(fixup, size_of::<i32>()) as i32;
            let place = fixup.place as usize;
            let bytes = &mut self.streams[fixup.section as usize].bytes;
            bytes[place..place + size_of::<i32>()].copy_from_slice(&distance.to_le_bytes());
        }
        while let Some(fixup) = self.short.pop() {
            let distance = self.distance(fixup, size_of::<i8>());
            let byte = i8::try_from(distance).map_err(|_| AsmError::Reach(distance))?;
            self.streams[fixup.section as usize].bytes[fixup.place as usize] = byte as u8;
        }
        let [hot, cold] = &self.streams;
        Ok([&hot.bytes, &cold.bytes])
    }

    /// The distance to a fixup's label from the end of its displacement of `size` bytes.
    fn distance(&self, fixup: Fixup, size: usize) -> i64 {
        let origin = self.streams[fixup.section as usize].origin;
        let after = i64::from(origin + fixup.place) + size as i64;
        i64::from(self.labels[fixup.label.0 as usize]) - after
    }

    /// Encodes a guest instruction in its host form.
    ///
    /// # Errors
    /// iced's, where there is no such encoding.
    pub fn guest(&mut self, instruction: &Instruction) -> Result<(), AsmError> {
        let bytes = std::mem::take(self.bytes());
        self.encoder.set_buffer(bytes);
        let result = self.encoder.encode(instruction, 0);
        *self.bytes() = self.encoder.take_buffer();
        result?;
        Ok(())
    }

    /// LOCK, the prefix of the next instruction.
    pub fn lock(&mut self) {
        self.bytes().push(0xf0);
    }

    /// MOV r32, r32.
    pub fn mov32(&mut self, to: Reg, from: Reg) {
        self.registers(Wide::No, &[0x8b], to, from);
    }

    /// MOV r64, r64.
    pub fn mov64(&mut self, to: Reg, from: Reg) {
        self.registers(Wide::Yes, &[0x8b], to, from);
    }

    /// MOV r32, imm32: zero-extended.
    pub fn mov_imm32(&mut self, to: Reg, value: u32) {
        self.rex(Wide::No, Reg(0), None, Some(to));
        self.bytes().push(0xb8 | to.low());
        self.bytes().extend(value.to_le_bytes());
    }

    /// MOV r64, imm64.
    pub fn mov_imm64(&mut self, to: Reg, value: u64) {
        self.rex(Wide::Yes, Reg(0), None, Some(to));
        self.bytes().push(0xb8 | to.low());
        self.bytes().extend(value.to_le_bytes());
    }

    /// MOV r32, m32.
    pub fn load32(&mut self, to: Reg, from: Mem) {
        self.memory(Wide::No, &[0x8b], to, from);
    }

    /// MOV r64, m64.
    pub fn load64(&mut self, to: Reg, from: Mem) {
        self.memory(Wide::Yes, &[0x8b], to, from);
    }

    /// MOVZX r32, m8.
    pub fn load8(&mut self, to: Reg, from: Mem) {
        self.memory(Wide::No, &[0x0f, 0xb6], to, from);
    }

    /// MOVZX r32, m16.
    pub fn load16(&mut self, to: Reg, from: Mem) {
        self.memory(Wide::No, &[0x0f, 0xb7], to, from);
    }

    /// MOV r16, m16: the other bits of the register stay.
    pub fn move16(&mut self, to: Reg, from: Mem) {
        self.bytes().push(0x66);
        self.memory(Wide::No, &[0x8b], to, from);
    }

    /// MOV m32, r32.
    pub fn store32(&mut self, to: Mem, from: Reg) {
        self.memory(Wide::No, &[0x89], from, to);
    }

    /// MOV m64, r64.
    pub fn store64(&mut self, to: Mem, from: Reg) {
        self.memory(Wide::Yes, &[0x89], from, to);
    }

    /// MOV m16, r16.
    pub fn store16(&mut self, to: Mem, from: Reg) {
        self.bytes().push(0x66);
        self.memory(Wide::No, &[0x89], from, to);
    }

    /// MOV m8, r8; only for registers whose low byte needs no REX prefix or has one: RAX..RBX and R8..R15.
    pub fn store8(&mut self, to: Mem, from: Reg) {
        self.memory(Wide::No, &[0x88], from, to);
    }

    /// MOV m32, imm32.
    pub fn store_imm32(&mut self, to: Mem, value: u32) {
        self.memory(Wide::No, &[0xc7], Reg(0), to);
        self.bytes().extend(value.to_le_bytes());
    }

    /// LEA r32, m.
    pub fn lea32(&mut self, to: Reg, from: Mem) {
        self.memory(Wide::No, &[0x8d], to, from);
    }

    /// LEA r64, m.
    pub fn lea64(&mut self, to: Reg, from: Mem) {
        self.memory(Wide::Yes, &[0x8d], to, from);
    }

    /// LEA r64, [start of the arena].
    pub fn lea_arena(&mut self, to: Reg) {
        self.rex(Wide::Yes, to, None, None);
        self.bytes().extend([0x8d, to.low() << 3 | 5]);
        let distance = -(self.here() as i32 + 4);
        self.bytes().extend(distance.to_le_bytes());
    }

    /// NOT r64.
    pub fn not64(&mut self, register: Reg) {
        self.registers(Wide::Yes, &[0xf7], Reg(2), register);
    }

    /// MOVZX r32, r16.
    pub fn movzx16(&mut self, to: Reg, from: Reg) {
        self.registers(Wide::No, &[0x0f, 0xb7], to, from);
    }

    /// MOV r64, imm32: sign-extended.
    pub fn mov_imm_signed(&mut self, to: Reg, value: i32) {
        self.registers(Wide::Yes, &[0xc7], Reg(0), to);
        self.bytes().extend(value.to_le_bytes());
    }

    /// MOV m64, imm32: sign-extended.
    pub fn store_imm64(&mut self, to: Mem, value: i32) {
        self.memory(Wide::Yes, &[0xc7], Reg(0), to);
        self.bytes().extend(value.to_le_bytes());
    }

    /// RORX r64, r64, imm8.
    pub fn rorx64(&mut self, to: Reg, from: Reg, count: u8) {
        self.vex(RORX, Wide::Yes, to, Reg(0), from);
        self.bytes().push(count);
    }

    /// SARX r64, r64, r64.
    pub fn sarx64(&mut self, to: Reg, from: Reg, count: Reg) {
        self.vex(SARX, Wide::Yes, to, count, from);
    }

    /// PEXT r64, r64, m64.
    pub fn pext64(&mut self, to: Reg, from: Reg, mask: Mem) {
        let bit = |register: Option<Reg>| register.map_or(0, Reg::high);
        let index = bit(mask.index.map(|(index, _)| index));
        self.vex_prefix(PEXT, Wide::Yes, [to.high(), index, bit(mask.base)], from);
        self.operand(to, mask);
    }

    /// An instruction of opcode `opcode` with REX.W whose ModRM byte has `digit` and a memory operand.
    pub fn digit64(&mut self, opcode: &[u8], digit: u8, operand: Mem) {
        self.memory(Wide::Yes, opcode, Reg(digit), operand);
    }

    /// RORX r32, r32, imm8.
    pub fn rorx32(&mut self, to: Reg, from: Reg, count: u8) {
        self.vex(RORX, Wide::No, to, Reg(0), from);
        self.bytes().push(count);
    }

    /// SHRX r32, r32, r32.
    pub fn shrx32(&mut self, to: Reg, from: Reg, count: Reg) {
        self.vex(SHRX, Wide::No, to, count, from);
    }

    /// SHRX r64, r64, r64.
    pub fn shrx64(&mut self, to: Reg, from: Reg, count: Reg) {
        self.vex(SHRX, Wide::Yes, to, count, from);
    }

    /// SARX r32, r32, r32.
    pub fn sarx32(&mut self, to: Reg, from: Reg, count: Reg) {
        self.vex(SARX, Wide::No, to, count, from);
    }

    /// SHLX r32, r32, r32.
    pub fn shlx32(&mut self, to: Reg, from: Reg, count: Reg) {
        self.vex(SHLX, Wide::No, to, count, from);
    }

    /// SHLX r64, r64, r64.
    pub fn shlx64(&mut self, to: Reg, from: Reg, count: Reg) {
        self.vex(SHLX, Wide::Yes, to, count, from);
    }

    /// PEXT r32, r32, r32.
    pub fn pext32(&mut self, to: Reg, from: Reg, mask: Reg) {
        self.vex(PEXT, Wide::No, to, from, mask);
    }

    /// PUSH r64.
    pub fn push(&mut self, register: Reg) {
        self.rex(Wide::No, Reg(0), None, Some(register));
        self.bytes().push(0x50 | register.low());
    }

    /// PUSH m64.
    pub fn push_memory(&mut self, from: Mem) {
        self.digit(&[0xff], 6, from);
    }

    /// POP r64.
    pub fn pop(&mut self, register: Reg) {
        self.rex(Wide::No, Reg(0), None, Some(register));
        self.bytes().push(0x58 | register.low());
    }

    /// Bytes given literally: for instructions without operands to choose.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes().extend(bytes);
    }

    /// An instruction of opcode `opcode` whose ModRM byte has `digit` and a memory operand.
    pub fn digit(&mut self, opcode: &[u8], digit: u8, operand: Mem) {
        self.memory(Wide::No, opcode, Reg(digit), operand);
    }

    /// An instruction r32, m32 of one opcode byte.
    pub fn digit_load(&mut self, opcode: u8, register: Reg, operand: Mem) {
        self.memory(Wide::No, &[opcode], register, operand);
    }

    /// JMP rel32.
    pub fn jmp(&mut self, label: Label) {
        self.bytes().push(0xe9);
        self.long_to(label);
    }

    /// JMP rel32 to an arena offset.
    pub fn jmp_to(&mut self, offset: u32) {
        self.bytes().push(0xe9);
        self.distance_to(offset);
    }

    /// JMP rel8.
    pub fn jmp_short(&mut self, label: Label) {
        self.bytes().push(0xeb);
        self.short_to(label);
    }

    /// CALL rel32.
    pub fn call(&mut self, label: Label) {
        self.bytes().push(0xe8);
        self.long_to(label);
    }

    /// CALL rel32 to an arena offset.
    pub fn call_to(&mut self, offset: u32) {
        self.bytes().push(0xe8);
        self.distance_to(offset);
    }

    /// Jcc rel32 by the condition's number (SDM Vol. 1, B.1 "Condition Codes").
    pub fn jcc(&mut self, condition: u8, label: Label) {
        self.bytes().extend([0x0f, 0x80 | condition]);
        self.long_to(label);
    }

    /// JRCXZ rel8.
    pub fn jrcxz(&mut self, label: Label) {
        self.bytes().push(0xe3);
        self.short_to(label);
    }

    /// JMP r64.
    pub fn jmp_register(&mut self, register: Reg) {
        self.rex(Wide::No, Reg(4), None, Some(register));
        self.bytes().extend([0xff, 0xe0 | register.low()]);
    }

    /// RET.
    pub fn ret(&mut self) {
        self.bytes().push(0xc3);
    }

    fn long_to(&mut self, label: Label) {
        let fixup = self.fixup(label);
        self.long.push(fixup);
        self.bytes().extend([0; 4]);
    }

    fn short_to(&mut self, label: Label) {
        let fixup = self.fixup(label);
        self.short.push(fixup);
        self.bytes().push(0);
    }

    fn fixup(&mut self, label: Label) -> Fixup {
        Fixup {
            section: self.section,
            place: self.bytes().len() as u32,
            label,
        }
    }

    fn distance_to(&mut self, offset: u32) {
        let distance = offset as i32 - (self.here() as i32 + 4);
        self.bytes().extend(distance.to_le_bytes());
    }

    /// MOV of the quadword at GS's base plus 8 times `index` (SDM Vol. 2B, "MOV").
    pub fn load64_gs(&mut self, to: Reg, index: Reg) {
        self.bytes().push(GS_PREFIX);
        let entry = Mem {
            base: None,
            index: Some((index, 3)),
            disp: 0,
            window: false,
        };
        self.memory(Wide::Yes, &[0x8b], to, entry);
    }

    /// The REX prefix, where one is needed (SDM Vol. 2A, 2.2.1 "REX Prefixes").
    fn rex(&mut self, wide: Wide, reg: Reg, index: Option<Reg>, base: Option<Reg>) {
        let bit = |register: Option<Reg>| register.map_or(0, Reg::high);
        let rex = u8::from(wide == Wide::Yes) << 3 | reg.high() << 2 | bit(index) << 1 | bit(base);
        if rex != 0 {
            self.bytes().push(0x40 | rex);
        }
    }

    fn registers(&mut self, wide: Wide, opcode: &[u8], reg: Reg, rm: Reg) {
        self.rex(wide, reg, None, Some(rm));
        self.bytes().extend(opcode);
        self.bytes().push(0xc0 | reg.low() << 3 | rm.low());
    }

    fn memory(&mut self, wide: Wide, opcode: &[u8], reg: Reg, mem: Mem) {
        if mem.window {
            self.bytes().extend([GS_PREFIX, ADDRESS_SIZE_PREFIX]);
        }
        self.rex(wide, reg, mem.index.map(|(index, _)| index), mem.base);
        self.bytes().extend(opcode);
        self.operand(reg, mem);
    }

    /// ModRM, SIB and displacement (SDM Vol. 2A, 2.1.5 "Addressing-Mode Encoding of ModR/M and SIB Bytes").
    fn operand(&mut self, reg: Reg, mem: Mem) {
        let reg = reg.low() << 3;
        let Some(base) = mem.base else {
            let (index, scale) = mem
                .index
                .map_or((4, 0), |(index, scale)| (index.low(), scale));
            self.bytes().extend([reg | 4, scale << 6 | index << 3 | 5]);
            self.bytes().extend(mem.disp.to_le_bytes());
            return;
        };
        let short = i8::try_from(mem.disp);
        let mode = match (mem.disp, short) {
            (0, _) if base.low() != 5 => 0,
            (_, Ok(_)) => 0x40,
            _ => 0x80,
        };
        match mem.index {
            Some((index, scale)) => {
                let sib = scale << 6 | index.low() << 3 | base.low();
                self.bytes().extend([mode | reg | 4, sib]);
            }
            None if base.low() == 4 => self.bytes().extend([mode | reg | 4, 0x24]),
            None => self.bytes().push(mode | reg | base.low()),
        }
        match (mode, short) {
            (0x40, Ok(byte)) => self.bytes().push(byte as u8),
            (0x80, _) => self.bytes().extend(mem.disp.to_le_bytes()),
            _ => {}
        }
    }

    /// A three-byte VEX encoding (SDM Vol. 2A, 2.3.5 "The VEX Prefix").
    fn vex(&mut self, vex: Vex, wide: Wide, reg: Reg, vvvv: Reg, rm: Reg) {
        self.vex_prefix(vex, wide, [reg.high(), 0, rm.high()], vvvv);
        self.bytes().push(0xc0 | reg.low() << 3 | rm.low());
    }

    /// The VEX prefix and the opcode; `high` are the upper bits of the register, index and base numbers.
    fn vex_prefix(&mut self, vex: Vex, wide: Wide, high: [u8; 3], vvvv: Reg) {
        let [reg, index, base] = high.map(|bit| 1 - bit);
        let second = reg << 7 | index << 6 | base << 5 | vex.map;
        let third = u8::from(wide == Wide::Yes) << 7 | (15 - vvvv.0) << 3 | vex.prefix;
        self.bytes().extend([0xc4, second, third, vex.opcode]);
    }
}

#[cfg(test)]
mod tests;
