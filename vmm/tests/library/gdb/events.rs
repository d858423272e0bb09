//! Interrupts and exceptions that gdb has intercepted.

use super::{Client, LOAD_TABLES, killed, write_tables};
use crate::support::{ENGINES, START};

/// A guest, behind [`LOAD_TABLES`], that raises vectors 0x30 and 6 in turns; each handler counts in a register of its own.
#[rustfmt::skip]
const EVENTS: &[u8] = &[
    0xcd, 0x30,                                 // 13  int 0x30
    0x0f, 0x0b,                                 // 15  ud2
    0xeb, 0xfa,                                 // 17  jmp 13
    0x43, 0xcf,                                 // 19  inc ebx; iretd
    0x46, 0xcf,                                 // 1b  inc esi; iretd
    0x47, 0xcf,                                 // 1d  inc edi; iretd
    0x42, 0x83, 0x04, 0x24, 0x02, 0xcf,         // 1f  inc edx; add dword [esp], 2; iretd
    0x45, 0x83, 0xc4, 0x04,                     // 25  inc ebp; add esp, 4
    0x83, 0x04, 0x24, 0x02, 0xcf,               // 29  add dword [esp], 2; iretd
];
const INT: u32 = START + 0x13;
const UD2: u32 = START + 0x15;
/// Vectors, and the offsets of their handlers.
const HANDLERS: [(u32, u32); 5] = [(0x30, 0x19), (0x31, 0x1b), (2, 0x1d), (6, 0x1f), (13, 0x25)];
const EFLAGS: usize = 9;
/// The signal that gdb is told, and the EIP at which the machine then stands.
const SOFTWARE: (&str, u32) = ("S1e", INT);
const INVALID: (&str, u32) = ("S04", UD2);

fn prepare(client: &mut Client) {
    write_tables(client, &HANDLERS);
    for number in [2, 3, 5, 6, 7] {
        client.set_register(number, &[0; 4]);
    }
    assert_eq!(client.monitor("intercept 0x30 6"), "");
}

/// Goes on to the next stop.
#[track_caller]
fn next(client: &mut Client, (signal, eip): (&str, u32)) {
    assert_eq!(client.go_on(), signal);
    assert_eq!(client.eip(), eip);
}

/// The number of times that each of [`HANDLERS`] has run.
fn counts(client: &mut Client) -> [u32; 5] {
    [3, 6, 7, 2, 5].map(|number| client.register(number))
}

#[test]
fn what_is_intercepted_stops_and_becomes_what_gdb_decides() {
    for engine in ENGINES {
        killed(engine, &[&LOAD_TABLES[..], EVENTS].concat(), |client| {
            prepare(client);
            assert_eq!(client.monitor("info event"), "none\n");
            next(client, SOFTWARE);
            let event = client.monitor("info event");
            assert_eq!(event, "vector 0x30, software, at 0010:00100013\n");
            assert_eq!(client.monitor("deliver"), "");
            next(client, INVALID);
            let event = client.monitor("info event");
            assert_eq!(event, "vector 0x06, exception, at 0010:00100015\n");
            assert_eq!(counts(client), [1, 0, 0, 0, 0]);
            // It executes again.
            assert_eq!(client.monitor("swallow"), "");
            next(client, INVALID);
            assert_eq!(counts(client), [1, 0, 0, 0, 0]);
            // Nothing said: delivered.
            next(client, SOFTWARE);
            assert_eq!(counts(client), [1, 0, 0, 1, 0]);
            assert_eq!(client.monitor("swallow"), "");
            next(client, INVALID);
            assert_eq!(counts(client), [1, 0, 0, 1, 0]);
            assert_eq!(client.monitor("change 13 55"), "");
            next(client, SOFTWARE);
            assert_eq!(counts(client), [1, 0, 0, 1, 1]);
            assert_eq!(client.monitor("swallow"), "");
            assert_eq!(client.monitor("change 0x31"), "");
            next(client, INVALID);
            assert_eq!(counts(client), [1, 1, 0, 1, 1]);
            assert_eq!(client.monitor("reflect 6"), "");
            next(client, SOFTWARE);
            assert_eq!(counts(client), [1, 1, 0, 2, 1]);
            // A step delivers.
            assert_eq!(client.step(), "S05");
            assert_eq!(client.eip(), START + 0x19);
            assert_eq!(client.monitor("info event"), "none\n");
        });
    }
}

#[test]
fn interrupts_are_injected_and_intercepted() {
    for engine in ENGINES {
        killed(engine, &[&LOAD_TABLES[..], EVENTS].concat(), |client| {
            prepare(client);
            client.monitor("reflect 6");
            next(client, SOFTWARE);
            assert_eq!(client.monitor("inject 2"), "");
            next(client, SOFTWARE);
            assert_eq!(counts(client), [1, 0, 1, 1, 0]);
            client.monitor("intercept external 2 0x31");
            client.monitor("inject 2");
            assert_eq!(client.go_on(), "S1e");
            let event = client.monitor("info event");
            assert!(event.starts_with("vector 0x02, external, at"), "{event}");
            client.monitor("swallow");
            next(client, SOFTWARE);
            assert_eq!(counts(client)[2], 1);
            // NMIs are not blocked by the one that was swallowed.
            client.monitor("reflect external 2");
            client.monitor("inject 2");
            next(client, SOFTWARE);
            assert_eq!(counts(client)[2], 2);
            // Interrupts are not accepted yet.
            client.monitor("inject 0x31");
            next(client, SOFTWARE);
            client.set_register(EFLAGS, &0x202_u32.to_le_bytes());
            assert_eq!(client.go_on(), "S1e");
            let event = client.monitor("info event");
            assert!(event.starts_with("vector 0x31, external, at"), "{event}");
            assert_eq!(counts(client)[1], 0);
            next(client, SOFTWARE);
            assert_eq!(counts(client)[1], 1);
        });
    }
}
