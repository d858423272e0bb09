//! [`Policy`]: which interrupts and exceptions go straight to the guest, which are logged, and which stop the processor first.
//!
//! | source | what it is | EIP of the event |
//! |---|---|---|
//! | external | the INTR pin, with the vector of the acknowledge cycle; NMI, vector 2 | the next instruction's |
//! | software | INT n, INT3 (vector 3), INTO (vector 4): what obeys the DPL of its gate | the instruction's own |
//! | exception | faults, double faults, exceptions during the delivery of another event, BOUND | the instruction's own |
//! | | #DB: INT1 and instruction breakpoints | the instruction's own |
//! | | #DB: single steps, data breakpoints, task switches | the next instruction's |
//!
//! The chapter is SDM Vol. 3A, 6 "Interrupt and Exception Handling". A triple fault is no event: the processor shuts down.

use serde::{Deserialize, Serialize};

/// The number of vectors of the interrupt descriptor table.
const VECTORS: usize = 256;
/// The number of [`EventSource`]s.
const SOURCES: usize = EventSource::ALL.len();

/// The source of an interrupt or exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventSource {
    /// The INTR pin, or NMI.
    External,
    /// INT n, INT3 or INTO.
    Software,
    /// The processor itself: faults, traps and aborts, INT1's debug exception among them.
    Exception,
}

impl EventSource {
    /// All sources.
    pub const ALL: [Self; 3] = [Self::External, Self::Software, Self::Exception];

    /// The name of the source in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::External => "external",
            Self::Software => "software",
            Self::Exception => "exception",
        }
    }
}

/// The processor's treatment of an interrupt or exception.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// The guest gets the event.
    #[default]
    Reflect,
    /// The event is logged, and the guest gets it.
    Trace,
    /// The processor stops before anything of the delivery has happened.
    Intercept,
}

/// An [`Action`] for each vector and source: [`Action::Reflect`], unless another was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    actions: [[Action; VECTORS]; SOURCES],
    /// The number of actions that are not [`Action::Reflect`].
    others: u16,
}

impl Policy {
    /// A policy that reflects everything.
    pub const fn new() -> Self {
        Self {
            actions: [[Action::Reflect; VECTORS]; SOURCES],
            others: 0,
        }
    }

    /// Sets the action for `vector` from `source`.
    pub fn set(&mut self, vector: u8, source: EventSource, action: Action) {
        let old = &mut self.actions[source as usize][usize::from(vector)];
        self.others -= u16::from(*old != Action::Reflect);
        *old = action;
        self.others += u16::from(action != Action::Reflect);
    }

    /// Sets the action for `vector` from all sources.
    pub fn set_vector(&mut self, vector: u8, action: Action) {
        for source in EventSource::ALL {
            self.set(vector, source, action);
        }
    }

    /// The action for `vector` from `source`.
    pub fn action(&self, vector: u8, source: EventSource) -> Action {
        self.actions[source as usize][usize::from(vector)]
    }

    /// Whether all actions are [`Action::Reflect`].
    #[inline]
    pub fn reflects_all(&self) -> bool {
        self.others == 0
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_FAULT: u8 = 14;

    #[test]
    fn everything_is_reflected_at_first() {
        let policy = Policy::new();
        assert!(policy.reflects_all());
        for source in EventSource::ALL {
            assert!((0..=u8::MAX).all(|vector| policy.action(vector, source) == Action::Reflect));
        }
    }

    #[test]
    fn an_action_is_of_one_vector_and_source() {
        let mut policy = Policy::new();
        policy.set(PAGE_FAULT, EventSource::Exception, Action::Intercept);
        policy.set(u8::MAX, EventSource::External, Action::Trace);
        for source in EventSource::ALL {
            for vector in 0..=u8::MAX {
                let expected = match (vector, source) {
                    (PAGE_FAULT, EventSource::Exception) => Action::Intercept,
                    (u8::MAX, EventSource::External) => Action::Trace,
                    _ => Action::Reflect,
                };
                assert_eq!(policy.action(vector, source), expected);
            }
        }
    }

    #[test]
    fn a_vector_may_be_set_whatever_its_source() {
        let mut policy = Policy::new();
        policy.set_vector(PAGE_FAULT, Action::Trace);
        for source in EventSource::ALL {
            assert_eq!(policy.action(PAGE_FAULT, source), Action::Trace);
        }
    }

    #[test]
    fn it_reflects_all_again_when_the_last_other_action_is_gone() {
        let mut policy = Policy::new();
        for vector in 0..=u8::MAX {
            policy.set_vector(vector, Action::Trace);
            policy.set_vector(vector, Action::Intercept);
        }
        for vector in 0..=u8::MAX {
            assert!(!policy.reflects_all());
            policy.set_vector(vector, Action::Reflect);
            policy.set_vector(vector, Action::Reflect);
        }
        assert_eq!(policy, Policy::new());
        assert!(policy.reflects_all());
    }
}
