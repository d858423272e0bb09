//! One frame of code at two linear addresses, with paging on.
//!
//! ```text
//!   linear             frame
//!   FIRST ────────┐
//!   FIRST + 1000 ─│──► neighbour A: its own code
//!   SECOND ───────┴──► shared code: asks where it runs, changes itself through the other alias, falls off its end
//!   SECOND + 1000 ───► neighbour B: its own code
//!   identity         ► the first 4 MiB, by one page table
//! ```

use super::machine::{CODE_CACHE, PAGE, Program, assemble};
use super::paging::{DIRECTORY, entry, place_identity, turn_on};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Physical address of the page table of the aliases.
const ALIASES: u32 = DIRECTORY + 2 * PAGE;
/// Top of the stack, and where the program leaves results.
const RESULTS: u32 = 0x18_0000;
/// Physical address of the program's start, which calls the shared code.
const START: u32 = 0x20_0000;
/// Frames of the shared code and its neighbours.
const SHARED: u32 = 0x21_0000;
const NEIGHBOUR_A: u32 = 0x22_0000;
const NEIGHBOUR_B: u32 = 0x23_0000;
/// Linear addresses of the shared code.
const FIRST: u32 = 0x4000_0000;
const SECOND: u32 = 0x4010_0000;
/// Offset of the shared code's entry: it runs off the page's end.
const ENTRY: u32 = PAGE - SHARED_BYTES;
const SHARED_BYTES: u32 = 18;
/// Offset of the instruction behind the call that asks where the code runs.
const RETURN: u32 = 11;
/// Offset in the shared code of the immediate that changes, and its value at first.
const IMMEDIATE: u32 = 2;
const FIRST_IMMEDIATE: u32 = 0x1234;
/// The number of calls of which one changes the immediate, and the others a word beside the results.
const CHANGES: u32 = 4;
const ELSEWHERE: u32 = RESULTS + 4;
/// Calls of the shared code.
const ROUNDS: u32 = 20_000;

/// Adds to EAX what neighbour A and B add.
const ADDEND_A: u32 = 0x0001_0001;
const ADDEND_B: u32 = 0x0300_0000;

/// Page tables as pieces of memory.
fn place_tables(program: &mut Program) {
    let slot = |table: u32, linear: u32| table + (linear >> 12) % 1024 * 4;
    place_identity(program);
    program.place(DIRECTORY + (FIRST >> 22) * 4, entry(ALIASES));
    for (linear, frame) in [
        (FIRST, SHARED),
        (FIRST + PAGE, NEIGHBOUR_A),
        (SECOND, SHARED),
        (SECOND + PAGE, NEIGHBOUR_B),
    ] {
        program.place(slot(ALIASES, linear), entry(frame));
    }
}

/// Emits the shared code. EAX: the hash; EBX: the word to add it to.
fn shared(code: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut here = code.create_label();
    code.db(&[0x81, 0xf0])?; // xor eax, immediate
    code.dd(&[FIRST_IMMEDIATE])?;
    code.call(here)?;
    code.set_label(&mut here)?;
    code.pop(ebp)?;
    code.add(eax, ebp)?;
    code.rol(eax, 1)?;
    code.add(dword_ptr(ebx), eax)
}

/// Runs the shared code by either alias in turns, patching it through the other.
fn start(code: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut again = code.create_label();
    turn_on(code)?;
    code.xor(eax, eax)?;
    code.mov(esi, (FIRST + ENTRY) as i32)?;
    code.mov(edi, (SECOND + ENTRY) as i32)?;
    code.mov(ecx, ROUNDS as i32)?;
    code.set_label(&mut again)?;
    code.lea(ebx, dword_ptr(edi + IMMEDIATE))?;
    code.mov(edx, ELSEWHERE as i32)?;
    code.test(ecx, CHANGES as i32 - 1)?;
    code.cmovnz(ebx, edx)?;
    code.call(esi)?;
    code.xchg(esi, edi)?;
    code.dec(ecx)?;
    code.jnz(again)?;
    code.mov(dword_ptr(RESULTS), eax)?;
    code.hlt()
}

/// Computes the program's result on the host.
fn expected() -> u32 {
    let (mut hash, mut immediate) = (0u32, FIRST_IMMEDIATE);
    for left in (1..=ROUNDS).rev() {
        let (alias, addend) = match left % 2 {
            0 => (FIRST, ADDEND_A),
            _ => (SECOND, ADDEND_B),
        };
        hash = (hash ^ immediate)
            .wrapping_add(alias + ENTRY + RETURN)
            .rotate_left(1);
        if left % CHANGES == 0 {
            immediate = immediate.wrapping_add(hash);
        }
        hash = hash.wrapping_add(addend);
    }
    hash
}

#[test]
fn two_aliases_of_one_frame() {
    let shared = assemble(FIRST + ENTRY, shared);
    assert_eq!(shared.len(), SHARED_BYTES as usize);
    let neighbour = |addend: u32| {
        assemble(FIRST, |code| {
            code.add(eax, addend as i32)?;
            code.ret()
        })
    };
    let mut program = Program {
        memory: 4 << 20,
        entry: START,
        stack: RESULTS,
        code_cache: CODE_CACHE,
        pieces: Vec::new(),
    };
    place_tables(&mut program);
    program.place(START, assemble(START, start));
    program.place(SHARED + ENTRY, shared);
    program.place(NEIGHBOUR_A, neighbour(ADDEND_A));
    program.place(NEIGHBOUR_B, neighbour(ADDEND_B));
    let ended = program.agree("two aliases of one frame");
    assert_eq!(ended.dwords(RESULTS, 1), [expected()]);
}
