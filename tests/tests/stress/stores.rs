//! Every kind of store rewrites the instruction right behind it, wherever that lies in its page.
//!
//! ```text
//!   body:   EDX = EDI = address of the immediate, ESP just behind it, [ESI] = EAX = a number of this round
//!           the store                         ──┐
//!           xor ebx, immediate   ◄──────────────┘ executes as just written
//!           rotate EBX, next round
//! ```
//! In 64-bit code, whose stores are of up to 64 bits, the immediate is that of MOV to R8, by way of which it reaches RBX.

use super::contents::PAGE;
use super::machine::{Counts, Program, assemble};
use super::width::{ByWidth, Width, at_both_widths, whole};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Physical addresses of the start, of the page in or before which the instruction lies, and of the store's source.
const START: u32 = 0x20_0000;
const PATCHED: u32 = 0x21_0000;
const SOURCE: u32 = 0x22_0000;
const STACK: u32 = 0x18_0000;
const ROUNDS: i32 = 40;
const FACTOR: i32 = 0x0123_4567;
/// Offsets of the immediate from the start of a page: aligned, not aligned, the store or the instruction or both across
/// two pages.
const OFFSETS: [i32; 7] = [0x100, 0x101, 0x103, -1, -3, 0, 1];
/// CR4.OSFXSR.
const SSE_ENABLED: i32 = 1 << 9;

/// A store: its name, and the function that emits it.
type Store = (
    &'static str,
    fn(&mut CodeAssembler) -> Result<(), IcedError>,
);

const STORES: [Store; 22] = [
    ("mov dword", |a| a.mov(dword_ptr(a.at(edx)), eax)),
    ("mov word", |a| a.mov(word_ptr(a.at(edx)), ax)),
    ("mov byte", |a| a.mov(byte_ptr(a.at(edx) + 2), ah)),
    ("mov immediate", |a| a.mov(dword_ptr(a.at(edx)), FACTOR)),
    ("add", |a| a.add(dword_ptr(a.at(edx)), eax)),
    ("inc", |a| a.inc(byte_ptr(a.at(edx) + 3))),
    ("rol", |a| a.rol(dword_ptr(a.at(edx)), 7)),
    ("bts", |a| a.bts(dword_ptr(a.at(edx)), 9)),
    ("setcc", |a| a.sets(byte_ptr(a.at(edx) + 1))),
    ("xchg", |a| a.xchg(dword_ptr(a.at(edx)), eax)),
    ("xadd", |a| a.xadd(dword_ptr(a.at(edx)), eax)),
    ("cmpxchg", |a| {
        a.mov(eax, dword_ptr(a.at(edx)))?;
        a.cmpxchg(dword_ptr(a.at(edx)), esi)
    }),
    ("cmpxchg8b", |a| {
        a.mov(eax, dword_ptr(a.at(edi)))?;
        a.mov(edx, dword_ptr(a.at(edi) + 4))?;
        a.mov(ecx, edx)?;
        a.cmpxchg8b(qword_ptr(a.at(edi)))
    }),
    ("push", |a| whole!(a.push(eax))),
    ("pop to memory", |a| {
        a.mov(esp, SOURCE as i32)?;
        a.pop(a.sized(a.at(edx)))
    }),
    ("call", |a| {
        let mut next = a.create_label();
        a.call(next)?;
        a.set_label(&mut next)?;
        a.zero_bytes()
    }),
    ("stosd", |a| a.stosd()),
    ("movsd", |a| a.movsd()),
    ("rep movsb", |a| {
        a.mov(ecx, 4)?;
        a.rep().movsb()
    }),
    ("fistp", |a| {
        a.fild(dword_ptr(a.at(esi)))?;
        a.fistp(dword_ptr(a.at(edx)))
    }),
    ("movd from MMX", |a| {
        a.movd(mm0, eax)?;
        a.movd(dword_ptr(a.at(edx)), mm0)
    }),
    ("movd from XMM", |a| {
        a.movd(xmm0, eax)?;
        a.movd(dword_ptr(a.at(edx)), xmm0)
    }),
];

/// Stores that 64-bit code has besides.
const WIDE_STORES: [Store; 12] = [
    ("mov qword", |a| a.mov(qword_ptr(rdx), rax)),
    ("mov sign-extended immediate", |a| {
        a.mov(qword_ptr(rdx), -FACTOR)
    }),
    ("mov from R10", |a| {
        a.mov(r10, rax)?;
        a.mov(qword_ptr(rdx), r10)
    }),
    ("mov to R9", |a| {
        a.mov(r9, rdx)?;
        a.mov(byte_ptr(r9 + 5), al)
    }),
    ("add qword", |a| a.add(qword_ptr(rdx), rax)),
    ("neg qword", |a| a.neg(qword_ptr(rdx))),
    ("xadd qword", |a| a.xadd(qword_ptr(rdx), rax)),
    ("cmpxchg qword", |a| {
        a.mov(rax, qword_ptr(rdx))?;
        a.cmpxchg(qword_ptr(rdx), rsi)
    }),
    ("stosq", |a| a.stosq()),
    ("movsq", |a| a.movsq()),
    ("rep stosb", |a| {
        a.mov(ecx, 8)?;
        a.rep().stosb()
    }),
    ("movq from XMM", |a| {
        a.movq(xmm8, rax)?;
        a.movq(qword_ptr(rdx), xmm8)
    }),
];

/// The stores of a width.
fn stores(width: Width) -> Vec<Store> {
    let more: &[Store] = match width {
        Width::Narrow => &[],
        Width::Wide => &WIDE_STORES,
    };
    [&STORES, more].concat()
}

/// The instruction that is patched, with an immediate of 0, from its start to the immediate: `xor ebx, imm32` or `mov r8, imm64`.
fn patched(width: Width) -> &'static [u8] {
    match width {
        Width::Narrow => &[0x81, 0xf3, 0, 0, 0, 0],
        Width::Wide => &[0x49, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0],
    }
}

/// The loop's body for an immediate at `target`. EBP counts rounds.
fn body(code: &mut CodeAssembler, store: Store, target: u32) -> Result<(), IcedError> {
    let width = code.width();
    let mut again = code.create_label();
    code.set_label(&mut again)?;
    code.mov(edx, target as i32)?;
    code.mov(edi, target as i32)?;
    code.mov(esi, SOURCE as i32)?;
    whole!(code.lea(esp, ptr(code.at(edx) + width.bytes())))?;
    whole!(code.imul_3(eax, ebp, FACTOR))?;
    code.mov(dword_ptr(code.at(esi)), eax)?;
    code.dec(ebp)?;
    (store.1)(code)?;
    code.db(patched(width))?;
    if width == Width::Wide {
        code.xor(rbx, r8)?;
    }
    whole!(code.rol(ebx, 5))?;
    code.cmp(ebp, 0)?;
    code.jnz(again)?;
    code.hlt()
}

fn program(width: Width, store: Store, target: u32) -> Program {
    // The body is as long wherever it is.
    let measured = assemble(width, PATCHED, |code| body(code, store, target));
    let patched = patched(width);
    let start = measured
        .windows(patched.len())
        .position(|bytes| bytes == patched)
        .expect("the patched instruction");
    let at = target - (start + 2) as u32;
    let code = assemble(width, at, |code| body(code, store, target));
    assert_eq!(code.len(), measured.len());
    let mut program = Program::new(width, 4 << 20, START, STACK);
    program.assemble(START, |code| {
        code.set_cr4(SSE_ENABLED)?;
        code.fninit()?;
        code.mov(ebp, ROUNDS)?;
        code.jmp(u64::from(at))
    });
    program.place(at, code);
    program
}

fn every_store_rewrites_the_next_instruction(width: Width) {
    let mut total = Counts::default();
    let stores = stores(width);
    for &store in &stores {
        for offset in OFFSETS {
            let target = (PATCHED + PAGE).wrapping_add_signed(offset);
            let what = format!("{} at {offset}", store.0);
            total += program(width, store, target).compare(&what).1;
        }
    }
    total.report(&format!("{} kinds of stores to code", stores.len()));
}

at_both_widths!(every_store_rewrites_the_next_instruction);
