//! [`StopReason`]: why a machine stopped, and [`status`]: the exit statuses of the program that ran it.

use std::{io, sync::Arc};

use mmu::LinearAddr;
use sbe::{CodeAddress, GuestEvent, TripleFault, WatchHit};
use thiserror::Error;

use crate::linear::Linear;

/// The reason why a machine stopped.
#[derive(Clone, Debug, Error)]
pub enum StopReason {
    /// The guest executed HLT with interrupts disabled and all lines of its interrupt controllers masked. Without ACPI, Linux powers
    /// off and halts like this. Or a device has switched the machine off.
    #[error("power-off")]
    PowerOff,
    /// The guest executed HLT, at this address, with interrupts disabled, but has not put its interrupt controllers to rest: it
    /// hangs, since nothing can wake the processor.
    #[error("HLT with interrupts disabled at {0}")]
    Halted(CodeAddress),
    /// The guest reset the machine.
    #[error("reboot")]
    Reboot,
    /// The guest's Linux kernel panicked and reset the machine. `ending.rs` says what tells this from a reboot.
    #[error("guest kernel panic")]
    Panic,
    /// The processor shut down after a fault during the delivery of a double fault (SDM Vol. 3A, Interrupt 8).
    #[error("{0}")]
    TripleFault(TripleFault),
    /// The guest wrote this byte to the debug-exit port, 0xf4.
    #[error("debug exit with {0}")]
    DebugExit(u8),
    /// The guest needs something that replex does not implement.
    #[error("unsupported guest behaviour: {0}")]
    Unsupported(String),
    /// replex itself is wrong, whatever the guest did.
    #[error("internal error: {0}; this is a bug of replex, please report it")]
    Internal(String),
    /// The policy withholds this event from the guest. The machine can go on: see [`crate::Vm::decide`].
    #[error("intercepted {0}")]
    Intercepted(GuestEvent),
    /// The processor is about to execute the instruction at this linear address, which has a breakpoint. The machine can go on.
    #[error("breakpoint at {}", Linear(*.0))]
    Breakpoint(LinearAddr),
    /// The guest has hit a watchpoint. The machine can go on.
    #[error("{0}")]
    Watchpoint(WatchHit),
    /// [`crate::Vm::step`] has executed its instruction. The machine can go on.
    #[error("step done")]
    Stepped,
    /// [`crate::Control::pause`] was called. The machine can go on: see [`crate::Vm::run`].
    #[error("paused")]
    Paused,
    /// The user quit, by the console or by [`crate::Control::quit`].
    #[error("quit by the user")]
    Quit,
    /// The host's side of the console failed.
    #[error("console: {0}")]
    Console(Arc<io::Error>),
}

/// Exit statuses of the `replex` program that are not the guest's own.
pub mod status {
    /// Bad usage or input.
    pub const USAGE: u8 = 2;
    /// A standard stream of the program has failed, other than by the end of who reads it.
    pub const STREAM: u8 = 117;
    /// A thread has made a system call that the sandbox denies.
    pub const SANDBOX: u8 = 118;
    /// The time that the user gave the machine is over.
    pub const TIMEOUT: u8 = 119;
    /// The guest halted with interrupts disabled, and not in good order.
    pub const HALTED: u8 = 120;
    /// The guest rebooted.
    pub const REBOOT: u8 = 121;
    /// The guest's kernel panicked.
    pub const PANIC: u8 = 122;
    /// Triple fault.
    pub const TRIPLE_FAULT: u8 = 123;
    /// Unsupported guest behaviour, or an internal error.
    pub const UNSUPPORTED: u8 = 124;
    /// The user quit by ctrl-a x.
    pub const QUIT: u8 = 125;
    /// The number that is added to that of the signal which ended the program.
    pub const SIGNAL: u8 = 128;
}

impl StopReason {
    pub(crate) fn console(error: io::Error) -> Self {
        Self::Console(error.into())
    }

    /// The exit status of a program that ends because the machine stopped for this reason.
    ///
    /// ```
    /// use vmm::StopReason;
    ///
    /// assert_eq!(StopReason::PowerOff.exit_status(), 0);
    /// assert_eq!(StopReason::DebugExit(3).exit_status(), 3);
    /// assert_eq!(StopReason::Panic.exit_status(), 122);
    /// ```
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::PowerOff => 0,
            Self::Halted(_) => status::HALTED,
            Self::Reboot => status::REBOOT,
            Self::Panic => status::PANIC,
            Self::TripleFault(_) => status::TRIPLE_FAULT,
            Self::DebugExit(value) => *value,
            Self::Unsupported(_)
            | Self::Internal(_)
            | Self::Intercepted(_)
            | Self::Breakpoint(_)
            | Self::Watchpoint(_)
            | Self::Stepped
            | Self::Paused => status::UNSUPPORTED,
            Self::Quit => status::QUIT,
            // A process that writes to a pipe without a reader gets this signal.
            Self::Console(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                status::SIGNAL + nix::libc::SIGPIPE as u8
            }
            Self::Console(_) => status::STREAM,
        }
    }

    /// Whether the guest has come to its end: the machine is not to be run any more.
    pub fn is_end(&self) -> bool {
        match self {
            Self::PowerOff
            | Self::Halted(_)
            | Self::Reboot
            | Self::Panic
            | Self::TripleFault(_)
            | Self::DebugExit(_)
            | Self::Unsupported(_)
            | Self::Internal(_) => true,
            Self::Intercepted(_)
            | Self::Breakpoint(_)
            | Self::Watchpoint(_)
            | Self::Stepped
            | Self::Paused
            | Self::Quit
            | Self::Console(_) => false,
        }
    }

    /// Whether the user should be told why the machine stopped, since neither the guest nor the user asked for it.
    pub fn is_abnormal(&self) -> bool {
        match self {
            Self::PowerOff | Self::DebugExit(_) | Self::Quit => false,
            Self::Console(error) => error.kind() != io::ErrorKind::BrokenPipe,
            Self::Halted(_)
            | Self::Reboot
            | Self::Panic
            | Self::TripleFault(_)
            | Self::Unsupported(_)
            | Self::Internal(_)
            | Self::Intercepted(_)
            | Self::Breakpoint(_)
            | Self::Watchpoint(_)
            | Self::Stepped
            | Self::Paused => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_statuses_are_the_documented_ones() {
        let broken_pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let at = CodeAddress {
            cs: 0x10,
            eip: 0,
            linear: 0.into(),
        };
        let events = Vec::new();
        for (reason, expected) in [
            (StopReason::PowerOff, 0),
            (StopReason::Reboot, 121),
            (StopReason::Panic, 122),
            (StopReason::Halted(at), 120),
            (StopReason::TripleFault(TripleFault { at, events }), 123),
            (StopReason::DebugExit(42), 42),
            (StopReason::Unsupported("x".into()), 124),
            (StopReason::Internal("x".into()), 124),
            (StopReason::Quit, 125),
            (StopReason::Console(broken_pipe.into()), 141),
            (StopReason::Console(full.into()), 117),
        ] {
            assert_eq!(reason.exit_status(), expected, "{reason}");
        }
    }

    #[test]
    fn an_internal_error_is_not_blamed_on_the_guest() {
        let stop = StopReason::Internal("emitted code: x".into());
        assert!(stop.is_abnormal());
        let message = stop.to_string();
        assert!(message.contains("bug of replex") && message.contains("report"));
        assert!(!message.contains("guest"), "{message}");
    }
}
