//! Random programs: blocks of integer, x87, MMX and SSE instructions over several pages, with branches on live flags, calls and loops.
//!
//! ```text
//!   block 0 ──► … each block: random instructions, then a conditional jump to a later block, else the next ──► last block
//!      ▲                                        │ calls of leaves, which are blocks with RET                   │ rounds left
//!      └───────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! Flags that an instruction leaves undefined are defined again before anything can read them, but for AF, which only the
//! program's end reads.

use super::debugged;
use super::machine::{CODE_CACHE, Counts, PAGE, Program, assemble};
use super::paging::{faults, place_demand, start_demand};
use super::users::{self, NEXT_ROUND, Own, SPACES, THE_END};
use fastrand::Rng;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use tests::vm;

/// Physical address of the code.
const CODE: u32 = 0x20_0000;
/// Physical addresses of the code before and behind the blocks.
const START: u32 = 0x1f_0000;
const END: u32 = 0x1f_1000;
/// Physical address of the data, and its bytes: operands may lie across pages.
const DATA: u32 = 0x30_0000;
const DATA_BYTES: u32 = 4 * PAGE;
/// Bytes of the longest operand.
const MOST_OPERAND: u32 = 16;
/// Physical address of the count of rounds.
const ROUNDS_LEFT: u32 = 0x38_0000;
/// Top of the stack.
const STACK: u32 = 0x18_0000;
/// Physical addresses of the data and leaves that further address spaces have.
const MORE_DATA: u32 = 0x32_0000;
const MORE_LEAVES: u32 = 0x3a_0000;
/// Programs, and their shape.
const PROGRAMS: u64 = 150;
const PAGING_PROGRAMS: u64 = 50;
const USER_PROGRAMS: u64 = 50;
const DEBUGGED_PROGRAMS: u64 = 15;
const BLOCKS: usize = 60;
const LEAVES: usize = 8;
const ROUNDS: u32 = 100;
/// Room for a block; gaps of random length follow it.
const BLOCK_BYTES: u32 = 256;

/// Address at which the end of a program stores the x87, MMX and SSE registers.
const FPU_STATE: u32 = 0x39_0000;

/// CR4.OSFXSR and CR4.OSXMMEXCPT.
const SSE_ENABLED: i32 = 0b11 << 9;

/// Opcodes, by the operands that they take.
const JCC_NEAR: [u8; 2] = [0x0f, 0x80];
const CALL: u8 = 0xe8;
const JMP: u8 = 0xe9;
const RET: u8 = 0xc3;
const INT: u8 = 0xcd;
/// `cmp ecx, edx`: defines all status flags.
const DEFINE_FLAGS: [u8; 2] = [0x39, 0xd1];
/// `dec dword [ROUNDS_LEFT]`.
const DEC_ABSOLUTE: [u8; 2] = [0xff, 0x0d];
/// Condition code NZ.
const NZ: u8 = 5;

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

    /// ModRM and what follows it: a register, or memory in the data.
    fn operand(&mut self, opcode: &[u8], reg: u8) {
        if self.rng.u32(..3) == 0 {
            let rm = self.register();
            self.emit(opcode);
            self.emit(&[0xc0 | reg << 3 | rm]);
        } else {
            self.memory(opcode, reg);
        }
    }

    /// ModRM and what follows it for memory in the data: absolute, or indexed by a register just loaded.
    fn memory(&mut self, opcode: &[u8], reg: u8) {
        if self.rng.bool() {
            let displacement = DATA + self.rng.u32(..DATA_BYTES - MOST_OPERAND);
            self.emit(opcode);
            self.emit(&[reg << 3 | 5]);
            self.emit(&displacement.to_le_bytes());
        } else {
            // movzx index, r8; opcode reg, [index*2^n + DATA]
            let index = self.register();
            let source = self.rng.u8(..8);
            let scale = self.rng.u8(..4);
            let displacement = DATA + self.rng.u32(..PAGE);
            self.emit(&[0x0f, 0xb6, 0xc0 | index << 3 | source]);
            self.emit(opcode);
            self.emit(&[reg << 3 | 4, scale << 6 | index << 3 | 5]);
            self.emit(&displacement.to_le_bytes());
        }
    }

    /// One instruction that leaves all status flags but AF defined or as they are.
    fn instruction(&mut self) {
        let reg = self.register();
        match self.rng.u32(..16) {
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
                    true => self.emit(&[0x0f, opcode, 0xc0 | reg & 3]),
                    false => self.operand(&[0x0f, opcode], 0),
                }
            }
            // INC, DEC; NOT, NEG
            10 => {
                let form = self.rng.u8(..4);
                self.operand(&[[0xff, 0xf7][usize::from(form >> 1)]], form);
            }
            // XADD, CMPXCHG, XCHG, of 32 bits
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
                self.emit(&[0x50 | reg, 0x58 | target]);
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
        let reg = self.rng.u8(..8);
        if self.rng.u32(..3) == 0 {
            let (prefix, opcode) = PACKED[self.rng.usize(..PACKED.len())];
            let source = self.rng.u8(..8);
            self.emit(prefix);
            self.emit(&[0x0f, opcode, 0xc0 | reg << 3 | source]);
        } else {
            let (prefix, opcode) = INSTRUCTIONS[self.rng.usize(..INSTRUCTIONS.len())];
            self.memory(&[prefix, &[0x0f, opcode]].concat(), reg);
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
                let form = match stores_lose_flags() {
                    true => [0, 1, 4, 5, 7][self.rng.usize(..5)],
                    false => [0, 1, 2, 3, 4, 5, 7][self.rng.usize(..7)],
                };
                if self.rng.bool() {
                    self.operand(&[0xc1], form);
                    self.emit(&[count]);
                } else {
                    self.operand(&[0xd3], form);
                }
            }
            // IMUL r, r/m; BSF, BSR of what is not 0
            2 => self.operand(&[0x0f, 0xaf], reg),
            3 => {
                let source = self.register();
                let opcode = 0xbc | self.rng.u8(..2);
                self.emit(&[0x83, 0xc8 | source, 1]);
                self.emit(&[0x0f, opcode, 0xc0 | reg << 3 | source]);
            }
            // SHLD, SHRD
            4 => {
                let opcode = [0xa4, 0xac][self.rng.usize(..2)];
                self.operand(&[0x0f, opcode], reg);
                self.emit(&[count]);
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
    fn relative(&mut self, opcode: &[u8], target: u32) {
        self.emit(opcode);
        let next = self.address + self.bytes.len() as u32 + 4;
        self.emit(&target.wrapping_sub(next).to_le_bytes());
    }

    fn jump_if(&mut self, condition: u8, target: u32) {
        self.relative(&[JCC_NEAR[0], JCC_NEAR[1] | condition], target);
    }
}

/// A mapping of the program's data.
#[derive(Clone, Copy, Debug)]
enum Data {
    /// No mapping: paging is off.
    Unpaged,
    /// Absent at the start of each round: the first read and the first write of each page fault.
    OnDemand,
    /// Like the one before, at CPL 3, in several address spaces that have leaves of their own, too.
    OfUsers,
}

/// A program from `seed`.
fn program(seed: u64, data_is: Data) -> Program {
    let mut rng = Rng::with_seed(seed);
    let mut at = CODE;
    let mut place = || {
        at += BLOCK_BYTES + rng.u32(..2 * PAGE / 16);
        at
    };
    let leaves: Vec<u32> = (0..LEAVES).map(|_| place()).collect();
    let behind_leaves = place().next_multiple_of(PAGE);
    at = behind_leaves;
    let mut place = || {
        at += BLOCK_BYTES + rng.u32(..2 * PAGE / 16);
        at
    };
    let blocks: Vec<u32> = (0..BLOCKS).map(|_| place()).collect();
    let mut program = Program {
        memory: 4 << 20,
        entry: START,
        stack: STACK,
        code_cache: CODE_CACHE,
        pieces: vec![(ROUNDS_LEFT, ROUNDS.to_le_bytes().to_vec())],
    };
    let data: Vec<u8> = (0..DATA_BYTES + PAGE).map(|_| rng.u8(..)).collect();
    program.place(DATA, data);
    let own = Own {
        data: (DATA, DATA + DATA_BYTES + PAGE),
        code: (CODE, behind_leaves),
        more_data: MORE_DATA,
        more_code: MORE_LEAVES,
    };
    let spaces = match data_is {
        Data::OfUsers => SPACES,
        _ => 1,
    };
    let take_away = match data_is {
        Data::Unpaged => None,
        Data::OfUsers => {
            users::place(&mut program, own, END);
            None
        }
        Data::OnDemand => Some(place_demand(&mut program, DATA, DATA_BYTES / PAGE + 1)),
    };
    let mut block = |address: u32, space: u32, fill: &dyn Fn(&mut Block<'_>)| {
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
        program.place(own.physical(space, address), block.bytes);
    };
    for (space, &leaf) in (0..spaces).flat_map(|space| leaves.iter().map(move |leaf| (space, leaf)))
    {
        block(leaf, space, &|block| block.emit(&[RET]));
    }
    for (index, &address) in blocks[..BLOCKS - 1].iter().enumerate() {
        block(address, 0, &|block| {
            if block.rng.u32(..4) == 0 {
                let leaf = leaves[block.rng.usize(..LEAVES)];
                block.relative(&[CALL], leaf);
            }
            let (condition, later) = (block.rng.u8(..16), block.rng.usize(index + 1..BLOCKS));
            block.jump_if(condition, blocks[later]);
            block.relative(&[JMP], blocks[index + 1]);
        });
    }
    block(blocks[BLOCKS - 1], 0, &|block| {
        if let Data::OfUsers = data_is {
            block.emit(&[INT, NEXT_ROUND]);
        }
        if let Some(take_away) = take_away {
            block.relative(&[CALL], take_away);
        }
        block.emit(&DEC_ABSOLUTE);
        block.emit(&ROUNDS_LEFT.to_le_bytes());
        block.jump_if(NZ, blocks[0]);
        match data_is {
            Data::OfUsers => block.emit(&[INT, THE_END]),
            _ => block.relative(&[JMP], END),
        }
    });
    program.place(
        START,
        assemble(START, |code| start(code, data_is, blocks[0])),
    );
    program.place(END, assemble(END, end));
    program
}

/// Enables paging, if any, and SSE, and jumps to the first block.
fn start(code: &mut CodeAssembler, data_is: Data, block: u32) -> Result<(), IcedError> {
    if let Data::OnDemand = data_is {
        start_demand(code)?;
    }
    code.mov(eax, SSE_ENABLED)?;
    code.mov(cr4, eax)?;
    code.fninit()?;
    if let Data::OfUsers = data_is {
        return users::start(code, block, STACK);
    }
    code.jmp(u64::from(block))
}

/// Stores the state of the FPU, and halts with defined flags.
fn end(code: &mut CodeAssembler) -> Result<(), IcedError> {
    const ST_BYTES: u32 = 10;
    const XMM_BYTES: u32 = 16;
    const XMM: [AsmRegisterXmm; 8] = [xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7];
    code.fnstenv(ptr(FPU_STATE + 256))?;
    code.fnstsw(word_ptr(FPU_STATE))?;
    code.stmxcsr(dword_ptr(FPU_STATE + 4))?;
    for index in 0..8 {
        code.fstp(tbyte_ptr(FPU_STATE + 16 + index * ST_BYTES))?;
    }
    for (index, register) in (0..).zip(XMM) {
        code.movups(xmmword_ptr(FPU_STATE + 128 + index * XMM_BYTES), register)?;
    }
    code.cmp(ecx, edx)?;
    code.hlt()
}

/// Runs programs on both engines and prints what they took in all, which `what` describes.
fn compare_all(what: &str, seeds: std::ops::Range<u64>, data_is: Data) {
    let mut total = Counts::default();
    let (mut windows, mut direct) = (0, 0);
    for seed in seeds {
        let (ended, counts) = program(seed, data_is).compare(&format!("{what}, seed {seed}"));
        total += counts;
        windows += ended.translation().windows;
        direct += ended.translation().direct;
        let faults = match data_is {
            Data::Unpaged => continue,
            Data::OnDemand => faults(&ended),
            Data::OfUsers => users::faults(&ended),
        };
        assert!(faults > ROUNDS, "seed {seed}: {faults} page faults");
    }
    if let Data::OfUsers = data_is {
        assert!(
            windows > 0 && direct > 0,
            "{windows} windows, {direct} direct links"
        );
        assert_eq!(total.served > 0, vm::is_vm());
    }
    total.report(what);
}

#[test]
fn random_programs_end_the_same() {
    compare_all("random programs", 0..PROGRAMS, Data::Unpaged);
}

#[test]
fn random_programs_with_page_faults_end_the_same() {
    let seeds = PROGRAMS..PROGRAMS + PAGING_PROGRAMS;
    compare_all("random programs with page faults", seeds, Data::OnDemand);
}

#[test]
fn random_programs_of_users_in_several_spaces_end_the_same() {
    let first = PROGRAMS + PAGING_PROGRAMS;
    let seeds = first..first + USER_PROGRAMS;
    compare_all("random programs of users", seeds, Data::OfUsers);
}

#[test]
fn random_programs_under_a_debugger_stop_and_end_the_same() {
    let data = DATA..DATA + DATA_BYTES;
    for data_is in [Data::Unpaged, Data::OnDemand, Data::OfUsers] {
        let mut stops = 0;
        for seed in 0..DEBUGGED_PROGRAMS {
            let what = format!("{data_is:?}, seed {seed}");
            stops += debugged::compare(&program(seed, data_is), seed, &data, &what);
        }
        let programs = DEBUGGED_PROGRAMS as usize;
        assert!(stops > 100 * programs, "{stops} stops");
    }
}
