//! Paging for programs: the first 4 MiB mapped one to one, and a page-fault handler that maps data on demand.

use super::contents::PAGE;
use super::machine::{Ended, Program};
use super::tables::{PRESENT, Tables, WRITABLE};
use super::width::{ByWidth, Width, whole};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Physical address of the page tables.
pub const TABLES: u32 = 0x10_0000;
/// Physical addresses of the descriptor tables, and of their limits and bases.
const GDT: u32 = 0x12_4000;
const IDT: u32 = 0x12_5000;
const POINTERS: u32 = 0x12_6000;
/// Physical address of the page-fault handler, and of the routine that takes the data away.
const HANDLER: u32 = 0x12_7000;
const TAKE_AWAY: u32 = 0x12_8000;
/// Physical address of the number of page faults and of a hash of all of them.
const FAULTS: u32 = 0x12_9000;

/// CR0.PG and CR0.WP.
const PAGING: u32 = 1 << 31 | 1 << 16;
/// Vector of #PF, and the W/R bit of its error code (SDM Vol. 3A, 6.15).
const PAGE_FAULT: u8 = 14;
const WRITE: i32 = 0b10;

/// The second descriptor after the null descriptor: the selector that both boot protocols start with.
const CODE_SELECTOR: u16 = 0x10;
/// Flat data of CPL 0.
pub const FLAT_DATA: u64 = 0x00cf_9300_0000_ffff;
/// Type and P of an interrupt gate.
pub const INTERRUPT_GATE: u16 = 0x8e00;

/// A page-table entry for a page that may be written.
pub fn entry(frame: u32) -> u32 {
    frame | PRESENT | WRITABLE
}

/// Makes tables that map the first 4 MiB one to one.
pub fn place_identity(program: &mut Program) -> Tables {
    let mut tables = Tables::new(program.width, TABLES);
    tables.map_all(&mut program.contents, 0, entry);
    tables
}

/// Switches paging on, by the tables at `root`; EAX is lost.
pub fn turn_on(code: &mut CodeAssembler, root: u32) -> Result<(), IcedError> {
    code.mov(eax, root)?;
    whole!(code.mov(cr3, eax))?;
    whole!(code.mov(eax, cr0))?;
    code.or(eax, PAGING as i32)?;
    whole!(code.mov(cr0, eax))
}

/// The code segment of CPL 0, or of another privilege level; flat.
pub fn code_segment(width: Width, dpl: u64) -> u64 {
    let kind = match width {
        Width::Narrow => 0x00cf_9b00_0000_ffff,
        Width::Wide => 0x00af_9b00_0000_ffff,
    };
    kind | dpl << 45
}

/// The gate of type `kind` to `handler` in the code segment of CPL 0 (SDM Vol. 3A, 6.11 "IDT Descriptors", 6.14.1 "64-Bit Mode
/// IDT").
fn gate(width: Width, handler: u32, kind: u16) -> Vec<u8> {
    let low = u32::from(CODE_SELECTOR) << 16 | handler & 0xffff;
    let high = handler & 0xffff_0000 | u32::from(kind);
    let mut gate = [low, high].map(u32::to_le_bytes).concat();
    gate.resize(2 * width.bytes() as usize, 0);
    gate
}

/// Where a program's descriptor tables lie.
#[derive(Clone, Copy)]
pub struct Descriptors {
    /// Physical address of the GDT.
    pub gdt: u32,
    /// Physical address of the IDT.
    pub idt: u32,
    /// Physical address of the limits and bases of both.
    pub pointers: u32,
}

impl Descriptors {
    /// Adds tables of these segments, from the null descriptor on, and of gates: their vectors, handlers and types.
    pub fn place(self, program: &mut Program, gdt: &[u64], gates: &[(u8, u32, u16)]) {
        let width = program.width;
        let descriptors: Vec<u8> = gdt.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        program.place(self.gdt, descriptors);
        for &(vector, handler, kind) in gates {
            let at = self.idt + u32::from(vector) * 2 * width.bytes();
            program.place(at, gate(width, handler, kind));
        }
        for (index, table) in (0..).zip([self.gdt, self.idt]) {
            let limit = (PAGE as u16 - 1).to_le_bytes();
            let pointer = [&limit[..], &width.addresses(&[table.into()])].concat();
            program.place(self.pointers + 16 * index, pointer);
        }
    }

    /// Loads the tables.
    pub fn load(self, code: &mut CodeAssembler) -> Result<(), IcedError> {
        code.lgdt(ptr(self.pointers))?;
        code.lidt(ptr(self.pointers + 16))
    }
}

const DESCRIPTORS: Descriptors = Descriptors {
    gdt: GDT,
    idt: IDT,
    pointers: POINTERS,
};

/// Adds everything that demand paging of the `pages` pages from `data` on needs. The first 4 MiB appear once more at `base`, and
/// the data there is what comes on demand. The programs' part: [`start_demand`] once, and a call of the returned address, there or
/// at `base`, whenever the pages are to be absent again; it changes flags only.
pub fn place_demand(program: &mut Program, base: u64, data: u32, pages: u32) -> u32 {
    let mut tables = place_identity(program);
    let first = tables.map_all(&mut program.contents, base, entry);
    let width = program.width;
    DESCRIPTORS.place(
        program,
        // IRET of 64-bit code loads SS, too, with the selector that the boot protocol starts with.
        &[0, 0, code_segment(width, 0), FLAT_DATA],
        &[(PAGE_FAULT, HANDLER, INTERRUPT_GATE)],
    );
    program.assemble(HANDLER, |code| handler(code, base, first));
    program.assemble(TAKE_AWAY, |code| {
        take_away(code, first + data / PAGE * width.bytes(), pages)
    });
    TAKE_AWAY
}

/// The number of page faults that a program with demand paging took.
pub fn faults(ended: &Ended) -> u32 {
    ended.dwords(FAULTS, 1)[0]
}

/// Loads the descriptor tables and switches paging on; EAX is lost.
pub fn start_demand(code: &mut CodeAssembler) -> Result<(), IcedError> {
    DESCRIPTORS.load(code)?;
    turn_on(code, TABLES)
}

/// Maps the page that faulted, read-only unless it was a write, and remembers all that is known about the fault. The entries from
/// `first` on map `base` and what follows.
fn handler(code: &mut CodeAssembler, base: u64, first: u32) -> Result<(), IcedError> {
    let bytes = code.width().bytes();
    // From ESP on: ECX, EAX, error code, EIP.
    let [error, eip] = [2 * bytes, 3 * bytes];
    let mut read = code.create_label();
    whole!(code.push(eax))?;
    whole!(code.push(ecx))?;
    whole!(code.mov(eax, cr2))?;
    code.inc(dword_ptr(FAULTS))?;
    code.mov(ecx, dword_ptr(FAULTS + 4))?;
    code.rol(ecx, 5)?;
    code.xor(ecx, eax)?;
    code.add(ecx, dword_ptr(code.at(esp) + error))?;
    code.rol(ecx, 5)?;
    code.xor(ecx, dword_ptr(code.at(esp) + eip))?;
    code.mov(dword_ptr(FAULTS + 4), ecx)?;
    code.set(ecx, base)?;
    whole!(code.sub(eax, ecx))?;
    code.mov(ecx, eax)?;
    code.shr(ecx, mmu::PAGE_SHIFT)?;
    code.and(eax, !(PAGE as i32 - 1))?;
    code.or(eax, PRESENT as i32)?;
    code.test(dword_ptr(code.at(esp) + error), WRITE)?;
    code.jz(read)?;
    code.or(eax, WRITABLE as i32)?;
    code.set_label(&mut read)?;
    whole!(code.mov(ptr(code.scaled(ecx, bytes) + first), eax))?;
    whole!(code.pop(ecx))?;
    whole!(code.pop(eax))?;
    whole!(code.add(esp, bytes as i32))?;
    code.interrupt_return()
}

/// Clears the entries of the pages, from the physical address `first` on.
fn take_away(code: &mut CodeAssembler, first: u32, pages: u32) -> Result<(), IcedError> {
    whole!(code.push(eax))?;
    for page in 0..pages {
        code.mov(dword_ptr(first + page * code.width().bytes()), 0)?;
    }
    whole!(code.mov(eax, cr3))?;
    whole!(code.mov(cr3, eax))?;
    whole!(code.pop(eax))?;
    code.ret()
}
