//! 32-bit paging for programs: the first 4 MiB mapped one to one, and a page-fault handler that maps data on demand.

use super::machine::{Ended, PAGE, Program, assemble};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Physical address of the page directory.
pub const DIRECTORY: u32 = 0x10_0000;
/// Physical address of the page table of the first 4 MiB.
const IDENTITY: u32 = DIRECTORY + PAGE;
/// Physical addresses of the descriptor tables, and of their limits and bases.
const GDT: u32 = 0x10_4000;
const IDT: u32 = 0x10_5000;
const POINTERS: u32 = 0x10_6000;
/// Physical address of the page-fault handler, and of the routine that takes the data away.
const HANDLER: u32 = 0x10_7000;
const TAKE_AWAY: u32 = 0x10_8000;
/// Physical address of the number of page faults and of a hash of all of them.
const FAULTS: u32 = 0x10_9000;

/// Page-table entry: present, and present and writable (SDM Vol. 3A, 4.3 "32-Bit Paging").
const PRESENT: u32 = 0b01;
const PRESENT_WRITABLE: u32 = 0b11;
/// CR0.PG and CR0.WP.
const PAGING: u32 = 1 << 31 | 1 << 16;
/// Vector of #PF, and the W/R bit of its error code (SDM Vol. 3A, 6.15).
const PAGE_FAULT: u32 = 14;
const WRITE: i32 = 0b10;

/// Flat ring-0 code, the second descriptor after the null descriptor: the selector that the boot protocol starts with.
const FLAT_CODE: u64 = 0x00cf_9b00_0000_ffff;
const CODE_SELECTOR: u32 = 0x10;
/// Type and P of a 32-bit interrupt gate.
const INTERRUPT_GATE: u32 = 0x8e00;

/// A page-table entry for a page that may be written.
pub fn entry(frame: u32) -> [u8; 4] {
    (frame | PRESENT_WRITABLE).to_le_bytes()
}

/// Adds the tables that map the first 4 MiB one to one.
pub fn place_identity(program: &mut Program) {
    program.place(DIRECTORY, entry(IDENTITY));
    let identity: Vec<u8> = (0..1024).flat_map(|page| entry(page * PAGE)).collect();
    program.place(IDENTITY, identity);
}

/// Switches paging on; EAX is lost.
pub fn turn_on(code: &mut CodeAssembler) -> Result<(), IcedError> {
    code.mov(eax, DIRECTORY as i32)?;
    code.mov(cr3, eax)?;
    code.mov(eax, cr0)?;
    code.or(eax, PAGING as i32)?;
    code.mov(cr0, eax)
}

/// Adds everything that demand paging of the `pages` pages from `data` on needs. The programs' part: [`start_demand`] once,
/// and a call of the returned address whenever the pages are to be absent again; it changes flags only.
pub fn place_demand(program: &mut Program, data: u32, pages: u32) -> u32 {
    place_identity(program);
    program.place(GDT, [0, 0, FLAT_CODE].map(u64::to_le_bytes).concat());
    let gate = [
        CODE_SELECTOR << 16 | HANDLER & 0xffff,
        HANDLER & 0xffff_0000 | INTERRUPT_GATE,
    ];
    program.place(IDT + PAGE_FAULT * 8, gate.map(u32::to_le_bytes).concat());
    for (index, table) in (0..).zip([GDT, IDT]) {
        let limit = (PAGE as u16 - 1).to_le_bytes();
        program.place(
            POINTERS + 8 * index,
            [&limit[..], &table.to_le_bytes()].concat(),
        );
    }
    program.place(HANDLER, assemble(HANDLER, handler));
    let take_away = assemble(TAKE_AWAY, |code| take_away(code, data, pages));
    program.place(TAKE_AWAY, take_away);
    TAKE_AWAY
}

/// The number of page faults that a program with demand paging took.
pub fn faults(ended: &Ended) -> u32 {
    ended.dwords(FAULTS, 1)[0]
}

/// Loads the descriptor tables and switches paging on; EAX is lost.
pub fn start_demand(code: &mut CodeAssembler) -> Result<(), IcedError> {
    code.lgdt(fword_ptr(POINTERS))?;
    code.lidt(fword_ptr(POINTERS + 8))?;
    turn_on(code)
}

/// Maps the page that faulted, read-only unless it was a write, and remembers all that is known about the fault.
fn handler(code: &mut CodeAssembler) -> Result<(), IcedError> {
    // From ESP on: ECX, EAX, error code, EIP.
    const ERROR: u32 = 8;
    const EIP: u32 = 12;
    let mut read = code.create_label();
    code.push(eax)?;
    code.push(ecx)?;
    code.mov(eax, cr2)?;
    code.inc(dword_ptr(FAULTS))?;
    code.mov(ecx, dword_ptr(FAULTS + 4))?;
    code.rol(ecx, 5)?;
    code.xor(ecx, eax)?;
    code.add(ecx, dword_ptr(esp + ERROR))?;
    code.rol(ecx, 5)?;
    code.xor(ecx, dword_ptr(esp + EIP))?;
    code.mov(dword_ptr(FAULTS + 4), ecx)?;
    code.mov(ecx, eax)?;
    code.shr(ecx, mmu::PAGE_SHIFT)?;
    code.and(eax, !(PAGE as i32 - 1))?;
    code.or(eax, PRESENT as i32)?;
    code.test(dword_ptr(esp + ERROR), WRITE)?;
    code.jz(read)?;
    code.or(eax, PRESENT_WRITABLE as i32)?;
    code.set_label(&mut read)?;
    code.mov(dword_ptr(ecx * 4 + IDENTITY), eax)?;
    code.pop(ecx)?;
    code.pop(eax)?;
    code.add(esp, 4)?;
    code.iretd()
}

fn take_away(code: &mut CodeAssembler, data: u32, pages: u32) -> Result<(), IcedError> {
    code.push(eax)?;
    for page in 0..pages {
        let slot = IDENTITY + (data / PAGE + page) * 4;
        code.mov(dword_ptr(slot), 0)?;
    }
    code.mov(eax, cr3)?;
    code.mov(cr3, eax)?;
    code.pop(eax)?;
    code.ret()
}
