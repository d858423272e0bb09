//! Links between pages of programs, and code pages shared by spaces with windows and without: what one space has found out about
//! a page must not be executed where it does not hold.

use super::machine::{CODE_CACHE, Ended, PAGE, Program, assemble};
use super::users::{self, NEXT_ROUND, Own, SPACES, THE_END};
use iced_x86::code_asm::*;
use sbe::{Engine, Windows};

const START: u32 = 0x1f_0000;
const END: u32 = 0x1f_1000;
const MAIN: u32 = 0x1e_0000;
const STACK: u32 = 0x18_0000;
/// Code that all spaces share, and the page behind it, of which each has its own.
const SHARED: u32 = 0x20_0000;
const NEXT: u32 = SHARED + PAGE;
const MORE_NEXT: u32 = 0x3a_0000;
const DATA: u32 = 0x30_0000;
const MORE_DATA: u32 = 0x32_0000;
/// Page tables of further linear addresses.
const LOW_TABLE: u32 = 0x11_8000;
const HIGH_TABLE: u32 = 0x11_9000;
const LOW: u32 = 0x4000_0000;
const HIGH: u32 = 0xd000_0000;
const DIRECTORIES: u32 = 0x10_0000;
const RESULTS: u32 = 0x19_0000;
/// Present, writable, the user's; and global.
const ALL: u32 = 7;
const GLOBAL: u32 = 1 << 8;
/// CR4.PGE.
const GLOBAL_PAGES: i32 = 1 << 7;

fn program() -> Program {
    let mut program = Program {
        memory: 4 << 20,
        entry: START,
        stack: STACK,
        code_cache: CODE_CACHE,
        pieces: Vec::new(),
    };
    let own = Own {
        data: (DATA, DATA + PAGE),
        code: (NEXT, NEXT + PAGE),
        more_data: MORE_DATA,
        more_code: MORE_NEXT,
    };
    users::place(&mut program, own, END);
    for space in 0..SPACES {
        for (linear, table) in [(LOW, LOW_TABLE), (HIGH, HIGH_TABLE)] {
            let entry = DIRECTORIES + space * PAGE + (linear >> 22) * 4;
            program.place(entry, (table | ALL).to_le_bytes());
        }
        let next = assemble(NEXT, |a| {
            a.add(eax, 1 << (8 * space))?;
            a.ret()
        });
        program.place(own.physical(space, NEXT), next);
    }
    let start = assemble(START, |a| {
        a.mov(eax, GLOBAL_PAGES)?;
        a.mov(cr4, eax)?;
        users::start(a, MAIN, STACK)
    });
    program.place(START, start);
    program.place(END, assemble(END, |a| a.hlt()));
    program
}

fn map(program: &mut Program, linear: u32, frame: u32) {
    let table = if linear < HIGH { LOW_TABLE } else { HIGH_TABLE };
    let slot = table + (linear >> 12) % 1024 * 4;
    program.place(slot, (frame | ALL | GLOBAL).to_le_bytes());
}

fn agree(program: &Program, windows: Windows) -> Ended {
    let emulator = program.run(Engine::Emulator);
    let translator = program.run_with(Engine::Translator, windows);
    emulator.assert_same(&translator, "links");
    translator
}

/// A page of code that two spaces have executed is written; the first of them that executes it anew links it.
#[test]
fn a_page_scanned_anew_is_still_at_home_in_other_spaces() {
    let mut program = program();
    // mov ecx, immediate; jmp NEXT
    let shared = assemble(SHARED, |a| {
        a.mov(ecx, 1)?;
        a.jmp(u64::from(NEXT))
    });
    program.place(SHARED, shared);
    let main = assemble(MAIN, |a| {
        let mut again = a.create_label();
        a.xor(eax, eax)?;
        a.mov(edi, SHARED as i32)?;
        a.mov(ebx, 40)?;
        a.set_label(&mut again)?;
        a.call(edi)?;
        a.call(edi)?;
        a.mov(dword_ptr(RESULTS), eax)?;
        a.test(ebx, 7)?;
        let mut same = a.create_label();
        a.jnz(same)?;
        a.mov(dword_ptr(SHARED + 1), ebx)?;
        a.call(edi)?;
        a.call(edi)?;
        a.set_label(&mut same)?;
        a.int(u32::from(NEXT_ROUND))?;
        a.dec(ebx)?;
        a.jnz(again)?;
        a.int(u32::from(THE_END))
    });
    program.place(MAIN, main);
    agree(&program, Windows::Always);
}

/// One frame of code at an own and at a shared linear page.
#[test]
fn a_frame_at_an_own_and_at_a_shared_page() {
    let mut program = program();
    // Position-independent: falls off the end of the page.
    let shared = assemble(PAGE - 6, |a| a.add(eax, 0x0100_0000));
    let length = shared.len() as u32;
    program.place(SHARED + PAGE - length, shared);
    for (linear, frame) in [
        (LOW, SHARED),
        (LOW + PAGE, NEXT),
        (HIGH, SHARED),
        (HIGH + PAGE, MORE_NEXT),
    ] {
        map(&mut program, linear, frame);
    }
    let main = assemble(MAIN, |a| {
        let mut again = a.create_label();
        a.xor(eax, eax)?;
        a.mov(esi, (HIGH + PAGE - length) as i32)?;
        a.mov(edi, (LOW + PAGE - length) as i32)?;
        a.mov(ebx, 5)?;
        a.set_label(&mut again)?;
        a.call(esi)?;
        a.call(edi)?;
        // Undoes the link to it.
        a.mov(dword_ptr(MORE_NEXT + 0x800), ebx)?;
        a.call(edi)?;
        a.call(esi)?;
        a.dec(ebx)?;
        a.jnz(again)?;
        a.int(u32::from(THE_END))
    });
    program.place(MAIN, main);
    agree(&program, Windows::Always);
}

/// Shared code is executed in a space that has a window, then in one that has none.
#[test]
fn shared_code_reaches_the_memory_of_the_present_space() {
    let mut program = program();
    let shared = assemble(HIGH, |a| {
        a.add(eax, dword_ptr(DATA))?;
        a.ret()
    });
    program.place(SHARED, shared);
    map(&mut program, HIGH, SHARED);
    let main = assemble(MAIN, |a| {
        let (mut again, mut long) = (a.create_label(), a.create_label());
        a.xor(eax, eax)?;
        a.mov(edi, HIGH as i32)?;
        a.mov(dword_ptr(DATA), 1)?;
        // Until the space has a window.
        a.mov(ecx, 3_000_000)?;
        a.set_label(&mut long)?;
        a.dec(ecx)?;
        a.jnz(long)?;
        a.call(edi)?;
        a.mov(ebx, 3)?;
        a.set_label(&mut again)?;
        a.call(edi)?;
        a.int(u32::from(NEXT_ROUND))?;
        a.add(dword_ptr(DATA), ebx)?;
        a.dec(ebx)?;
        a.jnz(again)?;
        a.call(edi)?;
        a.int(u32::from(THE_END))
    });
    program.place(MAIN, main);
    let ended = agree(&program, Windows::Auto);
    assert!(ended.translation().windows > 0);
}

/// A write across two pages, the first of them read-only, changes nothing about the second.
#[test]
fn a_write_that_faults_in_its_first_page_leaves_the_second_clean() {
    const FIRST: u32 = LOW + 0x10 * PAGE;
    let mut program = program();
    let slot = |linear: u32| LOW_TABLE + (linear >> 12) % 1024 * 4;
    program.place(slot(FIRST), (MORE_DATA | 5).to_le_bytes());
    program.place(slot(FIRST + PAGE), ((MORE_DATA + PAGE) | ALL).to_le_bytes());
    let main = assemble(MAIN, |a| {
        a.mov(ebx, FIRST as i32)?;
        a.mov(ecx, 100)?;
        a.add(eax, dword_ptr(ebx))?;
        a.add(eax, dword_ptr(ebx + 0x80))?;
        a.mov(dword_ptr(ebx + 0xffe), ecx)?;
        a.int(u32::from(THE_END))
    });
    program.place(MAIN, main);
    // The handler only tells of the fault.
    program.place(0x10_c000, assemble(0x10_c000, |a| a.hlt()));
    agree(&program, Windows::Always);
}

/// Operands whose displacements have bit 31 set, that wrap around, and that go on where windows end.
#[test]
fn operands_at_high_addresses() {
    const TOP: u32 = 0xbfc0_0000;
    const TOP_TABLE: u32 = 0x11_a000;
    const END_TABLE: u32 = 0x11_b000;
    let mut program = program();
    for space in 0..SPACES {
        for (index, table) in [(TOP >> 22, TOP_TABLE), ((TOP >> 22) + 1, END_TABLE)] {
            let entry = DIRECTORIES + space * PAGE + index * 4;
            program.place(entry, (table | ALL).to_le_bytes());
        }
    }
    program.place(TOP_TABLE, (MORE_DATA | ALL).to_le_bytes());
    program.place(
        TOP_TABLE + 4 * 1023,
        ((MORE_DATA + PAGE) | ALL).to_le_bytes(),
    );
    program.place(END_TABLE, ((MORE_DATA + 2 * PAGE) | ALL).to_le_bytes());
    let main = assemble(MAIN, |a| {
        let mut again = a.create_label();
        a.mov(ebx, 20)?;
        a.mov(ecx, 0x1234_5603)?;
        a.mov(edx, 0x0bad_f00d)?;
        a.set_label(&mut again)?;
        a.add(dword_ptr(TOP + 0x10), edx)?;
        a.mov(eax, dword_ptr(TOP + 0x10))?;
        a.mov(dword_ptr(TOP + 0x14), eax)?;
        a.add(byte_ptr(TOP + 0x11), ch)?;
        a.mov(ah, byte_ptr(TOP + 0x12))?;
        a.add(ch, byte_ptr(TOP + 0x13))?;
        a.rcl(dword_ptr(TOP + 0x18), cl)?;
        a.mov(esi, (TOP - 0x7fff_ff00) as i32)?;
        a.adc(edx, dword_ptr(esi + 0x7fff_ff10))?;
        a.mov(edi, 0x4000_0000)?;
        a.xadd(dword_ptr(edi * 4 + (TOP + 0x20)), edx)?;
        a.push(dword_ptr(TOP + 0x20))?;
        a.pop(dword_ptr(TOP + 0x24))?;
        a.sub(dword_ptr(TOP + 0x3f_fffd), edx)?;
        a.adc(ebp, dword_ptr(TOP + 0x3f_fffe))?;
        a.xchg(dword_ptr(TOP + 0x3f_ffff), edx)?;
        a.dec(ebx)?;
        a.jnz(again)?;
        a.int(u32::from(THE_END))
    });
    program.place(MAIN, main);
    agree(&program, Windows::Always);
}
