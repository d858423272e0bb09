//! Random programs: blocks of integer, x87, MMX and SSE instructions over several pages, with branches on live flags, calls and loops.
//!
//! ```text
//!   block 0 ──► … each block: random instructions, then a conditional jump to a later block, else the next ──► last block
//!      ▲                                        │ calls of leaves, which are blocks with RET                   │ rounds left
//!      └───────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! All of it lies at a base, a linear address, which in 64-bit programs may be any at which 4 MiB begin.

use super::block::{Block, DATA, DATA_BYTES};
use super::contents::PAGE;
use super::debugged;
use super::machine::{Counts, Program};
use super::paging::{TABLES, entry, faults, place_demand, place_identity, start_demand, turn_on};
use super::users::{self, NEXT_ROUND, Own, SPACES, THE_END};
use super::width::{ByWidth, Width, at_both_widths, whole};
use fastrand::Rng;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use tests::vm;

/// Physical address of the code.
const CODE: u32 = 0x20_0000;
/// Physical addresses of the code before and behind the blocks.
const START: u32 = 0x1f_0000;
const END: u32 = 0x1f_1000;
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
/// In the virtual machine, which takes some 20 times as long.
const USER_PROGRAMS_IN_VM: u64 = 8;
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

const CALL: u8 = 0xe8;
const JMP: u8 = 0xe9;
const RET: u8 = 0xc3;
const INT: u8 = 0xcd;
/// Condition code NZ.
const NZ: u8 = 5;

/// `dec dword [ROUNDS_LEFT]` without the address, which is not relative to RIP.
fn decrement(width: Width) -> &'static [u8] {
    match width {
        Width::Narrow => &[0xff, 0x0d],
        Width::Wide => &[0xff, 0x0c, 0x25],
    }
}

/// Where a program lies: 64-bit ones also at a multiple of 1 TiB, where pages share the slots of the first 4 MiB, and at the ends of
/// both halves.
fn base(width: Width, seed: u64) -> u64 {
    const HALF: u64 = 1 << 47;
    const BYTES: u64 = 4 << 20;
    const BASES: [u64; 5] = [
        0,
        3 << 40,
        HALF - BYTES,
        0u64.wrapping_sub(HALF),
        0u64.wrapping_sub(BYTES),
    ];
    match width {
        Width::Narrow => 0,
        Width::Wide => BASES[seed as usize % BASES.len()],
    }
}

/// A mapping of the program's data.
#[derive(Clone, Copy, Debug)]
enum Data {
    /// There from the start. In 32-bit programs paging is off.
    Present,
    /// Absent at the start of each round: the first read and the first write of each page fault.
    OnDemand,
    /// Like the one before, at CPL 3, in several address spaces that have leaves of their own, too.
    OfUsers,
}

/// A program from `seed`.
fn program(width: Width, seed: u64, data_is: Data) -> Program {
    let base = base(width, seed);
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
    let mut program = Program::new(width, 4 << 20, START, STACK);
    program.place(ROUNDS_LEFT, ROUNDS.to_le_bytes());
    let data: Vec<u8> = (0..DATA_BYTES + PAGE).map(|_| rng.u8(..)).collect();
    program.place(DATA, data);
    let own = Own {
        base,
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
        Data::Present => {
            place_identity(&mut program).map_all(&mut program.contents, base, entry);
            None
        }
        Data::OfUsers => {
            users::place(&mut program, own, END);
            None
        }
        Data::OnDemand => {
            let pages = DATA_BYTES / PAGE + 1;
            Some(place_demand(&mut program, base, DATA, pages))
        }
    };
    let mut block = |address: u32, space: u32, fill: &dyn Fn(&mut Block<'_>)| {
        let mut block = Block {
            rng: &mut rng,
            width,
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
        block.emit(decrement(width));
        block.emit(&ROUNDS_LEFT.to_le_bytes());
        block.jump_if(NZ, blocks[0]);
        match data_is {
            Data::OfUsers => block.emit(&[INT, THE_END]),
            _ => block.relative(&[JMP], END),
        }
    });
    let first = base + u64::from(blocks[0]);
    program.assemble(START, |code| start(code, data_is, base, first));
    program.assemble(END, end);
    program
}

/// Enables paging, if any, and SSE, and jumps to the first block.
fn start(code: &mut CodeAssembler, data_is: Data, base: u64, block: u64) -> Result<(), IcedError> {
    let width = code.width();
    match data_is {
        Data::OnDemand => start_demand(code)?,
        Data::Present if width == Width::Wide => turn_on(code, TABLES)?,
        _ => {}
    }
    code.set_cr4(SSE_ENABLED)?;
    code.fninit()?;
    if let Width::Wide = width {
        code.mov(r15, base)?;
    }
    let stack = base + u64::from(STACK);
    if let Data::OfUsers = data_is {
        return users::start(code, block, stack);
    }
    code.set(esp, stack)?;
    code.set(esi, block)?;
    whole!(code.jmp(esi))
}

/// Stores the state of the FPU, and halts with defined flags.
fn end(code: &mut CodeAssembler) -> Result<(), IcedError> {
    const ST_BYTES: u32 = 10;
    const XMM_BYTES: u32 = 16;
    const XMM: [AsmRegisterXmm; 16] = [
        xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13,
        xmm14, xmm15,
    ];
    let vectors = match code.width() {
        Width::Narrow => &XMM[..8],
        Width::Wide => &XMM,
    };
    code.fnstenv(ptr(FPU_STATE + 512))?;
    code.fnstsw(word_ptr(FPU_STATE))?;
    code.stmxcsr(dword_ptr(FPU_STATE + 4))?;
    for index in 0..8 {
        code.fstp(tbyte_ptr(FPU_STATE + 16 + index * ST_BYTES))?;
    }
    for (index, &register) in (0..).zip(vectors) {
        code.movups(xmmword_ptr(FPU_STATE + 128 + index * XMM_BYTES), register)?;
    }
    code.cmp(ecx, edx)?;
    code.hlt()
}

/// Runs programs on both engines and prints what they took in all, which `what` describes.
fn compare_all(width: Width, what: &str, seeds: std::ops::Range<u64>, data_is: Data) {
    let mut total = Counts::default();
    let (mut windows, mut direct) = (0, 0);
    for seed in seeds {
        let (ended, counts) =
            program(width, seed, data_is).compare(&format!("{what}, seed {seed}"));
        total += counts;
        windows += ended.translation().windows;
        direct += ended.translation().direct;
        let faults = match data_is {
            Data::Present => continue,
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
        assert_eq!(total.served > 0, width == Width::Narrow && vm::is_vm());
    }
    total.report(what);
}

fn random_programs_end_the_same(width: Width) {
    compare_all(width, "random programs", 0..PROGRAMS, Data::Present);
}

fn random_programs_with_page_faults_end_the_same(width: Width) {
    let seeds = PROGRAMS..PROGRAMS + PAGING_PROGRAMS;
    compare_all(
        width,
        "random programs with page faults",
        seeds,
        Data::OnDemand,
    );
}

fn random_programs_of_users_in_several_spaces_end_the_same(width: Width) {
    let first = PROGRAMS + PAGING_PROGRAMS;
    let count = match vm::is_vm() {
        true => USER_PROGRAMS_IN_VM,
        false => USER_PROGRAMS,
    };
    let seeds = first..first + count;
    compare_all(width, "random programs of users", seeds, Data::OfUsers);
}

fn random_programs_under_a_debugger_stop_and_end_the_same(width: Width) {
    for data_is in [Data::Present, Data::OnDemand, Data::OfUsers] {
        let mut stops = 0;
        for seed in 0..DEBUGGED_PROGRAMS {
            let what = format!("{data_is:?}, seed {seed}");
            let data = base(width, seed) + u64::from(DATA);
            let data = data..data + u64::from(DATA_BYTES);
            let program = program(width, seed, data_is);
            stops += debugged::compare(&program, seed, &data, &what);
        }
        let programs = DEBUGGED_PROGRAMS as usize;
        assert!(stops > 100 * programs, "{stops} stops");
    }
}

at_both_widths!(
    random_programs_end_the_same,
    random_programs_with_page_faults_end_the_same,
    random_programs_of_users_in_several_spaces_end_the_same,
    random_programs_under_a_debugger_stop_and_end_the_same,
);
