//! Control registers; bits of control registers, debug registers and MSRs (SDM Vol. 3A, 2.5 "Control Registers", 17.2 "Debug
//! Registers").

/// A control register that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRegister {
    /// CR0: modes and states of the processor.
    Cr0 = 0,
    /// CR2: linear address of the latest page fault.
    Cr2 = 2,
    /// CR3: physical address of the top page table.
    Cr3 = 3,
    /// CR4: extensions.
    Cr4 = 4,
    /// CR8: task priority.
    Cr8 = 8,
}

impl ControlRegister {
    /// The control register with this number, if it exists.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Cr0),
            2 => Some(Self::Cr2),
            3 => Some(Self::Cr3),
            4 => Some(Self::Cr4),
            8 => Some(Self::Cr8),
            _ => None,
        }
    }

    /// The number of the register.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// CR0.PE: protected mode.
pub const CR0_PE: u32 = 1 << 0;
/// CR0.MP: WAIT obeys TS.
pub const CR0_MP: u32 = 1 << 1;
/// CR0.EM: no x87; x87 instructions raise #NM, MMX and SSE raise #UD.
pub const CR0_EM: u32 = 1 << 2;
/// CR0.TS: task switched; the next x87, MMX or SSE instruction raises #NM.
pub const CR0_TS: u32 = 1 << 3;
/// CR0.ET: hardwired to one.
pub const CR0_ET: u32 = 1 << 4;
/// CR0.NE: x87 errors raise #MF.
pub const CR0_NE: u32 = 1 << 5;
/// CR0.WP: supervisor writes obey R/W.
pub const CR0_WP: u32 = 1 << 16;
/// CR0.AM: EFLAGS.AC turns on alignment checks.
pub const CR0_AM: u32 = 1 << 18;
/// CR0.NW: not write-through.
pub const CR0_NW: u32 = 1 << 29;
/// CR0.CD: cache disable.
pub const CR0_CD: u32 = 1 << 30;
/// CR0.PG: paging.
pub const CR0_PG: u32 = 1 << 31;
/// The CR0 bits that software can change; the rest is fixed.
pub const CR0_WRITABLE: u32 =
    CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;

/// Whether CR0 may hold `value`, whose fixed bits are right: no paging without protection, no write-through without caches.
pub fn is_valid_cr0(value: u32) -> bool {
    let paging_unprotected = value & (CR0_PG | CR0_PE) == CR0_PG;
    let write_through_uncached = value & (CR0_NW | CR0_CD) == CR0_NW;
    !paging_unprotected && !write_through_uncached
}

/// CR4.VME: virtual-8086 mode extensions.
pub const CR4_VME: u32 = 1 << 0;
/// CR4.PVI: protected-mode virtual interrupts.
pub const CR4_PVI: u32 = 1 << 1;
/// CR4.TSD: RDTSC only at CPL 0.
pub const CR4_TSD: u32 = 1 << 2;
/// CR4.DE: DR4 and DR5 are undefined, I/O breakpoints work.
pub const CR4_DE: u32 = 1 << 3;
/// CR4.PSE: 4-MByte pages.
pub const CR4_PSE: u32 = 1 << 4;
/// CR4.PAE: physical-address extension.
pub const CR4_PAE: u32 = 1 << 5;
/// CR4.MCE: machine-check exceptions.
pub const CR4_MCE: u32 = 1 << 6;
/// CR4.PGE: global pages.
pub const CR4_PGE: u32 = 1 << 7;
/// CR4.PCE: RDPMC at any privilege level.
pub const CR4_PCE: u32 = 1 << 8;
/// CR4.OSFXSR: SSE instructions are usable.
pub const CR4_OSFXSR: u32 = 1 << 9;
/// CR4.OSXMMEXCPT: SIMD floating-point exceptions raise #XM.
pub const CR4_OSXMMEXCPT: u32 = 1 << 10;

/// CR4 bits of the features that CPUID announces; setting another is #GP(0).
pub const CR4_WRITABLE: u32 = CR4_TSD
    | CR4_DE
    | CR4_PSE
    | CR4_PAE
    | CR4_MCE
    | CR4_PGE
    | CR4_PCE
    | CR4_OSFXSR
    | CR4_OSXMMEXCPT;

/// CR8 bits that exist: the task priority.
pub const CR8_WRITABLE: u64 = 0xf;

/// IA32_EFER.SCE: SYSCALL and SYSRET.
pub const EFER_SCE: u64 = 1 << 0;
/// IA32_EFER.LME: paging makes IA-32e mode active.
pub const EFER_LME: u64 = 1 << 8;
/// IA32_EFER.LMA: IA-32e mode is active. It follows LME and CR0.PG.
pub const EFER_LMA: u64 = 1 << 10;
/// IA32_EFER.NXE: execute-disable bit of PAE and 4-level paging.
pub const EFER_NXE: u64 = 1 << 11;

/// IA32_FS_BASE: the base of FS (SDM Vol. 4, Table 2-2).
pub const IA32_FS_BASE: u32 = 0xc000_0100;
/// IA32_GS_BASE: the base of GS.
pub const IA32_GS_BASE: u32 = 0xc000_0101;
/// IA32_KERNEL_GS_BASE: the base that SWAPGS exchanges for that of GS.
pub const IA32_KERNEL_GS_BASE: u32 = 0xc000_0102;

/// IA32_MISC_ENABLE: fast string operations (SDM Vol. 4, Table 2-2).
pub const MISC_ENABLE_FAST_STRINGS: u64 = 1 << 0;

/// DR6 bits that always read as one.
pub const DR6_FIXED: u64 = 0xffff_0ff0;
/// DR6 bits that software can write.
pub const DR6_WRITABLE: u64 = 0xe00f;
/// DR6.BD: a debug register was accessed while DR7.GD was set.
pub const DR6_BD: u64 = 1 << 13;
/// DR6.BS: single step.
pub const DR6_BS: u64 = 1 << 14;
/// DR6.BT: task switch with the T bit set.
pub const DR6_BT: u64 = 1 << 15;
/// DR7 bit that always reads as one.
pub const DR7_FIXED: u64 = 1 << 10;
/// DR7.GD: accesses to debug registers raise #DB.
pub const DR7_GD: u64 = 1 << 13;
/// DR7 enable bits L0..G3.
pub const DR7_ENABLES: u64 = 0xff;
/// DR7 local enable bits L0..L3 and LE, cleared by a task switch.
pub const DR7_LOCAL: u64 = 0x155;
/// DR7 bits that exist.
pub const DR7_WRITABLE: u64 = 0xffff_2bff;
