//! Pausing, waking and ending a machine from other threads.

use std::{sync::mpsc::channel, thread, time::Duration};

use vmm::{
    StopReason, Vm,
    console::{Channel, Input},
};

use crate::support::{
    COUNT, ENGINES, HALT, PATCHED, START, Typed, assert_counting, machine, run_slice,
};

/// Runs `vm`, which another thread pauses `times` times, looking at it each time.
fn paused(vm: &mut Vm, times: usize, mut look: impl FnMut(&mut Vm)) {
    let control = vm.control();
    let (sender, receiver) = channel();
    thread::scope(|scope| {
        scope.spawn(move || receiver.iter().for_each(|()| control.pause()));
        for _ in 0..times {
            sender.send(()).unwrap();
            let stop = vm.run(&mut Typed::default());
            assert!(matches!(stop, StopReason::Paused), "{stop}");
            look(vm);
        }
        drop(sender);
    });
}

#[test]
fn a_busy_machine_pauses_and_goes_on() {
    for engine in ENGINES {
        let mut vm = machine(engine, COUNT);
        let mut last = 0;
        paused(&mut vm, 100, |vm| {
            let count = assert_counting(vm);
            assert!(count >= last, "{count} after {last}");
            // Pauses may follow each other without an instruction in between.
            run_slice(vm);
            last = assert_counting(vm);
            assert!(last > count, "does not go on after {count}");
        });
    }
}

#[test]
fn a_halted_machine_pauses_and_goes_on() {
    for engine in ENGINES {
        let mut vm = machine(engine, HALT);
        // A pause before the first instruction finds EIP there.
        let known = [START, START + 2];
        paused(&mut vm, 10, |vm| {
            assert!(known.contains(&vm.vcpu().cpu.eip));
        });
        vm.control().quit();
        for _ in 0..2 {
            let stop = vm.run(&mut Typed::default());
            assert!(matches!(stop, StopReason::Quit), "{stop}");
        }
    }
}

#[test]
fn a_pause_before_the_run_is_not_lost() {
    for engine in ENGINES {
        let mut vm = machine(engine, &[0xb0, 42, 0xe6, 0xf4]);
        vm.control().pause();
        let stop = vm.run(&mut Typed::default());
        assert!(matches!(stop, StopReason::Paused), "{stop}");
        assert_eq!(vm.vcpu().cpu.eip, START);
        let stop = vm.run(&mut Typed::default());
        assert!(matches!(stop, StopReason::DebugExit(42)), "{stop}");
    }
}

#[test]
fn the_console_is_served_while_the_machine_stands_still() {
    /// A guest that raises RTS, waits for a byte and ends with it as status.
    #[rustfmt::skip]
    const RECEIVE: &[u8] = &[
        0x66, 0xba, 0xfc, 0x03, // mov dx, 0x3fc  ; modem control
        0xb0, 0x03,             // mov al, 3
        0xee,                   // out dx, al
        0x66, 0xba, 0xfd, 0x03, // mov dx, 0x3fd  ; line status
        0xec,                   // again: in al, dx
        0xa8, 0x01,             // test al, 1
        0x74, 0xfb,             // jz again
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8  ; data
        0xec,                   // in al, dx
        0xe6, 0xf4,             // out 0xf4, al
    ];
    for engine in ENGINES {
        let mut vm = machine(engine, RECEIVE);
        let mut console = Typed::new([Input::ShowStats, Input::Bytes(vec![7]), Input::Quit]);
        vm.attend(&mut console, Some(Duration::ZERO)).unwrap();
        assert!(matches!(&console.shown[..], [(Channel::Monitor, _)]));
        assert_eq!(console.input, [Input::Quit], "kept for the guest");
        let stop = vm.attend(&mut console, Some(Duration::ZERO)).unwrap_err();
        assert!(matches!(stop, StopReason::Quit), "{stop}");
        let stop = vm.run(&mut Typed::default());
        assert!(matches!(stop, StopReason::DebugExit(7)), "{stop}");
    }
}

#[test]
fn who_stands_still_can_be_woken() {
    let mut vm = machine(ENGINES[0], PATCHED);
    let control = vm.control();
    thread::scope(|scope| {
        scope.spawn(|| control.wake());
        vm.attend(&mut Typed::default(), None).unwrap();
    });
    control.quit();
    let stop = vm.attend(&mut Typed::default(), None).unwrap_err();
    assert!(matches!(stop, StopReason::Quit), "{stop}");
}

#[test]
fn a_machine_can_go_to_another_thread() {
    for engine in ENGINES {
        let mut vm = machine(engine, COUNT);
        paused(&mut vm, 3, |vm| {
            assert_counting(vm);
        });
        let moved = thread::spawn(move || {
            paused(&mut vm, 3, |vm| {
                assert_counting(vm);
            });
            vm
        });
        paused(&mut moved.join().unwrap(), 3, |vm| {
            assert_counting(vm);
        });
    }
}
