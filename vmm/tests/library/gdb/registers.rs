//! The target description, and registers.

use vmm::StopReason;

use super::{client::Client, client::hex, client::unhex, debugged, killed};
use crate::support::{COUNT, DATA, ENGINES, START};

const EAX: usize = 0;
const EFLAGS: usize = 9;
const CS: usize = 10;
const ST0: usize = 16;
const FCTRL: usize = 24;
const XMM0: usize = 32;
const MXCSR: usize = 40;

/// The target description, read `piece` bytes at a time.
fn description(client: &mut Client, piece: usize) -> String {
    let mut text = String::new();
    loop {
        let offset = text.len();
        let answer = client.ask(format!(
            "qXfer:features:read:target.xml:{offset:x},{piece:x}"
        ));
        match answer.split_at(1) {
            ("m", part) => text.push_str(&unescaped(part)),
            ("l", part) => return text + &unescaped(part),
            _ => panic!("{answer}"),
        }
    }
}

/// Takes back the escapes of binary data.
fn unescaped(data: &str) -> String {
    let mut bytes = data.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'}' => bytes.next().unwrap() ^ 0x20,
            byte => byte,
        });
    }
    String::from_utf8(plain).unwrap()
}

/// Fails unless each element of `xml` ends, in the right order. Returns the start tags without brackets.
fn elements(xml: &str) -> Vec<&str> {
    let mut open = Vec::new();
    let mut starts = Vec::new();
    for tag in xml.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect(tag);
        if tag.starts_with(['?', '!']) {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
            continue;
        }
        starts.push(tag);
        if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap());
        }
    }
    assert!(open.is_empty(), "{open:?}");
    starts
}

fn attribute<'a>(tag: &'a str, name: &str) -> &'a str {
    let (_, value) = tag.split_once(&format!("{name}=\"")).expect(tag);
    value.split('"').next().unwrap()
}

#[test]
fn the_machine_waits_at_its_entry_and_describes_itself() {
    for engine in ENGINES {
        killed(engine, COUNT, |client| {
            let supported = client.ask("qSupported:swbreak+;hwbreak+;qRelocInsn+");
            for feature in [
                "PacketSize=1000",
                "qXfer:features:read+",
                "swbreak+",
                "hwbreak+",
            ] {
                assert!(supported.contains(feature), "{supported}");
            }
            client.order("QStartNoAckMode");
            let stop = client.ask("?");
            assert!(stop.starts_with("T05") || stop == "S05", "{stop}");
            assert_eq!(client.eip(), START);
            assert_eq!(client.ask("vCont?"), "vCont;c;C;s;S");

            let xml = description(client, 0xfff);
            assert_eq!(description(client, 7), xml);
            let tags = elements(&xml);
            let registers: Vec<_> = tags.iter().filter(|tag| tag.starts_with("reg ")).collect();
            let mut bytes = 0;
            for (number, register) in registers.iter().enumerate() {
                assert_eq!(attribute(register, "regnum"), number.to_string());
                let bits: usize = attribute(register, "bitsize").parse().unwrap();
                let value = unhex(&client.ask(format!("p{number:x}")));
                assert_eq!(value.len() * 8, bits, "{register}");
                bytes += value.len();
            }
            assert_eq!(client.ask("g").len(), 2 * bytes);
            let last = format!("p{:x}", registers.len());
            assert_eq!(client.ask(last), "E16");
            let beyond = format!("qXfer:features:read:target.xml:{:x},10", xml.len() + 1);
            assert_eq!(client.ask(beyond), "l");
            let far = "qXfer:features:read:target.xml:ffffffffffffffff,ffffffffffffffff";
            assert_eq!(client.ask(far), "l");
            let other = client.ask("qXfer:features:read:other.xml:0,10");
            assert!(other.starts_with('E'), "{other}");
        });
    }
}

/// Loads registers, counts down at `LOADED`, stores them, and ends with AL as status.
#[rustfmt::skip]
const REGISTERS: &[u8] = &[
    0x0f, 0x20, 0xe0,                               // mov eax, cr4
    0x66, 0x0d, 0x00, 0x02,                         // or ax, OSFXSR
    0x0f, 0x22, 0xe0,                               // mov cr4, eax
    0xdb, 0xe3,                                     // fninit
    0xd9, 0xe8,                                     // fld1
    0xb8, 0x44, 0x33, 0x22, 0x11,                   // mov eax, 0x11223344
    0x66, 0x0f, 0x6e, 0xc0,                         // movd xmm0, eax
    0x90,                                           // nop
    0xa3, 0x00, 0x00, 0x20, 0x00,                   // mov [DATA], eax
    0x0f, 0x11, 0x05, 0x10, 0x00, 0x20, 0x00,       // movups [DATA + 0x10], xmm0
    0xdb, 0x3d, 0x20, 0x00, 0x20, 0x00,             // fstp tbyte [DATA + 0x20]
    0x0f, 0xae, 0x1d, 0x30, 0x00, 0x20, 0x00,       // stmxcsr [DATA + 0x30]
    0x90,                                           // nop
    0xe6, 0xf4,                                     // out 0xf4, al
];
const LOADED: u32 = START + 23;
const STORED: u32 = START + 49;
/// 1 and 2 in the FPU's extended precision.
const ONE: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f];
const TWO: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0x40];

#[test]
fn what_the_guest_loads_is_seen_and_what_is_written_is_used() {
    for engine in ENGINES {
        let stop = debugged(engine, REGISTERS, |mut client| {
            client.order(format!("Z1,{LOADED:x},1"));
            client.order(format!("Z1,{STORED:x},1"));
            assert!(client.go_on().starts_with("T05"));
            assert_eq!(client.eip(), LOADED);
            assert_eq!(client.register(EAX), 0x1122_3344);
            assert_eq!(client.register(CS), 0x10);
            assert_eq!(client.register(FCTRL), 0x37f);
            assert_eq!(client.ask(format!("p{ST0:x}")), hex(&ONE));
            let xmm = u128::to_le_bytes(0x1122_3344);
            assert_eq!(client.ask(format!("p{XMM0:x}")), hex(&xmm));

            let xmm: [u8; 16] = std::array::from_fn(|at| at as u8);
            client.set_register(EAX, &7_u32.to_le_bytes());
            client.set_register(XMM0, &xmm);
            client.set_register(ST0, &TWO);
            client.set_register(MXCSR, &0xffff_9f80_u32.to_le_bytes());
            let all = client.ask("g");
            client.order(format!("G{all}"));
            assert_eq!(client.ask("g"), all);

            assert!(client.go_on().starts_with("T05"));
            assert_eq!(client.eip(), STORED);
            assert_eq!(client.read_word(DATA), 7);
            assert_eq!(client.read(DATA + 0x10, 16), xmm);
            assert_eq!(client.read(DATA + 0x20, 10), TWO);
            assert_eq!(client.read_word(DATA + 0x30), 0x9f80);
            assert_eq!(client.go_on(), "W07");
        });
        assert!(matches!(stop, StopReason::DebugExit(7)), "{stop}");
    }
}

#[test]
fn what_cannot_be_written_is_an_error_and_changes_nothing() {
    for engine in ENGINES {
        killed(engine, COUNT, |client| {
            let before = client.ask("g");
            let changed = |at: usize| {
                let mut values = unhex(&before);
                values[at] ^= 0x10;
                values[0] ^= 1;
                hex(&values)
            };
            // CS, by itself and among others.
            assert_eq!(client.ask(format!("P{CS:x}=18000000")), "E16");
            assert_eq!(client.ask(format!("G{}", changed(CS * 4))), "E16");
            for (number, value) in [(EAX, "00"), (EAX, ""), (EAX, "0000000000"), (999, "00")] {
                assert_eq!(client.ask(format!("P{number:x}={value}")), "E16");
            }
            for values in ["", "00", &before[2..]] {
                assert_eq!(client.ask(format!("G{values}")), "E16");
            }
            assert_eq!(client.ask("g"), before);
            assert_eq!(client.ask(format!("P{CS:x}=10000000")), "OK");
            // Virtual-8086 mode is not entered.
            client.order(format!("P{EFLAGS:x}=02000200"));
            assert_eq!(client.register(EFLAGS), 2);
            client.order(format!("P8={}", hex(&(START + 6).to_le_bytes())));
            assert_eq!(client.step(), "S05");
            assert_eq!(client.eip(), START + 7);
        });
    }
}
