//! Breakpoints, watchpoints, stepping, and ctrl-c.

use vmm::gdb::Start;

use super::{Client, LOAD_TABLES, killed, run, socket, write_tables};
use crate::support::{COUNT, DATA, ENGINES, HALT, START, Typed, assert_counting, machine};

const EAX: usize = 0;
const ECX: usize = 1;

#[test]
fn breakpoints_of_both_kinds_are_set_once() {
    for engine in ENGINES {
        killed(engine, COUNT, |client| {
            let at = START + 6;
            for packet in ["Z0", "Z0", "Z1", "Z1"] {
                client.order(format!("{packet},{at:x},1"));
            }
            for count in 1..5 {
                let stop = client.go_on();
                assert!(
                    stop.starts_with("T05") && stop.contains("swbreak:"),
                    "{stop}"
                );
                assert_eq!(client.eip(), at);
                assert_eq!(client.read_word(DATA), count);
                assert_eq!(client.register(EAX), count - 1);
            }
            client.order(format!("z0,{at:x},1"));
            client.order(format!("z0,{at:x},1"));
            let stop = client.go_on();
            assert!(stop.contains("hwbreak:"), "{stop}");
            // Whatever kind gdb names.
            client.order(format!("z1,{at:x},ffff"));
            client.send("vCont;c");
            assert_eq!(client.interrupt(), "S02");
            // Types that there are not, and addresses where nothing is.
            assert_eq!(client.ask(format!("Z5,{at:x},1")), "");
            for at in [0_u32, 0xffff_ffff, 0xa_0000] {
                client.order(format!("Z0,{at:x},0"));
            }
            client.send("vCont;c");
            assert_eq!(client.interrupt(), "S02");
        });
    }
}

/// Reads and writes `DATA` in turns, for ever.
#[rustfmt::skip]
const READ_AND_WRITE: &[u8] = &[
    0xa1, 0x00, 0x00, 0x20, 0x00,       // again: mov eax, [DATA]
    0x40,                               // inc eax
    0xa3, 0x00, 0x00, 0x20, 0x00,       // mov [DATA], eax
    0xeb, 0xf3,                         // jmp again
];

#[test]
fn watchpoints_stop_behind_the_accesses_they_name() {
    let (read, written) = (START + 5, START + 11);
    for engine in ENGINES {
        for (packet, report, stops) in [
            ("2", "watch:", [written, written]),
            ("3", "rwatch:", [read, read]),
            ("4", "awatch:", [read, written]),
        ] {
            killed(engine, READ_AND_WRITE, |client| {
                let point = format!("{packet},{DATA:x},4");
                client.order(format!("Z{point}"));
                client.order(format!("Z{point}"));
                for at in stops {
                    let stop = client.go_on();
                    let stopped = format!(";{report}{DATA:x};");
                    assert!(stop.starts_with("T05") && stop.contains(&stopped), "{stop}");
                    assert_eq!(client.eip(), at);
                }
                client.order(format!("z{point}"));
                client.send("vCont;c");
                assert_eq!(client.interrupt(), "S02");
            });
        }
    }
}

#[test]
fn watchpoints_have_1_to_4096_bytes() {
    for engine in ENGINES {
        killed(engine, COUNT, |client| {
            for len in ["0", "1001", "ffffffff"] {
                assert_eq!(client.ask(format!("Z2,{DATA:x},{len}")), "E16");
            }
            client.order("Z2,fffff000,1000");
            client.order("Z4,ffffffff,1000");
            client.order(format!("Z2,{:x},1000", DATA - 0xfff));
            let stop = client.go_on();
            assert!(stop.contains("watch:"), "{stop}");
            client.order(format!("z2,{:x},1000", DATA - 0xfff));
            client.send("vCont;c");
            assert_eq!(client.interrupt(), "S02");
        });
    }
}

/// Instructions that are worth stepping over, behind [`LOAD_TABLES`], with handlers for vectors 6 and 0x30.
#[rustfmt::skip]
const STEPPED: &[u8] = &[
    0xcd, 0x30,                                 // 13  int 0x30
    0x0f, 0x0b,                                 // 15  ud2
    0xb9, 0x03, 0x00, 0x00, 0x00,               // 17  mov ecx, 3
    0xbf, 0x00, 0x90, 0x20, 0x00,               // 1c  mov edi, DATA + 0x9000
    0xf3, 0xaa,                                 // 21  rep stosb
    0xeb, 0xfe,                                 // 23  jmp to itself
    0xcf,                                       // 25  iretd
    0x83, 0x04, 0x24, 0x02,                     // 26  add dword [esp], 2
    0xcf,                                       // 2a  iretd
];

#[test]
fn steps_are_of_one_instruction_or_event() {
    let code = [&LOAD_TABLES[..], STEPPED].concat();
    for engine in ENGINES {
        killed(engine, &code, |client| {
            write_tables(client, &[(0x30, 0x25), (6, 0x26)]);
            // Stepping passes breakpoints.
            client.order(format!("Z0,{:x},1", START + 0x15));
            for offset in [
                0x7, 0xe, 0x13, 0x25, 0x15, 0x26, 0x2a, 0x17, 0x1c, 0x21, 0x21, 0x21, 0x23, 0x23,
            ] {
                assert_eq!(client.step(), "S05");
                assert_eq!(client.eip() - START, offset, "after {offset:x}");
            }
            assert_eq!(client.register(ECX), 0);
        });
    }
}

#[test]
fn a_step_out_of_hlt_waits_for_an_interrupt_or_ctrl_c() {
    for engine in ENGINES {
        killed(engine, HALT, |client| {
            assert_eq!(client.step(), "S05");
            assert_eq!(client.step(), "S05");
            for _ in 0..2 {
                client.send("vCont;s");
                assert_eq!(client.interrupt(), "S02");
                assert_eq!(client.eip(), START + 2);
            }
        });
    }
}

#[test]
fn ctrl_c_stops_what_is_busy_or_halted() {
    for engine in ENGINES {
        for code in [COUNT, HALT] {
            killed(engine, code, |client| {
                for _ in 0..20 {
                    client.send("vCont;c");
                    assert_eq!(client.interrupt(), "S02");
                }
            });
        }
    }
}

/// Debugging with GDB, E.8 "Interrupts": those that come while the program is stopped are queued.
#[test]
fn ctrl_c_to_a_stopped_machine_stops_it_when_it_goes_on() {
    for engine in ENGINES {
        killed(engine, COUNT, |client| {
            client.raw(&[3, 3]);
            assert_eq!(client.eip(), START);
            assert_eq!(client.go_on(), "S02");
            assert_eq!(client.eip(), START);
            client.order(format!("Z0,{:x},1", START + 6));
            assert!(client.go_on().starts_with("T05"));
        });
    }
}

#[test]
fn a_session_that_ends_leaves_a_machine_that_the_guest_cannot_tell() {
    for engine in ENGINES {
        let (_folder, address) = socket();
        let mut vm = machine(engine, COUNT);
        run(
            &mut vm,
            &address,
            Start::Run,
            &mut Typed::default(),
            |address| {
                for _ in 0..5 {
                    let mut client = Client::connect(address);
                    for _ in 0..5 {
                        assert_eq!(client.step(), "S05");
                    }
                    client.order("D");
                }
                Client::connect(address).kill();
            },
        );
        assert_counting(&vm);
    }
}
