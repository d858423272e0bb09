//! [`GuestEvent`]: an interrupt or exception on its way to the guest, as observers see it, and [`Decision`]: what they may do
//! with it.

use crate::policy::EventSource;
use mmu::LinearAddr;
use serde::{Deserialize, Serialize};
use std::fmt;

/// An interrupt or exception that the guest is about to get. [`crate::policy`] lists the sources, and whose EIP the event has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestEvent {
    /// The vector.
    pub vector: u8,
    /// The source of the event.
    pub source: EventSource,
    /// The error code that its handler would find on the stack, if it has one.
    pub error_code: Option<u32>,
    /// The address that CR2 receives when the event is delivered, if it is a page fault.
    pub cr2: Option<LinearAddr>,
    /// The selector in CS.
    pub cs: u16,
    /// The offset in that segment: RIP in 64-bit mode.
    pub eip: u64,
}

/// The event in one line. The alternate form omits the source.
impl fmt::Display for GuestEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vector {:#04x}", self.vector)?;
        if !f.alternate() {
            write!(f, ", {}", self.source.name())?;
        }
        if let Some(code) = self.error_code {
            write!(f, ", error code {code:#x}")?;
        }
        if let Some(address) = self.cr2 {
            write!(f, ", CR2 {:08x}", address.get())?;
        }
        write!(f, ", at {:04x}:{:08x}", self.cs, self.eip)
    }
}

/// The decision about an intercepted event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// The guest gets the event as if nothing had intercepted it.
    #[default]
    Reflect,
    /// The guest never learns of the event. An external interrupt stays acknowledged, and a processor that waits in HLT goes on
    /// waiting. INT n, INT3, INTO and INT1 have executed and done nothing. After a fault the instruction executes again, with RF
    /// set as a handler's IRET would set it; it may fault for ever. An instruction breakpoint is hit again unless the caller
    /// sets RF. Bits that a debug exception sets in DR6 stay set.
    Swallow,
    /// The guest gets another event from the same source: an event from software still obeys the DPL of its gate, and an
    /// exception is a fault. A page fault that stays one still sets CR2.
    Change {
        /// The new vector.
        vector: u8,
        /// The error code to push, if any; none is pushed in real-address mode.
        error_code: Option<u32>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_in_one_line() {
        let page_fault = GuestEvent {
            vector: 14,
            source: EventSource::Exception,
            error_code: Some(6),
            cr2: Some(LinearAddr::new(0xb7f0_0010)),
            cs: 0x73,
            eip: 0x804_8000,
        };
        assert_eq!(
            page_fault.to_string(),
            "vector 0x0e, exception, error code 0x6, CR2 b7f00010, at 0073:08048000"
        );
        assert_eq!(
            format!("{page_fault:#}"),
            "vector 0x0e, error code 0x6, CR2 b7f00010, at 0073:08048000"
        );
        let call = GuestEvent {
            vector: 0x80,
            source: EventSource::Software,
            error_code: None,
            cr2: None,
            ..page_fault
        };
        assert_eq!(call.to_string(), "vector 0x80, software, at 0073:08048000");
    }
}
