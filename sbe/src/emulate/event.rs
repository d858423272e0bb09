//! [`Event`]: an interrupt or exception on its way to its handler.

use crate::cpu::eflags::RF;
use crate::fault::{Exception, Vector};
use crate::guest_event::GuestEvent;
use crate::policy::EventSource;
use mmu::LinearAddr;
use serde::{Deserialize, Serialize};

/// Error code bit: the index names a gate in the IDT.
const ERROR_IDT: u32 = 1 << 1;

/// An interrupt or exception that the processor delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Interrupt on the INTR pin. EFLAGS.RF is pushed as it stands: the caller sets it before when it interrupts a
    /// repeated string instruction between two iterations.
    External(u8),
    /// Non-maskable interrupt. Blocks further ones.
    Nmi,
    /// INT n, INT3 or INTO: obeys the gate's DPL.
    Software(u8),
    /// A fault: RF is pushed as one.
    Fault(Exception),
    /// A trap, or an instruction breakpoint: RF is pushed as it stands.
    Trap(Exception),
    /// An intercepted event that was changed by a decision. One that was an exception is a fault.
    Changed {
        /// The source of the event.
        source: EventSource,
        /// The new vector.
        vector: u8,
        /// The error code that is pushed.
        code: Option<u32>,
        /// The linear address that CR2 receives.
        address: Option<u64>,
    },
}

impl Event {
    /// The vector of the event.
    pub fn vector(self) -> u8 {
        match self {
            Self::External(vector) | Self::Software(vector) | Self::Changed { vector, .. } => {
                vector
            }
            Self::Nmi => Vector::Nmi as u8,
            Self::Fault(exception) | Self::Trap(exception) => exception.vector as u8,
        }
    }

    /// The error code that goes on the handler's stack.
    pub fn error_code(self) -> Option<u32> {
        match self {
            Self::Fault(exception) | Self::Trap(exception) => exception.code.map(u32::from),
            Self::Changed { code, .. } => code,
            Self::External(_) | Self::Nmi | Self::Software(_) => None,
        }
    }

    /// The source of the event.
    pub fn source(self) -> EventSource {
        match self {
            Self::External(_) | Self::Nmi => EventSource::External,
            Self::Software(_) => EventSource::Software,
            Self::Fault(_) | Self::Trap(_) => EventSource::Exception,
            Self::Changed { source, .. } => source,
        }
    }

    /// The linear address that CR2 receives with the event.
    pub fn fault_address(self) -> Option<u64> {
        match self {
            Self::Fault(exception) => exception.fault_address(),
            Self::Changed { address, .. } => address,
            _ => None,
        }
    }

    /// The event as observers and the policy see it when the processor stands at `cs:eip`.
    pub fn seen_at(self, (cs, eip): (u16, u64)) -> GuestEvent {
        GuestEvent {
            vector: self.vector(),
            source: self.source(),
            error_code: self.error_code(),
            cr2: self.fault_address().map(LinearAddr::new),
            cs,
            eip,
        }
    }

    /// The event with another vector and error code. CR2 receives an address if it is still a page fault.
    pub fn changed(self, vector: u8, code: Option<u32>) -> Self {
        let is_page_fault = vector == Vector::PageFault as u8;
        Self::Changed {
            source: self.source(),
            vector,
            code,
            address: self.fault_address().filter(|_| is_page_fault),
        }
    }

    /// The error code of a fault about the event's gate.
    pub fn gate_code(self) -> u32 {
        u32::from(self.vector()) << 3 | ERROR_IDT
    }

    /// Whether the event obeys the DPL of its gate.
    pub fn is_software(self) -> bool {
        self.source() == EventSource::Software
    }

    /// Whether the event comes from an instruction that faults if the delivery does: INT n, INT3, INTO, INT1.
    pub fn is_instruction(self) -> bool {
        self.is_software() || matches!(self, Self::Trap(_))
    }

    /// Whether the event is a debug exception.
    pub fn is_debug(self) -> bool {
        self.source() == EventSource::Exception && self.vector() == Vector::Debug as u8
    }

    /// The EFLAGS image that is pushed, when EFLAGS is `flags`.
    pub fn flags_image(self, flags: u32) -> u32 {
        match self {
            Self::Fault(_)
            | Self::Changed {
                source: EventSource::Exception,
                ..
            } => flags | RF,
            _ => flags,
        }
    }
}
