//! Ends of a machine with gdb: by the guest, by gdb, or by the user.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::atomic::{AtomicBool, Ordering},
};

use vmm::{
    Console, StopReason,
    console::{Channel, Input},
    gdb::Start,
};

use super::{client::Client, debugged, run, socket};
use crate::support::{COUNT, DATA, ENGINES, HALT, START, Typed, machine};

/// cli; hlt
const HANG: &[u8] = &[0xfa, 0xf4];
/// mov al, 42; out 0xf4, al
const DEBUG_EXIT: &[u8] = &[0xb0, 42, 0xe6, 0xf4];
/// mov al, 0xfe; out 0x64, al
const REBOOT: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64];
/// No interrupt descriptor table, then an undefined instruction.
#[rustfmt::skip]
const TRIPLE_FAULT: &[u8] = &[
    0xc7, 0x05, 0x00, 0x00, 0x20, 0x00, 0, 0, 0, 0, // mov dword [DATA], 0
    0x0f, 0x01, 0x1d, 0x00, 0x00, 0x20, 0x00,       // lidt [DATA]
    0x0f, 0x0b,                                     // ud2
];

#[test]
fn gdb_is_told_the_exit_status() {
    for engine in ENGINES {
        for (code, steps, report, shown) in [
            (DEBUG_EXIT, 2, "W2a", "debug exit with 42"),
            (REBOOT, 2, "W79", "reboot"),
        ] {
            let stop = debugged(engine, code, |mut client| {
                assert_eq!(client.go_on(), report);
                client.assert_closed();
            });
            assert_eq!(stop.to_string(), shown);
            let stop = debugged(engine, code, |mut client| {
                let mut stops = (0..=steps).map(|_| client.step());
                assert_eq!(stops.find(|stop| stop != "S05").unwrap(), report);
            });
            assert_eq!(stop.to_string(), shown);
        }
    }
}

#[test]
fn a_triple_fault_can_be_looked_at() {
    let at = START + TRIPLE_FAULT.len() as u32 - 2;
    for engine in ENGINES {
        for end in ["vCont;c", "vCont;s", "D", "close"] {
            let stop = debugged(engine, TRIPLE_FAULT, |mut client| {
                assert_eq!(client.go_on(), "S06");
                assert_eq!(client.eip(), at);
                assert_eq!(client.read_word(DATA), 0);
                match end {
                    "close" => {}
                    "D" => client.order("D"),
                    resume => assert_eq!(client.ask(resume), "W7b"),
                }
            });
            assert!(matches!(stop, StopReason::TripleFault(_)), "{stop}");
        }
    }
}

#[test]
fn a_hang_can_be_looked_at() {
    for engine in ENGINES {
        let stop = debugged(engine, HANG, |mut client| {
            assert_eq!(client.go_on(), "S06");
            assert_eq!(client.eip(), START + 2);
            assert_eq!(client.go_on(), "W78");
        });
        assert!(matches!(stop, StopReason::Halted(_)), "{stop}");
    }
}

#[test]
fn gdb_kills_the_machine_in_any_state() {
    for engine in ENGINES {
        for code in [COUNT, HALT] {
            for resume in ["?", "vCont;c", "vCont;s"] {
                let stop = debugged(engine, code, |mut client| {
                    client.send(resume);
                    client.kill();
                });
                assert!(matches!(stop, StopReason::Quit), "{stop}");
                let stop = debugged(engine, code, |mut client| {
                    client.send(resume);
                    client.send("vKill;1");
                    while client.receive() != "OK" {}
                    client.assert_closed();
                });
                assert!(matches!(stop, StopReason::Quit), "{stop}");
            }
        }
    }
}

/// A console on which the user quits when it is said so.
struct Quitting<'a>(&'a AtomicBool);

impl Console for Quitting<'_> {
    fn input(&mut self, _: usize) -> io::Result<Input> {
        Ok(match self.0.load(Ordering::Acquire) {
            true => Input::Quit,
            false => Input::Bytes(Vec::new()),
        })
    }

    fn output(&mut self, _: Channel, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[test]
fn the_user_quits_in_any_state() {
    let waits: &(dyn Fn(&mut Client) + Sync) = &|_| {};
    let at_a_breakpoint: &(dyn Fn(&mut Client) + Sync) = &|client| {
        client.order(format!("Z0,{:x},1", START + 6));
        assert!(client.go_on().starts_with("T05"));
    };
    let running: &(dyn Fn(&mut Client) + Sync) = &|client| client.send("vCont;c");
    for engine in ENGINES {
        for prepare in [waits, at_a_breakpoint, running] {
            let quit = AtomicBool::new(false);
            let (_folder, address) = socket();
            let mut vm = machine(engine, COUNT);
            let control = vm.control();
            let stop = run(
                &mut vm,
                &address,
                Start::Wait,
                &mut Quitting(&quit),
                |address| {
                    let mut client = Client::connect(address);
                    client.order("QStartNoAckMode");
                    prepare(&mut client);
                    quit.store(true, Ordering::Release);
                    control.wake();
                    client.assert_closed();
                },
            );
            assert!(matches!(stop, StopReason::Quit), "{stop}");
        }
    }
}

#[test]
fn the_user_quits_before_gdb_has_come() {
    for engine in ENGINES {
        let (_folder, address) = socket();
        let mut vm = machine(engine, COUNT);
        let mut console = Typed::new([Input::Quit]);
        let control = vm.control();
        let stop = run(&mut vm, &address, Start::Wait, &mut console, |_| {
            control.wake();
        });
        assert!(matches!(stop, StopReason::Quit), "{stop}");
    }
}

#[test]
fn the_user_quits_while_a_client_sends_without_end() {
    for engine in ENGINES {
        for state in ["?", "vCont;c"] {
            let quit = AtomicBool::new(false);
            let (_folder, address) = socket();
            let mut vm = machine(engine, COUNT);
            let stop = run(
                &mut vm,
                &address,
                Start::Wait,
                &mut Quitting(&quit),
                |address| {
                    let mut client = Client::connect(address);
                    client.send(state);
                    for _ in 0..1000 {
                        client.raw(&[b'+'; 4096]);
                    }
                    quit.store(true, Ordering::Release);
                    // Ends when the other side has gone.
                    while client.try_raw(&[b'+'; 4096]).is_ok() {}
                },
            );
            assert!(matches!(stop, StopReason::Quit), "{stop}");
        }
    }
}
