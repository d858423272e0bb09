//! Machines on threads of their own.

use std::{
    sync::{Arc, mpsc::Receiver},
    thread,
    time::Duration,
};

use vmm::{
    Action, Decision, Device, DeviceContext, Engine, IoAccess, LinearAddr, Machine, MachineError,
    MachineEvent, Policy, Resources, StopReason, Vm,
    console::{Line, Terminal, pipe},
};

use crate::support::{COUNT, ENGINES, HALT, PATIENCE, START, assert_counting, machine};

/// mov al, 42; out 0xf4, al
const END: &[u8] = &[0xb0, 42, 0xe6, 0xf4];

/// A running machine.
fn start(vm: Vm) -> (Machine, Receiver<MachineEvent>) {
    let (line, _): (Line, Terminal) = pipe().unwrap();
    Machine::start(vm, line).unwrap()
}

fn next(events: &Receiver<MachineEvent>) -> MachineEvent {
    events.recv_timeout(PATIENCE).expect("an event")
}

#[test]
fn a_busy_machine_stands_still_while_it_is_paused() {
    for engine in ENGINES {
        let (machine, events) = start(machine(engine, COUNT));
        let count = |machine: &Machine| machine.inspect(|vm| assert_counting(vm)).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut last = 0;
                for _ in 0..100 {
                    machine.pause().unwrap();
                    let paused = count(&machine);
                    assert_eq!(count(&machine), paused);
                    assert!(paused >= last);
                    machine.resume().unwrap();
                    last = count(&machine);
                    assert!(last >= paused);
                }
                while count(&machine) == last {}
            });
        });
        for _ in 0..100 {
            assert!(matches!(next(&events), MachineEvent::Paused));
            assert!(matches!(next(&events), MachineEvent::Resumed));
        }
        machine.stop();
        let (vm, stop) = machine.join().unwrap();
        assert!(matches!(stop, StopReason::Quit), "{stop}");
        assert!(matches!(
            next(&events),
            MachineEvent::Stopped(StopReason::Quit)
        ));
        assert_counting(&vm);
    }
}

#[test]
fn a_halted_machine_answers() {
    for engine in ENGINES {
        let (machine, _) = start(machine(engine, HALT));
        while machine.inspect(|vm| vm.vcpu().cpu.eip).unwrap() != u64::from(START + 2) {}
        machine.pause().unwrap();
        assert_eq!(
            machine.inspect(|vm| vm.vcpu().cpu.eip),
            Ok((START + 2).into())
        );
        machine.resume().unwrap();
        assert_eq!(
            machine.inspect(|vm| vm.vcpu().cpu.eip),
            Ok((START + 2).into())
        );
        machine.pause().unwrap();
        machine.stop();
        let (_, stop) = machine.join().unwrap();
        assert!(matches!(stop, StopReason::Quit), "{stop}");
    }
}

#[test]
fn nobody_waits_for_a_machine_that_has_ended() {
    for engine in ENGINES {
        for _ in 0..20 {
            let (machine, events) = start(machine(engine, END));
            // The guest ends meanwhile.
            let error = loop {
                if let Err(error) = machine.pause().and_then(|()| machine.resume()) {
                    break error;
                }
            };
            assert_eq!(error, MachineError::Ended);
            assert_eq!(machine.inspect(|_| ()), Err(MachineError::Ended));
            let stop = events.iter().last();
            let ended = matches!(stop, Some(MachineEvent::Stopped(StopReason::DebugExit(42))));
            assert!(ended, "{stop:?}");
            let (vm, stop) = machine.join().unwrap();
            assert!(matches!(stop, StopReason::DebugExit(42)), "{stop}");
            assert_eq!(vm.vcpu().cpu.eip, u64::from(START) + END.len() as u64);
        }
    }
}

#[test]
fn a_machine_may_be_started_while_it_is_intercepted() {
    for engine in ENGINES {
        // int 0x80
        let mut vm = machine(engine, &[&[0xcd, 0x80], END].concat());
        let mut policy = Policy::new();
        policy.set_vector(0x80, Action::Intercept);
        vm.set_policy(policy);
        let (mut line, _) = pipe().unwrap();
        assert!(matches!(vm.run(&mut line), StopReason::Intercepted(_)));
        let (machine, _events) = start(vm);
        assert_eq!(machine.inspect(|vm| vm.vcpu().cpu.eip), Ok(START.into()));
        machine.decide(Decision::Swallow).unwrap();
        let (_, stop) = machine.join().unwrap();
        assert!(matches!(stop, StopReason::DebugExit(42)), "{stop}");
    }
}

#[test]
fn an_intercepted_machine_waits_for_the_decision() {
    for engine in ENGINES {
        // int 0x80
        let mut vm = machine(engine, &[&[0xcd, 0x80], END].concat());
        let mut policy = Policy::new();
        policy.set_vector(0x80, Action::Intercept);
        vm.set_policy(policy);
        let (machine, events) = start(vm);
        let event = next(&events);
        assert!(
            matches!(event, MachineEvent::Intercepted(event) if event.vector == 0x80),
            "{event:?}"
        );
        machine.pause().unwrap();
        machine.resume().unwrap();
        assert_eq!(machine.inspect(|vm| vm.vcpu().cpu.eip), Ok(START.into()));
        machine.pause().unwrap();
        machine.decide(Decision::Swallow).unwrap();
        let again = machine.decide(Decision::Swallow);
        assert_eq!(again, Err(MachineError::NothingIntercepted));
        assert_eq!(machine.inspect(|vm| vm.vcpu().cpu.eip), Ok(START.into()));
        machine.resume().unwrap();
        let (_, stop) = machine.join().unwrap();
        assert!(matches!(stop, StopReason::DebugExit(42)), "{stop}");
    }
}

#[test]
fn a_machine_with_a_breakpoint_goes_on_when_it_is_resumed() {
    for engine in ENGINES {
        let mut vm = machine(engine, END);
        vm.debugger_mut().add_breakpoint((START + 2).into());
        let (machine, events) = start(vm);
        let event = next(&events);
        assert!(
            matches!(event, MachineEvent::Breakpoint(at) if at == LinearAddr::from(START + 2)),
            "{event:?}"
        );
        assert_eq!(machine.inspect(|vm| vm.vcpu().cpu.regs.get8(0)), Ok(42));
        machine.resume().unwrap();
        assert!(matches!(next(&events), MachineEvent::Resumed));
        let (_, stop) = machine.join().unwrap();
        assert!(matches!(stop, StopReason::DebugExit(42)), "{stop}");
    }
}

#[test]
fn a_pause_by_way_of_the_control_is_an_event() {
    let (machine, events) = start(machine(Engine::default(), COUNT));
    machine.control().pause();
    assert!(matches!(next(&events), MachineEvent::Paused));
    machine.resume().unwrap();
    assert!(matches!(next(&events), MachineEvent::Resumed));
}

#[test]
fn a_panic_of_a_device_is_an_error() {
    struct Broken;

    impl Device for Broken {
        fn read(&mut self, _: IoAccess, _: &mut DeviceContext<'_>) -> u64 {
            panic!("out of order")
        }

        fn write(&mut self, _: IoAccess, _: u64, _: &mut DeviceContext<'_>) {}
    }

    for engine in ENGINES {
        // in al, 0x40 + 4
        let mut vm = machine(engine, &[0xe4, 0x44]);
        vm.attach(Resources::new("broken").ports(0x44..=0x44), Broken)
            .unwrap();
        let (machine, events) = start(vm);
        assert!(events.recv_timeout(PATIENCE).is_err());
        assert_eq!(machine.pause(), Err(MachineError::Ended));
        let error = machine.join().map(|(_, stop)| stop).unwrap_err();
        assert_eq!(error, MachineError::Panicked("out of order".into()));
    }
}

#[test]
fn a_machine_that_is_dropped_ends() {
    for code in [COUNT, HALT] {
        let (line, mut terminal) = pipe().unwrap();
        let (machine, _) = Machine::start(machine(Engine::default(), code), line).unwrap();
        machine.pause().unwrap();
        drop(machine);
        assert!(terminal.read_line(Duration::ZERO).is_err());
        assert_eq!(terminal.take(), "");
    }
}

#[test]
fn a_machine_does_not_wait_for_itself() {
    let (machine, _) = start(machine(Engine::default(), COUNT));
    let machine = Arc::new(machine);
    let inside = Arc::clone(&machine);
    let answer = machine.inspect(move |_| inside.pause());
    assert_eq!(answer, Ok(Err(MachineError::OwnThread)));
}
