//! Programs at CPL 3 in several address spaces: demand paging, a switch of spaces, and code that is not the same in all of them.
//!
//! All spaces map the first 4 MiB one to one, and once more at a base, but for the data, of which each has its own and which is
//! absent at first, and for a range of code, of which each has its own as well.

use super::contents::PAGE;
use super::machine::{Ended, Program};
use super::paging::{Descriptors, FLAT_DATA, code_segment, turn_on};
use super::tables::{ALL, FOR_USER, PRESENT, Tables, WRITABLE};
use super::width::{ByWidth, Width, whole};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Address spaces.
pub const SPACES: u32 = 3;

/// Physical addresses of the descriptor tables, of their limits and bases, and of the task-state segment.
const DESCRIPTORS: Descriptors = Descriptors {
    gdt: 0x10_0000,
    idt: 0x10_1000,
    pointers: 0x10_2000,
};
const TSS: u32 = 0x10_3000;
/// Physical addresses of the handlers.
pub const FAULT: u32 = 0x10_c000;
const CHANGE: u32 = 0x10_d000;
/// Physical addresses of the number of page faults and a hash of all of them, of the number of changes, and of the present
/// space's number, the entry of its first page at the base, and the distance of its data from where it is mapped.
const FAULTS: u32 = 0x10_e000;
const CHANGES: u32 = 0x10_e010;
const SPACE: u32 = 0x10_e020;
const TABLE: u32 = 0x10_e024;
const DISTANCE: u32 = 0x10_e028;
/// Top of the stack of CPL 0.
const KERNEL_STACK: u32 = 0x11_0000;
/// Physical addresses of the page tables, and bytes of those of one space.
const TABLES: u32 = 0x11_0000;
const TABLES_BYTES: u32 = 0x1_0000;
/// Start of the programs' memory.
const USER: u32 = TABLES + SPACES * TABLES_BYTES;

/// The W/R bit of a page fault's error code (SDM Vol. 3A, 6.15).
const WRITE: i32 = 0b10;

/// Vectors: #PF, and those that programs use.
const PAGE_FAULT: u8 = 14;
/// The vector of INT by which the next round begins: the data is absent again, in this space or the next.
pub const NEXT_ROUND: u8 = 0x30;
/// The vector of INT by which the program ends.
pub const THE_END: u8 = 0x31;

/// Flat data of CPL 3. Descriptors from the third on are code and data of CPL 0, those of CPL 3, and the task-state segment.
const FLAT_USER_DATA: u64 = 0x00cf_f300_0000_ffff;
const KERNEL_DATA: u32 = 0x18;
const USER_CODE: i32 = 0x23;
const USER_DATA: i32 = 0x2b;
const TASK: i32 = 0x30;
/// An available task-state segment, and interrupt gates for CPL 0 and CPL 3.
const TASK_TYPE: u64 = 0x8900;
const KERNEL_GATE: u16 = 0x8e00;
const USER_GATE: u16 = 0xee00;

/// The parts of memory that each space has its own copy of: where they are mapped, from the first to behind the last byte, as
/// distances from 0 and from the base, and physical addresses.
#[derive(Clone, Copy)]
pub struct Own {
    /// The base.
    pub base: u64,
    /// The data.
    pub data: (u32, u32),
    /// The code.
    pub code: (u32, u32),
    /// Physical addresses of the data of the second space and those after it, one behind the other.
    pub more_data: u32,
    /// Physical addresses of the code of the second space and those after it, one behind the other.
    pub more_code: u32,
}

impl Own {
    /// Returns the physical address of what is at `linear` from the base in `space`.
    pub fn physical(&self, space: u32, linear: u32) -> u32 {
        let moved = |(start, end): (u32, u32), more| {
            let inside = (start..end).contains(&linear) && space > 0;
            inside.then(|| more + (space - 1) * (end - start) + (linear - start))
        };
        moved(self.data, self.more_data)
            .or_else(|| moved(self.code, self.more_code))
            .unwrap_or(linear)
    }

    /// The distance of the data of `space` from where it is mapped.
    fn distance(&self, space: u32) -> u32 {
        self.physical(space, self.data.0).wrapping_sub(self.data.0)
    }
}

/// Adds all that the spaces need, and returns their tables. The program begins with [`start`], at `end` is what [`THE_END`] leads to.
pub fn place(program: &mut Program, own: Own, end: u32) -> Vec<Tables> {
    let width = program.width;
    let mut firsts = Vec::new();
    let mut spaces = Vec::new();
    for space in 0..SPACES {
        let mut tables = Tables::new(width, TABLES + space * TABLES_BYTES);
        let entry = |page| match (own.data.0..own.data.1).contains(&page) {
            true => 0,
            false if page < USER => page | PRESENT | WRITABLE,
            false => own.physical(space, page) | ALL,
        };
        tables.map_all(&mut program.contents, 0, entry);
        firsts.push(tables.map_all(&mut program.contents, own.base, entry));
        spaces.push(tables);
    }
    let task = u64::from(TSS >> 16) << 32 | TASK_TYPE << 32 | u64::from(TSS & 0xffff) << 16 | 0x67;
    let [code, user_code] = [0, 3].map(|dpl| code_segment(width, dpl));
    DESCRIPTORS.place(
        program,
        // The task-state segment's base has more bits in a further descriptor.
        &[0, 0, code, FLAT_DATA, user_code, FLAT_USER_DATA, task, 0],
        &[
            (PAGE_FAULT, FAULT, KERNEL_GATE),
            (NEXT_ROUND, CHANGE, USER_GATE),
            (THE_END, end, USER_GATE),
        ],
    );
    // ESP0 and SS0, or RSP0 (SDM Vol. 3A, 7.2.1 "Task-State Segment (TSS)", 7.7 "Task Management in 64-bit Mode").
    let segment = match width {
        Width::Narrow => KERNEL_DATA,
        Width::Wide => 0,
    };
    program.place(
        TSS + 4,
        [KERNEL_STACK, segment].map(u32::to_le_bytes).concat(),
    );
    program.place(TABLE, firsts[0].to_le_bytes());
    program.assemble(FAULT, |code| page_fault(code, own.base));
    program.assemble(CHANGE, |code| next_round(code, own, &firsts));
    spaces
}

/// The number of page faults that the program took.
pub fn faults(ended: &Ended) -> u32 {
    ended.dwords(FAULTS, 1)[0]
}

/// Enters the first space and goes to `entry` at CPL 3, with ESP at `stack`. EAX is lost.
pub fn start(code: &mut CodeAssembler, entry: u64, stack: u64) -> Result<(), IcedError> {
    DESCRIPTORS.load(code)?;
    code.mov(eax, TASK)?;
    code.ltr(ax)?;
    turn_on(code, TABLES)?;
    code.mov(eax, USER_DATA)?;
    code.mov(ds, eax)?;
    code.mov(es, eax)?;
    for value in [USER_DATA as u64, stack, 2, USER_CODE as u64, entry] {
        code.set(eax, value)?;
        whole!(code.push(eax))?;
    }
    code.interrupt_return()
}

/// Maps the page that faulted, read-only unless it was a write, and remembers all that is known about the fault.
fn page_fault(code: &mut CodeAssembler, base: u64) -> Result<(), IcedError> {
    let bytes = code.width().bytes();
    // From ESP on: EDX, ECX, EAX, error code, EIP, CS, EFLAGS.
    let [error, eip] = [3 * bytes, 4 * bytes];
    let mut read = code.create_label();
    whole!(code.push(eax))?;
    whole!(code.push(ecx))?;
    whole!(code.push(edx))?;
    whole!(code.mov(eax, cr2))?;
    code.inc(dword_ptr(FAULTS))?;
    code.mov(ecx, dword_ptr(FAULTS + 4))?;
    for known in [error, eip] {
        code.rol(ecx, 5)?;
        code.xor(ecx, eax)?;
        code.add(ecx, dword_ptr(code.at(esp) + known))?;
    }
    code.mov(dword_ptr(FAULTS + 4), ecx)?;
    code.set(ecx, base)?;
    whole!(code.sub(eax, ecx))?;
    code.mov(ecx, eax)?;
    code.shr(ecx, mmu::PAGE_SHIFT)?;
    code.and(eax, !(PAGE as i32 - 1))?;
    code.add(eax, dword_ptr(DISTANCE))?;
    code.or(eax, (PRESENT | FOR_USER) as i32)?;
    code.test(dword_ptr(code.at(esp) + error), WRITE)?;
    code.jz(read)?;
    code.or(eax, WRITABLE as i32)?;
    code.set_label(&mut read)?;
    code.mov(edx, dword_ptr(TABLE))?;
    let entry = code.at(edx) + code.scaled(ecx, bytes);
    whole!(code.mov(ptr(entry), eax))?;
    whole!(code.pop(edx))?;
    whole!(code.pop(ecx))?;
    whole!(code.pop(eax))?;
    whole!(code.add(esp, bytes as i32))?;
    code.interrupt_return()
}

/// Takes the data away, and goes to the next space three times out of four. The entries that map the base are from `firsts` on.
fn next_round(code: &mut CodeAssembler, own: Own, firsts: &[u32]) -> Result<(), IcedError> {
    let (start, end) = own.data;
    let bytes = code.width().bytes();
    let pages = || (start..end).step_by(PAGE as usize);
    let (mut wraps, mut stays, mut done) = (
        code.create_label(),
        code.create_label(),
        code.create_label(),
    );
    whole!(code.push(eax))?;
    whole!(code.push(edx))?;
    code.mov(edx, dword_ptr(TABLE))?;
    for page in pages() {
        code.mov(dword_ptr(code.at(edx) + page / PAGE * bytes), 0)?;
    }
    code.inc(dword_ptr(CHANGES))?;
    code.test(dword_ptr(CHANGES), 3)?;
    code.jz(stays)?;
    code.mov(eax, dword_ptr(SPACE))?;
    code.inc(eax)?;
    code.cmp(eax, SPACES as i32)?;
    code.jb(wraps)?;
    code.xor(eax, eax)?;
    code.set_label(&mut wraps)?;
    code.mov(dword_ptr(SPACE), eax)?;
    for (space, &first) in (0..).zip(firsts) {
        let mut another = code.create_label();
        code.cmp(eax, space as i32)?;
        code.jne(another)?;
        code.mov(dword_ptr(TABLE), first)?;
        code.mov(dword_ptr(DISTANCE), own.distance(space) as i32)?;
        code.set_label(&mut another)?;
        code.nop()?;
    }
    code.imul_3(eax, eax, TABLES_BYTES as i32)?;
    code.add(eax, TABLES as i32)?;
    whole!(code.mov(cr3, eax))?;
    code.jmp(done)?;
    code.set_label(&mut stays)?;
    for page in pages() {
        code.set(eax, own.base + u64::from(page))?;
        code.invlpg(byte_ptr(code.at(eax)))?;
    }
    code.set_label(&mut done)?;
    whole!(code.pop(edx))?;
    whole!(code.pop(eax))?;
    code.interrupt_return()
}
