//! The event log in the hands of a program.

use std::sync::Arc;

use parking_lot::Mutex;
use vmm::{
    StopReason,
    sbe::Observation,
    trace::{Event, Filter, Kind, Sink},
};

use crate::{
    events::CALL,
    support::{ENGINES, Typed, machine},
};

#[test]
fn a_library_user_receives_events() {
    for engine in ENGINES {
        let mut vm = machine(engine, CALL);
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&events);
        let sink = move |event: &Event| sink.lock().push(*event);
        let filter = Filter::new(vec!["software".parse().unwrap()]);
        vm.trace(filter, Box::new(sink));
        assert!(matches!(
            vm.run(&mut Typed::default()),
            StopReason::TripleFault(_)
        ));
        let events = events.lock();
        let [event] = events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(event.kind(), Kind::Software);
        assert!(event.time <= vm.stats().time);
        assert!(matches!(event.what, Observation::Event(call) if call.vector == 0x80));
    }
}

/// A sink that collects events, and hands them on in the pauses.
struct Collector {
    collected: Vec<Event>,
    handed_on: Arc<Mutex<Vec<Event>>>,
}

impl Sink for Collector {
    fn event(&mut self, event: &Event) {
        self.collected.push(*event);
    }

    fn pause(&mut self) {
        self.handed_on.lock().append(&mut self.collected);
    }
}

#[test]
fn nothing_is_held_back_when_the_machine_stands_still() {
    for engine in ENGINES {
        let mut vm = machine(engine, CALL);
        let handed_on = Arc::new(Mutex::new(Vec::new()));
        let sink = Collector {
            collected: Vec::new(),
            handed_on: Arc::clone(&handed_on),
        };
        vm.trace(Filter::default(), Box::new(sink));
        // INT 0x80 and the protection fault lead to a double fault, and that to shutdown.
        assert!(matches!(
            vm.step(&mut Typed::default()),
            StopReason::TripleFault(_)
        ));
        assert_eq!(handed_on.lock().len(), 3);
    }
}
