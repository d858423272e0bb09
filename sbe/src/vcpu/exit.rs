//! [`Exit`]: why the processor left its run loop.

use crate::cpu::segment::SegReg;
use crate::debugger::WatchHit;
use crate::emulate::Exec;
use crate::fault::Fault;
use crate::guest_event::GuestEvent;
use mmu::LinearAddr;

/// The reason why [`crate::Vcpu::run`] returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The budget is used up.
    Budget,
    /// HLT: the processor waits for an interrupt. With IF clear only an NMI can wake it.
    Halt,
    /// The bus asked the machine to stop.
    Stop,
    /// The policy stopped the processor before anything of this event's delivery happened, except for the acknowledge cycle
    /// that supplies an external interrupt's vector. See [`crate::Vcpu::decide`].
    Intercept(GuestEvent),
    /// The instruction at this linear address has a breakpoint and is the next to execute. The next run executes it before an
    /// interrupt can come.
    Breakpoint(LinearAddr),
    /// The last instruction, or the delivery of an event, hit a watchpoint.
    Watchpoint(WatchHit),
    /// Triple fault: the processor entered shutdown.
    Shutdown,
    /// The guest needs something that replex does not implement.
    Unsupported(String),
    /// replex itself is wrong, whatever the guest does: emitted code failed its check, for one. The processor must not run on.
    Internal(String),
}

impl Exit {
    /// The exit that `fault` ends the run with: delivering it failed, or it cannot be delivered.
    #[cold]
    pub(super) fn of_fault(cx: &Exec<'_>, fault: Fault) -> Self {
        let place = || {
            let cs = cx.cpu.seg(SegReg::Cs).selector.0;
            format!("at {cs:04x}:{:08x}", cx.cpu.eip)
        };
        match fault {
            Fault::Shutdown => Self::Shutdown,
            Fault::Intercepted => cx.interceptor.held().map_or(Self::Budget, Self::Intercept),
            Fault::Unsupported(what) => Self::Unsupported(format!("{what} {}", place())),
            Fault::Exception(exception) => {
                Self::Internal(format!("undelivered {exception:?} {}", place()))
            }
        }
    }
}
