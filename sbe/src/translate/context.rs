//! [`Context`]: what emitted code shares with the engine, addressed through R15.
//!
//! Register assignment inside emitted code:
//!
//! | host | holds |
//! |---|---|
//! | RAX RCX RDX RBX RBP RSI RDI | the guest's registers of the same names, zero-extended |
//! | R12 | guest ESP |
//! | R13 | linear address of the page that executes (CS is flat, so EIP of its first byte) |
//! | R14 | read table of the current privilege; the write table lies [`WRITE_TABLE`] further |
//! | R15 | the context |
//! | R8–R11 | scratch |
//! | status flags | the guest's |
//! | RSP | the host's stack |

use crate::cpu::eflags::{CF, OF, STATUS};
use mmu::View;
use std::mem::offset_of;

/// Entries of the jump cache.
pub const JUMP_ENTRIES: usize = 1 << 16;
/// The bits of EIP from this one on are added to the lower ones, so that functions 64 KiB apart do not share a slot.
pub const JUMP_FOLD: u32 = 16;

/// The jump-cache slot of `eip`.
pub fn jump_slot(eip: u32) -> usize {
    eip.wrapping_add(eip >> JUMP_FOLD) as usize % JUMP_ENTRIES
}

/// Distance from a read table to the write table of the same privilege, in bytes.
pub const WRITE_TABLE: i32 = 2 * View::STRIDE as i32;

/// Why emitted code came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// The emulator has to execute the instruction at EIP.
    Emulate = 0,
    /// The jump cache does not know EIP.
    Lookup = 1,
    /// A direct branch inside the page is not linked yet: [`Context::site`] names it.
    Link = 2,
    /// The budget of polls is used up.
    Budget = 3,
    /// The guest's x87, MMX and SSE state has to be loaded into the host's unit.
    LoadFpu = 4,
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

/// State shared with emitted code.
#[derive(Debug, Default)]
#[repr(C, align(16))]
pub struct Context {
    /// FXSAVE image: in when `fpu_live` is set before entering, out when `fpu_saved` is set on leaving.
    pub fpu: FxArea,
    /// EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI.
    pub regs: [u64; 8],
    /// Read table of the current privilege.
    pub table: u64,
    /// Bases of FS and GS.
    pub fs_base: u64,
    /// See `fs_base`.
    pub gs_base: u64,
    /// Nonzero when FS spans 4 GiB, readable and writable.
    pub fs_usable: u64,
    /// As `fs_usable`, of GS.
    pub gs_usable: u64,
    /// Jump cache, keys: minus (EIP + `space`).
    pub jump_keys: u64,
    /// Jump cache, host addresses.
    pub jump_targets: u64,
    /// Nonzero while the host's unit holds the guest's state.
    pub fpu_live: u64,
    /// Nonzero when emitted code left the guest's state in `fpu`.
    pub fpu_saved: u64,
    /// What tells address spaces, privileges and code versions apart in keys: a number in the upper half.
    pub space: u64,
    /// Status flags: AH as LAHF stores them, AL is OF.
    pub flags: u32,
    /// Polls left.
    pub polls: u32,
    /// Guest EIP, out.
    pub eip: u32,
    /// A [`Reason`].
    pub reason: u32,
    /// Which branch wants to be linked.
    pub site: u32,
    /// Holds a value across a second memory access of one instruction.
    pub scratch: u32,
    /// MXCSR as host code wants it.
    pub host_mxcsr: u32,
    /// RAX while a misaligned access is checked.
    pub saved_ax: u64,
    /// Status flags while a misaligned access is checked.
    pub saved_flags: u32,
}

/// Offsets of the fields, as displacements from R15.
pub mod offset {
    use super::{Context, offset_of};

    macro_rules! offsets {
        ($($name:ident = $field:ident),*) => {$(
            #[doc = concat!("Of `", stringify!($field), "`.")]
            pub const $name: i32 = offset_of!(Context, $field) as i32;
        )*};
    }

    offsets!(
        REGS = regs,
        TABLE = table,
        FS_BASE = fs_base,
        GS_BASE = gs_base,
        FS_USABLE = fs_usable,
        GS_USABLE = gs_usable,
        JUMP_KEYS = jump_keys,
        JUMP_TARGETS = jump_targets,
        SPACE = space,
        FLAGS = flags,
        POLLS = polls,
        EIP = eip,
        REASON = reason,
        SITE = site,
        SCRATCH = scratch,
        FPU = fpu,
        FPU_LIVE = fpu_live,
        FPU_SAVED = fpu_saved,
        HOST_MXCSR = host_mxcsr,
        SAVED_AX = saved_ax,
        SAVED_FLAGS = saved_flags
    );
}

impl Context {
    /// Why emitted code came back.
    pub fn reason(&self) -> Reason {
        match self.reason {
            0 => Reason::Emulate,
            1 => Reason::Lookup,
            2 => Reason::Link,
            3 => Reason::Budget,
            _ => Reason::LoadFpu,
        }
    }

    /// Takes over the status flags of `eflags`.
    pub fn set_flags(&mut self, eflags: u32) {
        self.flags = (eflags & 0xFF) << 8 | u32::from(eflags & OF != 0);
    }

    /// `eflags` with the context's status flags.
    pub fn merge_flags(&self, eflags: u32) -> u32 {
        const LOW: u32 = STATUS & 0xFF;
        let overflow = if self.flags & CF != 0 { OF } else { 0 };
        eflags & !STATUS | self.flags >> 8 & LOW | overflow
    }
}
