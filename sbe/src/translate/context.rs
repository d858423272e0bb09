//! [`Context`]: the state that emitted code shares with the engine, addressed through R15.
//!
//! Register assignment inside emitted code; with 48-bit linear addresses, where that differs, in the third column:
//!
//! | host | holds | with 48-bit linear addresses |
//! |---|---|---|
//! | RAX RDX RBX RBP RSI RDI | the guest's registers of the same names, zero-extended | of 64 bits in 64-bit code |
//! | R11 | guest ECX | guest RCX |
//! | R12 | guest ESP | guest RSP |
//! | R13 | linear address of the page that executes, plus [`PAGE_BIAS`] (CS is flat, so EIP of its first byte) | guest R13 |
//! | R14 | read table of the current privilege; the other tables lie at fixed distances | guest R14 |
//! | R15 | the context, plus [`CONTEXT_BIAS`] | |
//! | RCX | scratch: the one register that a branch can test without touching flags | |
//! | R8 R9 | scratch | |
//! | R10 | host address of the memory of a group; scratch where there is none | in windows, the distance of host addresses in the group's unit |
//! | GS base | the window, or [`NOWHERE`] | the window's directory, or [`NOWHERE`] |
//! | status flags | the guest's | |
//! | RSP | a stack of host return addresses, each pushed by a guest call | |
//!
//! With 48-bit linear addresses the page and the tables are fields of the context, and so are the guest's other registers from R8 to
//! R15. 32-bit code leaves guest R8 to R15 alone, wherever they are.
//!
//! Shifts take their count from the low five bits of a register. Two registers have these bits to spare, and the biases make
//! them useful counts.

use crate::cpu::eflags::{CF, OF, STATUS};
use mmu::{INDEX_BITS, View};
use std::mem::offset_of;

/// The bias of the context's address in R15: its low five bits are log2 of the page size less log2 of a doubleword's. Displacements
/// of 8 bits reach what lies from 128 bytes below it to 127 above.
pub const CONTEXT_BIAS: i32 = 160 + 10;
/// The bias of the page's address, in R13 or [`Context::page`]: log2 of the page size.
pub const PAGE_BIAS: i32 = 12;

/// The distance from a read table to the write table of the same privilege, in bytes.
pub const WRITE_TABLE: i32 = 2 * View::STRIDE as i32;
/// The distance from a read table to the fetch table of the same privilege, in bytes.
pub const FETCH_TABLE: i32 = 4 * View::STRIDE as i32;
/// The distance from a read table to the code table of the same privilege, in bytes.
pub const CODE_TABLE: i32 = 6 * View::STRIDE as i32;

/// The selector of the operand of no instruction.
pub const NO_SELECTOR: u32 = u32::MAX;

/// The base of a window that shows nothing: the lowest of the kernel's addresses, which user code cannot access.
pub const NOWHERE: u64 = 0xffff_8000_0000_0000;

/// The number of descriptors of the GDT that emitted code can know.
pub const KNOWN_SEGMENTS: usize = 32;

/// The reason of an exit from emitted code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// The emulator has to execute the instruction at EIP.
    Emulate = 0,
    /// No code is known for EIP.
    Lookup = 1,
    /// A direct branch inside the page is not linked yet: [`Context::site`] names it.
    Link = 2,
    /// The budget of polls is used up.
    Budget = 3,
    /// The guest's x87, MMX and SSE state has to be loaded into the host's unit.
    LoadFpu = 4,
    /// A table has no slot for the access that [`Context::access`] and [`Context::address`] describe.
    Miss = 5,
    /// A direct branch to another page is not linked yet: [`Context::site`] names it.
    LinkAcross = 6,
    /// An access through a window faulted: [`Context::fault`] says where.
    WindowFault = 7,
}

/// The number that stands for log2 of the size of an access to 16 bytes that needs no alignment.
const UNALIGNED: u32 = 5;

/// A memory access as one number: log2 of its size in bytes, 0..=4, or 5 for 16 bytes that need no alignment; twice, plus 1 if
/// it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessKind(u32);

impl AccessKind {
    /// The number of kinds.
    pub const COUNT: usize = 12;

    /// The kind of an access to `size` bytes, a power of two up to 16.
    pub fn new(size: u32, writes: bool) -> Self {
        Self(size.trailing_zeros() * 2 + u32::from(writes))
    }

    /// The kind of an access to 16 bytes that may lie anywhere.
    pub fn unaligned(writes: bool) -> Self {
        Self(2 * UNALIGNED + u32::from(writes))
    }

    /// Whether a misaligned address raises no fault, which is not known of 16 bytes that are not `unaligned`.
    pub fn may_be_misaligned(self) -> bool {
        self.0 / 2 != 4
    }

    /// All kinds, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT as u32).map(Self)
    }

    /// The kind with this number.
    pub fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// The kind's number, below [`Self::COUNT`].
    pub fn number(self) -> u32 {
        self.0
    }

    /// The number of bytes accessed.
    pub fn size(self) -> u32 {
        1 << (self.0 / 2).min(4)
    }

    /// Whether the access writes.
    pub fn writes(self) -> bool {
        !self.0.is_multiple_of(2)
    }
}

/// A fault that the host's processor reported while it executed emitted code.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct HostFault {
    /// Host address of the instruction.
    pub rip: u64,
    /// Host address of the access, where the fault has one.
    pub address: u64,
    /// Vector of the exception.
    pub trap: u32,
    /// Error code of the exception.
    pub error: u32,
}

/// An FXSAVE image.
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub struct FxArea(pub [u8; 512]);

impl Default for FxArea {
    fn default() -> Self {
        Self([0; 512])
    }
}

/// The state shared with emitted code. What fragments use most, at either width, lies in reach of 8-bit displacements from R15: all
/// from guest RSI to [`no_interrupt`](Self::no_interrupt).
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Context {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub regs: [u64; 16],
    /// The bits of a linear address that choose the slot, after a rotation to the right by log2 of the access's size, by that; the
    /// highest bits are those that are clear where the address is aligned.
    pub masks: [u64; 5],
    /// Read table of the current privilege.
    pub table: u64,
    /// Write table of the current privilege.
    pub write_table: u64,
    /// Fetch table of the current privilege.
    pub fetch_table: u64,
    /// Code table of the current privilege.
    pub code_table: u64,
    /// Linear address of the page that executes, plus [`PAGE_BIAS`].
    pub page: u64,
    /// Holds a value across a second memory access of one instruction.
    pub scratch: u64,
    /// The number of polls left.
    pub polls: u32,
    /// EFLAGS.DF in its place.
    pub direction_flag: u32,
    /// Base of GS.
    pub gs_base: u64,
    /// Base of FS.
    pub fs_base: u64,
    /// Nonzero while the host's unit holds the guest's FPU state. In: `fpu` is to be loaded at once; out: it was saved
    /// there.
    pub fpu_live: u64,
    /// The note of the latest x87 instruction that sets the last-instruction pointers: see [`X87Note`](super::x87_note::X87Note).
    pub x87_note: u32,
    /// EFLAGS.IF in its place.
    pub interrupt_flag: u32,
    /// The number of the [`Reason`] of the exit.
    pub reason: u32,
    /// Number of the branch that is to be linked.
    pub site: u32,
    /// Guest RIP, in and out.
    pub eip: u64,
    /// Nonzero when FS spans 4 GiB, readable and writable.
    pub fs_usable: u64,
    /// Nonzero when GS spans 4 GiB, readable and writable.
    pub gs_usable: u64,
    /// The difference of the guest's EFLAGS, but for IF and DF, and the host's RFLAGS.
    pub eflags_delta: u32,
    /// The part of EFLAGS that POPF in emitted code must find unchanged.
    pub eflags_fixed: u32,
    /// Nonzero when no interrupt waits for IF.
    pub no_interrupt: u64,
    /// The [`AccessKind`] of a miss.
    pub access: u32,
    /// Linear address of a miss.
    pub address: u64,
    /// Status flags: AH as LAHF stores them, AL is OF.
    pub flags: u32,
    /// Host address at which emitted code continues after a miss.
    pub resume: u64,
    /// The slot, which RCX holds then.
    pub slot: u64,
    /// The address of its page, plus [`PAGE_BIAS`].
    pub x87_page: u64,
    /// Effective address of the latest memory operand of such an instruction.
    pub x87_operand: u64,
    /// Selector of that operand's segment; [`NO_SELECTOR`] if emitted code has executed none.
    pub x87_selector: u32,
    /// R10.
    pub pointer: u64,
    /// Read, write, fetch and code tables of supervisor and user.
    pub tables: [[u64; 4]; 2],
    /// The negated host address of the area of entry tables.
    pub entries: u64,
    /// Base of GS: host address of linear address 0 in the window, or of the window's directory, [`NOWHERE`] where there is none, or
    /// 0 where emitted code may not set it.
    pub window: u64,
    /// The latest fault.
    pub fault: HostFault,
    /// RSP of emitted code.
    pub stack: u64,
    /// RSP of emitted code at CPL 0 when no call is open.
    pub stack_bottom: u64,
    /// RSP of emitted code at CPL 3, while code of CPL 0 executes.
    pub user_stack: u64,
    /// Selectors of ES, CS, SS, DS, FS and GS.
    pub selectors: [u32; 6],
    /// Nonzero for each segment register that emitted code has loaded.
    pub loaded: [u32; 6],
    /// Current privilege level, 0 or 3.
    pub cpl: u32,
    /// Nonzero when emitted code has changed the privilege level.
    pub level_changed: u32,
    /// All ones when SYSENTER can be executed.
    pub sysenter_usable: u64,
    /// All ones when SYSEXIT can be executed.
    pub sysexit_usable: u64,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u32,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u32,
    /// Selectors of CS and SS that SYSENTER and SYSEXIT load, or SYSCALL and SYSRET.
    pub flat_selectors: [[u32; 2]; 2],
    /// All ones when SYSCALL can be executed.
    pub syscall_usable: u64,
    /// All ones when SYSRET can be executed.
    pub sysret_usable: u64,
    /// IA32_LSTAR.
    pub lstar: u64,
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// CR0, nothing, CR2, CR3 and CR4.
    pub control: [u64; 5],
    /// Nonzero when RDTSC can be executed by user code.
    pub tsc_usable: u64,
    /// The guest's time-stamp counter less the host's.
    pub tsc_offset: u64,
    /// Linear address of the GDT.
    pub gdt_base: u32,
    /// The keys of the first [`KNOWN_SEGMENTS`] descriptors of the GDT: minus the selector less 1, if the effect of loading
    /// that into a data segment register at CPL 0 is known.
    pub known_keys: [u64; KNOWN_SEGMENTS],
    /// The negated descriptors for which these effects are known.
    pub known_descriptors: [u64; KNOWN_SEGMENTS],
    /// The bases of the known segments.
    pub known_bases: [u64; KNOWN_SEGMENTS],
    /// Nonzero for known segments that span 4 GiB, readable and writable.
    pub known_usable: [u64; KNOWN_SEGMENTS],
    /// Nonzero for known segments that span 4 GiB from base 0, readable and writable.
    pub known_flat: [u64; KNOWN_SEGMENTS],
    /// RSP of the engine.
    pub host_stack: u64,
    /// Nonzero when `fpu` is the guest's state and its instructions can run without an exception.
    pub fpu_loadable: u64,
    /// Nonzero when emitted code left a newer guest state in `fpu` than the processor has.
    pub fpu_saved: u64,
    /// MXCSR as host code needs it.
    pub host_mxcsr: u32,
    /// The guest's FPU state, as an FXSAVE image.
    pub fpu: FxArea,
}

/// Displacements of the fields from R15.
pub mod field {
    use super::{CONTEXT_BIAS, Context, offset_of};

    macro_rules! fields {
        ($($name:ident = $field:ident),* $(,)?) => {$(
            #[doc = concat!("The displacement of `", stringify!($field), "`.")]
            pub const $name: i32 = offset_of!(Context, $field) as i32 - CONTEXT_BIAS;
        )*};
    }

    fields!(
        POLLS = polls,
        EIP = eip,
        FPU_LIVE = fpu_live,
        FS_BASE = fs_base,
        GS_BASE = gs_base,
        FS_USABLE = fs_usable,
        GS_USABLE = gs_usable,
        SCRATCH = scratch,
        INTERRUPT_FLAG = interrupt_flag,
        DIRECTION_FLAG = direction_flag,
        EFLAGS_DELTA = eflags_delta,
        NO_INTERRUPT = no_interrupt,
        EFLAGS_FIXED = eflags_fixed,
        REASON = reason,
        SITE = site,
        ACCESS = access,
        ADDRESS = address,
        FLAGS = flags,
        RESUME = resume,
        SLOT = slot,
        X87_NOTE = x87_note,
        X87_PAGE = x87_page,
        X87_OPERAND = x87_operand,
        X87_SELECTOR = x87_selector,
        REGS = regs,
        PAGE = page,
        POINTER = pointer,
        TABLES = tables,
        TABLE = table,
        WRITE_TABLE = write_table,
        FETCH_TABLE = fetch_table,
        CODE_TABLE = code_table,
        MASKS = masks,
        ENTRIES = entries,
        WINDOW = window,
        STACK = stack,
        STACK_BOTTOM = stack_bottom,
        USER_STACK = user_stack,
        SELECTORS = selectors,
        LOADED = loaded,
        CPL = cpl,
        LEVEL_CHANGED = level_changed,
        SYSENTER_USABLE = sysenter_usable,
        SYSEXIT_USABLE = sysexit_usable,
        SYSENTER_ESP = sysenter_esp,
        SYSENTER_EIP = sysenter_eip,
        SYSCALL_USABLE = syscall_usable,
        SYSRET_USABLE = sysret_usable,
        LSTAR = lstar,
        KERNEL_GS_BASE = kernel_gs_base,
        FLAT_SELECTORS = flat_selectors,
        CONTROL = control,
        TSC_USABLE = tsc_usable,
        TSC_OFFSET = tsc_offset,
        GDT_BASE = gdt_base,
        KNOWN_KEYS = known_keys,
        KNOWN_DESCRIPTORS = known_descriptors,
        KNOWN_BASES = known_bases,
        KNOWN_USABLE = known_usable,
        KNOWN_FLAT = known_flat,
        HOST_STACK = host_stack,
        FPU_LOADABLE = fpu_loadable,
        FPU_SAVED = fpu_saved,
        HOST_MXCSR = host_mxcsr,
        FPU = fpu,
    );
}

const _: () =
    assert!(field::REGS + 6 * 8 >= i8::MIN as i32 && field::NO_INTERRUPT <= i8::MAX as i32);

impl Context {
    /// The reason of an exit from emitted code.
    pub fn reason(&self) -> Reason {
        match self.reason {
            0 => Reason::Emulate,
            1 => Reason::Lookup,
            2 => Reason::Link,
            3 => Reason::Budget,
            4 => Reason::LoadFpu,
            5 => Reason::Miss,
            6 => Reason::LinkAcross,
            _ => Reason::WindowFault,
        }
    }

    /// Sets the masks.
    pub fn set_masks(&mut self) {
        self.masks = std::array::from_fn(|log| {
            let aligned = !(u64::MAX >> log);
            INDEX_BITS.rotate_right(log as u32) | aligned
        });
    }

    /// Sets the context's status flags to those of `eflags`.
    pub fn set_flags(&mut self, eflags: u32) {
        self.flags = (eflags & 0xff) << 8 | u32::from(eflags & OF != 0);
    }

    /// Replaces the status flags of `eflags` by the context's.
    pub fn merge_flags(&self, eflags: u32) -> u32 {
        const LOW: u32 = STATUS & 0xff;
        let overflow = if self.flags & CF != 0 { OF } else { 0 };
        eflags & !STATUS | self.flags >> 8 & LOW | overflow
    }
}
