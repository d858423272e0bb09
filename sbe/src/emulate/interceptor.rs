//! [`Interceptor`]: the policy, and the event that it has stopped.

use super::event::Event;
use crate::guest_event::{Decision, GuestEvent};
use crate::policy::Policy;

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
    /// The event as those see it who decide about it.
    pub seen: GuestEvent,
    /// What becomes of it.
    pub decision: Decision,
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
    pub fn is_alert(&self) -> bool {
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

    /// Stops an event.
    pub fn hold(&mut self, held: Held) {
        self.held = Some(held);
    }

    /// Takes the event that was stopped, if there is one.
    pub fn release(&mut self) -> Option<Held> {
        self.held.take()
    }
}
