//! How a machine says that it has ended: halted, reset or shut down, told apart by what the guest did before.

use std::sync::Arc;

use guest_kernels::tiny::{INITIALIZE_PICS, MASK_PICS};
use parking_lot::Mutex;
use vmm::{
    CodeAddress, Engine, EventSource, LinearAddr, StopReason, TripleFault,
    trace::{End, Event, Filter, Sink},
};

use crate::{
    events::CALL,
    support::{ENGINES, START, Typed, machine},
};

/// Unmasks line 15: mov al, 0x7f; out 0xa1, al
const UNMASK: &[u8] = &[0xb0, 0x7f, 0xe6, 0xa1];
/// mov word [0x472], 0x1234
const MARK: &[u8] = &[0x66, 0xc7, 0x05, 0x72, 0x04, 0, 0, 0x34, 0x12];
/// sti; nop
const ENABLE: &[u8] = &[0xfb, 0x90];
/// cli; hlt
const HALT: &[u8] = &[0xfa, 0xf4];
/// mov al, 0xfe; out 0x64, al
const KEYBOARD_RESET: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64];
/// mov dx, 0xcf9; mov al, 6; out dx, al
const CHIPSET_RESET: &[u8] = &[0x66, 0xba, 0xf9, 0x0c, 0xb0, 6, 0xee];
/// mov al, 3; out 0x92, al
const FAST_RESET: &[u8] = &[0xb0, 3, 0xe6, 0x92];
/// Sets the limit of the IDT to 0.
#[rustfmt::skip]
const NO_IDT: &[u8] = &[
    0xc7, 0x05, 0x00, 0x00, 0x20, 0x00, 0, 0, 0, 0, // mov dword [DATA], 0
    0x0f, 0x01, 0x1d, 0x00, 0x00, 0x20, 0x00,       // lidt [DATA]
];
/// int3
const BREAKPOINT: &[u8] = &[0xcc];
/// ud2
const UNDEFINED: &[u8] = &[0x0f, 0x0b];

/// Turns paging on with an empty page directory at 0x200000. Nothing can be fetched behind that, at `START + 0x13`.
#[rustfmt::skip]
const PAGE_FAULT: &[u8] = &[
    0xb8, 0x00, 0x00, 0x20, 0x00, // mov eax, DATA
    0x0f, 0x22, 0xd8,             // mov cr3, eax
    0x0f, 0x20, 0xc0,             // mov eax, cr0
    0x0d, 0x00, 0x00, 0x00, 0x80, // or eax, 0x80000000
    0x0f, 0x22, 0xc0,             // mov cr0, eax
];

fn end(engine: Engine, parts: &[&[u8]]) -> StopReason {
    machine(engine, &parts.concat()).run(&mut Typed::default())
}

/// The ends of a guest made of `parts` on both engines, in words.
fn ends(parts: &[&[u8]]) -> [String; 2] {
    ENGINES.map(|engine| match end(engine, parts) {
        StopReason::Halted(_) => "halted".to_owned(),
        StopReason::TripleFault(_) => "triple fault".to_owned(),
        stop => stop.to_string(),
    })
}

#[track_caller]
fn assert_ends(parts: &[&[u8]], end: &str) {
    assert_eq!(ends(parts), [end, end], "{parts:x?}");
}

#[test]
fn hlt_is_power_off_where_all_lines_are_masked_and_else_a_hang() {
    for (parts, end) in [
        (&[INITIALIZE_PICS, MASK_PICS, HALT][..], "power-off"),
        (&[INITIALIZE_PICS, MASK_PICS, UNMASK, HALT], "halted"),
        (&[INITIALIZE_PICS, UNMASK, HALT], "halted"),
        (&[INITIALIZE_PICS, HALT], "halted"),
        // The guest has never used the controllers.
        (&[MASK_PICS, HALT], "halted"),
        (&[HALT], "halted"),
    ] {
        assert_ends(parts, end);
    }
}

#[test]
fn a_hang_has_a_place() {
    for engine in ENGINES {
        let stop = end(engine, &[ENABLE, HALT]);
        let expected = CodeAddress {
            cs: 0x10,
            eip: u64::from(START) + 3,
            linear: LinearAddr::from(START + 3),
        };
        assert!(
            matches!(stop, StopReason::Halted(at) if at == expected),
            "{stop}"
        );
        assert_eq!(
            stop.to_string(),
            "HLT with interrupts disabled at 0010:00100003"
        );
        assert_eq!(stop.exit_status(), 120);
        assert!(stop.is_abnormal() && stop.is_end());
    }
}

#[test]
fn a_reset_is_a_panic_only_with_all_that_a_panic_leaves() {
    let resets = [
        &[KEYBOARD_RESET][..],
        &[CHIPSET_RESET],
        &[FAST_RESET],
        &[NO_IDT, BREAKPOINT],
    ];
    for reset in resets {
        for (before, end) in [
            (&[][..], "reboot"),
            (&[MARK], "reboot"),
            (&[INITIALIZE_PICS, UNMASK], "reboot"),
            (&[INITIALIZE_PICS, MASK_PICS, MARK], "reboot"),
            (&[MASK_PICS, UNMASK, MARK], "reboot"),
            (&[INITIALIZE_PICS, MARK, ENABLE], "reboot"),
            (&[INITIALIZE_PICS, MARK], "guest kernel panic"),
            (
                &[INITIALIZE_PICS, MASK_PICS, UNMASK, MARK],
                "guest kernel panic",
            ),
        ] {
            assert_ends(&[before, reset].concat(), end);
        }
    }
}

#[test]
fn only_int_n_without_an_idt_is_a_reset() {
    assert_ends(&[NO_IDT, UNDEFINED], "triple fault");
    // The IDT has the limit of after RESET.
    assert_ends(&[BREAKPOINT], "triple fault");
    assert_ends(&[INITIALIZE_PICS, MARK, BREAKPOINT], "triple fault");
}

fn triple_fault(engine: Engine, code: &[u8]) -> TripleFault {
    match end(engine, &[code]) {
        StopReason::TripleFault(fault) => fault,
        stop => panic!("{stop}"),
    }
}

#[test]
fn a_triple_fault_names_the_events_that_led_to_it() {
    for engine in ENGINES {
        let fault = triple_fault(engine, CALL);
        assert_eq!(fault.at.linear, LinearAddr::from(START));
        // The IDT is full of zeros: the gate of each vector is none, which is #GP with the gate's index, IDT and EXT.
        let events = fault.events.iter();
        let told: Vec<_> = events
            .map(|event| (event.source, event.vector, event.error_code))
            .collect();
        let exception = EventSource::Exception;
        assert_eq!(
            told,
            [
                (EventSource::Software, 0x80, None),
                (exception, 13, Some(0x80 << 3 | 2)),
                (exception, 13, Some(13 << 3 | 3)),
                (exception, 8, Some(0)),
                (exception, 13, Some(8 << 3 | 3)),
            ]
        );
        assert!(
            fault
                .events
                .iter()
                .all(|event| event.eip == u64::from(START))
        );
        assert_eq!(
            fault.to_string(),
            "triple fault at 0010:00100000: INT 0x80, #GP(0x402), #GP(0x6b), #DF(0x0), #GP(0x43)"
        );
    }
}

#[test]
fn a_triple_fault_of_page_faults_has_their_addresses() {
    for engine in ENGINES {
        // The gates of #PF and #DF are in pages that are not there, too.
        assert_eq!(
            triple_fault(engine, PAGE_FAULT).to_string(),
            "triple fault at 0010:00100013: #PF(0x0, CR2 00100013), #PF(0x0, CR2 00000070), #DF(0x0), \
             #PF(0x0, CR2 00000040)"
        );
    }
}

/// What a fault led to that the guest has handled is no part of a later triple fault.
#[test]
fn only_what_the_guest_could_not_handle_is_named() {
    /// The guest sets up a GDT, an IDT with a gate for #GP, and a stack; INT 0x80, which has no gate, is stepped over by that
    /// handler, which removes its gate; UD2 then has none.
    #[rustfmt::skip]
    const CODE: &[u8] = &[
        0xc7, 0x05, 0x10, 0x09, 0x20, 0x00, 0xff, 0xff, 0x00, 0x00, // 00  flat code at selector 0x10
        0xc7, 0x05, 0x14, 0x09, 0x20, 0x00, 0x00, 0x9b, 0xcf, 0x00, // 0a
        0xc7, 0x05, 0x00, 0x0a, 0x20, 0x00, 0x17, 0x00, 0x00, 0x00, // 14  limit 0x17, base DATA + 0x900
        0xc7, 0x05, 0x02, 0x0a, 0x20, 0x00, 0x00, 0x09, 0x20, 0x00, // 1e
        0x0f, 0x01, 0x15, 0x00, 0x0a, 0x20, 0x00,                   // 28  lgdt [DATA + 0xa00]
        0xbc, 0x00, 0x00, 0x30, 0x00,                               // 2f  mov esp, 0x300000
        0xc7, 0x05, 0x68, 0x00, 0x20, 0x00, 0x67, 0x00, 0x10, 0x00, // 34  gate of #GP: 0010:START + 0x67
        0xc7, 0x05, 0x6c, 0x00, 0x20, 0x00, 0x00, 0x8e, 0x10, 0x00, // 3e
        0xc7, 0x05, 0x00, 0x08, 0x20, 0x00, 0x7f, 0x00, 0x00, 0x00, // 48  limit 0x7f, base DATA
        0xc7, 0x05, 0x02, 0x08, 0x20, 0x00, 0x00, 0x00, 0x20, 0x00, // 52
        0x0f, 0x01, 0x1d, 0x00, 0x08, 0x20, 0x00,                   // 5c  lidt [DATA + 0x800]
        0xcd, 0x80,                                                 // 63  int 0x80
        0x0f, 0x0b,                                                 // 65  ud2
        0xc7, 0x05, 0x68, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00, // 67  handler: removes the gate
        0xc7, 0x05, 0x6c, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x83, 0xc4, 0x04,                                           // add esp, 4
        0x83, 0x04, 0x24, 0x02,                                     // add dword [esp], 2
        0xcf,                                                       // iretd
    ];
    for engine in ENGINES {
        let fault = triple_fault(engine, CODE);
        assert_eq!(fault.at.eip, u64::from(START) + 0x65);
        assert_eq!(
            fault.to_string().split_once(": ").unwrap().1,
            "#UD, #GP(0x33), #GP(0x6b), #DF(0x0), #GP(0x43)"
        );
    }
}

/// A sink that keeps the last line.
struct LastLine(Arc<Mutex<String>>);

impl Sink for LastLine {
    fn event(&mut self, event: &Event) {
        *self.0.lock() = event.to_string();
    }

    fn end(&mut self, end: &End<'_>) {
        *self.0.lock() = end.to_string();
    }
}

#[test]
fn the_end_is_the_last_event_of_the_log_unless_others_are_asked_for() {
    let only = Filter::new(vec!["port".parse().unwrap()]);
    for engine in ENGINES {
        for (filter, is_told) in [(Filter::default(), true), (only.clone(), false)] {
            let last = Arc::new(Mutex::new(String::new()));
            let mut vm = machine(engine, &[&[0xe6, 0x80], HALT].concat());
            vm.trace(filter, Box::new(LastLine(Arc::clone(&last))));
            let stop = vm.run(&mut Typed::default());
            let line = last.lock();
            let what = format!(" end        {stop}");
            assert_eq!(line.ends_with(&what), is_told, "{line}");
            assert!(is_told || line.contains(" port "), "{line}");
        }
    }
}
