//! The registers with which a processor that has been reset enters a kernel or other code.

use super::Vcpu;
use crate::cpu::control::{CR0_ET, CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME};
use crate::cpu::regs::{EAX, EBX, ESI};
use crate::cpu::segment::{Attributes, SegReg, Segment, Selector};
use crate::cpu::{Pending, eflags};

/// Linux boot protocol, "32-bit BOOT PROTOCOL": selector of the flat code segment, __BOOT_CS.
const BOOT_CS: Selector = Selector(0x10);
/// Selector of the flat data segment, __BOOT_DS.
const BOOT_DS: Selector = Selector(0x18);
/// Multiboot Specification 0.6.96, 3.2 "Machine state": EAX.
const MULTIBOOT_MAGIC: u32 = 0x2bad_b002;

impl Vcpu {
    /// Sets the registers for 32-bit code at guest-physical `entry`: protected mode with flat segments, paging and interrupts off.
    pub fn set_flat_entry(&mut self, entry: u32) {
        let cpu = &mut self.cpu;
        let flat = |selector, attributes| Segment::new(selector, 0, u32::MAX, attributes);
        cpu.segs = [flat(BOOT_DS, Attributes::FLAT_DATA); 6];
        cpu.segs[SegReg::Cs as usize] = flat(BOOT_CS, Attributes::FLAT_CODE);
        cpu.cr0 = CR0_PE | CR0_ET;
        cpu.eflags = eflags::FIXED;
        cpu.eip = entry.into();
        cpu.pending.set(Pending::REFETCH);
    }

    /// Sets the registers as the 32-bit boot protocol requires: as [`Self::set_flat_entry`], and ESI the physical address of
    /// `boot_params` (Linux, Documentation/arch/x86/boot.rst, "32-bit Boot Protocol").
    pub fn set_linux_entry(&mut self, entry: u32, boot_params: u32) {
        self.set_flat_entry(entry);
        self.cpu.regs.set(ESI, boot_params);
    }

    /// Sets the registers as the 64-bit boot protocol requires: 64-bit mode at guest-physical `entry`, with flat segments, interrupts
    /// off, 4-level paging by the tables at `page_tables`, which map the kernel, `boot_params` and the command line to themselves,
    /// and RSI the physical address of `boot_params` (Linux, Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"). The model
    /// must have IA-32e mode.
    pub fn set_linux_entry64(&mut self, entry: u64, boot_params: u64, page_tables: u64) {
        self.set_flat_entry(0);
        let cpu = &mut self.cpu;
        cpu.segs[SegReg::Cs as usize] = Segment::new(BOOT_CS, 0, u32::MAX, Attributes::FLAT_CODE64);
        cpu.cr0 |= CR0_PG;
        cpu.cr3 = page_tables;
        cpu.cr4 = CR4_PAE;
        cpu.efer = EFER_LME | EFER_LMA;
        cpu.eip = entry;
        cpu.regs.set64(ESI, boot_params);
        self.mmu.set_paging(self.cpu.paging());
        self.mmu.flush_all();
    }

    /// Sets the registers as Multiboot requires: as [`Self::set_flat_entry`], EAX the magic number and EBX the physical address of
    /// the Multiboot information (Multiboot Specification 0.6.96, 3.2 "Machine state").
    pub fn set_multiboot_entry(&mut self, entry: u32, info: u32) {
        self.set_flat_entry(entry);
        self.cpu.regs.set(EAX, MULTIBOOT_MAGIC);
        self.cpu.regs.set(EBX, info);
    }

    /// Sets CS:IP of a processor in real-address mode.
    pub fn set_real_entry(&mut self, segment: u16, offset: u16) {
        self.cpu.segs[SegReg::Cs as usize] = Segment::real(Selector(segment));
        self.cpu.eip = offset.into();
        self.cpu.pending.set(Pending::REFETCH);
    }
}
