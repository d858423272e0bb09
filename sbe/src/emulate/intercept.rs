//! Asking the policy about an event before anything of its delivery has happened, and going on once it is decided.
//!
//! ```text
//!   consult ─► reflect, trace ─► deliver
//!      └─────► intercept ─► held, run loop exits ─► resume ─┬─► reflect, change ─► deliver, without asking again
//!                                                           └─► swallow
//! ```
//!
//! While an event is held, EIP is the event's: an instruction that asks for one has not executed.

use super::exec::Exec;
use super::interrupt::Event;
use crate::cpu::Pending;
use crate::cpu::control::DR6_BS;
use crate::cpu::eflags::{RF, TF};
use crate::fault::Fault;
use crate::guest_event::{Decision, GuestEvent};
use crate::policy::{Action, EventSource, Policy};

/// The policy, the event that it has stopped, and whether somebody observes the processor.
#[derive(Default)]
pub struct Interceptor {
    policy: Policy,
    is_observed: bool,
    held: Option<Held>,
}

/// An event before its delivery.
#[derive(Clone, Copy)]
struct Held {
    event: Event,
    /// Bytes of the instruction at EIP, if that asks for the event; else 0.
    length: u8,
    seen: GuestEvent,
    decision: Decision,
}

impl Interceptor {
    /// What becomes of which event.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Says what becomes of which event.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Whether somebody observes the processor.
    pub fn is_observed(&self) -> bool {
        self.is_observed
    }

    /// Says whether somebody observes the processor.
    pub fn set_observed(&mut self, observed: bool) {
        self.is_observed = observed;
    }

    /// Whether anybody wants to know of events.
    #[inline]
    fn is_alert(&self) -> bool {
        self.is_observed || !self.policy.reflects_all()
    }

    /// The event that was stopped.
    pub fn held(&self) -> Option<GuestEvent> {
        self.held.map(|held| held.seen)
    }

    /// Says what becomes of the event that was stopped, if there is one.
    pub fn decide(&mut self, decision: Decision) {
        if let Some(held) = &mut self.held {
            held.decision = decision;
        }
    }
}

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
        match self.interceptor.policy.action(seen.vector, seen.source) {
            Action::Reflect => {}
            Action::Trace => log::info!(target: "irq", "{seen}"),
            Action::Intercept => {
                self.cpu.eip = seen.eip;
                self.interceptor.held = Some(Held {
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

    /// Carries out what was decided about the event that was stopped, if there is one.
    ///
    /// # Errors
    /// As [`Self::raise`].
    pub fn resume(&mut self) -> Result<(), Fault> {
        let Some(held) = self.interceptor.held.take() else {
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
        self.cpu.eip = start.wrapping_add(length.into());
        match self.deliver_admitted(event) {
            Err(Fault::Exception(exception)) => {
                self.undo_instruction(start);
                self.raise(exception)
            }
            done => done,
        }
    }

    fn swallow(&mut self, held: Held) {
        if matches!(held.event, Event::Fault(_)) {
            self.cpu.eflags |= RF;
        }
        if held.length == 0 {
            return;
        }
        self.cpu.eip = self.cpu.eip.wrapping_add(held.length.into());
        if self.cpu.eflags & TF != 0 {
            self.cpu.debug_hits |= DR6_BS;
            self.cpu.pending.set(Pending::DEBUG_TRAP);
        }
    }

    /// Goes back to the instruction at `start`, which has faulted: what it hit of the debug registers does not count.
    pub fn undo_instruction(&mut self, start: u32) {
        self.cpu.eip = start;
        self.cpu.debug_hits = 0;
        self.debugger.take_hit();
        self.cpu.pending.clear(Pending::DEBUG_TRAP);
    }
}

#[cfg(test)]
mod tests;
