//! Pausing, waking and ending a machine from other threads.

use std::{io, os::fd::BorrowedFd, sync::mpsc::channel, thread, time::Duration};

use vmm::{
    Console, StopReason, Vm,
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
        let known = [START, START + 2].map(u64::from);
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
        assert_eq!(vm.vcpu().cpu.eip, u64::from(START));
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

/// A console that gives its input all at once, whatever room there is.
struct Flood(Vec<Input>, Vec<u8>);

impl Console for Flood {
    fn input(&mut self, _: usize) -> io::Result<Input> {
        Ok(self.0.pop().unwrap_or(Input::Bytes(Vec::new())))
    }

    fn output(&mut self, _: Channel, bytes: &[u8]) -> io::Result<()> {
        self.1.extend(bytes);
        Ok(())
    }

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[test]
fn more_input_than_there_is_room_for_is_not_lost() {
    /// Prints 1000 bytes from COM1 on the debug console, then ends with status 0.
    #[rustfmt::skip]
    const COPY: &[u8] = &[
        0x66, 0xba, 0xfa, 0x03,       // mov dx, 0x3fa  ; FIFO control
        0xb0, 0x81,                   // mov al, 0x81
        0xee,                         // out dx, al
        0x66, 0xba, 0xfc, 0x03,       // mov dx, 0x3fc  ; modem control
        0xb0, 0x03,                   // mov al, 3
        0xee,                         // out dx, al
        0xb9, 0xe8, 0x03, 0x00, 0x00, // mov ecx, 1000
        0x66, 0xba, 0xfd, 0x03,       // again: mov dx, 0x3fd  ; line status
        0xec,                         // in al, dx
        0xa8, 0x01,                   // test al, 1
        0x74, 0xf7,                   // jz again
        0x66, 0xba, 0xf8, 0x03,       // mov dx, 0x3f8  ; data
        0xec,                         // in al, dx
        0xe6, 0xe9,                   // out 0xe9, al
        0xe2, 0xee,                   // loop again
        0xb0, 0x00,                   // mov al, 0
        0xe6, 0xf4,                   // out 0xf4, al
    ];
    let bytes: Vec<u8> = (0..1000).map(|number| number as u8).collect();
    for engine in ENGINES {
        let mut vm = machine(engine, COPY);
        let (first, second) = bytes.split_at(700);
        let input = [second, first].map(|bytes| Input::Bytes(bytes.to_vec()));
        let mut console = Flood(input.into(), Vec::new());
        let stop = vm.run(&mut console);
        assert!(matches!(stop, StopReason::DebugExit(0)), "{stop}");
        assert_eq!(console.1, bytes);
    }
}

#[test]
fn a_break_reaches_the_guest() {
    /// Waits for a break and ends with the line status.
    #[rustfmt::skip]
    const WAIT: &[u8] = &[
        0x66, 0xba, 0xfc, 0x03, // mov dx, 0x3fc  ; modem control
        0xb0, 0x03,             // mov al, 3
        0xee,                   // out dx, al
        0x66, 0xba, 0xfd, 0x03, // mov dx, 0x3fd  ; line status
        0xec,                   // again: in al, dx
        0xa8, 0x10,             // test al, 0x10
        0x74, 0xfb,             // jz again
        0xe6, 0xf4,             // out 0xf4, al
    ];
    for engine in ENGINES {
        let stop = machine(engine, WAIT).run(&mut Typed::new([Input::Break]));
        assert!(matches!(stop, StopReason::DebugExit(0x79)), "{stop}");
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
