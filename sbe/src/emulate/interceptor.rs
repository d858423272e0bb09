//! [`Interceptor`]: the policy, and the event that it has stopped.

use super::event::Event;
use crate::cpu::segment::SegReg;
use crate::cpu::{Cpu, CpuStateError};
use crate::decode::decoder::MAX_LENGTH;
use crate::guest_event::{Decision, GuestEvent};
use crate::policy::Policy;
use serde::{Deserialize, Serialize};

/// The policy, the event that it has stopped, and whether somebody observes the processor.
#[derive(Default)]
pub struct Interceptor {
    policy: Policy,
    is_observed: bool,
    held: Option<Held>,
}

/// An event before its delivery.
#[derive(Clone, Copy)]
pub struct Held {
    /// The event.
    pub event: Event,
    /// Bytes of the instruction at EIP, if that asks for the event; else 0.
    pub length: u8,
    /// The event as it is shown to those who decide about it.
    pub seen: GuestEvent,
    /// The decision about it.
    pub decision: Decision,
}

/// An event that the policy has stopped, as it is saved. The processor's CS and EIP belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldState {
    event: Event,
    length: u8,
    decision: Decision,
}

impl Interceptor {
    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Sets the policy.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Whether somebody observes the processor.
    pub fn is_observed(&self) -> bool {
        self.is_observed
    }

    /// Sets whether somebody observes the processor.
    pub fn set_observed(&mut self, observed: bool) {
        self.is_observed = observed;
    }

    /// Whether events have to be reported to anybody: an observer, or the policy.
    #[inline]
    pub fn is_alert(&self) -> bool {
        self.is_observed || !self.policy.reflects_all()
    }

    /// The event that was stopped.
    pub fn held(&self) -> Option<GuestEvent> {
        self.held.map(|held| held.seen)
    }

    /// Decides about the event that was stopped, if there is one.
    pub fn decide(&mut self, decision: Decision) {
        if let Some(held) = &mut self.held {
            held.decision = decision;
        }
    }

    /// Stops an event.
    pub fn hold(&mut self, held: Held) {
        self.held = Some(held);
    }

    /// Takes the event that was stopped, if there is one.
    pub fn release(&mut self) -> Option<Held> {
        self.held.take()
    }

    /// Saves the event that was stopped and the decision about it. The policy is configuration and not saved.
    pub fn save(&self) -> Option<HeldState> {
        self.held.map(|held| HeldState {
            event: held.event,
            length: held.length,
            decision: held.decision,
        })
    }

    /// Restores a saved event, or its absence. `cpu` is the processor, which has been restored.
    ///
    /// # Errors
    /// Refuses the length of the instruction that asks for the event, if none is so long; nothing has changed.
    pub fn restore(&mut self, state: Option<HeldState>, cpu: &Cpu) -> Result<(), CpuStateError> {
        let place = (cpu.seg(SegReg::Cs).selector.0, cpu.eip);
        if let Some(HeldState { length, .. }) = state
            && usize::from(length) > MAX_LENGTH
        {
            return Err(CpuStateError {
                field: "length of the intercepted instruction",
                value: length.into(),
            });
        }
        self.held = state.map(|state| Held {
            event: state.event,
            length: state.length,
            seen: state.event.seen_at(place),
            decision: state.decision,
        });
        Ok(())
    }
}
