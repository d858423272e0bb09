//! More than 10,000 code pages, each with code of its own, that jump to one another at random.
//!
//! ```text
//!   page i, entered at an offset of its own:
//!     inc [count of i] ─ hash of its own ─ fuel - 1 = 0? ─► HLT
//!     ├── most pages: next = f(random number) ─► jmp [entry of next]
//!     └── every fourth: jmp to the page the generator has drawn
//! ```

use super::machine::{CODE_CACHE, Ended, PAGE, Program, assemble};
use fastrand::Rng;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Bytes of RAM.
const MEMORY: u64 = 64 << 20;
/// Physical address of the table of entries.
const ENTRIES: u32 = 0x10_0000;
/// Physical address of the table of counts.
const COUNTS: u32 = 0x18_0000;
/// Physical address of words that the pages read and write.
const DATA: u32 = 0x20_0000;
/// Top of the stack.
const STACK: u32 = 0x30_0000;
/// Physical address of the program's start.
const START: u32 = 0x30_0000;
/// Physical address of page 0.
const PAGES: u32 = 0x40_0000;
/// Code pages.
const COUNT: u32 = 12_000;
/// Bytes of a page's code at most.
const ROOM: u32 = 1024;

/// Multiplier and increment of the programs' generator (Knuth, The Art of Computer Programming, Vol. 2, 3.3.4 table 1).
const MULTIPLIER: i32 = 1_664_525;
const INCREMENT: i32 = 1_013_904_223;

/// Code of a page before its jump.
#[derive(Clone, Copy)]
enum Size {
    /// A few instructions.
    Small,
    /// More instructions than the code cache holds for all pages.
    Large,
}

/// Read-modify-write instructions of a large page, each some 60 bytes when translated.
const LARGE: u32 = 60;

/// Emits the code of a page. EAX: random number; ECX: fuel; EBX: hash; EDX, ESI: scratch.
fn page(
    code: &mut CodeAssembler,
    index: u32,
    size: Size,
    direct: Option<u32>,
    rng: &mut Rng,
) -> Result<(), IcedError> {
    let mut stop = code.create_label();
    code.inc(dword_ptr(COUNTS + 4 * index))?;
    code.add(ebx, rng.i32(..))?;
    code.rol(ebx, rng.u32(1..32))?;
    code.xor(ebx, eax)?;
    if let Size::Large = size {
        for _ in 0..LARGE {
            code.add(dword_ptr(DATA + 4 * rng.u32(..1024)), ebx)?;
        }
    }
    code.imul_3(eax, eax, MULTIPLIER)?;
    code.add(eax, INCREMENT)?;
    code.dec(ecx)?;
    code.jz(stop)?;
    match direct {
        Some(target) => code.jmp(u64::from(target))?,
        None => {
            code.mov(esi, ecx)?;
            code.mov(edx, COUNT as i32)?;
            code.mov(ecx, eax)?;
            code.mul(edx)?;
            code.mov(eax, ecx)?;
            code.mov(ecx, esi)?;
            code.jmp(dword_ptr(edx * 4 + ENTRIES))?;
        }
    }
    code.set_label(&mut stop)?;
    code.cmp(eax, ebx)?;
    code.hlt()
}

/// A program of [`COUNT`] pages and `jumps` jumps.
fn program(seed: u64, size: Size, jumps: u32, code_cache: usize) -> Program {
    let mut rng = Rng::with_seed(seed);
    let entries: Vec<u32> = (0..COUNT)
        .map(|index| PAGES + index * PAGE + rng.u32(..PAGE - ROOM))
        .collect();
    let mut program = Program {
        memory: MEMORY,
        entry: START,
        stack: STACK,
        code_cache,
        pieces: Vec::new(),
    };
    let start = assemble(START, |code| {
        code.mov(eax, rng.i32(..))?;
        code.mov(ecx, jumps as i32)?;
        code.xor(ebx, ebx)?;
        code.jmp(u64::from(entries[0]))
    });
    program.place(START, start);
    let table: Vec<u8> = entries
        .iter()
        .flat_map(|entry| entry.to_le_bytes())
        .collect();
    program.place(ENTRIES, table);
    for (index, &entry) in (0..).zip(&entries) {
        // Never to another page of that kind: a ring of them would hold the program.
        let direct = (index % 4 == 3).then(|| entries[rng.usize(..entries.len()) & !3]);
        let code = assemble(entry, |code| page(code, index, size, direct, &mut rng));
        assert!(code.len() <= ROOM as usize, "{} bytes of code", code.len());
        program.place(entry, code);
    }
    program
}

/// Runs a program of [`program`] on both engines; returns the number of pages that executed more than once.
fn revisited(what: &str, seed: u64, size: Size, jumps: u32) -> usize {
    let ended = program(seed, size, jumps, CODE_CACHE).agree(what);
    pages_revisited(what, &ended, jumps)
}

fn pages_revisited(what: &str, ended: &Ended, jumps: u32) -> usize {
    let counts = ended.dwords(COUNTS, COUNT as usize);
    assert_eq!(counts.iter().sum::<u32>(), jumps, "{what}: pages executed");
    counts.iter().filter(|&&count| count > 1).count()
}

#[test]
fn more_than_ten_thousand_pages_live_at_once() {
    let pages = revisited("12,000 pages", 1, Size::Small, 300_000);
    assert!(pages > 10_000, "{pages} pages executed more than once");
}

#[test]
fn pages_that_do_not_fit_the_code_cache() {
    let (what, jumps) = ("a full code cache", 20_000);
    let ended = program(2, Size::Large, jumps, 4 << 20).agree(what);
    let pages = pages_revisited(what, &ended, jumps);
    assert!(pages > 5_000, "{pages} pages executed more than once");
    let evicted = ended.translation().evicted;
    assert!(evicted > 5_000, "{evicted} pages were evicted");
}

#[test]
fn two_machines_on_two_threads() {
    std::thread::scope(|scope| {
        for seed in [3, 4] {
            scope.spawn(move || {
                revisited(&format!("thread {seed}"), seed, Size::Small, 100_000);
            });
        }
    });
}
