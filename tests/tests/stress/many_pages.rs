//! More than 10,000 code pages, each with code of its own, that jump to one another at random.
//!
//! ```text
//!   page i, entered at an offset of its own:
//!     inc [count of i] ─ hash of its own ─ fuel - 1 = 0? ─► HLT
//!     ├── most pages: next = f(random number) ─► jmp [entry of next]
//!     └── every fourth: jmp to the page the generator has drawn
//! ```

use super::contents::PAGE;
use super::machine::{CODE_CACHE, Ended, Program, assemble};
use super::paging::turn_on;
use super::tables::{ALL, Tables};
use super::width::{ByWidth, Width, at_both_widths};
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
/// Pages that lie side by side, the last of which jumps to the first of a group.
const GROUP: u32 = 4;
/// Physical address of the page tables, if there are any.
const TABLES: u32 = 0x31_0000;
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
    direct: Option<u64>,
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
        Some(target) => code.jmp(target)?,
        None => {
            code.mov(esi, ecx)?;
            code.mov(edx, COUNT as i32)?;
            code.mov(ecx, eax)?;
            code.mul(edx)?;
            code.mov(eax, ecx)?;
            code.mov(ecx, esi)?;
            let target = code.scaled(edx, code.width().bytes()) + ENTRIES;
            code.jmp(code.sized(target))?;
        }
    }
    code.set_label(&mut stop)?;
    code.cmp(eax, ebx)?;
    code.hlt()
}

/// Where pages are mapped, group by group in turns. In 64-bit programs the tables have one slot for several of them, so that most
/// jumps take a slot from another page.
fn homes(width: Width) -> &'static [u64] {
    const TERABYTE: u64 = 1 << 40;
    const HIGH: u64 = 0u64.wrapping_sub(1 << 47);
    match width {
        Width::Narrow => &[0],
        Width::Wide => &[0, TERABYTE, 95 * TERABYTE, HIGH, HIGH + TERABYTE],
    }
}

/// Linear address of page `index`.
fn linear(width: Width, index: u32) -> u64 {
    let homes = homes(width);
    let (group, within) = (index / GROUP, index % GROUP);
    let home = homes[group as usize % homes.len()];
    home + u64::from(PAGES + (group / homes.len() as u32 * GROUP + within) * PAGE)
}

/// Maps the pages, and the tables of entries and counts.
fn place_tables(program: &mut Program) {
    let mut tables = Tables::new(program.width, TABLES);
    tables.map_all(&mut program.contents, 0, |page| page | ALL);
    for index in 0..COUNT {
        let linear = linear(program.width, index);
        tables.map(&mut program.contents, linear, (PAGES + index * PAGE) | ALL);
    }
    assert!(tables.end() <= PAGES, "{:x}", tables.end());
}

/// A program of [`COUNT`] pages and `jumps` jumps.
fn program(width: Width, seed: u64, size: Size, jumps: u32, code_cache: usize) -> Program {
    let mut rng = Rng::with_seed(seed);
    let offsets: Vec<u32> = (0..COUNT).map(|_| rng.u32(..PAGE - ROOM)).collect();
    let entry = |index: u32| linear(width, index) + u64::from(offsets[index as usize]);
    let mut program = Program::new(width, MEMORY, START, STACK);
    program.code_cache = code_cache;
    // It would take longer than all else.
    program.verify_code = false;
    program.assemble(START, |code| {
        if width == Width::Wide {
            turn_on(code, TABLES)?;
        }
        code.mov(eax, rng.i32(..))?;
        code.mov(ecx, jumps as i32)?;
        code.xor(ebx, ebx)?;
        code.jmp(entry(0))
    });
    if width == Width::Wide {
        place_tables(&mut program);
    }
    let entries: Vec<u64> = (0..COUNT).map(entry).collect();
    program.place(ENTRIES, width.addresses(&entries));
    let homes = homes(width).len() as u32;
    for index in 0..COUNT {
        // Within reach, and never to another page of that kind: a ring of them would hold the program.
        let direct = (index % GROUP == GROUP - 1).then(|| {
            let turn = rng.u32(..COUNT / GROUP / homes);
            entry((turn * homes + index / GROUP % homes) * GROUP)
        });
        let code = assemble(width, entry(index), |code| {
            page(code, index, size, direct, &mut rng)
        });
        assert!(code.len() <= ROOM as usize, "{} bytes of code", code.len());
        program.place(PAGES + index * PAGE + offsets[index as usize], code);
    }
    program
}

/// Runs a program of [`program`] on both engines; returns the number of pages that executed more than once.
fn revisited(width: Width, what: &str, seed: u64, size: Size, jumps: u32) -> usize {
    let ended = program(width, seed, size, jumps, CODE_CACHE).agree(what);
    pages_revisited(what, &ended, jumps)
}

fn pages_revisited(what: &str, ended: &Ended, jumps: u32) -> usize {
    let counts = ended.dwords(COUNTS, COUNT as usize);
    assert_eq!(counts.iter().sum::<u32>(), jumps, "{what}: pages executed");
    counts.iter().filter(|&&count| count > 1).count()
}

fn more_than_ten_thousand_pages_live_at_once(width: Width) {
    let jumps = match width {
        Width::Narrow => 300_000,
        Width::Wide => 60_000,
    };
    let pages = revisited(width, "12,000 pages", 1, Size::Small, jumps);
    assert!(pages > 10_000, "{pages} pages executed more than once");
}

fn pages_that_do_not_fit_the_code_cache(width: Width) {
    let (what, jumps) = ("a full code cache", 20_000);
    let ended = program(width, 2, Size::Large, jumps, 4 << 20).agree(what);
    let pages = pages_revisited(what, &ended, jumps);
    assert!(pages > 5_000, "{pages} pages executed more than once");
    let evicted = ended.translation().evicted;
    assert!(evicted > 5_000, "{evicted} pages were evicted");
}

fn two_machines_on_two_threads(width: Width) {
    let jumps = match width {
        Width::Narrow => 100_000,
        Width::Wide => 20_000,
    };
    std::thread::scope(|scope| {
        for seed in [3, 4] {
            scope.spawn(move || {
                let what = format!("thread {seed}");
                revisited(width, &what, seed, Size::Small, jumps);
            });
        }
    });
}

at_both_widths!(
    more_than_ten_thousand_pages_live_at_once,
    pages_that_do_not_fit_the_code_cache,
    two_machines_on_two_threads,
);
