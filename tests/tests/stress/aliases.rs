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
    /// The choices of a width. In wide tables pages a multiple of 1 TiB apart share a slot.
    fn choices(width: Width) -> &'static [Self] {
        const TERABYTE: u64 = 1 << 40;
        /// The last two pages of the lower half, and of the upper one.
        const LOW_END: u64 = (1 << 47) - 2 * PAGE as u64;
        const HIGH_END: u64 = LOW_END.wrapping_sub(1 << 47);
        const HIGH_START: u64 = 0u64.wrapping_sub(1 << 47);
        match width {
            Width::Narrow => const { &[Self::of(0x4000_0000, 0x4010_0000)] },
            Width::Wide => {
                const {
                    &[
                        Self::of(0x4000_0000, 0x4000_0000 + TERABYTE),
                        Self::of(LOW_END, LOW_END - 3 * TERABYTE),
                        Self::of(HIGH_START, HIGH_START + TERABYTE),
                        Self::of(HIGH_END, LOW_END),
                    ]
                }
            }
        }
    }

    const fn of(first: u64, second: u64) -> Self {
        Self { first, second }
    }
}

/// Offset of the shared code's entry: it runs off the page's end.
fn entry_of(shared: &[u8]) -> u64 {
    u64::from(PAGE) - shared.len() as u64
}

/// Emits the shared code. EAX: the hash; EBX: the word to add it to.
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
fn start(code: &mut CodeAssembler, first: u64, second: u64) -> Result<(), IcedError> {
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

fn compare(width: Width, Aliases { first, second }: Aliases) {
    let shared = assemble(width, 0u64, shared);
    let neighbour = |addend: u32| {
        assemble(width, 0u64, |code| {
            code.add(eax, addend as i32)?;
            code.ret()
        })
    };
    let mut program = Program::new(width, 4 << 20, START, RESULTS);
    let mut tables = place_identity(&mut program);
    for (alias, neighbour) in [(first, NEIGHBOUR_A), (second, NEIGHBOUR_B)] {
        tables.map(&mut program.contents, alias, entry(SHARED));
        tables.map(
            &mut program.contents,
            alias + u64::from(PAGE),
            entry(neighbour),
        );
    }
    let [enter_first, enter_second] = [first, second].map(|alias| alias + entry_of(&shared));
    program.assemble(START, |code| start(code, enter_first, enter_second));
    program.place(SHARED + entry_of(&shared) as u32, shared);
    program.place(NEIGHBOUR_A, neighbour(ADDEND_A));
    program.place(NEIGHBOUR_B, neighbour(ADDEND_B));
    let ended = program.agree(&format!("one frame at {first:x} and {second:x}"));
    assert_eq!(
        ended.dwords(RESULTS, 1),
        [expected(enter_first, enter_second)]
    );
}

fn two_aliases_of_one_frame(width: Width) {
    for &aliases in Aliases::choices(width) {
        compare(width, aliases);
    }
}

at_both_widths!(two_aliases_of_one_frame);
