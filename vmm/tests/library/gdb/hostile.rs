//! Clients that send what gdb would not.

use std::fmt::Write as _;

use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use vmm::{
    StopReason, VcpuConfig,
    gdb::{Address, Start},
};

use super::{Client, LOAD_TABLES, run, socket, write_tables};
use crate::support::{COUNT, DATA, ENGINES, START, Typed, assert_counting, machine, machine_with};

const SESSIONS: u32 = 150;

/// Numbers as they stand in packets, some of them at the edges.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        prop::sample::select(vec![
            "0",
            "1",
            "4",
            "x",
            "-1",
            "+1",
            "a0000",
            "ffff",
            "ffffffff",
            "fffff000",
            "100000000",
            "7fffffffffffffff",
            "ffffffffffffffff",
            "10000000000000000",
        ])
        .prop_map(str::to_owned),
        any::<u32>().prop_map(|number| format!("{number:x}")),
        (0..0x100_u32).prop_map(|offset| format!("{:x}", START + offset)),
        (0..0x2000_u32).prop_map(|offset| format!("{:x}", DATA - 0x1000 + offset)),
    ]
}

fn digits(most: usize) -> impl Strategy<Value = String> {
    vec(any::<u8>(), 0..most).prop_map(|bytes| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    })
}

fn monitor() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "info",
        "mmu",
        "irq",
        "pages",
        "event",
        "intercept",
        "trace",
        "reflect",
        "external",
        "software",
        "exception",
        "deliver",
        "swallow",
        "change",
        "inject",
        "stats",
        "0x20",
        "2",
        "14",
        "ffffffff",
        "x",
    ]);
    vec(words, 0..5).prop_map(|words| {
        let command = words.join(" ");
        format!("qRcmd,{}", super::client::hex(command.as_bytes()))
    })
}

/// Contents of packets: known commands with whatever behind. Nothing kills the machine, and nothing is written to the code.
fn contents() -> impl Strategy<Value = Vec<u8>> {
    let command = |names: Vec<&'static str>| prop::sample::select(names);
    prop_oneof![
        command(vec![
            "g",
            "?",
            "D",
            "c",
            "s",
            "vCont;c",
            "vCont;s",
            "vCont?",
            "vCont",
            "vCont;t",
            "vCont;r0,1",
            "vCont;C05",
            "vCont;s:1;c",
            "qSupported",
            "QStartNoAckMode",
            "qfThreadInfo",
            "qC",
            "Hg0",
            "Hc-1",
            "T1",
            "T0",
            "!",
            "R0",
            "qAttached",
            "vAttach;1",
            "vRun;",
            "bc",
            "bs",
            "",
        ])
        .prop_map(|name| name.as_bytes().to_vec()),
        (
            command(vec![
                "m", "X", "z0,", "Z0,", "Z1,", "Z2,", "Z3,", "Z4,", "z2,", "Z9,"
            ]),
            number(),
            number()
        )
            .prop_map(|(name, first, second)| format!("{name}{first},{second}").into_bytes()),
        (number(), number(), digits(40)).prop_map(|(address, len, data)| {
            // Beyond the guest's own code and data.
            format!("M3{address},{len}:{data}").into_bytes()
        }),
        (number(), digits(20)).prop_map(|(number, value)| format!("p{number}{value}").into_bytes()),
        // XMM registers, or none.
        (0x20..0x28_u32, digits(20))
            .prop_map(|(number, value)| format!("P{number:x}={value}").into_bytes()),
        digits(600).prop_map(|values| format!("G{values}").into_bytes()),
        (number(), number()).prop_map(|(offset, len)| {
            format!("qXfer:features:read:target.xml:{offset},{len}").into_bytes()
        }),
        monitor().prop_map(String::into_bytes),
        digits(50).prop_map(|text| format!("qRcmd,{text}").into_bytes()),
        (
            command(vec![
                "H", "T", "vCont;", "qXfer:", "Q", "v", "q", "Z", "m", "M", "P", "p", "z", "vFile:"
            ]),
            vec(any::<u8>(), 0..50)
        )
            .prop_map(|(name, rest)| [name.as_bytes(), &rest].concat()),
    ]
}

/// A piece of what a client sends.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        10 => contents().prop_map(|contents| super::client::framed(&contents)),
        1 => contents(),
        1 => Just(vec![3]),
        1 => Just(b"+".to_vec()),
        1 => vec(any::<u8>(), 0..20).prop_filter("a kill", |bytes| !bytes.contains(&b'k')),
        1 => vec(Just(b'$'), 4000..5000),
    ]
}

/// Whether `sent` leaves the guest alone and alive. `inject` does not, as the guest has no handlers.
fn harmless(sent: &[u8]) -> bool {
    let inject = super::client::hex(b"inject");
    let kill = [&b"$k"[..], b"vKill"];
    let has = |part: &[u8]| sent.windows(part.len()).any(|window| window == part);
    !has(inject.as_bytes()) && !kill.into_iter().any(has)
}

/// The machine goes on whatever is sent, the next client is served, and the guest has noticed nothing.
#[test]
fn whatever_is_sent_the_next_client_is_served() {
    for engine in ENGINES {
        let (_folder, address) = socket();
        let mut vm = machine(engine, COUNT);
        let debug = |address: &Address| {
            let config = ProptestConfig {
                cases: SESSIONS,
                failure_persistence: None,
                ..ProptestConfig::default()
            };
            let sent = vec(piece(), 1..20).prop_filter("harmful", |sent| harmless(&sent.concat()));
            let result = TestRunner::new(config).run(&sent, |sent| {
                let mut client = Client::connect(address);
                for bytes in sent {
                    client.raw(&bytes);
                }
                drop(client);
                let mut next = Client::connect(address);
                prop_assert!(next.ask("?").starts_with("T05"));
                let count = next.read_word(DATA);
                for _ in 0..4 {
                    prop_assert_eq!(next.step(), "S05");
                }
                prop_assert!(next.read_word(DATA) != count);
                next.order("D");
                Ok(())
            });
            result.unwrap();
            Client::connect(address).kill();
        };
        let stop = run(&mut vm, &address, Start::Run, &mut Typed::default(), debug);
        assert!(matches!(stop, StopReason::Quit), "{stop}");
        assert_counting(&vm);
    }
}

/// A guest, behind [`LOAD_TABLES`], that uses all kinds of registers, for ever.
#[rustfmt::skip]
const BUSY: &[u8] = &[
    0x0f, 0x20, 0xe0,                       // 13  mov eax, cr4
    0x66, 0x0d, 0x00, 0x02,                 // 16  or ax, OSFXSR
    0x0f, 0x22, 0xe0,                       // 1a  mov cr4, eax
    0xdb, 0xe3,                             // 1d  fninit
    0xd9, 0xe8,                             // 1f  fld1
    0xd8, 0xc1,                             // 21  again: fadd st0, st1
    0x0f, 0x58, 0xc1,                       // 23  addps xmm0, xmm1
    0x01, 0x06,                             // 26  add [esi], eax
    0xf3, 0xa4,                             // 28  rep movsb
    0xeb, 0xf5,                             // 2a  jmp again
    0x83, 0xc4, 0x04,                       // 2c  add esp, 4
    0xcf,                                   // 2f  iretd
];
/// Vectors without an error code, and with one.
const HANDLERS: [(u32, u32); 12] = [
    (0, 0x2f),
    (1, 0x2f),
    (2, 0x2f),
    (3, 0x2f),
    (6, 0x2f),
    (7, 0x2f),
    (16, 0x2f),
    (19, 0x2f),
    (32, 0x2f),
    (12, 0x2c),
    (13, 0x2c),
    (14, 0x2c),
];

/// A request to write a register, whichever.
fn set_register() -> impl Strategy<Value = Vec<u8>> {
    let register = (0..0x48_usize).prop_flat_map(|number| {
        let bytes = match number {
            0x10..0x18 => 10,
            0x20..0x28 => 16,
            _ => 4,
        };
        (Just(number), vec(any::<u8>(), bytes))
    });
    register.prop_map(|(number, value)| {
        format!("P{number:x}={}", super::client::hex(&value)).into_bytes()
    })
}

/// A request that changes the guest in whatever way.
fn harm() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        set_register(),
        contents(),
        (number(), digits(20))
            .prop_map(|(address, data)| format!("M{address},1:{data}").into_bytes()),
        any::<u8>().prop_map(|vector| {
            let command = format!("inject {vector}");
            format!("qRcmd,{}", super::client::hex(command.as_bytes())).into_bytes()
        }),
    ]
}

/// The guest may be ruined, and may have ended; else it can still be stopped, and be looked at by the next client.
#[test]
fn whatever_is_done_to_the_guest_the_stub_serves() {
    let code = [&LOAD_TABLES[..], BUSY].concat();
    let config = ProptestConfig {
        cases: SESSIONS,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let sent = (prop::sample::select(ENGINES.to_vec()), vec(harm(), 1..20));
    let result = TestRunner::new(config).run(&sent, |(engine, sent)| {
        let (_folder, address) = socket();
        let config = VcpuConfig {
            engine,
            verify_code: true,
            ..VcpuConfig::default()
        };
        let mut vm = machine_with(config, &code);
        let control = vm.control();
        let debug = |address: &Address| {
            let mut client = Client::connect(address);
            write_tables(&mut client, &HANDLERS);
            for contents in sent {
                client.send(contents);
                client.raw(&[3]);
            }
            drop(client);
            if let Some(mut next) = Client::try_connect(address) {
                next.send("vCont;c");
                next.raw(&[3]);
                if let Ok(stop) = next.try_receive() {
                    assert!(stop.starts_with(['S', 'T', 'W']), "{stop}");
                }
            }
            control.quit();
        };
        let stop = run(&mut vm, &address, Start::Wait, &mut Typed::default(), debug);
        let emitted = stop.to_string().contains("emitted code");
        prop_assert!(!emitted, "{}", stop);
        Ok(())
    });
    result.unwrap();
}

/// Requests for much memory get short answers.
#[test]
fn requests_for_much_are_answered_with_little() {
    for engine in ENGINES {
        super::killed(engine, COUNT, |client| {
            for len in ["1000", "100000000", "ffffffffffffffff"] {
                assert_eq!(client.ask(format!("m{START:x},{len}")).len(), 0x1000);
            }
            // Short of the end of RAM, where the next piece would lie beyond.
            let end = client.ask(format!("m{:x},ffffffff", (16 << 20) - 16));
            assert_eq!(end.len(), 32);
            // 4 GiB are passed.
            let top = client.ask("mffffff00,ffffffff");
            assert!(top == "E0e" || top.len() == 0x200, "{top}");
        });
    }
}
