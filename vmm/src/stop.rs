//! Why a machine stops.

use std::{io, sync::Arc};

use sbe::{GuestEvent, WatchHit};
use thiserror::Error;

/// Why a machine stopped.
#[derive(Clone, Debug, Error)]
pub enum StopReason {
    /// HLT with interrupts disabled: nothing can wake the processor. Without ACPI, power-off and halt end so.
    #[error("power-off")]
    PowerOff,
    /// The guest reset the machine.
    #[error("reboot")]
    Reboot,
    /// The guest's kernel panicked and reset the machine (known by the warm-reset flag, see [`crate::vm`]).
    #[error("guest kernel panic")]
    Panic,
    /// The processor shut down after a fault while it delivered a double fault (SDM Vol. 3A, Interrupt 8).
    #[error("triple fault")]
    TripleFault,
    /// The guest wrote this byte to the debug-exit port, F4h.
    #[error("debug exit with {0}")]
    DebugExit(u8),
    /// The guest did what this machine does not support.
    #[error("unsupported guest behaviour: {0}")]
    Unsupported(String),
    /// The policy keeps this from the guest for now. The machine can go on: see [`crate::Vm::decide`].
    #[error("intercepted {0}")]
    Intercepted(GuestEvent),
    /// The processor is about to execute the instruction at this linear address, which has a breakpoint. The machine can go on.
    #[error("breakpoint at {0:08x}")]
    Breakpoint(u32),
    /// The guest has accessed what is watched. The machine can go on.
    #[error("{0}")]
    Watchpoint(WatchHit),
    /// [`crate::Vm::step`] is done. The machine can go on.
    #[error("step done")]
    Stepped,
    /// [`crate::Control::pause`]. The machine can go on: see [`crate::Vm::run`].
    #[error("paused")]
    Paused,
    /// The user asked for it, by the console or by [`crate::Control::quit`].
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
    /// The guest rebooted.
    pub const REBOOT: u8 = 121;
    /// The guest's kernel panicked.
    pub const PANIC: u8 = 122;
    /// Triple fault.
    pub const TRIPLE_FAULT: u8 = 123;
    /// Unsupported guest behaviour, or an error of the monitor.
    pub const UNSUPPORTED: u8 = 124;
    /// Quit by ctrl-a x.
    pub const QUIT: u8 = 125;
    /// Added to the number of the signal that ended the program.
    pub const SIGNAL: u8 = 128;
}

impl StopReason {
    pub(crate) fn console(error: io::Error) -> Self {
        Self::Console(error.into())
    }

    /// The exit status of the `replex` program, which runs on after what the machine can go on after.
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
            Self::Reboot => status::REBOOT,
            Self::Panic => status::PANIC,
            Self::TripleFault => status::TRIPLE_FAULT,
            Self::DebugExit(value) => *value,
            Self::Unsupported(_)
            | Self::Intercepted(_)
            | Self::Breakpoint(_)
            | Self::Watchpoint(_)
            | Self::Stepped
            | Self::Paused => status::UNSUPPORTED,
            Self::Quit => status::QUIT,
            // Who writes to a pipe that nobody reads is sent this signal.
            Self::Console(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                status::SIGNAL + nix::libc::SIGPIPE as u8
            }
            Self::Console(_) => status::UNSUPPORTED,
        }
    }

    /// Whether the user should be told why the machine stopped: it was neither the guest's own wish nor the user's.
    pub fn is_abnormal(&self) -> bool {
        match self {
            Self::PowerOff | Self::DebugExit(_) | Self::Quit => false,
            Self::Console(error) => error.kind() != io::ErrorKind::BrokenPipe,
            Self::Reboot
            | Self::Panic
            | Self::TripleFault
            | Self::Unsupported(_)
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
        for (reason, expected) in [
            (StopReason::PowerOff, 0),
            (StopReason::Reboot, 121),
            (StopReason::Panic, 122),
            (StopReason::TripleFault, 123),
            (StopReason::DebugExit(42), 42),
            (StopReason::Unsupported("x".into()), 124),
            (StopReason::Quit, 125),
            (StopReason::Console(broken_pipe.into()), 141),
        ] {
            assert_eq!(reason.exit_status(), expected, "{reason}");
        }
    }
}
