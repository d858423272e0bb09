//! [`Fault`]: the reason why an instruction ends early, be it an architectural exception or something replex does not support.

use mmu::{LinearFault, PageFault};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Exception vectors (SDM Vol. 3A, 6.3.1 "External Interrupts", Table 6-1 "Protected-Mode Exceptions and Interrupts").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Vector {
    /// #DE, divide error.
    DivideError = 0,
    /// #DB, debug.
    Debug = 1,
    /// Non-maskable interrupt.
    Nmi = 2,
    /// #BP, INT3.
    Breakpoint = 3,
    /// #OF, INTO.
    Overflow = 4,
    /// #BR, BOUND range exceeded.
    BoundRange = 5,
    /// #UD, invalid opcode.
    InvalidOpcode = 6,
    /// #NM, device not available.
    DeviceNotAvailable = 7,
    /// #DF, double fault.
    DoubleFault = 8,
    /// #TS, invalid TSS.
    InvalidTss = 10,
    /// #NP, segment not present.
    SegmentNotPresent = 11,
    /// #SS, stack-segment fault.
    StackFault = 12,
    /// #GP, general protection.
    GeneralProtection = 13,
    /// #PF, page fault.
    PageFault = 14,
    /// #MF, x87 floating-point error.
    X87Error = 16,
    /// #AC, alignment check.
    AlignmentCheck = 17,
    /// #XM, SIMD floating-point exception.
    SimdError = 19,
}

impl Vector {
    /// The mnemonic of the exception with `vector`; `None` for vectors that the manual does not assign, and for NMI.
    pub fn mnemonic(vector: u8) -> Option<&'static str> {
        Some(match vector {
            0 => "#DE",
            1 => "#DB",
            3 => "#BP",
            4 => "#OF",
            5 => "#BR",
            6 => "#UD",
            7 => "#NM",
            8 => "#DF",
            10 => "#TS",
            11 => "#NP",
            12 => "#SS",
            13 => "#GP",
            14 => "#PF",
            16 => "#MF",
            17 => "#AC",
            19 => "#XM",
            _ => return None,
        })
    }
}

/// An exception as it is delivered: vector, error code if the vector pushes one, faulting address of a page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// The vector.
    pub vector: Vector,
    /// The error code, for the vectors that push one. Those of exceptions have 16 bits.
    pub code: Option<u16>,
    /// The linear address that CR2 receives (page faults only).
    pub address: u64,
}

impl Exception {
    /// An exception that pushes no error code.
    pub const fn plain(vector: Vector) -> Self {
        Self {
            vector,
            code: None,
            address: 0,
        }
    }

    /// An exception with an error code.
    pub const fn with_code(vector: Vector, code: u32) -> Self {
        Self {
            vector,
            code: Some(code as u16),
            address: 0,
        }
    }

    /// The linear address that CR2 receives if this is a page fault.
    pub fn fault_address(&self) -> Option<u64> {
        (self.vector == Vector::PageFault).then_some(self.address)
    }
}

/// A feature that replex does not implement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[repr(u8)]
pub enum Unsupported {
    /// Instructions were to be fetched from outside RAM and ROM.
    #[error("instruction fetch from a device or absent memory")]
    FetchFromDevice,
    /// An x87 error with CR0.NE clear: it is reported by the FERR# pin and IRQ 13, which are not wired.
    #[error("x87 error reported through FERR# (CR0.NE is clear)")]
    ExternalX87Error,
    /// The delivery of an exception raised another, and so on without end.
    #[error("endless chain of exceptions while delivering an exception")]
    EndlessExceptions,
    /// The host's processor lacks the instruction.
    #[error("the host cannot execute this x87, MMX or SSE instruction")]
    HostRefuses,
}

/// The reason why an instruction did not complete. It is small enough to be returned in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The processor raises this exception; nothing the guest can see has changed.
    Exception(Exception),
    /// The guest needs something replex does not implement: the machine stops.
    Unsupported(Unsupported),
    /// An exception was raised during the delivery of a double fault: the processor enters shutdown.
    Shutdown,
    /// The policy stops the processor before an event is delivered; EIP is that event's.
    Intercepted,
}

impl Fault {
    /// #GP with the given error code.
    pub const fn gp(code: u32) -> Self {
        Self::Exception(Exception::with_code(Vector::GeneralProtection, code))
    }

    /// #SS with the given error code.
    pub const fn ss(code: u32) -> Self {
        Self::Exception(Exception::with_code(Vector::StackFault, code))
    }

    /// #NP with the given error code.
    pub const fn np(code: u32) -> Self {
        Self::Exception(Exception::with_code(Vector::SegmentNotPresent, code))
    }

    /// #TS with the given error code.
    pub const fn ts(code: u32) -> Self {
        Self::Exception(Exception::with_code(Vector::InvalidTss, code))
    }

    /// #UD.
    pub const fn ud() -> Self {
        Self::Exception(Exception::plain(Vector::InvalidOpcode))
    }

    /// An exception that pushes no error code.
    pub const fn plain(vector: Vector) -> Self {
        Self::Exception(Exception::plain(vector))
    }
}

impl From<PageFault> for Fault {
    fn from(fault: PageFault) -> Self {
        Self::Exception(Exception {
            vector: Vector::PageFault,
            code: Some(fault.code.bits() as u16),
            address: fault.addr.get(),
        })
    }
}

impl From<LinearFault> for Fault {
    fn from(fault: LinearFault) -> Self {
        match fault {
            LinearFault::Page(fault) => fault.into(),
            LinearFault::NonCanonical => Self::gp(0),
        }
    }
}

const _: () = assert!(size_of::<Result<(), Fault>>() == 16);
