//! Interception: the policy is asked about an event before any part of its delivery, and the processor goes on once it is
//! decided.
//!
//! ```text
//!   consult ─► reflect, trace ─► deliver
//!      └─────► intercept ─► held, run loop exits ─► resume ─┬─► reflect, change ─► deliver, without asking again
//!                                                           └─► swallow
//! ```
//!
//! While an event is held, EIP is the event's: an instruction that asks for one has not executed.

use super::event::Event;
use super::exec::Exec;
use super::interceptor::Held;
use crate::cpu::Pending;
use crate::cpu::control::DR6_BS;
use crate::cpu::eflags::{RF, TF};
use crate::fault::Fault;
use crate::guest_event::Decision;
use crate::policy::{Action, EventSource};

impl Exec<'_> {
    /// Asks the policy about `event`. `length` is that of the instruction before EIP if it asks for the event, else 0.
    ///
    /// # Errors
    /// [`Fault::Intercepted`] if the event must not be delivered now.
    #[inline]
    pub fn consult(&mut self, event: Event, length: u8) -> Result<(), Fault> {
        if !self.interceptor.is_alert() {
            return Ok(());
        }
        self.apply_policy(event, length)
    }

    #[cold]
    fn apply_policy(&mut self, event: Event, length: u8) -> Result<(), Fault> {
        let seen = self.describe(event, length);
        match self.interceptor.policy().action(seen.vector, seen.source) {
            Action::Reflect => {}
            Action::Trace => log::info!(target: "irq", "{seen}"),
            Action::Intercept => {
                self.cpu.eip = seen.eip;
                self.interceptor.hold(Held {
                    event,
                    length,
                    seen,
                    decision: Decision::default(),
                });
                return Err(Fault::Intercepted);
            }
        }
        self.observe_event(seen);
        Ok(())
    }

    /// Carries out the decision about the event that was stopped, if there is one.
    ///
    /// # Errors
    /// As [`Self::raise`].
    pub fn resume(&mut self) -> Result<(), Fault> {
        let Some(held) = self.interceptor.release() else {
            return Ok(());
        };
        match held.decision {
            Decision::Reflect => self.release(held.event, held.length),
            Decision::Change { vector, error_code } => {
                self.release(held.event.changed(vector, error_code), held.length)
            }
            Decision::Swallow => {
                self.swallow(held);
                Ok(())
            }
        }
    }

    /// Delivers `event`, for which the instruction of `length` bytes at EIP asks if that is not 0.
    fn release(&mut self, event: Event, length: u8) -> Result<(), Fault> {
        self.observe_event(self.describe(event, 0));
        if length == 0 && event.source() == EventSource::Exception {
            return self.raise_admitted(event);
        }
        let start = self.cpu.eip;
        self.cpu.eip = self.cpu.wrap_eip(start.wrapping_add(length.into()));
        match self.deliver_admitted(event, length) {
            Err(Fault::Exception(exception)) => {
                self.undo_instruction(start);
                self.raise(exception)
            }
            done => done,
        }
    }

    fn swallow(&mut self, held: Held) {
        self.undelivered.clear();
        if matches!(held.event, Event::Fault(_)) {
            self.cpu.eflags |= RF;
        }
        if held.length == 0 {
            return;
        }
        self.cpu.eip = self
            .cpu
            .wrap_eip(self.cpu.eip.wrapping_add(held.length.into()));
        if self.cpu.eflags & TF != 0 {
            self.cpu.debug_hits |= DR6_BS;
            self.cpu.pending.set(Pending::DEBUG_TRAP);
        }
    }

    /// Goes back to the instruction at `start`, which has faulted: the breakpoints and watchpoints that it met do not count.
    pub fn undo_instruction(&mut self, start: u64) {
        self.cpu.eip = start;
        self.cpu.debug_hits = 0;
        self.debugger.take_hit();
        self.cpu.pending.clear(Pending::DEBUG_TRAP);
    }
}

#[cfg(test)]
mod tests;
