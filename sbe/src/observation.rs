//! [`Observation`]: an act of the processor that its observers are told of.

use crate::cpu::control::ControlRegister;
use crate::guest_event::GuestEvent;
use crate::width::Width;
use std::fmt;

/// Something that the processor did, or is about to do. CS and EIP are those of the instruction that asked for it, unless said
/// otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// An interrupt or exception is about to be delivered. The policy has been asked, and what was decided has been applied. If
    /// the delivery faults, the resulting exception follows.
    Event(GuestEvent),
    /// A control register was written.
    Control(ControlWrite),
    /// An I/O port was read or written.
    Port(PortAccess),
}

/// A write of a control register: MOV, LMSW, CLTS, or a task switch, which sets CR0.TS and may load CR3 (SDM Vol. 3A, 7.3 "Task
/// Switching"). The address that a page fault leaves in CR2 comes with the fault ([`GuestEvent::cr2`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlWrite {
    /// The register that was written.
    pub register: ControlRegister,
    /// The value before.
    pub old: u64,
    /// The value now.
    pub new: u64,
    /// Selector in CS; of a task switch, the new task's.
    pub cs: u16,
    /// EIP in that segment, or RIP in 64-bit mode.
    pub eip: u64,
}

/// One access to an I/O port. A repeated INS or OUTS makes one each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAccess {
    /// The direction: IN or OUT.
    pub direction: Direction,
    /// The port, the lowest of those that the access covers.
    pub port: u16,
    /// The width of the access.
    pub width: Width,
    /// The value read or written; bits above the width are 0.
    pub value: u32,
    /// Selector in CS.
    pub cs: u16,
    /// EIP in that segment, or RIP in 64-bit mode.
    pub eip: u64,
}

/// The direction of a port access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A read of the port: IN, INS.
    In,
    /// A write of the port: OUT, OUTS.
    Out,
}

/// One line. The text of a [`GuestEvent`] omits its source.
impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(event) => write!(f, "{event:#}"),
            Self::Control(write) => write.fmt(f),
            Self::Port(access) => access.fmt(f),
        }
    }
}

impl fmt::Display for ControlWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            register,
            old,
            new,
            cs,
            eip,
        } = self;
        let number = register.number();
        write!(
            f,
            "CR{number} {old:08x} -> {new:08x}, at {cs:04x}:{eip:08x}"
        )
    }
}

impl fmt::Display for PortAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::In => "in ",
            Direction::Out => "out",
        };
        let (width, digits) = match self.width {
            Width::Byte => ("byte", 2),
            Width::Word => ("word", 4),
            Width::Dword => ("dword", 8),
        };
        let Self {
            port,
            value,
            cs,
            eip,
            ..
        } = self;
        write!(
            f,
            "{direction} {port:04x} {width} {value:0digits$x}, at {cs:04x}:{eip:08x}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::EventSource;
    use mmu::LinearAddr;

    #[test]
    fn an_observation_is_told_in_one_line() {
        let (cs, eip) = (0x60, 0xc100_0000);
        let access = |direction, port, width, value| {
            let (cs, eip) = (0x60, 0xc100_0000);
            Observation::Port(PortAccess {
                direction,
                port,
                width,
                value,
                cs,
                eip,
            })
        };
        for (what, text) in [
            (
                Observation::Event(GuestEvent {
                    vector: 14,
                    source: EventSource::Exception,
                    error_code: Some(2),
                    cr2: Some(LinearAddr::new(0xc012_3456)),
                    cs,
                    eip,
                }),
                "vector 0x0e, error code 0x2, CR2 c0123456, at 0060:c1000000",
            ),
            (
                Observation::Control(ControlWrite {
                    register: ControlRegister::Cr3,
                    old: 0x10_2000,
                    new: 0x3fff_d000,
                    cs,
                    eip,
                }),
                "CR3 00102000 -> 3fffd000, at 0060:c1000000",
            ),
            (
                access(Direction::Out, 0x43, Width::Byte, 0x34),
                "out 0043 byte 34, at 0060:c1000000",
            ),
            (
                access(Direction::In, 0x1f0, Width::Word, 0xabc),
                "in  01f0 word 0abc, at 0060:c1000000",
            ),
            (
                access(Direction::In, 0xcfc, Width::Dword, u32::MAX),
                "in  0cfc dword ffffffff, at 0060:c1000000",
            ),
        ] {
            assert_eq!(what.to_string(), text);
        }
    }
}
