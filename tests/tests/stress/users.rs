//! Programs at CPL 3 in several address spaces: demand paging, a switch of spaces, and code that is not the same in all of them.
//!
//! All spaces map the first 4 MiB one to one, but for the data, of which each has its own and which is absent at first, and for
//! a range of code, of which each has its own as well.

use super::machine::{Ended, PAGE, Program, assemble};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Address spaces.
pub const SPACES: u32 = 3;

/// Physical addresses of the page directories and of the page tables, one page for each space.
const DIRECTORIES: u32 = 0x10_0000;
const TABLES: u32 = 0x10_4000;
/// Physical addresses of the descriptor tables, of their limits and bases, and of the task-state segment.
const GDT: u32 = 0x10_8000;
const IDT: u32 = 0x10_9000;
const POINTERS: u32 = 0x10_a000;
const TSS: u32 = 0x10_b000;
/// Physical addresses of the handlers.
const FAULT: u32 = 0x10_c000;
const CHANGE: u32 = 0x10_d000;
/// Physical addresses of the number of page faults and a hash of all of them, of the number of changes, and of the present
/// space's number, page table and distance of its data from where it is mapped.
const FAULTS: u32 = 0x10_e000;
const CHANGES: u32 = 0x10_e010;
const SPACE: u32 = 0x10_e020;
const TABLE: u32 = 0x10_e024;
const DISTANCE: u32 = 0x10_e028;
/// Top of the stack of CPL 0.
const KERNEL_STACK: u32 = 0x11_0000;
/// Start of the programs' memory.
const USER: u32 = 0x12_0000;

/// Page-table entry bits (SDM Vol. 3A, 4.3 "32-Bit Paging").
const PRESENT: u32 = 1 << 0;
const WRITABLE: u32 = 1 << 1;
const FOR_USER: u32 = 1 << 2;
/// CR0.PG and CR0.WP.
const PAGING: u32 = 1 << 31 | 1 << 16;
/// The W/R bit of a page fault's error code (SDM Vol. 3A, 6.15).
const WRITE: i32 = 0b10;

/// Vectors: #PF, and those that programs use.
const PAGE_FAULT: u32 = 14;
/// The vector of INT by which the next round begins: the data is absent again, in this space or the next.
pub const NEXT_ROUND: u8 = 0x30;
/// The vector of INT by which the program ends.
pub const THE_END: u8 = 0x31;

/// Descriptors from the third on: flat code and data of CPL 0 and CPL 3. The task-state segment follows.
const FLAT: [u64; 4] = [
    0x00cf_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x00cf_fb00_0000_ffff,
    0x00cf_f300_0000_ffff,
];
const KERNEL_CODE: u32 = 0x10;
const KERNEL_DATA: u32 = 0x18;
const USER_CODE: i32 = 0x23;
const USER_DATA: i32 = 0x2b;
const TASK: i32 = 0x30;
/// An available 32-bit task-state segment, and 32-bit interrupt gates for CPL 0 and CPL 3.
const TASK_TYPE: u64 = 0x8900;
const KERNEL_GATE: u32 = 0x8e00;
const USER_GATE: u32 = 0xee00;

/// The parts of memory that each space has its own copy of: linear addresses, from the first to behind the last byte, and
/// physical ones.
#[derive(Clone, Copy)]
pub struct Own {
    /// Linear addresses of the data.
    pub data: (u32, u32),
    /// Linear addresses of the code.
    pub code: (u32, u32),
    /// Physical addresses of the data of the second space and those after it, one behind the other.
    pub more_data: u32,
    /// Physical addresses of the code of the second space and those after it, one behind the other.
    pub more_code: u32,
}

impl Own {
    /// Returns the physical address of `linear` in `space`.
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

fn directory(space: u32) -> u32 {
    DIRECTORIES + space * PAGE
}

fn table(space: u32) -> u32 {
    TABLES + space * PAGE
}

/// Adds all that the spaces need. The program begins with [`start`], at `end` is what [`THE_END`] leads to.
pub fn place(program: &mut Program, own: Own, end: u32) {
    for space in 0..SPACES {
        let all = PRESENT | WRITABLE | FOR_USER;
        program.place(directory(space), (table(space) | all).to_le_bytes());
        let entries = (0..1024).map(|page| page * PAGE).map(|linear| {
            let flags = if linear < USER { all & !FOR_USER } else { all };
            match (own.data.0..own.data.1).contains(&linear) {
                true => 0,
                false => own.physical(space, linear) | flags,
            }
        });
        let bytes: Vec<u8> = entries.flat_map(u32::to_le_bytes).collect();
        program.place(table(space), bytes);
    }
    let task = u64::from(TSS >> 16) << 32 | TASK_TYPE << 32 | u64::from(TSS & 0xffff) << 16 | 0x67;
    let [code, data, user_code, user_data] = FLAT;
    let gdt = [0, 0, code, data, user_code, user_data, task];
    program.place(GDT, gdt.map(u64::to_le_bytes).concat());
    let gates = [
        (PAGE_FAULT, FAULT, KERNEL_GATE),
        (NEXT_ROUND.into(), CHANGE, USER_GATE),
        (THE_END.into(), end, USER_GATE),
    ];
    for (vector, handler, kind) in gates {
        let low = KERNEL_CODE << 16 | handler & 0xffff;
        let high = handler & 0xffff_0000 | kind;
        program.place(IDT + vector * 8, [low, high].map(u32::to_le_bytes).concat());
    }
    for (index, table) in (0..).zip([GDT, IDT]) {
        let limit = (PAGE as u16 - 1).to_le_bytes();
        let pointer = [&limit[..], &table.to_le_bytes()].concat();
        program.place(POINTERS + 8 * index, pointer);
    }
    let stack = [KERNEL_STACK, KERNEL_DATA].map(u32::to_le_bytes);
    program.place(TSS + 4, stack.concat());
    program.place(TABLE, table(0).to_le_bytes());
    program.place(FAULT, assemble(FAULT, page_fault));
    program.place(CHANGE, assemble(CHANGE, |code| next_round(code, own)));
}

/// The number of page faults that the program took.
pub fn faults(ended: &Ended) -> u32 {
    ended.dwords(FAULTS, 1)[0]
}

/// Enters the first space and goes to `entry` at CPL 3, with ESP at `stack`. EAX is lost.
pub fn start(code: &mut CodeAssembler, entry: u32, stack: u32) -> Result<(), IcedError> {
    code.lgdt(fword_ptr(POINTERS))?;
    code.lidt(fword_ptr(POINTERS + 8))?;
    code.mov(eax, TASK)?;
    code.ltr(ax)?;
    code.mov(eax, directory(0) as i32)?;
    code.mov(cr3, eax)?;
    code.mov(eax, cr0)?;
    code.or(eax, PAGING as i32)?;
    code.mov(cr0, eax)?;
    code.mov(eax, USER_DATA)?;
    code.mov(ds, eax)?;
    code.mov(es, eax)?;
    code.push(USER_DATA)?;
    code.push(stack as i32)?;
    code.push(2)?;
    code.push(USER_CODE)?;
    code.push(entry as i32)?;
    code.iretd()
}

/// Maps the page that faulted, read-only unless it was a write, and remembers all that is known about the fault.
fn page_fault(code: &mut CodeAssembler) -> Result<(), IcedError> {
    // From ESP on: EDX, ECX, EAX, error code, EIP, CS, EFLAGS.
    const ERROR: u32 = 12;
    const EIP: u32 = 16;
    let mut read = code.create_label();
    code.push(eax)?;
    code.push(ecx)?;
    code.push(edx)?;
    code.mov(eax, cr2)?;
    code.inc(dword_ptr(FAULTS))?;
    code.mov(ecx, dword_ptr(FAULTS + 4))?;
    for known in [ERROR, EIP] {
        code.rol(ecx, 5)?;
        code.xor(ecx, eax)?;
        code.add(ecx, dword_ptr(esp + known))?;
    }
    code.mov(dword_ptr(FAULTS + 4), ecx)?;
    code.mov(ecx, eax)?;
    code.shr(ecx, mmu::PAGE_SHIFT)?;
    code.and(eax, !(PAGE as i32 - 1))?;
    code.add(eax, dword_ptr(DISTANCE))?;
    code.or(eax, (PRESENT | FOR_USER) as i32)?;
    code.test(dword_ptr(esp + ERROR), WRITE)?;
    code.jz(read)?;
    code.or(eax, WRITABLE as i32)?;
    code.set_label(&mut read)?;
    code.mov(edx, dword_ptr(TABLE))?;
    code.mov(dword_ptr(edx + ecx * 4), eax)?;
    code.pop(edx)?;
    code.pop(ecx)?;
    code.pop(eax)?;
    code.add(esp, 4)?;
    code.iretd()
}

/// Takes the data away, and goes to the next space three times out of four.
fn next_round(code: &mut CodeAssembler, own: Own) -> Result<(), IcedError> {
    let (start, end) = own.data;
    let (mut wraps, mut stays, mut done) = (
        code.create_label(),
        code.create_label(),
        code.create_label(),
    );
    code.push(eax)?;
    code.push(edx)?;
    code.mov(edx, dword_ptr(TABLE))?;
    for linear in (start..end).step_by(PAGE as usize) {
        code.mov(dword_ptr(edx + linear / PAGE * 4), 0)?;
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
    code.mov(edx, eax)?;
    code.shl(edx, mmu::PAGE_SHIFT)?;
    code.lea(eax, ptr(edx + TABLES))?;
    code.mov(dword_ptr(TABLE), eax)?;
    for space in 0..SPACES {
        let mut another = code.create_label();
        code.cmp(edx, (space * PAGE) as i32)?;
        code.jne(another)?;
        code.mov(dword_ptr(DISTANCE), own.distance(space) as i32)?;
        code.set_label(&mut another)?;
        code.nop()?;
    }
    code.lea(eax, ptr(edx + DIRECTORIES))?;
    code.mov(cr3, eax)?;
    code.jmp(done)?;
    code.set_label(&mut stays)?;
    for linear in (start..end).step_by(PAGE as usize) {
        code.invlpg(byte_ptr(linear))?;
    }
    code.set_label(&mut done)?;
    code.pop(edx)?;
    code.pop(eax)?;
    code.iretd()
}
