//! Random programs: blocks of integer instructions over several pages, with branches on live flags, calls and loops.
//!
//! ```text
//!   block 0 ──► … each block: random instructions, then a conditional jump to a later block, else the next ──► last block
//!      ▲                                        │ calls of leaves, which are blocks with RET                   │ rounds left
//!      └───────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! Flags that an instruction leaves undefined are defined again before anything can read them, but for AF, which only the
//! program's end reads.

use super::machine::{Counts, PAGE, Program};
use fastrand::Rng;

/// Physical address of the code.
const CODE: u32 = 0x20_0000;
/// Physical address of the data, and its bytes: operands may lie across pages.
const DATA: u32 = 0x30_0000;
const DATA_BYTES: u32 = 4 * PAGE;
/// Physical address of the count of rounds.
const ROUNDS_LEFT: u32 = 0x38_0000;
/// Top of the stack.
const STACK: u32 = 0x18_0000;
/// Programs, and their shape.
const PROGRAMS: u64 = 200;
const BLOCKS: usize = 60;
const LEAVES: usize = 8;
const ROUNDS: u32 = 100;
/// Room for a block; gaps of random length follow it.
const BLOCK_BYTES: u32 = 256;

/// Opcodes, by what they take.
const JCC_NEAR: [u8; 2] = [0x0F, 0x80];
const CALL: u8 = 0xE8;
const JMP: u8 = 0xE9;
const RET: u8 = 0xC3;
const HLT: u8 = 0xF4;
/// `cmp ecx, edx`: defines all status flags.
const DEFINE_FLAGS: [u8; 2] = [0x39, 0xD1];
/// `dec dword [ROUNDS_LEFT]`.
const DEC_ABSOLUTE: [u8; 2] = [0xFF, 0x0D];
/// Condition code NZ.
const NZ: u8 = 5;

/// Writes the code of one block.
struct Block<'r> {
    rng: &'r mut Rng,
    address: u32,
    bytes: Vec<u8>,
}

impl Block<'_> {
    fn emit(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// A register other than ESP.
    fn register(&mut self) -> u8 {
        [0, 1, 2, 3, 5, 6, 7][self.rng.usize(..7)]
    }

    /// ModRM and what follows it: a register, or memory in the data: absolute, or indexed by a register just loaded.
    fn operand(&mut self, opcode: &[u8], reg: u8) {
        match self.rng.u32(..3) {
            0 => {
                let rm = self.register();
                self.emit(opcode);
                self.emit(&[0xC0 | reg << 3 | rm]);
            }
            1 => {
                let displacement = DATA + self.rng.u32(..DATA_BYTES - 8);
                self.emit(opcode);
                self.emit(&[reg << 3 | 5]);
                self.emit(&displacement.to_le_bytes());
            }
            _ => {
                // movzx index, r8; opcode reg, [index*2^n + DATA]
                let index = self.register();
                let source = self.rng.u8(..8);
                let scale = self.rng.u8(..4);
                let displacement = DATA + self.rng.u32(..PAGE);
                self.emit(&[0x0F, 0xB6, 0xC0 | index << 3 | source]);
                self.emit(opcode);
                self.emit(&[reg << 3 | 4, scale << 6 | index << 3 | 5]);
                self.emit(&displacement.to_le_bytes());
            }
        }
    }

    /// One instruction that leaves all status flags but AF defined or as they are.
    fn instruction(&mut self) {
        let reg = self.register();
        match self.rng.u32(..14) {
            // ADD, OR, ADC, SBB, AND, SUB, XOR, CMP; 8, 16 and 32 bits, both directions.
            0..=4 => self.arithmetic(),
            // MOV
            5 | 6 => {
                let opcode = 0x88 | self.rng.u8(..4);
                let reg = if opcode & 1 == 0 {
                    self.rng.u8(..8)
                } else {
                    reg
                };
                self.operand(&[opcode], reg);
            }
            // MOVZX, MOVSX
            7 => {
                let opcode = [0xB6, 0xB7, 0xBE, 0xBF][self.rng.usize(..4)];
                self.operand(&[0x0F, opcode], reg);
            }
            // CMOVcc
            8 => {
                let opcode = 0x40 | self.rng.u8(..16);
                self.operand(&[0x0F, opcode], reg);
            }
            // SETcc
            9 => {
                let opcode = 0x90 | self.rng.u8(..16);
                self.operand(&[0x0F, opcode], 0);
            }
            // INC, DEC; NOT, NEG
            10 => {
                let form = self.rng.u8(..4);
                self.operand(&[[0xFF, 0xF7][usize::from(form >> 1)]], form);
            }
            // XADD, CMPXCHG, XCHG, of 32 bits
            11 => {
                let opcode: &[u8] =
                    [&[0x0F, 0xC1][..], &[0x0F, 0xB1], &[0x87]][self.rng.usize(..3)];
                self.operand(opcode, reg);
            }
            // PUSH a; POP b
            12 => {
                let target = self.register();
                self.emit(&[0x50 | reg, 0x58 | target]);
            }
            _ => self.undefining(),
        }
    }

    fn arithmetic(&mut self) {
        let group = self.rng.u8(..8) << 3;
        match self.rng.u32(..5) {
            0 => {
                let (form, reg) = (self.rng.u8(..2) << 1, self.rng.u8(..8));
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
                self.operand(&[0x83], group >> 3);
                let immediate = self.rng.u8(..);
                self.emit(&[immediate]);
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
                let form = [0, 1, 2, 3, 4, 5, 7][self.rng.usize(..7)];
                if self.rng.bool() {
                    self.operand(&[0xC1], form);
                    self.emit(&[count]);
                } else {
                    self.operand(&[0xD3], form);
                }
            }
            // IMUL r, r/m; BSF, BSR of what is not 0
            2 => self.operand(&[0x0F, 0xAF], reg),
            3 => {
                let source = self.register();
                let opcode = 0xBC | self.rng.u8(..2);
                self.emit(&[0x83, 0xC8 | source, 1]);
                self.emit(&[0x0F, opcode, 0xC0 | reg << 3 | source]);
            }
            // SHLD, SHRD
            4 => {
                let opcode = [0xA4, 0xAC][self.rng.usize(..2)];
                self.operand(&[0x0F, opcode], reg);
                self.emit(&[count]);
            }
            // MUL, IMUL r/m
            _ => {
                let form = 4 | self.rng.u8(..2);
                self.operand(&[0xF7], form);
            }
        }
        self.emit(&DEFINE_FLAGS);
    }

    /// A jump or call with a 32-bit displacement.
    fn relative(&mut self, opcode: &[u8], target: u32) {
        self.emit(opcode);
        let next = self.address + self.bytes.len() as u32 + 4;
        self.emit(&target.wrapping_sub(next).to_le_bytes());
    }

    fn jump_if(&mut self, condition: u8, target: u32) {
        self.relative(&[JCC_NEAR[0], JCC_NEAR[1] | condition], target);
    }
}

/// A program from `seed`.
fn program(seed: u64) -> Program {
    let mut rng = Rng::with_seed(seed);
    let mut at = CODE;
    let mut place = || {
        at += BLOCK_BYTES + rng.u32(..2 * PAGE / 16);
        at
    };
    let leaves: Vec<u32> = (0..LEAVES).map(|_| place()).collect();
    let blocks: Vec<u32> = (0..BLOCKS).map(|_| place()).collect();
    let mut program = Program {
        memory: 4 << 20,
        entry: blocks[0],
        stack: STACK,
        pieces: vec![(ROUNDS_LEFT, ROUNDS.to_le_bytes().to_vec())],
    };
    let data: Vec<u8> = (0..DATA_BYTES + PAGE).map(|_| rng.u8(..)).collect();
    program.place(DATA, data);
    let mut block = |address: u32, fill: &dyn Fn(&mut Block<'_>)| {
        let mut block = Block {
            rng: &mut rng,
            address,
            bytes: Vec::new(),
        };
        for _ in 0..block.rng.u32(1..10) {
            block.instruction();
        }
        fill(&mut block);
        assert!(
            block.bytes.len() <= BLOCK_BYTES as usize,
            "{} bytes",
            block.bytes.len()
        );
        program.place(address, block.bytes);
    };
    for &leaf in &leaves {
        block(leaf, &|block| block.emit(&[RET]));
    }
    for (index, &address) in blocks[..BLOCKS - 1].iter().enumerate() {
        block(address, &|block| {
            if block.rng.u32(..4) == 0 {
                let leaf = leaves[block.rng.usize(..LEAVES)];
                block.relative(&[CALL], leaf);
            }
            let (condition, later) = (block.rng.u8(..16), block.rng.usize(index + 1..BLOCKS));
            block.jump_if(condition, blocks[later]);
            block.relative(&[JMP], blocks[index + 1]);
        });
    }
    block(blocks[BLOCKS - 1], &|block| {
        block.emit(&DEC_ABSOLUTE);
        block.emit(&ROUNDS_LEFT.to_le_bytes());
        block.jump_if(NZ, blocks[0]);
        block.emit(&DEFINE_FLAGS);
        block.emit(&[HLT]);
    });
    program
}

#[test]
fn random_programs_end_the_same() {
    let mut total = Counts::default();
    for seed in 0..PROGRAMS {
        let (_, counts) = program(seed).compare(&format!("program {seed}"));
        total.instructions += counts.instructions;
        total.emulated += counts.emulated;
    }
    total.report(&format!("{PROGRAMS} random programs"));
}
