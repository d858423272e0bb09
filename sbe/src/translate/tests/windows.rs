//! Programs whose windows show pages that have lost their slots.

use super::users::{set_up, set_up_sysenter, write};
use super::{Program, STACK, agree};
use iced_x86::code_asm::*;

const DIRECTORY: u32 = 0x0030_0000;
/// A page table of linear addresses from [`FAR`] on, which programs may write.
const TABLE: u32 = 0x0027_0000;
const FAR: u32 = 0x0040_0000;
const DUMMY: u32 = 0x002a_0000;
const OLD: u32 = 0x0028_0000;
const NEW: u32 = 0x0029_0000;

/// Where the addresses of the program's two parts are kept.
const PARTS: u32 = 0x002b_0000;

/// Emits `code`, to be executed elsewhere, and what leaves its address in EBX.
pub fn place(a: &mut CodeAssembler, code: impl FnOnce(&mut CodeAssembler) -> Program) -> Program {
    let mut over = a.create_label();
    a.call(over)?;
    code(a)?;
    a.set_label(&mut over)?;
    a.pop(ebx)
}

/// A program writes to a page; the kernel, in emitted code from SYSENTER to SYSEXIT, makes it a page table in use; the program
/// writes to it again.
#[test]
fn a_page_that_the_kernel_has_taken_into_use_is_gone_behind_sysexit() {
    let vcpu = agree(|a| {
        write(a, OLD, 0x1111)?;
        write(a, NEW, 0x2222)?;
        write(a, TABLE, OLD | 7)?;
        write(a, DIRECTORY + 4, TABLE | 7)?;
        set_up(a, (DUMMY, DUMMY | 7), 0)?;
        place(a, kernel)?;
        set_up_sysenter(a)?;
        for (part, code) in [(0, first as Part), (4, second)] {
            place(a, code)?;
            a.mov(dword_ptr(PARTS + part), ebx)?;
        }
        // The first round is for the code to be known.
        a.mov(eax, (NEW | 7) as i32)?;
        a.xor(esi, esi)?;
        a.mov(edi, DUMMY as i32)?;
        a.mov(ebp, STACK as i32)?;
        a.mov(ecx, STACK as i32 - 0x1000)?;
        a.mov(edx, dword_ptr(PARTS))?;
        a.sysexit()
    });
    assert_eq!(vcpu.cpu.regs.get(7), 0x1111);
    assert_eq!(vcpu.cpu.regs.get(3), 0x2222);
}

type Part = fn(&mut CodeAssembler) -> Program;

/// The program's first part: makes its window show the page table.
fn first(a: &mut CodeAssembler) -> Program {
    a.mov(dword_ptr(TABLE + 4), 0)?;
    a.mov(ecx, esp)?;
    a.mov(edx, dword_ptr(PARTS + 4))?;
    a.sysenter()
}

/// The second part.
fn second(a: &mut CodeAssembler) -> Program {
    a.mov(dword_ptr(edi), eax)?;
    a.mov(ecx, esp)?;
    a.mov(edx, dword_ptr(PARTS))?;
    a.sysenter()
}

/// The kernel: comes behind both parts, in two rounds.
fn kernel(a: &mut CodeAssembler) -> Program {
    let (mut even, mut end) = (a.create_label(), a.create_label());
    a.inc(esi)?;
    a.test(esi, 1)?;
    a.jz(even)?;
    a.mov(ebx, dword_ptr(ebp))?;
    a.sysexit()?;
    a.set_label(&mut even)?;
    a.cmp(esi, 4)?;
    a.je(end)?;
    a.mov(edi, TABLE as i32)?;
    a.mov(ebp, FAR as i32)?;
    a.sysexit()?;
    a.set_label(&mut end)?;
    a.mov(edi, ebx)?;
    a.mov(eax, cr3)?;
    a.mov(cr3, eax)?;
    a.mov(ebx, dword_ptr(ebp))?;
    a.hlt()
}
