//! [`Exit`]: why the processor left its run loop.

use crate::code_address::CodeAddress;
use crate::debugger::WatchHit;
use crate::emulate::Exec;
use crate::fault::Fault;
use crate::guest_event::GuestEvent;
use crate::triple_fault::TripleFault;
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
    Shutdown(TripleFault),
    /// The guest needs something that replex does not implement.
    Unsupported(String),
    /// replex itself is wrong, whatever the guest does: emitted code failed its check, for one. The processor must not run on.
    Internal(String),
}

impl Exit {
    /// The exit that `fault` ends the run with: delivering it failed, or it cannot be delivered.
    #[cold]
    pub(super) fn of_fault(cx: &mut Exec<'_>, fault: Fault) -> Self {
        let at = CodeAddress::of(cx.cpu, cx.cpu.eip);
        match fault {
            Fault::Shutdown => Self::Shutdown(TripleFault {
                at,
                events: std::mem::take(cx.undelivered),
            }),
            Fault::Intercepted => cx.interceptor.held().map_or(Self::Budget, Self::Intercept),
            Fault::Unsupported(what) => Self::Unsupported(format!("{what} at {at}")),
            Fault::Exception(exception) => {
                Self::Internal(format!("undelivered {exception:?} at {at}"))
            }
        }
    }
}
