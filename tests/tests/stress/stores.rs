//! Every kind of store rewrites the instruction right behind it, wherever that lies in its page.
//!
//! ```text
//!   body:   EDX = EDI = address of the immediate, ESP just behind it, [ESI] = EAX = a number of this round
//!           the store                         ──┐
//!           xor ebx, immediate   ◄──────────────┘ executes as just written
//!           rotate EBX, next round
//! ```

use super::machine::{CODE_CACHE, Counts, PAGE, Program, assemble};
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
    ("mov dword", |a| a.mov(dword_ptr(edx), eax)),
    ("mov word", |a| a.mov(word_ptr(edx), ax)),
    ("mov byte", |a| a.mov(byte_ptr(edx + 2), ah)),
    ("mov immediate", |a| a.mov(dword_ptr(edx), FACTOR)),
    ("add", |a| a.add(dword_ptr(edx), eax)),
    ("inc", |a| a.inc(byte_ptr(edx + 3))),
    ("rol", |a| a.rol(dword_ptr(edx), 7)),
    ("bts", |a| a.bts(dword_ptr(edx), 9)),
    ("setcc", |a| a.sets(byte_ptr(edx + 1))),
    ("xchg", |a| a.xchg(dword_ptr(edx), eax)),
    ("xadd", |a| a.xadd(dword_ptr(edx), eax)),
    ("cmpxchg", |a| {
        a.mov(eax, dword_ptr(edx))?;
        a.cmpxchg(dword_ptr(edx), esi)
    }),
    ("cmpxchg8b", |a| {
        a.mov(eax, dword_ptr(edi))?;
        a.mov(edx, dword_ptr(edi + 4))?;
        a.mov(ecx, edx)?;
        a.cmpxchg8b(qword_ptr(edi))
    }),
    ("push", |a| a.push(eax)),
    ("pop to memory", |a| {
        a.mov(esp, SOURCE as i32)?;
        a.pop(dword_ptr(edx))
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
        a.fild(dword_ptr(esi))?;
        a.fistp(dword_ptr(edx))
    }),
    ("movd from MMX", |a| {
        a.movd(mm0, eax)?;
        a.movd(dword_ptr(edx), mm0)
    }),
    ("movd from XMM", |a| {
        a.movd(xmm0, eax)?;
        a.movd(dword_ptr(edx), xmm0)
    }),
];

/// `xor ebx, imm32` with an immediate of 0.
const XOR_EBX: [u8; 6] = [0x81, 0xf3, 0, 0, 0, 0];

/// The loop's body for an immediate at `target`. EBP counts rounds.
fn body(code: &mut CodeAssembler, store: Store, target: u32) -> Result<(), IcedError> {
    let mut again = code.create_label();
    code.set_label(&mut again)?;
    code.mov(edx, target as i32)?;
    code.mov(edi, target as i32)?;
    code.mov(esi, SOURCE as i32)?;
    code.lea(esp, dword_ptr(edx + 4))?;
    code.imul_3(eax, ebp, FACTOR)?;
    code.mov(dword_ptr(esi), eax)?;
    code.dec(ebp)?;
    (store.1)(code)?;
    code.db(&XOR_EBX)?;
    code.rol(ebx, 5)?;
    code.cmp(ebp, 0)?;
    code.jnz(again)?;
    code.hlt()
}

fn program(store: Store, target: u32) -> Program {
    // The body is as long wherever it is.
    let measured = assemble(PATCHED, |code| body(code, store, target));
    let patched = measured
        .windows(XOR_EBX.len())
        .position(|bytes| bytes == XOR_EBX)
        .expect("the patched instruction");
    let at = target - (patched + 2) as u32;
    let code = assemble(at, |code| body(code, store, target));
    assert_eq!(code.len(), measured.len());
    let start = assemble(START, |code| {
        code.mov(eax, SSE_ENABLED)?;
        code.mov(cr4, eax)?;
        code.fninit()?;
        code.mov(ebp, ROUNDS)?;
        code.jmp(u64::from(at))
    });
    Program {
        memory: 4 << 20,
        entry: START,
        stack: STACK,
        code_cache: CODE_CACHE,
        pieces: vec![(START, start), (at, code)],
    }
}

#[test]
fn every_store_rewrites_the_next_instruction() {
    let mut total = Counts::default();
    for store in STORES {
        for offset in OFFSETS {
            let target = (PATCHED + PAGE).wrapping_add_signed(offset);
            let (_, counts) = program(store, target).compare(&format!("{} at {offset}", store.0));
            total += counts;
        }
    }
    total.report(&format!("{} kinds of stores to code", STORES.len()));
}
