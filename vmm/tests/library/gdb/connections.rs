//! Clients that come and go.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use vmm::{StopReason, gdb::Address, gdb::Gdb, gdb::Start};

use super::{Client, debugged, run, socket};
use crate::support::{COUNT, ENGINES, HALT, START, Typed, machine};

/// Counts down for a while, and ends with 5 as status.
#[rustfmt::skip]
const COUNT_DOWN: &[u8] = &[
    0xb9, 0x10, 0x27, 0x00, 0x00, // mov ecx, 10000
    0xe2, 0xfe,                   // loop to itself
    0xb0, 0x05,                   // mov al, 5
    0xe6, 0xf4,                   // out 0xf4, al
];

/// Sets breakpoints and a watchpoint that stop [`COUNT_DOWN`] often, and goes on up to the third stop.
fn stop_often(client: &mut Client) {
    client.order(format!("Z0,{:x},1", START + 5));
    client.order(format!("Z1,{:x},1", START + 7));
    client.order("Z4,200000,4");
    for _ in 0..3 {
        assert!(client.go_on().starts_with("T05"));
    }
}

#[test]
fn the_guest_runs_to_its_end_when_gdb_detaches_or_has_gone() {
    let ends: [fn(&mut Client); 8] = [
        |client| client.order("D"),
        |client| client.order("D;1"),
        |_| {},
        |client| client.raw(b"$m0,1"),
        |client| client.raw(b"-"),
        |client| client.raw(b"$g#00"),
        |client| client.send("vCont;s"),
        |client| client.raw(&[b'$'; 5000]),
    ];
    for engine in ENGINES {
        for end in ends {
            let stop = debugged(engine, COUNT_DOWN, |mut client| {
                stop_often(&mut client);
                end(&mut client);
            });
            assert!(matches!(stop, StopReason::DebugExit(5)), "{stop}");
        }
    }
}

#[test]
fn who_goes_while_the_machine_runs_leaves_it_running() {
    for engine in ENGINES {
        for code in [COUNT, HALT] {
            let (_folder, address) = socket();
            let mut vm = machine(engine, code);
            let debug = |address: &Address| {
                for resume in ["vCont;c", "vCont;s", "c", "s"] {
                    let mut client = Client::connect(address);
                    client.send(resume);
                }
                let mut last = Client::connect(address);
                assert_eq!(last.ask("?").len(), "T05thread:01;".len());
                last.kill();
            };
            let stop = run(&mut vm, &address, Start::Wait, &mut Typed::default(), debug);
            assert!(matches!(stop, StopReason::Quit), "{stop}");
        }
    }
}

#[test]
fn a_second_client_waits_for_its_turn() {
    for engine in ENGINES {
        let (_folder, address) = socket();
        let mut vm = machine(engine, COUNT);
        let debug = |address: &Address| {
            let mut first = Client::connect(address);
            let mut second = Client::connect(address);
            second.send("p8");
            first.order(format!("Z0,{:x},1", START + 6));
            assert!(first.go_on().starts_with("T05"));
            second.assert_silent(Duration::from_millis(20));
            first.order("D");
            second.receive();
            // The first one's breakpoints have gone with it.
            second.send("vCont;c");
            assert_eq!(second.interrupt(), "S02");
            second.kill();
        };
        let stop = run(&mut vm, &address, Start::Run, &mut Typed::default(), debug);
        assert!(matches!(stop, StopReason::Quit), "{stop}");
    }
}

#[test]
fn tcp_works_as_well() {
    for engine in ENGINES {
        let address: Address = "127.0.0.1:0".parse().unwrap();
        let mut vm = machine(engine, COUNT_DOWN);
        let debug = |address: &Address| {
            let mut client = Client::connect(address);
            stop_often(&mut client);
            client.order("D");
        };
        let stop = run(&mut vm, &address, Start::Wait, &mut Typed::default(), debug);
        assert!(matches!(stop, StopReason::DebugExit(5)), "{stop}");
    }
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .unwrap()
        .into()
}

/// A bound on processor time, which a busy host does not lengthen.
#[test]
fn a_machine_that_stands_still_uses_no_processor_time() {
    const STILL: Duration = Duration::from_secs(1);
    for engine in ENGINES {
        let before = thread_time();
        let stop = debugged(engine, COUNT, |mut client| {
            std::thread::sleep(STILL / 2);
            client.order(format!("Z0,{:x},1", START + 6));
            assert!(client.go_on().starts_with("T05"));
            std::thread::sleep(STILL / 2);
            client.kill();
        });
        assert!(matches!(stop, StopReason::Quit), "{stop}");
        let used = thread_time() - before;
        assert!(used < STILL / 2, "{used:?}");
    }
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Other tests of this process have threads and files of their own meanwhile: hence the margin.
#[test]
fn two_hundred_clients_leave_nothing_behind() {
    const CLIENTS: usize = 200;
    let (_folder, address) = socket();
    let mut vm = machine(ENGINES[1], COUNT);
    let debug = |address: &Address| {
        let before = ["/proc/self/fd", "/proc/self/task"].map(entries);
        for _ in 0..CLIENTS {
            let mut client = Client::connect(address);
            client.ask("?");
        }
        let after = ["/proc/self/fd", "/proc/self/task"].map(entries);
        for (before, after) in before.into_iter().zip(after) {
            assert!(after < before + CLIENTS / 2, "{before}, then {after}");
        }
        Client::connect(address).kill();
    };
    let stop = run(&mut vm, &address, Start::Run, &mut Typed::default(), debug);
    assert!(matches!(stop, StopReason::Quit), "{stop}");
}

#[test]
fn the_stub_ends_with_clients_connected_and_more_sent_than_was_taken() {
    for _ in 0..20 {
        let (_folder, address) = socket();
        let vm = machine(ENGINES[0], COUNT);
        let gdb = Gdb::listen(&address, vm.control(), Start::Run).unwrap();
        let mut clients = [Client::connect(&address), Client::connect(&address)];
        for client in &mut clients {
            client.raw(&[b'+'; 4096]);
        }
        drop(gdb);
        for client in &mut clients {
            client.assert_closed();
        }
        let Address::Unix(path) = address else {
            unreachable!()
        };
        assert!(!path.exists());
    }
}

#[test]
fn what_nobody_takes_is_not_hoarded() {
    let (_folder, address) = socket();
    let vm = machine(ENGINES[0], COUNT);
    let gdb = Gdb::listen(&address, vm.control(), Start::Run).unwrap();
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| {
            let mut client = Client::connect(&address);
            let chunks = (0..10_000).take_while(|_| client.try_raw(&[b'+'; 4096]).is_ok());
            chunks.count()
        });
        // Long enough for far more than the queue holds, were it taken.
        std::thread::sleep(Duration::from_millis(300));
        drop(gdb);
        let sent = sent.join().unwrap();
        assert!(sent < 1000, "{sent} chunks");
    });
}
