//! [`Observation`]: what the processor does that those who observe it are told of.

use crate::bus::Width;
use crate::cpu::control::ControlRegister;
use crate::guest_event::GuestEvent;
use std::fmt;

/// Something that the processor did, or is about to do. CS and EIP are those of the instruction that asked for it, unless said
/// otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// An interrupt or exception is about to be delivered, as it will be: after the policy, and what was decided by it. One whose
    /// delivery faults is followed by the exception that comes of that.
    Event(GuestEvent),
    /// A control register was written.
    Control(ControlWrite),
    /// An I/O port was read or written.
    Port(PortAccess),
}

/// A write of a control register: MOV, LMSW, CLTS, or a task switch, which sets CR0.TS and may load CR3 (SDM Vol. 3A, 7.3 "Task
/// Switching"). The address that a page fault leaves in CR2 is told with the fault ([`GuestEvent::cr2`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlWrite {
    /// Which one.
    pub register: ControlRegister,
    /// What it held before.
    pub old: u32,
    /// What it holds now.
    pub new: u32,
    /// Selector in CS; of a task switch, the new task's.
    pub cs: u16,
    /// EIP in that segment.
    pub eip: u32,
}

/// One access to an I/O port. A repeated INS or OUTS makes one each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAccess {
    /// IN or OUT.
    pub direction: Direction,
    /// The port, the lowest of those that the access covers.
    pub port: u16,
    /// How wide the access is.
    pub width: Width,
    /// What was read or written; bits above the width are 0.
    pub value: u32,
    /// Selector in CS.
    pub cs: u16,
    /// EIP in that segment.
    pub eip: u32,
}

/// Which way a port access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the port: IN, INS.
    In,
    /// To the port: OUT, OUTS.
    Out,
}

/// The text of [`GuestEvent`] is without its source.
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
        let (cs, eip) = (0x60, 0xC100_0000);
        let access = |direction, port, width, value| {
            let (cs, eip) = (0x60, 0xC100_0000);
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
                    cr2: Some(LinearAddr::new(0xC012_3456)),
                    cs,
                    eip,
                }),
                "vector 0x0e, error code 0x2, CR2 c0123456, at 0060:c1000000",
            ),
            (
                Observation::Control(ControlWrite {
                    register: ControlRegister::Cr3,
                    old: 0x10_2000,
                    new: 0x3FFF_D000,
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
                access(Direction::In, 0x1F0, Width::Word, 0xABC),
                "in  01f0 word 0abc, at 0060:c1000000",
            ),
            (
                access(Direction::In, 0xCFC, Width::Dword, u32::MAX),
                "in  0cfc dword ffffffff, at 0060:c1000000",
            ),
        ] {
            assert_eq!(what.to_string(), text);
        }
    }
}
