//! Interrupts and exceptions that the policy intercepts, and the decisions about them.

pub use guest_kernels::tiny::{CALL, TIMER};
use vmm::{Action, Decision, Engine, EventSource, GuestEvent, Policy, StopReason, Vm};

use crate::support::{ENGINES, START, Typed, machine};

/// A machine with `code` that intercepts `vectors`.
fn intercepting(engine: Engine, code: &[u8], vectors: &[u8]) -> Vm {
    let mut vm = machine(engine, code);
    let mut policy = Policy::new();
    for &vector in vectors {
        policy.set_vector(vector, Action::Intercept);
    }
    vm.set_policy(policy);
    vm
}

fn next_event(vm: &mut Vm) -> GuestEvent {
    match vm.run(&mut Typed::default()) {
        StopReason::Intercepted(event) => event,
        stop => panic!("{stop}"),
    }
}

#[test]
fn a_call_may_be_swallowed_and_changed() {
    for engine in ENGINES {
        let mut vm = intercepting(engine, CALL, &[0x80]);
        let event = next_event(&mut vm);
        assert_eq!((event.vector, event.eip), (0x80, START.into()));
        vm.decide(Decision::Swallow);
        assert!(matches!(
            vm.run(&mut Typed::default()),
            StopReason::DebugExit(42)
        ));

        let mut vm = intercepting(engine, CALL, &[0x80, 13]);
        next_event(&mut vm);
        vm.decide(Decision::Change {
            vector: 0x81,
            error_code: None,
        });
        let fault = next_event(&mut vm);
        assert_eq!(fault.error_code, Some(0x81 << 3 | 2));
        assert!(matches!(
            vm.run(&mut Typed::default()),
            StopReason::TripleFault(_)
        ));
    }
}

#[test]
fn a_swallowed_interrupt_does_not_keep_the_next_from_coming() {
    for engine in ENGINES {
        let mut vm = intercepting(engine, TIMER, &[0x20]);
        for _ in 0..5 {
            let event = next_event(&mut vm);
            assert_eq!((event.vector, event.source), (0x20, EventSource::External));
            vm.decide(Decision::Swallow);
        }
        assert_eq!(vm.stats().exits.intercept, 5);
        next_event(&mut vm);
        assert!(matches!(
            vm.run(&mut Typed::default()),
            StopReason::TripleFault(_)
        ));
    }
}

#[test]
fn what_is_decided_before_a_pause_may_be_decided_again_behind_it() {
    /// A part of the text of the master's registers.
    const SERVED: &str = "ISR 01";
    for engine in ENGINES {
        let mut vm = intercepting(engine, TIMER, &[0x20]);
        let event = next_event(&mut vm);
        let master = |vm: &Vm| vm.board().chipset().to_string();
        assert!(master(&vm).contains(SERVED), "{}", master(&vm));
        vm.decide(Decision::Swallow);
        vm.control().pause();
        assert!(matches!(vm.run(&mut Typed::default()), StopReason::Paused));
        assert_eq!(vm.vcpu().intercepted(), Some(event));
        assert!(master(&vm).contains(SERVED), "{}", master(&vm));
        vm.decide(Decision::Reflect);
        assert!(matches!(
            vm.run(&mut Typed::default()),
            StopReason::TripleFault(_)
        ));
        assert!(master(&vm).contains(SERVED), "{}", master(&vm));
    }
}
