//! One frame of the kernel's code at two linear addresses, with paging on. What follows it is another page at each.
//!
//! ```text
//!   linear             frame
//!   FIRST ────────┐
//!   FIRST + 1000 ─│──► neighbour A: its own code
//!   SECOND ───────┴──► shared code: falls off its end, or branches to it
//!   SECOND + 1000 ───► neighbour B: its own code
//!   identity         ► the first 4 MiB, by one page table
//! ```

use super::contents::PAGE;
use super::machine::{Program, assemble};
use super::paging::{TABLES, entry, place_identity, turn_on};
use super::width::{ByWidth, Width, at_both_widths, whole};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Top of the stack, and where the program leaves results.
const RESULTS: u32 = 0x18_0000;
/// Physical address of the program's start, which calls the shared code.
const START: u32 = 0x20_0000;
/// Frames of the shared code and its neighbours.
const SHARED: u32 = 0x21_0000;
const NEIGHBOUR_A: u32 = 0x22_0000;
const NEIGHBOUR_B: u32 = 0x23_0000;
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

/// A choice of the linear pages at which the shared code appears.
#[derive(Clone, Copy, Debug)]
struct Aliases {
    first: u64,
    second: u64,
}

impl Aliases {
    /// The choices of a width, of which some lie where kernels live. In wide tables pages a multiple of 1 TiB apart share a slot.
    fn choices(width: Width) -> &'static [Self] {
        const TERABYTE: u64 = 1 << 40;
        /// The last two pages of the lower half, and of the upper one.
        const LOW_END: u64 = (1 << 47) - 2 * PAGE as u64;
        const HIGH_END: u64 = LOW_END.wrapping_sub(1 << 47);
        const HIGH_START: u64 = 0u64.wrapping_sub(1 << 47);
        match width {
            Width::Narrow => {
                const {
                    &[
                        Self::of(0x4000_0000, 0x4010_0000),
                        Self::of(0xc000_0000, 0xffc0_0000),
                        Self::of(0xd000_0000, 0x4000_0000),
                    ]
                }
            }
            Width::Wide => {
                const {
                    &[
                        Self::of(0x4000_0000, 0x4000_0000 + TERABYTE),
                        Self::of(LOW_END, LOW_END - 3 * TERABYTE),
                        Self::of(HIGH_START, HIGH_START + TERABYTE),
                        Self::of(HIGH_START, HIGH_START + (1 << 30)),
                        Self::of(HIGH_END, LOW_END),
                    ]
                }
            }
        }
    }

    const fn of(first: u64, second: u64) -> Self {
        Self { first, second }
    }

    /// Where shared code is entered, which runs off the page's end.
    fn entries(self, shared: &[u8]) -> [u64; 2] {
        [self.first, self.second].map(|alias| alias + entry_of(shared))
    }
}

/// Offset of shared code's entry in the page.
fn entry_of(shared: &[u8]) -> u64 {
    u64::from(PAGE) - shared.len() as u64
}

/// Emits shared code that asks where it runs and is changed. EAX: the hash; EBX: the word to add it to.
fn shared(code: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut here = code.create_label();
    code.db(&[0x81, 0xf0])?; // xor eax, immediate
    code.dd(&[FIRST_IMMEDIATE])?;
    code.call(here)?;
    code.set_label(&mut here)?;
    whole!(code.pop(ebp))?;
    code.add(eax, ebp)?;
    code.rol(eax, 1)?;
    code.add(dword_ptr(code.at(ebx)), eax)
}

/// Offset in the shared code of the instruction behind the call that asks where it runs: XOR and CALL have 6 and 5 bytes.
const RETURN: u64 = 11;

/// Runs the shared code by either alias in turns, which are entered at `first` and `second`, patching it through the other.
fn start(code: &mut CodeAssembler, [first, second]: [u64; 2]) -> Result<(), IcedError> {
    let mut again = code.create_label();
    turn_on(code, TABLES)?;
    code.xor(eax, eax)?;
    code.set(esi, first)?;
    code.set(edi, second)?;
    code.mov(ecx, ROUNDS as i32)?;
    code.set_label(&mut again)?;
    whole!(code.lea(ebx, ptr(code.at(edi) + IMMEDIATE)))?;
    code.mov(edx, ELSEWHERE as i32)?;
    code.test(ecx, CHANGES as i32 - 1)?;
    whole!(code.cmovnz(ebx, edx))?;
    whole!(code.call(esi))?;
    whole!(code.xchg(esi, edi))?;
    code.dec(ecx)?;
    code.jnz(again)?;
    code.mov(dword_ptr(RESULTS), eax)?;
    code.hlt()
}

/// Computes the program's result on the host.
fn expected(first: u64, second: u64) -> u32 {
    let (mut hash, mut immediate) = (0u32, FIRST_IMMEDIATE);
    for left in (1..=ROUNDS).rev() {
        let (alias, addend) = match left % 2 {
            0 => (first, ADDEND_A),
            _ => (second, ADDEND_B),
        };
        hash = (hash ^ immediate)
            .wrapping_add((alias + RETURN) as u32)
            .rotate_left(1);
        if left % CHANGES == 0 {
            immediate = immediate.wrapping_add(hash);
        }
        hash = hash.wrapping_add(addend);
    }
    hash
}

/// A program that enters code at either alias: that of the shared code, in which `shared` lies at the end, and of both neighbours.
fn program(
    width: Width,
    aliases: Aliases,
    shared: Vec<u8>,
    start: impl Fn(&mut CodeAssembler, [u64; 2]) -> Result<(), IcedError>,
    neighbour: impl Fn(&mut CodeAssembler, u32) -> Result<(), IcedError>,
) -> Program {
    let mut program = Program::new(width, 4 << 20, START, RESULTS);
    let mut tables = place_identity(&mut program);
    for (alias, frame, addend) in [
        (aliases.first, NEIGHBOUR_A, ADDEND_A),
        (aliases.second, NEIGHBOUR_B, ADDEND_B),
    ] {
        let next = alias + u64::from(PAGE);
        tables.map(&mut program.contents, alias, entry(SHARED));
        tables.map(&mut program.contents, next, entry(frame));
        program.place(frame, assemble(width, 0u64, |code| neighbour(code, addend)));
    }
    let entries = aliases.entries(&shared);
    program.assemble(START, |code| start(code, entries));
    program.place(SHARED + entry_of(&shared) as u32, shared);
    program
}

fn two_aliases_of_one_frame(width: Width) {
    for &aliases in Aliases::choices(width) {
        let shared = assemble(width, 0u64, shared);
        let [first, second] = aliases.entries(&shared);
        let program = program(width, aliases, shared, start, |code, addend| {
            code.add(eax, addend as i32)?;
            code.ret()
        });
        let ended = program.agree(&format!("one frame at {aliases:x?}"));
        assert_eq!(ended.dwords(RESULTS, 1), [expected(first, second)]);
    }
}

/// Calls both aliases in turns, twice. A neighbour adds what it has to the hash and returns, whatever was pushed meanwhile.
fn start_in_turns(code: &mut CodeAssembler, entries: [u64; 2]) -> Result<(), IcedError> {
    turn_on(code, TABLES)?;
    code.xor(ebx, ebx)?;
    for entry in entries.repeat(2) {
        code.set(eax, entry)?;
        whole!(code.call(eax))?;
    }
    code.mov(dword_ptr(RESULTS), ebx)?;
    code.hlt()
}

/// Falling through, a jump and a call lead to the page behind the alias that executes.
fn aliases_have_their_own_next_pages(width: Width) {
    let ways: [&[u8]; 3] = [
        &[0x90],                         // nop
        &[0xeb, 0x00],                   // jmp to the next page
        &[0xe8, 0x00, 0x00, 0x00, 0x00], // call of it
    ];
    let hash = |hash: u32, addend: u32| hash.rotate_left(1).wrapping_add(addend);
    let expected = [ADDEND_A, ADDEND_B, ADDEND_A, ADDEND_B]
        .into_iter()
        .fold(0, hash);
    for &aliases in Aliases::choices(width) {
        for way in ways {
            let program = program(
                width,
                aliases,
                way.to_vec(),
                start_in_turns,
                |code, addend| {
                    code.rol(ebx, 1)?;
                    code.add(ebx, addend as i32)?;
                    code.mov(esp, RESULTS - width.bytes())?;
                    code.ret()
                },
            );
            let what = format!("{way:x?} at the end of {aliases:x?}");
            let ended = program.agree(&what);
            assert_eq!(ended.dwords(RESULTS, 1), [expected], "{what}");
        }
    }
}

at_both_widths!(two_aliases_of_one_frame, aliases_have_their_own_next_pages);
