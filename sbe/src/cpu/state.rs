//! [`Cpu`]: everything an IA-32 program can observe of its processor.

use super::control::{
    CR0_ET, CR0_PE, CR0_PG, ControlRegister, DR6_FIXED, DR7_FIXED, MISC_ENABLE_FAST_STRINGS,
};
use super::eflags;
use super::fpu::FxState;
use super::model::CpuModel;
use super::regs::Registers;
use super::segment::{Attributes, SegReg, Segment, Selector};
use mmu::{LinearAddr, Privilege};

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct DescriptorTable {
    /// Linear base address.
    pub base: u32,
    /// Last valid byte offset.
    pub limit: u16,
}

/// Reasons for looking up between two instructions. Zero in the common case, so that the run loop tests one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Pending(pub u32);

impl Pending {
    /// The INTR pin is high.
    pub const INTR: u32 = 1 << 0;
    /// A non-maskable interrupt arrived.
    pub const NMI: u32 = 1 << 1;
    /// Maskable interrupts are inhibited until the next instruction has executed (STI, MOV SS, POP SS;
    /// SDM Vol. 3A, 6.8.3 "Masking Exceptions and Interrupts When Switching Stacks").
    pub const SHADOW: u32 = 1 << 2;
    /// As [`Self::SHADOW`], and NMIs and debug exceptions too (MOV SS, POP SS).
    pub const SHADOW_SS: u32 = 1 << 7;
    /// Memory accesses are checked for alignment (CR0.AM, EFLAGS.AC, CPL 3).
    pub const ALIGN: u32 = 1 << 8;
    /// [`Cpu::debug_hits`] holds debug conditions to report as a trap.
    pub const DEBUG_TRAP: u32 = 1 << 9;
    /// A breakpoint is enabled: instruction fetches and memory accesses are compared with the debug registers.
    pub const DEBUG: u32 = 1 << 3;
    /// HLT was executed.
    pub const HALT: u32 = 1 << 4;
    /// The bus asked the machine to stop.
    pub const STOP: u32 = 1 << 5;
    /// The paging registers, CPL or CS changed, or translations were flushed: the page to fetch from has to be looked up again.
    pub const REFETCH: u32 = 1 << 6;
    /// There are breakpoints of [`crate::Debugger::add_breakpoint`].
    pub const BREAK: u32 = 1 << 10;
    /// There are watchpoints of [`crate::Debugger::add_watchpoint`].
    pub const WATCH: u32 = 1 << 11;

    /// Adds reasons.
    pub fn set(&mut self, bits: u32) {
        self.0 |= bits;
    }

    /// Removes reasons.
    pub fn clear(&mut self, bits: u32) {
        self.0 &= !bits;
    }

    /// Whether any of the given reasons is there.
    pub fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }
}

/// What loading DS, ES, FS or GS in protected mode gave.
#[derive(Clone, Copy, Debug)]
pub struct SegmentLoad {
    /// The selector loaded.
    pub selector: Selector,
    /// What the register holds since.
    pub segment: Segment,
    /// CPL at the time.
    pub cpl: u8,
    /// [`Cpu::retired`] before the instruction.
    pub retired: u64,
}

/// The architectural state of one processor.
#[derive(Clone, Debug)]
pub struct Cpu {
    /// General registers.
    pub regs: Registers,
    /// Instruction pointer. While an instruction executes it already points to the next one.
    pub eip: u32,
    /// EFLAGS with [`eflags::FIXED`] set.
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
    pub cr2: u32,
    /// CR3.
    pub cr3: u32,
    /// CR4.
    pub cr4: u32,
    /// Debug registers; 4 and 5 are unused.
    pub dr: [u32; 8],
    /// IA32_EFER.
    pub efer: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u32,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u32,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u32,
    /// Added to the host's time-stamp counter.
    pub tsc_offset: u64,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// IA32_BIOS_SIGN_ID as last written (the microcode revision is 0).
    pub bios_sign_id: u64,
    /// x87, MMX and SSE state.
    pub fpu: FxState,
    /// What CPUID announces.
    pub model: CpuModel,
    /// Why the run loop must look up before the next instruction.
    pub pending: Pending,
    /// DR6 bits (B0..B3, BS, BT) to report by a debug trap after the current instruction.
    pub debug_hits: u32,
    /// NMIs are blocked until the next IRET.
    pub nmi_blocked: bool,
    /// The latest load of DS, ES, FS or GS by an instruction.
    pub last_load: Option<SegmentLoad>,
    /// Instructions retired, those that fault included, and deliveries between two: what a budget counts.
    pub retired: u64,
    /// Interrupts and exceptions delivered.
    pub delivered: u64,
}

impl Cpu {
    /// State after RESET (SDM Vol. 3A, 9.1.1 "Processor State After Reset").
    pub fn new(model: CpuModel) -> Self {
        let mut cs = Segment::real(Selector(0xF000));
        cs.base = 0xFFFF_0000;
        let data = Segment::real(Selector(0));
        let mut regs = Registers::default();
        regs.set(super::regs::EDX, model.signature());
        Self {
            regs,
            eip: 0xFFF0,
            eflags: eflags::FIXED,
            segs: [data, cs, data, data, data, data],
            ldtr: Segment::new(Selector(0), 0, 0xFFFF, Attributes(0x82)),
            tr: Segment::new(Selector(0), 0, 0xFFFF, Attributes(0x8B)),
            gdtr: DescriptorTable {
                base: 0,
                limit: 0xFFFF,
            },
            idtr: DescriptorTable {
                base: 0,
                limit: 0xFFFF,
            },
            cpl: 0,
            cr0: 0x6000_0000 | CR0_ET,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            dr: [0, 0, 0, 0, 0, 0, DR6_FIXED, DR7_FIXED],
            efer: 0,
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

    /// What `register` holds.
    pub fn control_register(&self, register: ControlRegister) -> u32 {
        match register {
            ControlRegister::Cr0 => self.cr0,
            ControlRegister::Cr2 => self.cr2,
            ControlRegister::Cr3 => self.cr3,
            ControlRegister::Cr4 => self.cr4,
        }
    }

    /// Protected mode, virtual-8086 mode included.
    #[inline]
    pub fn is_protected(&self) -> bool {
        self.cr0 & CR0_PE != 0
    }

    /// Virtual-8086 mode.
    #[inline]
    pub fn is_v86(&self) -> bool {
        self.eflags & eflags::VM != 0
    }

    /// Real-address or virtual-8086 mode: selectors are paragraph numbers.
    #[inline]
    pub fn has_paragraph_segments(&self) -> bool {
        !self.is_protected() || self.is_v86()
    }

    /// Paging is on.
    pub fn is_paging(&self) -> bool {
        self.cr0 & CR0_PG != 0
    }

    /// I/O privilege level, 0..=3.
    pub fn iopl(&self) -> u8 {
        ((self.eflags & eflags::IOPL) >> eflags::IOPL_SHIFT) as u8
    }

    /// Linear address of CS:EIP.
    pub fn linear_eip(&self) -> LinearAddr {
        LinearAddr::from(self.seg(SegReg::Cs).base.wrapping_add(self.eip))
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

    /// Whether the code segment's default operand and address size is 32 bits.
    #[inline]
    pub fn is_code32(&self) -> bool {
        self.seg(SegReg::Cs).attributes.is_big()
    }

    /// Whether the stack pointer is ESP (else SP).
    #[inline(always)]
    pub fn is_stack32(&self) -> bool {
        self.seg(SegReg::Ss).attributes.is_big()
    }
}
