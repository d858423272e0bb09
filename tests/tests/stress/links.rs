//! Links between pages of programs, and code pages shared by spaces with windows and without: what one space has found out about
//! a page must not be executed where it does not hold.

use super::contents::PAGE;
use super::machine::{Ended, Program, assemble};
use super::paging::{TABLES, entry, place_identity, turn_on};
use super::tables::{ALL, FOR_USER, GLOBAL, PRESENT, Tables};
use super::users::{self, FAULT, NEXT_ROUND, Own, SPACES, THE_END};
use super::width::{ByWidth, Width, at_both_widths, whole};
use iced_x86::IcedError;
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
const RESULTS: u32 = 0x19_0000;
/// CR4.PGE.
const GLOBAL_PAGES: i32 = 1 << 7;

/// Linear addresses that only [`Linked::map`] maps: of a space's own, and shared by all.
#[derive(Clone, Copy)]
struct Places {
    low: u64,
    high: u64,
}

impl Places {
    fn of(width: Width) -> Self {
        match width {
            Width::Narrow => Self {
                low: 0x4000_0000,
                high: 0xd000_0000,
            },
            Width::Wide => Self {
                low: 0x7f00_4000_0000,
                high: 0xffff_8100_1000_0000,
            },
        }
    }
}

/// A program in several spaces.
struct Linked {
    program: Program,
    spaces: Vec<Tables>,
    places: Places,
}

impl Linked {
    fn new(width: Width) -> Self {
        let mut program = Program::new(width, 4 << 20, START, STACK);
        let own = Own {
            base: 0,
            data: (DATA, DATA + PAGE),
            code: (NEXT, NEXT + PAGE),
            more_data: MORE_DATA,
            more_code: MORE_NEXT,
        };
        let spaces = users::place(&mut program, own, END);
        for space in 0..SPACES {
            let next = assemble(width, NEXT, |a| {
                a.add(eax, 1 << (8 * space))?;
                a.ret()
            });
            program.place(own.physical(space, NEXT), next);
        }
        program.assemble(START, |a| {
            a.set_cr4(GLOBAL_PAGES)?;
            users::start(a, MAIN.into(), STACK.into())
        });
        program.assemble(END, |a| a.hlt());
        Self {
            program,
            spaces,
            places: Places::of(width),
        }
    }

    /// Maps the page of `linear` in all spaces, by the same page table.
    fn map(&mut self, linear: u64, entry: u32) {
        let (first, others) = self.spaces.split_first_mut().expect("spaces");
        first.map(&mut self.program.contents, linear, entry);
        for other in others {
            other.share(&mut self.program.contents, first, linear);
        }
    }

    /// Runs the program, which begins with `main` at CPL 3, on both engines.
    fn agree(
        mut self,
        windows: Windows,
        main: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> Ended {
        self.program.assemble(MAIN, main);
        let emulator = self.program.run(Engine::Emulator);
        let translator = self.program.run_with(Engine::Translator, windows);
        emulator.assert_same(&translator, "links");
        translator
    }
}
/// A page of code that two spaces have executed is written; the first of them that executes it anew links it.
fn a_page_scanned_anew_is_still_at_home_in_other_spaces(width: Width) {
    let mut linked = Linked::new(width);
    // mov ecx, immediate; jmp NEXT
    linked.program.assemble(SHARED, |a| {
        a.mov(ecx, 1)?;
        a.jmp(u64::from(NEXT))
    });
    let main = |a: &mut CodeAssembler| {
        let mut again = a.create_label();
        a.xor(eax, eax)?;
        a.mov(edi, SHARED as i32)?;
        a.mov(ebx, 40)?;
        a.set_label(&mut again)?;
        whole!(a.call(edi))?;
        whole!(a.call(edi))?;
        a.mov(dword_ptr(RESULTS), eax)?;
        a.test(ebx, 7)?;
        let mut same = a.create_label();
        a.jnz(same)?;
        a.mov(dword_ptr(SHARED + 1), ebx)?;
        whole!(a.call(edi))?;
        whole!(a.call(edi))?;
        a.set_label(&mut same)?;
        a.int(u32::from(NEXT_ROUND))?;
        a.dec(ebx)?;
        a.jnz(again)?;
        a.int(u32::from(THE_END))
    };
    linked.agree(Windows::Always, main);
}

/// One frame of code at an own and at a shared linear page.
fn a_frame_at_an_own_and_at_a_shared_page(width: Width) {
    let mut linked = Linked::new(width);
    // Position-independent: falls off the end of the page.
    let shared = assemble(width, 0u64, |a| a.add(eax, 0x0100_0000));
    let entry = PAGE - shared.len() as u32;
    linked.program.place(SHARED + entry, shared);
    let Places { low, high } = linked.places;
    for (linear, next) in [(low, NEXT), (high, MORE_NEXT)] {
        linked.map(linear, SHARED | ALL | GLOBAL);
        linked.map(linear + u64::from(PAGE), next | ALL | GLOBAL);
    }
    let main = |a: &mut CodeAssembler| {
        let mut again = a.create_label();
        a.xor(eax, eax)?;
        a.set(esi, high + u64::from(entry))?;
        a.set(edi, low + u64::from(entry))?;
        a.mov(ebx, 5)?;
        a.set_label(&mut again)?;
        whole!(a.call(esi))?;
        whole!(a.call(edi))?;
        // Undoes the link to it.
        a.mov(dword_ptr(MORE_NEXT + 0x800), ebx)?;
        whole!(a.call(edi))?;
        whole!(a.call(esi))?;
        a.dec(ebx)?;
        a.jnz(again)?;
        a.int(u32::from(THE_END))
    };
    linked.agree(Windows::Always, main);
}

/// A page that all spaces share is mapped anew by INVLPG, between branches to it from the page before.
fn a_shared_page_is_mapped_anew(width: Width) {
    const ROUNDS: u32 = 1_000;
    let mut program = Program::new(width, 4 << 20, START, STACK);
    let mut tables = place_identity(&mut program);
    let high = Places::of(width).high;
    let next = high + u64::from(PAGE);
    tables.map(&mut program.contents, high, entry(SHARED));
    let slot = tables.slot(&mut program.contents, next);
    program.place(SHARED, assemble(width, high, |a| a.jmp(next)));
    let frames = [(NEXT, 1), (MORE_NEXT, 1 << 16)];
    for (frame, addend) in frames {
        program.assemble(frame, |a| {
            a.add(eax, addend)?;
            a.ret()
        });
    }
    program.assemble(START, |a| {
        let mut again = a.create_label();
        turn_on(a, TABLES)?;
        a.xor(eax, eax)?;
        a.mov(ebx, ROUNDS)?;
        a.set(edi, high)?;
        a.set(esi, next)?;
        a.set_label(&mut again)?;
        for (frame, _) in frames {
            a.mov(dword_ptr(slot), entry(frame))?;
            a.invlpg(byte_ptr(a.at(esi)))?;
            whole!(a.call(edi))?;
            whole!(a.call(edi))?;
        }
        a.dec(ebx)?;
        a.jnz(again)?;
        a.mov(dword_ptr(RESULTS), eax)?;
        a.hlt()
    });
    let ended = program.agree("a shared page mapped anew");
    assert_eq!(ended.dwords(RESULTS, 1), [2 * ROUNDS * (1 + (1 << 16))]);
}

/// Shared code is executed in a space that has a window, then in one that has none.
fn shared_code_reaches_the_memory_of_the_present_space(width: Width) {
    let mut linked = Linked::new(width);
    linked.program.assemble(SHARED, |a| {
        a.add(eax, dword_ptr(DATA))?;
        a.ret()
    });
    let high = linked.places.high;
    linked.map(high, SHARED | ALL | GLOBAL);
    let main = |a: &mut CodeAssembler| {
        let (mut again, mut long) = (a.create_label(), a.create_label());
        a.xor(eax, eax)?;
        a.set(edi, high)?;
        a.mov(dword_ptr(DATA), 1)?;
        // Until the space has a window.
        a.mov(ecx, 3_000_000)?;
        a.set_label(&mut long)?;
        a.dec(ecx)?;
        a.jnz(long)?;
        whole!(a.call(edi))?;
        a.mov(ebx, 3)?;
        a.set_label(&mut again)?;
        whole!(a.call(edi))?;
        a.int(u32::from(NEXT_ROUND))?;
        a.add(dword_ptr(DATA), ebx)?;
        a.dec(ebx)?;
        a.jnz(again)?;
        whole!(a.call(edi))?;
        a.int(u32::from(THE_END))
    };
    let ended = linked.agree(Windows::Auto, main);
    assert!(ended.translation().windows > 0);
}

/// A write across two pages, the first of them read-only, changes nothing about the second.
fn a_write_that_faults_in_its_first_page_leaves_the_second_clean(width: Width) {
    let mut linked = Linked::new(width);
    let first = linked.places.low + 0x10 * u64::from(PAGE);
    linked.map(first, MORE_DATA | PRESENT | FOR_USER);
    linked.map(first + u64::from(PAGE), (MORE_DATA + PAGE) | ALL);
    let main = |a: &mut CodeAssembler| {
        a.set(ebx, first)?;
        a.mov(ecx, 100)?;
        a.add(eax, dword_ptr(a.at(ebx)))?;
        a.add(eax, dword_ptr(a.at(ebx) + 0x80))?;
        a.mov(dword_ptr(a.at(ebx) + 0xffe), ecx)?;
        a.int(u32::from(THE_END))
    };
    // The handler only tells of the fault.
    linked.program.assemble(FAULT, |a| a.hlt());
    linked.agree(Windows::Always, main);
}

/// Operands whose displacements have bit 31 set, that wrap around, and that go on where windows end.
fn operands_at_high_addresses(width: Width) {
    let top: u64 = match width {
        Width::Narrow => 0xbfc0_0000,
        Width::Wide => 0xffff_ffff_bfc0_0000,
    };
    let mut linked = Linked::new(width);
    for (page, frame) in [(0, 0), (1023, 1), (1024, 2)] {
        let linear = top + page * u64::from(PAGE);
        linked.map(linear, (MORE_DATA + frame * PAGE) | ALL);
    }
    let main = |a: &mut CodeAssembler| {
        let mut again = a.create_label();
        a.mov(ebx, 20)?;
        a.mov(ecx, 0x1234_5603)?;
        a.mov(edx, 0x0bad_f00d)?;
        a.set_label(&mut again)?;
        a.add(dword_ptr(top + 0x10), edx)?;
        a.mov(eax, dword_ptr(top + 0x10))?;
        a.mov(dword_ptr(top + 0x14), eax)?;
        a.add(byte_ptr(top + 0x11), ch)?;
        a.mov(ah, byte_ptr(top + 0x12))?;
        a.add(ch, byte_ptr(top + 0x13))?;
        a.rcl(dword_ptr(top + 0x18), cl)?;
        a.set(esi, top - 0x7fff_ff00)?;
        a.adc(edx, dword_ptr(a.at(esi) + 0x7fff_ff10))?;
        // Four times that is 0.
        a.set(edi, 1 << (width.bits() - 2))?;
        a.xadd(dword_ptr(a.scaled(edi, 4) + (top + 0x20)), edx)?;
        a.push(a.sized(ptr(top + 0x20)))?;
        a.pop(a.sized(ptr(top + 0x24)))?;
        a.sub(dword_ptr(top + 0x3f_fffd), edx)?;
        a.adc(ebp, dword_ptr(top + 0x3f_fffe))?;
        a.xchg(dword_ptr(top + 0x3f_ffff), edx)?;
        a.dec(ebx)?;
        a.jnz(again)?;
        a.int(u32::from(THE_END))
    };
    linked.agree(Windows::Always, main);
}

/// Accesses that reach from one 4 GiB of linear addresses into the next, by displacement, index, stack and size: those of 64-bit
/// code from one unit of the window into another.
fn accesses_reach_across_ends_of_units(width: Width) {
    const ROUNDS: i32 = 50;
    let mut linked = Linked::new(width);
    let end = match width {
        Width::Narrow => 0x8000_0000,
        Width::Wide => 0x7f01_0000_0000,
    };
    let page = u64::from(PAGE);
    linked.map(end - page, MORE_DATA | ALL);
    linked.map(end, (MORE_DATA + PAGE) | ALL);
    let main = |a: &mut CodeAssembler| {
        let mut again = a.create_label();
        a.xor(eax, eax)?;
        a.mov(ecx, ROUNDS)?;
        whole!(a.mov(ebp, esp))?;
        a.set_label(&mut again)?;
        // By a displacement, alone and among others by the same register.
        a.set(ebx, end - 0x10)?;
        a.add(dword_ptr(a.at(ebx) + 0x20), ecx)?;
        a.set(ebx, end + 0x10)?;
        a.add(eax, dword_ptr(a.at(ebx)))?;
        a.add(dword_ptr(a.at(ebx) - 0x40), eax)?;
        a.add(eax, dword_ptr(a.at(ebx) + 4))?;
        // By a register that moves.
        whole!(a.sub(ebx, 0x20))?;
        a.add(dword_ptr(a.at(ebx) + 8), 3)?;
        a.add(eax, dword_ptr(a.at(ebx) + 0x18))?;
        // Half of it here, half there.
        a.set(esi, end - 2)?;
        a.add(dword_ptr(a.at(esi)), ecx)?;
        // By an index that is a doubleword, with either sign.
        a.mov(edi, ecx)?;
        a.and(edi, 0x1c)?;
        a.set(esi, end - 8)?;
        a.add(dword_ptr(a.at(esi) + a.scaled(edi, 4)), 7)?;
        a.set(esi, end + 8)?;
        whole!(a.neg(edi))?;
        a.add(eax, dword_ptr(a.at(esi) + a.scaled(edi, 1) - 4))?;
        // By the stack.
        a.set(esp, end + 8)?;
        whole!(a.push(eax))?;
        whole!(a.push(ecx))?;
        whole!(a.push(ebp))?;
        whole!(a.pop(ebp))?;
        whole!(a.pop(edi))?;
        whole!(a.mov(esp, ebp))?;
        a.add(eax, edi)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.mov(dword_ptr(RESULTS), eax)?;
        a.int(u32::from(THE_END))
    };
    let ended = linked.agree(Windows::Always, main);
    assert!(ended.translation().windows > 0);
    assert_ne!(ended.dwords(RESULTS, 1), [0]);
}

/// A register that lies in memory is stored right after it was written, to pages that are not shown for writing yet: the instruction
/// begins anew.
fn what_is_copied_to_a_scratch_register_survives_a_fault(width: Width) {
    const PAGES: u64 = 30;
    let mut linked = Linked::new(width);
    let (low, page) = (linked.places.low, u64::from(PAGE));
    for number in 0..2 * (PAGES + 1) {
        let frame = MORE_DATA + number as u32 * PAGE;
        linked.map(low + number * page, frame | ALL);
    }
    let stack = (PAGES as u32 + 1) * PAGE + 0x100;
    let main = |a: &mut CodeAssembler| {
        let mut again = a.create_label();
        a.mov(rax, 0x1234_5678_9abc_u64)?;
        a.mov(rbx, low)?;
        a.mov(ecx, PAGES as i32)?;
        a.mov(rbp, rsp)?;
        a.set_label(&mut again)?;
        a.mov(qword_ptr(rbx), rax)?;
        a.lea(r8, qword_ptr(rax + 1))?;
        a.mov(qword_ptr(rbx + PAGE), r8)?;
        a.add(rax, qword_ptr(rbx + PAGE))?;
        a.lea(r9, qword_ptr(rbx + 0x80))?;
        a.mov(qword_ptr(r9), rax)?;
        a.add(rbx, PAGE as i32)?;
        a.lea(rsp, qword_ptr(rbx + stack))?;
        a.lea(r10, qword_ptr(rax + 7))?;
        a.push(r10)?;
        a.push(r10)?;
        a.mov(rsp, rbp)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.mov(dword_ptr(RESULTS), eax)?;
        a.int(u32::from(THE_END))
    };
    let ended = linked.agree(Windows::Always, main);
    assert!(ended.translation().windows > 0 && ended.translation().exits.window > PAGES);
}

at_both_widths!(wide_only, Wide: what_is_copied_to_a_scratch_register_survives_a_fault);

at_both_widths!(
    a_page_scanned_anew_is_still_at_home_in_other_spaces,
    a_frame_at_an_own_and_at_a_shared_page,
    a_shared_page_is_mapped_anew,
    shared_code_reaches_the_memory_of_the_present_space,
    a_write_that_faults_in_its_first_page_leaves_the_second_clean,
    operands_at_high_addresses,
    accesses_reach_across_ends_of_units,
);
