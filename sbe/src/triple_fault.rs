//! [`TripleFault`]: how the processor came to shut down.

use crate::code_address::CodeAddress;
use crate::fault::Vector;
use crate::guest_event::GuestEvent;
use crate::policy::EventSource;
use std::fmt;

/// The end of a processor that could not deliver a double fault (SDM Vol. 3A, 6.15 "Exception and Interrupt Reference",
/// Interrupt 8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TripleFault {
    /// The instruction that raised the first exception or was interrupted.
    pub at: CodeAddress,
    /// The events that could not be delivered, each raised by the delivery of the one before. A double fault comes behind the two
    /// exceptions that it stands for.
    pub events: Vec<GuestEvent>,
}

impl fmt::Display for TripleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "triple fault at {}", self.at)?;
        let mut separator = ": ";
        for event in &self.events {
            write!(f, "{separator}")?;
            write_short(f, event)?;
            separator = ", ";
        }
        Ok(())
    }
}

/// Writes an event in the manual's notation, as in `INT 0x80`, `#GP(0x402)` or `#PF(0x2, CR2 00001000)`.
fn write_short(f: &mut fmt::Formatter<'_>, event: &GuestEvent) -> fmt::Result {
    let vector = event.vector;
    match (event.source, Vector::mnemonic(vector)) {
        (EventSource::External, _) => write!(f, "interrupt {vector:#04x}"),
        (EventSource::Software, _) => write!(f, "INT {vector:#04x}"),
        (EventSource::Exception, Some(name)) => write!(f, "{name}"),
        (EventSource::Exception, None) => write!(f, "exception {vector:#04x}"),
    }?;
    match (event.error_code, event.cr2) {
        (Some(code), Some(address)) => write!(f, "({code:#x}, CR2 {:08x})", address.get()),
        (Some(code), None) => write!(f, "({code:#x})"),
        (None, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mmu::LinearAddr;

    fn event(vector: u8, source: EventSource, error_code: Option<u32>) -> GuestEvent {
        GuestEvent {
            vector,
            source,
            error_code,
            cr2: (vector == 14).then(|| LinearAddr::from(0x1000)),
            cs: 8,
            eip: 1,
        }
    }

    #[test]
    fn the_text_is_one_line() {
        let fault = TripleFault {
            at: CodeAddress {
                cs: 0x800,
                eip: 1,
                linear: 0x8001.into(),
            },
            events: vec![
                event(0x20, EventSource::External, None),
                event(3, EventSource::Software, None),
                event(6, EventSource::Exception, None),
                event(14, EventSource::Exception, Some(2)),
                event(8, EventSource::Exception, Some(0)),
                event(99, EventSource::Exception, None),
            ],
        };
        assert_eq!(
            fault.to_string(),
            "triple fault at 0800:00000001 (linear 00008001): interrupt 0x20, INT 0x03, #UD, #PF(0x2, CR2 00001000), \
             #DF(0x0), exception 0x63"
        );
    }
}
