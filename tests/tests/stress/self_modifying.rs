//! Pages of code that read or write code: their own page, the next one, or data beside it.

use super::contents::PAGE;
use super::machine::{Program, assemble};
use super::width::{ByWidth, Width, at_both_widths, whole};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Physical address of the first page of code.
const CODE: u32 = 0x20_0000;
/// Top of the stack.
const STACK: u32 = 0x18_0000;
/// Address of the programs' results.
const RESULTS: u32 = 0x18_0000;

/// Four megabytes of RAM with `code` at [`CODE`].
fn program(width: Width, code: Vec<u8>) -> Program {
    let mut program = Program::new(width, 4 << 20, CODE, STACK);
    program.place(CODE, code);
    program
}

/// The programs' checksum of a page: the sum of its doublewords, rotated before each.
fn checksum(page: &[u8]) -> u32 {
    page.chunks_exact(4).fold(0, |sum: u32, dword| {
        let dword = u32::from_le_bytes([dword[0], dword[1], dword[2], dword[3]]);
        sum.rotate_left(1).wrapping_add(dword)
    })
}

/// `xor ebx, 0` with a 32-bit immediate, which programs patch.
const PATCHED: [u8; 6] = [0x81, 0xf3, 0, 0, 0, 0];

/// Assembles code for [`CODE`] that has one [`PATCHED`] in it and is told the address of its immediate. Returns the code
/// and the immediate's offset.
fn assemble_patched(
    width: Width,
    emit: impl Fn(&mut CodeAssembler, u32) -> Result<(), IcedError>,
) -> (Vec<u8>, usize) {
    let offset = |code: &[u8]| {
        let instruction = code
            .windows(PATCHED.len())
            .position(|bytes| bytes == PATCHED);
        instruction.expect("the patched instruction") + 2
    };
    // The address has the same length whatever it is.
    let first = assemble(width, CODE, |code| emit(code, CODE));
    let at = offset(&first);
    let second = assemble(width, CODE, |code| emit(code, CODE + at as u32));
    assert_eq!(offset(&second), at);
    (second, at)
}

/// A page sums itself, writes the sum into an instruction of its own, executes that, and so on.
fn a_page_checksums_itself_while_it_runs(width: Width) {
    const ROUNDS: u32 = 500;
    let (mut code, at) = assemble_patched(width, |code, immediate| {
        let [mut round, mut next] = [(); 2].map(|()| code.create_label());
        code.mov(edi, RESULTS as i32)?;
        code.mov(ebp, ROUNDS as i32)?;
        code.xor(ebx, ebx)?;
        code.set_label(&mut round)?;
        code.mov(esi, CODE as i32)?;
        code.mov(ecx, (PAGE / 4) as i32)?;
        code.xor(eax, eax)?;
        code.set_label(&mut next)?;
        code.rol(eax, 1)?;
        code.add(eax, dword_ptr(code.at(esi)))?;
        code.add(esi, 4)?;
        code.dec(ecx)?;
        code.jnz(next)?;
        code.mov(dword_ptr(code.at(edi)), eax)?;
        code.add(edi, 4)?;
        code.mov(edx, immediate as i32)?;
        code.mov(dword_ptr(code.at(edx)), eax)?;
        code.db(&PATCHED)?;
        code.dec(ebp)?;
        code.jnz(round)?;
        code.mov(dword_ptr(code.at(edi)), ebx)?;
        code.hlt()
    });
    code.resize(PAGE as usize, 0x90);
    let ended = program(width, code.clone()).agree("a page that checksums itself");

    let (mut expected, mut folded) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        let sum = checksum(&code);
        code[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        folded ^= sum;
        expected.push(sum);
    }
    expected.push(folded);
    assert_eq!(ended.dwords(RESULTS, expected.len()), expected);
}

/// A page copies itself over the next one with another constant and goes on there, around a ring of pages.
fn each_page_rewrites_the_next(width: Width) {
    const RING: u32 = 64;
    const STEPS: u32 = 4_000;
    const FACTOR: i32 = 0x0101_0103;
    // EBP: page; EDI: steps left. All else is position-independent.
    let page = assemble(width, 0u64, |code| {
        let [mut copy, mut inside, mut done, mut constant] = [(); 4].map(|()| code.create_label());
        code.db(&[0xb8])?; // mov eax, constant
        code.set_label(&mut constant)?;
        code.dd(&[1])?;
        code.add(ebx, eax)?;
        code.rol(ebx, 3)?;
        code.dec(edi)?;
        code.jz(done)?;
        // EDX: the next page.
        whole!(code.lea(edx, ptr(code.at(ebp) + PAGE)))?;
        code.cmp(edx, (CODE + (RING + 1) * PAGE) as i32)?;
        code.jb(inside)?;
        code.mov(edx, (CODE + PAGE) as i32)?;
        code.set_label(&mut inside)?;
        code.mov(ecx, COPIED as i32 / 4)?;
        code.set_label(&mut copy)?;
        code.mov(esi, dword_ptr(code.at(ebp) + code.scaled(ecx, 4) - 4))?;
        code.mov(dword_ptr(code.at(edx) + code.scaled(ecx, 4) - 4), esi)?;
        code.dec(ecx)?;
        code.jnz(copy)?;
        code.imul_3(eax, eax, FACTOR)?;
        code.mov(dword_ptr(code.at(edx) + 1), eax)?;
        code.mov(ebp, edx)?;
        whole!(code.jmp(edx))?;
        code.set_label(&mut done)?;
        code.mov(dword_ptr(RESULTS), ebx)?;
        code.hlt()
    });
    const COPIED: usize = 128;
    assert!(page.len() <= COPIED, "{} bytes of code", page.len());
    let start = assemble(width, CODE, |code| {
        code.mov(ebp, (CODE + PAGE) as i32)?;
        code.mov(edi, STEPS as i32)?;
        code.xor(ebx, ebx)?;
        code.jmp(u64::from(CODE + PAGE))
    });
    let mut program = program(width, start);
    program.place(CODE + PAGE, page);
    let ended = program.agree("pages that rewrite the next");

    let (mut constant, mut hash) = (1u32, 0u32);
    for _ in 0..STEPS {
        hash = hash.wrapping_add(constant).rotate_left(3);
        constant = constant.wrapping_mul(FACTOR as u32);
    }
    assert_eq!(ended.dwords(RESULTS, 1), [hash]);
}

/// A loop counts in a doubleword of its own page, and stores to another one there.
fn a_hot_loop_writes_data_beside_its_code(width: Width) {
    const ROUNDS: u32 = 50_000;
    const COUNTER: u32 = CODE + 0x800;
    let code = assemble(width, CODE, |code| {
        let mut again = code.create_label();
        code.mov(ecx, ROUNDS as i32)?;
        code.set_label(&mut again)?;
        code.inc(dword_ptr(COUNTER))?;
        code.mov(eax, dword_ptr(COUNTER))?;
        code.mov(dword_ptr(COUNTER + 4), ecx)?;
        code.add(ebx, eax)?;
        code.dec(ecx)?;
        code.jnz(again)?;
        code.mov(dword_ptr(RESULTS), ebx)?;
        code.hlt()
    });
    let ended = program(width, code).agree("data beside hot code");
    let sum = (1..=ROUNDS).fold(0, u32::wrapping_add);
    assert_eq!(ended.dwords(RESULTS, 1), [sum]);
    assert_eq!(ended.dwords(COUNTER, 2), [ROUNDS, 1]);
}

/// An instruction lies across two pages; the loop changes its part in the second page.
fn an_instruction_across_pages_changes_behind_the_boundary(width: Width) {
    const ROUNDS: u32 = 5_000;
    /// The instruction's opcode and two bytes of its immediate are in the first page.
    const STRADDLING: u32 = CODE + PAGE - 3;
    let loop_head = assemble(width, CODE, |code| {
        code.mov(ecx, ROUNDS as i32)?;
        code.xor(ebx, ebx)?;
        code.jmp(u64::from(STRADDLING))
    });
    let straddling = assemble(width, STRADDLING, |code| {
        code.mov(eax, 0x0102_0304)?;
        code.add(ebx, eax)?;
        code.add(byte_ptr(CODE + PAGE), cl)?;
        code.dec(ecx)?;
        code.jnz(u64::from(STRADDLING))?;
        code.mov(dword_ptr(RESULTS), ebx)?;
        code.hlt()
    });
    let mut program = program(width, loop_head);
    program.place(STRADDLING, straddling);
    let ended = program.agree("an instruction that changes behind a page boundary");
    let (mut byte, mut sum) = (2u8, 0u32);
    for left in (1..=ROUNDS).rev() {
        sum = sum.wrapping_add(0x0100_0304 | u32::from(byte) << 16);
        byte = byte.wrapping_add(left as u8);
    }
    assert_eq!(ended.dwords(RESULTS, 1), [sum]);
}

/// A block rewrites the instruction right behind the store, which is translated together with it.
fn a_store_rewrites_the_very_next_instruction(width: Width) {
    const ROUNDS: u32 = 5_000;
    let (code, _) = assemble_patched(width, |code, immediate| {
        let mut again = code.create_label();
        code.mov(ecx, ROUNDS as i32)?;
        code.set_label(&mut again)?;
        code.mov(edx, immediate as i32)?;
        code.mov(dword_ptr(code.at(edx)), ecx)?;
        code.db(&PATCHED)?;
        code.rol(ebx, 5)?;
        code.dec(ecx)?;
        code.jnz(again)?;
        code.mov(dword_ptr(RESULTS), ebx)?;
        code.hlt()
    });
    let ended = program(width, code).agree("a store to the next instruction");
    let hash = (1..=ROUNDS)
        .rev()
        .fold(0, |hash: u32, round| (hash ^ round).rotate_left(5));
    assert_eq!(ended.dwords(RESULTS, 1), [hash]);
}

at_both_widths!(
    a_page_checksums_itself_while_it_runs,
    each_page_rewrites_the_next,
    a_hot_loop_writes_data_beside_its_code,
    an_instruction_across_pages_changes_behind_the_boundary,
    a_store_rewrites_the_very_next_instruction,
);
