//! Random instructions of integer, x87, MMX and SSE units, of either width.
//!
//! Flags that an instruction leaves undefined are defined again before anything can read them, but for AF, which only the
//! program's end reads.
//!
//! In 64-bit code integer instructions have 8 to 64 bits and all registers but RSP and R15, which is the base of the memory.

use fastrand::Rng;
use tests::vm;

use super::contents::PAGE;
use super::width::Width;

/// Where the data is, as a distance from the base, and its bytes: operands may lie across pages.
pub const DATA: u32 = 0x30_0000;
/// Bytes of the data.
pub const DATA_BYTES: u32 = 4 * PAGE;
/// Bytes of the longest operand.
const MOST_OPERAND: u32 = 16;
/// Opcodes, by the operands that they take.
const JCC_NEAR: [u8; 2] = [0x0f, 0x80];
/// `cmp ecx, edx`: defines all status flags.
const DEFINE_FLAGS: [u8; 2] = [0x39, 0xd1];
/// Prefixes that precede REX (SDM Vol. 2A, 2.2.1 "REX Prefixes").
const LEGACY_PREFIXES: [u8; 3] = [0x66, 0xf2, 0xf3];
/// REX and its bits.
const REX: u8 = 0x40;
const REX_W: u8 = 1 << 3;
const REX_R: u8 = 1 << 2;
const REX_X: u8 = 1 << 1;
const REX_B: u8 = 1 << 0;
/// The number of R15.
const BASE: u8 = 15;

/// Whether SETcc, RCL and RCR must not store: QEMU 7.2 computes flags in place before the store and, if that faults, forgets that it
/// has.
fn stores_lose_flags() -> bool {
    vm::is_vm()
}

/// Whether XCHG, which locks, must not have memory operands: with two processors QEMU 7.2 executes a misaligned one in another way
/// than all else, and programs with them end otherwise there than on a processor.
fn misaligned_locks_fail() -> bool {
    vm::is_vm()
}

/// Writes the code of one block.
pub struct Block<'r> {
    /// The choices.
    pub rng: &'r mut Rng,
    /// The width of the code.
    pub width: Width,
    /// The block's distance from the base.
    pub address: u32,
    /// The code so far.
    pub bytes: Vec<u8>,
}

/// What ModRM and SIB name, but for the register.
enum Place {
    Register(u8),
    /// At an address in 32-bit code, relative to RIP in 64-bit code.
    At(u32),
    /// As far from the base.
    FromBase(u32),
    /// As far from the base, and from there a multiple of a register, by the scale's bits.
    Indexed(u8, u8, u32),
}

impl Block<'_> {
    /// Adds bytes.
    pub fn emit(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// A register other than ESP, and R15.
    fn register(&mut self) -> u8 {
        let registers = match self.width {
            Width::Narrow => 8,
            Width::Wide => BASE,
        };
        match self.rng.u8(..registers - 1) {
            register @ 0..4 => register,
            register => register + 1,
        }
    }

    /// A register of 8 bits. In 64-bit code AH is not among them, which is SPL with REX.
    fn byte_register(&mut self) -> u8 {
        match self.width {
            Width::Narrow => self.rng.u8(..8),
            Width::Wide => self.register(),
        }
    }

    /// A vector register.
    fn vector_register(&mut self) -> u8 {
        match self.width {
            Width::Narrow => self.rng.u8(..8),
            Width::Wide => self.rng.u8(..16),
        }
    }

    /// The opcode with the prefixes that the registers need, those of ModRM's two fields and of SIB's index.
    fn opcode(&mut self, opcode: &[u8], [reg, rm, index]: [u8; 3]) {
        let split = opcode
            .iter()
            .take_while(|byte| LEGACY_PREFIXES.contains(byte));
        let (prefixes, opcode) = opcode.split_at(split.count());
        self.emit(prefixes);
        if self.width == Width::Wide {
            let extend = |bit, register| if register & 8 != 0 { bit } else { 0 };
            let wide = if self.rng.bool() { REX_W } else { 0 };
            let rex = wide | extend(REX_R, reg) | extend(REX_X, index) | extend(REX_B, rm);
            if rex != 0 || self.rng.u32(..8) == 0 {
                self.emit(&[REX | rex]);
            }
        }
        self.emit(opcode);
    }

    /// An instruction of the register field and what `place` names.
    fn encode(&mut self, opcode: &[u8], reg: u8, place: Place, immediate: &[u8]) {
        let field = (reg & 7) << 3;
        match (place, self.width) {
            (Place::Register(rm), _) => {
                self.opcode(opcode, [reg, rm, 0]);
                self.emit(&[0xc0 | field | rm & 7]);
            }
            (Place::At(address), Width::Narrow) | (Place::FromBase(address), Width::Narrow) => {
                self.opcode(opcode, [reg, 0, 0]);
                self.emit(&[field | 5]);
                self.emit(&address.to_le_bytes());
            }
            (Place::At(address), Width::Wide) => {
                self.opcode(opcode, [reg, 0, 0]);
                self.emit(&[field | 5]);
                let next = self.next() + 4 + immediate.len() as u32;
                self.emit(&address.wrapping_sub(next).to_le_bytes());
            }
            (Place::FromBase(distance), Width::Wide) => {
                self.opcode(opcode, [reg, BASE, 0]);
                self.emit(&[0x80 | field | BASE & 7]);
                self.emit(&distance.to_le_bytes());
            }
            (Place::Indexed(index, scale, distance), width) => {
                // Without a base, or with R15 and a displacement of 32 bits.
                let (mode, base) = match width {
                    Width::Narrow => (0, 5),
                    Width::Wide => (0x80, BASE),
                };
                self.opcode(opcode, [reg, base, index]);
                self.emit(&[mode | field | 4, scale << 6 | (index & 7) << 3 | base & 7]);
                self.emit(&distance.to_le_bytes());
            }
        }
        self.emit(immediate);
    }

    /// Where the next byte will be.
    fn next(&self) -> u32 {
        self.address + self.bytes.len() as u32
    }

    /// An instruction whose operand is a register, or memory in the data.
    fn operand(&mut self, opcode: &[u8], reg: u8) {
        self.operand_and(opcode, reg, &[]);
    }

    /// As [`Self::operand`], and an immediate operand.
    fn operand_and(&mut self, opcode: &[u8], reg: u8, immediate: &[u8]) {
        if self.rng.u32(..3) == 0 {
            let rm = self.register();
            self.encode(opcode, reg, Place::Register(rm), immediate);
        } else {
            self.memory_and(opcode, reg, immediate);
        }
    }

    /// An instruction whose operand is memory in the data.
    fn memory(&mut self, opcode: &[u8], reg: u8) {
        self.memory_and(opcode, reg, &[]);
    }

    /// As [`Self::memory`], and an immediate operand.
    fn memory_and(&mut self, opcode: &[u8], reg: u8, immediate: &[u8]) {
        let place = match self.rng.u32(..4) {
            0 => Place::At(DATA + self.rng.u32(..DATA_BYTES - MOST_OPERAND)),
            1 => Place::FromBase(DATA + self.rng.u32(..DATA_BYTES - MOST_OPERAND)),
            _ => {
                // movzx index, r8; opcode reg, [index*2^n + DATA]
                let index = self.register();
                let source = self.byte_register();
                self.encode(&[0x0f, 0xb6], index, Place::Register(source), &[]);
                Place::Indexed(index, self.rng.u8(..4), DATA + self.rng.u32(..PAGE))
            }
        };
        self.encode(opcode, reg, place, immediate);
    }

    /// One instruction that leaves all status flags but AF defined or as they are.
    pub fn instruction(&mut self) {
        let reg = self.register();
        match self.rng.u32(..16) {
            // ADD, OR, ADC, SBB, AND, SUB, XOR, CMP; 8, 16, 32 and 64 bits, both directions.
            0..=4 => self.arithmetic(),
            // MOV
            5 | 6 => {
                let opcode = 0x88 | self.rng.u8(..4);
                let reg = match opcode & 1 {
                    0 => self.byte_register(),
                    _ => reg,
                };
                self.operand(&[opcode], reg);
            }
            // MOVZX, MOVSX
            7 => {
                let opcode = [0xb6, 0xb7, 0xbe, 0xbf][self.rng.usize(..4)];
                self.operand(&[0x0f, opcode], reg);
            }
            // CMOVcc
            8 => {
                let opcode = 0x40 | self.rng.u8(..16);
                self.operand(&[0x0f, opcode], reg);
            }
            // SETcc
            9 => {
                let opcode = 0x90 | self.rng.u8(..16);
                match stores_lose_flags() {
                    true => self.encode(&[0x0f, opcode], 0, Place::Register(reg & 3), &[]),
                    false => self.operand(&[0x0f, opcode], 0),
                }
            }
            // INC, DEC; NOT, NEG
            10 => {
                let form = self.rng.u8(..4);
                self.operand(&[[0xff, 0xf7][usize::from(form >> 1)]], form);
            }
            // XADD, CMPXCHG, XCHG, of 32 bits or 64
            11 => {
                let opcodes: [&[u8]; 3] = [&[0x0f, 0xc1], &[0x0f, 0xb1], &[0x87]];
                let count = match misaligned_locks_fail() {
                    true => 2,
                    false => opcodes.len(),
                };
                let opcode = opcodes[self.rng.usize(..count)];
                self.operand(opcode, reg);
            }
            // PUSH a; POP b
            12 => {
                let target = self.register();
                for (opcode, register) in [(0x50, reg), (0x58, target)] {
                    self.opcode(&[opcode | register & 7], [0, register, 0]);
                }
            }
            13 => self.undefining(),
            14 => self.x87(),
            _ => self.vector(),
        }
    }

    /// One or two x87 instructions, FNSTENV before some of them; the stack may overflow and underflow, all exceptions are masked.
    fn x87(&mut self) {
        /// FXCH, FCHS, FABS, FRNDINT, FSQRT, FCOMI ST1, FADD ST1, FMUL ST1, FDIVP, FINCSTP, FFREE ST7, EMMS.
        const PLAIN: [[u8; 2]; 12] = [
            [0xd9, 0xc9],
            [0xd9, 0xe0],
            [0xd9, 0xe1],
            [0xd9, 0xfc],
            [0xd9, 0xfa],
            [0xdb, 0xf1],
            [0xd8, 0xc1],
            [0xd8, 0xc9],
            [0xde, 0xf9],
            [0xd9, 0xf7],
            [0xdd, 0xc7],
            [0x0f, 0x77],
        ];
        /// Opcode and reg field: FLD, FST, FSTP of 32 and 64 bits, FLD and FSTP of 80, FILD and FISTP of 16, 32 and 64.
        const MEMORY: [(u8, u8); 14] = [
            (0xd9, 0),
            (0xd9, 2),
            (0xd9, 3),
            (0xdd, 0),
            (0xdd, 2),
            (0xdd, 3),
            (0xdb, 5),
            (0xdb, 7),
            (0xdf, 0),
            (0xdf, 3),
            (0xdb, 0),
            (0xdb, 3),
            (0xdf, 5),
            (0xdf, 7),
        ];
        if self.rng.u32(..8) == 0 {
            // FNSTENV
            self.memory(&[0xd9], 6);
        }
        if self.rng.bool() {
            let instruction = PLAIN[self.rng.usize(..PLAIN.len())];
            self.emit(&instruction);
        } else {
            let (opcode, reg) = MEMORY[self.rng.usize(..MEMORY.len())];
            self.memory(&[opcode], reg);
        }
    }

    /// One MMX, SSE or SSE2 instruction.
    fn vector(&mut self) {
        /// Prefix and opcodes whose operand is 8 bytes or less, or may be misaligned: PADDD and PMADDWD (MMX), ADDSS, MULSS,
        /// CVTSI2SS, MOVSS both ways, ADDSD, MOVSD both ways, MOVUPS both ways, COMISS.
        const INSTRUCTIONS: [(&[u8], u8); 13] = [
            (&[], 0xfe),
            (&[], 0xf5),
            (&[0xf3], 0x58),
            (&[0xf3], 0x59),
            (&[0xf3], 0x2a),
            (&[0xf3], 0x10),
            (&[0xf3], 0x11),
            (&[0xf2], 0x58),
            (&[0xf2], 0x10),
            (&[0xf2], 0x11),
            (&[], 0x10),
            (&[], 0x11),
            (&[], 0x2f),
        ];
        /// ADDPS, MULPS, XORPS, UNPCKLPS, and with prefix 0x66 PADDD: register forms.
        const PACKED: [(&[u8], u8); 5] = [
            (&[], 0x58),
            (&[], 0x59),
            (&[], 0x57),
            (&[], 0x14),
            (&[0x66], 0xfe),
        ];
        let reg = self.vector_register();
        if self.rng.u32(..3) == 0 {
            let (prefix, opcode) = PACKED[self.rng.usize(..PACKED.len())];
            let source = Place::Register(self.vector_register());
            self.encode(&[prefix, &[0x0f, opcode]].concat(), reg, source, &[]);
        } else {
            let (prefix, opcode) = INSTRUCTIONS[self.rng.usize(..INSTRUCTIONS.len())];
            self.memory(&[prefix, &[0x0f, opcode]].concat(), reg);
        }
    }

    fn arithmetic(&mut self) {
        let group = self.rng.u8(..8) << 3;
        match self.rng.u32(..5) {
            0 => {
                let (form, reg) = (self.rng.u8(..2) << 1, self.byte_register());
                self.operand(&[group | form], reg);
            }
            1 => {
                let (form, reg) = (self.rng.u8(..2) << 1 | 1, self.register());
                self.operand(&[0x66, group | form], reg);
            }
            2 | 3 => {
                let (form, reg) = (self.rng.u8(..2) << 1 | 1, self.register());
                self.operand(&[group | form], reg);
            }
            _ => {
                // With a sign-extended immediate.
                let immediate = self.rng.u8(..);
                self.operand_and(&[0x83], group >> 3, &[immediate]);
            }
        }
    }

    /// One instruction that leaves flags undefined, and one that defines them.
    fn undefining(&mut self) {
        let reg = self.register();
        let count = self.rng.u8(1..32);
        match self.rng.u32(..6) {
            // ROL, ROR, RCL, RCR, SHL, SHR, SAR by an immediate or CL
            0 | 1 => {
                let form = match stores_lose_flags() {
                    true => [0, 1, 4, 5, 7][self.rng.usize(..5)],
                    false => [0, 1, 2, 3, 4, 5, 7][self.rng.usize(..7)],
                };
                if self.rng.bool() {
                    self.operand_and(&[0xc1], form, &[count]);
                } else {
                    self.operand(&[0xd3], form);
                }
            }
            // IMUL r, r/m; BSF, BSR of what is not 0
            2 => self.operand(&[0x0f, 0xaf], reg),
            3 => {
                let source = self.register();
                let opcode = 0xbc | self.rng.u8(..2);
                self.encode(&[0x83], 1, Place::Register(source), &[1]);
                self.encode(&[0x0f, opcode], reg, Place::Register(source), &[]);
            }
            // SHLD, SHRD
            4 => {
                let opcode = [0xa4, 0xac][self.rng.usize(..2)];
                self.operand_and(&[0x0f, opcode], reg, &[count]);
            }
            // MUL, IMUL r/m
            _ => {
                let form = 4 | self.rng.u8(..2);
                self.operand(&[0xf7], form);
            }
        }
        self.emit(&DEFINE_FLAGS);
    }

    /// A jump or call with a 32-bit displacement.
    pub fn relative(&mut self, opcode: &[u8], target: u32) {
        self.emit(opcode);
        let next = self.next() + 4;
        self.emit(&target.wrapping_sub(next).to_le_bytes());
    }

    pub fn jump_if(&mut self, condition: u8, target: u32) {
        self.relative(&[JCC_NEAR[0], JCC_NEAR[1] | condition], target);
    }
}
