//! Guests with paging and programs: tables at fixed addresses, and code for them.

use super::{Program, STACK};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

const DIRECTORY: u32 = 0x0030_0000;
const TABLE: u32 = 0x0030_1000;
const IDT: u32 = 0x0030_2000;
const GDT: u32 = 0x0030_3000;
const TASK: u32 = 0x0030_4000;
/// Where programs of users may lie.
pub const USER: u32 = 0x0030_5000;
/// The handler of page faults.
pub const HANDLER: u32 = 0x0030_6000;
/// Selector of the last descriptor in the GDT.
pub const LAST_SELECTOR: i32 = 40;

/// Emits a store of a doubleword.
pub fn write(a: &mut CodeAssembler, address: u32, value: u32) -> Program {
    a.mov(dword_ptr(address), value as i32)
}

/// IA32_SYSENTER_CS, IA32_SYSENTER_ESP and IA32_SYSENTER_EIP (SDM Vol. 4, 2.1 "Architectural MSRs").
const SYSENTER: [i32; 3] = [0x174, 0x175, 0x176];

/// Emits what makes SYSENTER lead to the kernel's code at the address in EBX, with the stack at [`STACK`]. EAX, ECX and EDX are
/// overwritten.
pub fn set_up_sysenter(a: &mut CodeAssembler) -> Program {
    let [segment, stack, entry] = SYSENTER;
    a.xor(edx, edx)?;
    for (register, value) in [(segment, 8), (stack, STACK as i32)] {
        a.mov(ecx, register)?;
        a.mov(eax, value)?;
        a.wrmsr()?;
    }
    a.mov(ecx, entry)?;
    a.mov(eax, ebx)?;
    a.wrmsr()
}

/// Emits a task state that has the kernel's stack at [`STACK`]. Returns its descriptor.
pub fn write_task(a: &mut CodeAssembler) -> Result<u64, IcedError> {
    const KERNEL_DATA: u32 = 16;
    write(a, TASK + 4, STACK)?;
    write(a, TASK + 8, KERNEL_DATA)?;
    let [low, high] = [TASK << 16 | 0x67, TASK >> 16 | 0x8900];
    Ok(u64::from(high) << 32 | u64::from(low))
}

/// Emits tables that map everything to itself, for users too, but for the page at `special`, which gets the entry `entry`; a GDT
/// with flat code and data of both levels, as SYSEXIT wants them, and `last`; and what leads page faults to [`HANDLER`].
pub fn set_up(a: &mut CodeAssembler, (special, entry): (u32, u32), last: u64) -> Program {
    let mut again = a.create_label();
    a.xor(ecx, ecx)?;
    a.set_label(&mut again)?;
    a.mov(eax, ecx)?;
    a.shl(eax, 12)?;
    a.or(eax, 7)?;
    a.mov(dword_ptr(ecx * 4 + TABLE), eax)?;
    a.inc(ecx)?;
    a.cmp(ecx, 1024)?;
    a.jb(again)?;
    write(a, TABLE + (special >> 12) * 4, entry)?;
    write(a, DIRECTORY, TABLE | 7)?;
    let descriptors = [
        0x00cf_9b00_0000_ffff_u64,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        last,
    ];
    for (offset, descriptor) in (8..).step_by(8).zip(descriptors) {
        write(a, GDT + offset, descriptor as u32)?;
        write(a, GDT + offset + 4, (descriptor >> 32) as u32)?;
    }
    write(a, IDT + 14 * 8, 8 << 16 | HANDLER & 0xffff)?;
    write(a, IDT + 14 * 8 + 4, HANDLER & 0xffff_0000 | 0x8e00)?;
    for (table, limit) in [(GDT, 47), (IDT, 0x7ff)] {
        write(a, table - 8, limit | (table & 0xffff) << 16)?;
        write(a, table - 4, table >> 16)?;
    }
    a.lgdt(ptr(GDT - 8))?;
    a.lidt(ptr(IDT - 8))?;
    a.mov(eax, DIRECTORY)?;
    a.mov(cr3, eax)?;
    a.mov(eax, cr0)?;
    a.or(eax, 0x8000_0000u32 as i32)?;
    a.mov(cr0, eax)
}
