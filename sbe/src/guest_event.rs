//! [`GuestEvent`]: an interrupt or exception on its way to the guest, as those see it who watch; and what they may decide.

use crate::policy::Source;
use serde::{Deserialize, Serialize};
use std::fmt;

/// An interrupt or exception that the guest is about to get. [`crate::policy`] says what comes from where, and whose EIP it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestEvent {
    /// Its vector.
    pub vector: u8,
    /// Where it comes from.
    pub source: Source,
    /// The error code that its handler would find on the stack, if it has one.
    pub error_code: Option<u32>,
    /// Of a page fault, the linear address that goes to CR2 when it is delivered.
    pub cr2: Option<u32>,
    /// Selector in CS.
    pub cs: u16,
    /// EIP in that segment.
    pub eip: u32,
}

/// One line. The alternate form is without the source.
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
            write!(f, ", CR2 {address:08x}")?;
        }
        write!(f, ", at {:04x}:{:08x}", self.cs, self.eip)
    }
}

/// What becomes of an event that was intercepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// The guest gets it as if nobody had looked.
    #[default]
    Reflect,
    /// The guest never learns of it. An external interrupt stays acknowledged, and a processor that waits in HLT goes on
    /// waiting. INT n, INT3, INTO and INT1 have executed and done nothing. After a fault the instruction executes again, with RF
    /// set as a handler's IRET would set it; if it faults for ever, so be it. An instruction breakpoint is met again unless the
    /// caller sets RF. Bits that a debug exception sets in DR6 stay set.
    Swallow,
    /// The guest gets another from the same source: one from software still obeys the DPL of its gate, an exception is a fault.
    /// A page fault that stays one still sets CR2.
    Change {
        /// The vector.
        vector: u8,
        /// What is pushed as error code, if anything; never in real-address mode.
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
            source: Source::Exception,
            error_code: Some(6),
            cr2: Some(0xB7F0_0010),
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
            source: Source::Software,
            error_code: None,
            cr2: None,
            ..page_fault
        };
        assert_eq!(call.to_string(), "vector 0x80, software, at 0073:08048000");
    }
}
