//! [`Cpu`]: everything that an IA-32 program can observe of its processor.

mod address_size;
pub mod canonical;
pub mod control;
pub mod eflags;
pub mod fpu;
pub mod model;
mod pending;
pub mod regs;
pub mod segment;
mod state;
mod syscall;
mod tags;
mod time_stamp;

pub use address_size::AddressSize;
pub use pending::Pending;
pub use segment::{DescriptorTable, SegmentLoad};
pub use state::{CpuState, CpuStateError, FpuState, InterruptShadow, SegmentState};
pub use syscall::SyscallRegisters;
pub use time_stamp::host_time_stamp;

use control::{
    CR0_ET, CR0_PE, CR0_PG, CR0_WP, CR4_PAE, CR4_PGE, CR4_PSE, ControlRegister, DR6_FIXED,
    DR7_FIXED, EFER_LMA, EFER_NXE, MISC_ENABLE_FAST_STRINGS,
};
use fpu::FxState;
use mmu::{LinearAddr, Paging, PagingMode, Privilege};
use model::CpuModel;
use regs::Registers;
use segment::{Attributes, SegReg, Segment, Selector};

/// The architectural state of one processor.
#[derive(Clone, Debug)]
pub struct Cpu {
    /// General registers.
    pub regs: Registers,
    /// Instruction pointer: RIP, or EIP outside of 64-bit mode, with an upper half of zero. While an instruction executes, it
    /// points to the next one already.
    pub eip: u64,
    /// RFLAGS, whose upper half is zero, with [`eflags::FIXED`] set.
    pub eflags: u32,
    /// Segment registers in encoding order.
    pub segs: [Segment; 6],
    /// Local descriptor table register.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table register.
    pub gdtr: DescriptorTable,
    /// Interrupt descriptor table register.
    pub idtr: DescriptorTable,
    /// Current privilege level: 3 in virtual-8086 mode, 0 in real-address mode.
    pub cpl: u8,
    /// CR0.
    pub cr0: u32,
    /// CR2: linear address of the last page fault.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u32,
    /// CR8: task priority, 0..=15.
    pub cr8: u8,
    /// Debug registers; 4 and 5 are unused.
    pub dr: [u64; 8],
    /// IA32_EFER.
    pub efer: u64,
    /// The targets and selectors of SYSCALL and SYSRET.
    pub syscall: SyscallRegisters,
    /// IA32_KERNEL_GS_BASE. IA32_FS_BASE and IA32_GS_BASE are the bases of the segment registers.
    pub kernel_gs_base: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u32,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// The guest's time-stamp counter minus the host's.
    pub tsc_offset: u64,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// IA32_BIOS_SIGN_ID as last written (the microcode revision is 0).
    pub bios_sign_id: u64,
    /// x87, MMX and SSE state.
    pub fpu: FxState,
    /// The model that CPUID announces.
    pub model: CpuModel,
    /// The reasons why the run loop must look up before the next instruction.
    pub pending: Pending,
    /// DR6 bits (B0..B3, BS, BT) to report by a debug trap after the current instruction.
    pub debug_hits: u64,
    /// Whether NMIs are blocked until the next IRET.
    pub nmi_blocked: bool,
    /// The latest load of DS, ES, FS or GS by an instruction.
    pub last_load: Option<SegmentLoad>,
    /// Number of instructions retired, faulting ones included, and of deliveries between instructions: the unit of budgets.
    pub retired: u64,
    /// Number of interrupts and exceptions delivered.
    pub delivered: u64,
}

impl Cpu {
    /// A processor after RESET (SDM Vol. 3A, 9.1.1 "Processor State After Reset").
    pub fn new(model: CpuModel) -> Self {
        let mut cs = Segment::real(Selector(0xf000));
        cs.base = 0xffff_0000;
        let data = Segment::real(Selector(0));
        let mut regs = Registers::default();
        regs.set(regs::EDX, model.signature());
        Self {
            regs,
            eip: 0xfff0,
            eflags: eflags::FIXED,
            segs: [data, cs, data, data, data, data],
            ldtr: Segment::new(Selector(0), 0, 0xffff, Attributes(0x82)),
            tr: Segment::new(Selector(0), 0, 0xffff, Attributes(0x8b)),
            gdtr: DescriptorTable {
                base: 0,
                limit: 0xffff,
            },
            idtr: DescriptorTable {
                base: 0,
                limit: 0xffff,
            },
            cpl: 0,
            cr0: 0x6000_0000 | CR0_ET,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            cr8: 0,
            dr: [0, 0, 0, 0, 0, 0, DR6_FIXED, DR7_FIXED],
            efer: 0,
            syscall: SyscallRegisters::default(),
            kernel_gs_base: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            tsc_offset: 0,
            misc_enable: MISC_ENABLE_FAST_STRINGS,
            bios_sign_id: 0,
            fpu: FxState::default(),
            model,
            pending: Pending(Pending::REFETCH),
            debug_hits: 0,
            nmi_blocked: false,
            last_load: None,
            retired: 0,
            delivered: 0,
        }
    }

    /// The segment register `reg`.
    #[inline(always)]
    pub fn seg(&self, reg: SegReg) -> &Segment {
        &self.segs[reg as usize]
    }

    /// The value of `register`.
    pub fn control_register(&self, register: ControlRegister) -> u64 {
        match register {
            ControlRegister::Cr0 => self.cr0.into(),
            ControlRegister::Cr2 => self.cr2,
            ControlRegister::Cr3 => self.cr3,
            ControlRegister::Cr4 => self.cr4.into(),
            ControlRegister::Cr8 => self.cr8.into(),
        }
    }

    /// Whether the processor is in protected mode, virtual-8086 mode included.
    #[inline]
    pub fn is_protected(&self) -> bool {
        self.cr0 & CR0_PE != 0
    }

    /// Whether the processor is in virtual-8086 mode.
    #[inline]
    pub fn is_v86(&self) -> bool {
        self.eflags & eflags::VM != 0
    }

    /// Whether selectors are paragraph numbers: in real-address and virtual-8086 mode.
    #[inline]
    pub fn has_paragraph_segments(&self) -> bool {
        !self.is_protected() || self.is_v86()
    }

    /// Whether the processor is in IA-32e mode: in 64-bit or compatibility mode (SDM Vol. 3A, 2.2 "Modes of Operation").
    #[inline(always)]
    pub fn is_long(&self) -> bool {
        self.efer & EFER_LMA != 0
    }

    /// Whether the processor is in 64-bit mode.
    #[inline(always)]
    pub fn is_code64(&self) -> bool {
        self.is_long() && self.seg(SegReg::Cs).attributes.is_long()
    }

    /// Whether paging is on.
    pub fn is_paging(&self) -> bool {
        self.cr0 & CR0_PG != 0
    }

    /// The paging registers, as the MMU takes them.
    pub fn paging(&self) -> Paging {
        let is_paging = self.cr0 & (CR0_PE | CR0_PG) == CR0_PE | CR0_PG;
        let mode = match (is_paging, self.cr4 & CR4_PAE != 0, self.is_long()) {
            (false, _, _) => PagingMode::Off,
            (true, false, _) => PagingMode::TwoLevel,
            (true, true, false) => PagingMode::Pae,
            (true, true, true) => PagingMode::FourLevel,
        };
        let cr3 = match self.is_long() {
            true => self.cr3,
            false => u64::from(self.cr3 as u32),
        };
        Paging {
            mode,
            pse: self.cr4 & CR4_PSE != 0,
            wp: self.cr0 & CR0_WP != 0,
            pge: self.cr4 & CR4_PGE != 0,
            nxe: self.efer & EFER_NXE != 0,
            cr3,
        }
    }

    /// I/O privilege level, 0..=3.
    pub fn iopl(&self) -> u8 {
        ((self.eflags & eflags::IOPL) >> eflags::IOPL_SHIFT) as u8
    }

    /// Linear address of CS:EIP.
    pub fn linear_eip(&self) -> LinearAddr {
        self.linear_code(self.eip)
    }

    /// Linear address of the offset `eip` in the code segment.
    pub fn linear_code(&self, eip: u64) -> LinearAddr {
        match self.is_code64() {
            true => LinearAddr::new(eip),
            false => self.seg(SegReg::Cs).linear32(eip as u32),
        }
    }

    /// The linear address of `offset` in `segment` in 64-bit mode, canonical or not: FS and GS alone have a base.
    #[inline(always)]
    pub fn linear64(&self, segment: SegReg, offset: u64) -> u64 {
        match segment {
            SegReg::Fs | SegReg::Gs => self.seg(segment).base.wrapping_add(offset),
            _ => offset,
        }
    }

    /// The linear address of `offset` in `segment`, not checked in any way.
    pub fn linear(&self, segment: SegReg, offset: u64) -> LinearAddr {
        match self.is_code64() {
            true => LinearAddr::new(self.linear64(segment, offset)),
            false => self.seg(segment).linear32(offset as u32),
        }
    }

    /// The instruction pointer `length` bytes before the present one.
    #[inline(always)]
    pub fn eip_before(&self, length: u8) -> u64 {
        self.wrap_eip(self.eip.wrapping_sub(length.into()))
    }

    /// Cuts `eip` to the size of the instruction pointer: 64 bits in 64-bit mode, else 32.
    #[inline(always)]
    pub fn wrap_eip(&self, eip: u64) -> u64 {
        match self.is_code64() {
            true => eip,
            false => u64::from(eip as u32),
        }
    }

    /// The linear address `offset` bytes from `base`, the base of a descriptor table or task-state segment.
    pub fn system_address(&self, base: u64, offset: u32) -> LinearAddr {
        match self.is_long() {
            true => LinearAddr::new(base.wrapping_add(offset.into())),
            false => LinearAddr::from((base as u32).wrapping_add(offset)),
        }
    }

    /// The privilege with which the program's own accesses go through paging.
    #[inline(always)]
    pub fn privilege(&self) -> Privilege {
        if self.cpl == 3 {
            Privilege::User
        } else {
            Privilege::Supervisor
        }
    }

    /// Whether the code segment's default operand and address size is 32 bits; of no meaning in 64-bit mode.
    #[inline]
    pub fn is_code32(&self) -> bool {
        self.seg(SegReg::Cs).attributes.is_big()
    }

    /// The size of the stack pointer: RSP, or by the B bit of SS ESP or SP.
    #[inline(always)]
    pub fn stack_size(&self) -> AddressSize {
        if self.is_code64() {
            AddressSize::Bits64
        } else {
            self.seg(SegReg::Ss).stack_size()
        }
    }
}
