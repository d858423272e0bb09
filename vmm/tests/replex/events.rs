//! Interrupts and exceptions of tiny guests: traced, intercepted, and decided about by way of the library.

use std::{io, os::fd::BorrowedFd};

use sbe::{Action, Decision, EventSource, GuestEvent, Policy};
use vmm::{
    Console, Engine, StopReason, VcpuConfig, Vm, VmConfig,
    console::{Channel, Input},
    loader::{BootSource, Kernel},
};

use crate::support::{Replex, elf};

/// Where guests are entered.
const START: u32 = 0x10_0000;

/// A guest that turns paging on with an empty page directory at 2 MiB. Nothing can be fetched behind that.
#[rustfmt::skip]
pub const PAGE_FAULT: &[u8] = &[
    0xb8, 0x00, 0x00, 0x20, 0x00, // mov eax, 200000h
    0x0f, 0x22, 0xd8,             // mov cr3, eax
    0x0f, 0x20, 0xc0,             // mov eax, cr0
    0x0d, 0x00, 0x00, 0x00, 0x80, // or eax, 80000000h
    0x0f, 0x22, 0xc0,             // mov cr0, eax
];

/// A guest that executes INT 80h, which nobody has a handler for, and would then end with status 42.
#[rustfmt::skip]
pub const CALL: &[u8] = &[
    0xcd, 0x80, // int 80h
    0xb0, 42,   // mov al, 42
    0xe6, 0xf4, // out F4h, al
];

/// A guest whose timer interrupts as vector 20h and that waits for that for ever.
#[rustfmt::skip]
pub const TIMER: &[u8] = &[
    0xb0, 0x11, 0xe6, 0x20, // 8259A master: ICW1
    0xb0, 0x20, 0xe6, 0x21, // ICW2: vectors 20h to 27h
    0xb0, 0x04, 0xe6, 0x21, // ICW3
    0xb0, 0x01, 0xe6, 0x21, // ICW4
    0xb0, 0xfe, 0xe6, 0x21, // OCW1: only the timer
    0xb0, 0x34, 0xe6, 0x43, // 8254: counter 0, mode 2
    0xb0, 0x00, 0xe6, 0x40, // counts of 1000h
    0xb0, 0x10, 0xe6, 0x40,
    0xfb,                   // again: sti
    0xf4,                   // hlt
    0xeb, 0xfc,             // jmp again
];

/// The lines on standard error of a guest that ends in a triple fault.
fn shown(engine: &str, code: &[u8], args: &[&str]) -> Vec<String> {
    let replex = Replex::new();
    let kernel = replex.file("guest", &elf(code));
    let fixed = ["boot", "--kernel", &kernel, "--engine", engine];
    let output = replex.run(&[&fixed[..], args].concat());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(123), "{text}");
    assert!(output.stdout.is_empty());
    text.lines().map(String::from).collect()
}

#[test]
fn intercepted_events_are_shown_and_reflected() {
    for engine in ["translator", "emulator"] {
        assert_eq!(
            shown(engine, CALL, &["--intercept", "0x80,13,0x8"]),
            [
                "replex: intercepted vector 0x80, software, at 0010:00100000",
                "replex: intercepted vector 0x0d, exception, error code 0x402, at 0010:00100000",
                "replex: intercepted vector 0x08, exception, error code 0x0, at 0010:00100000",
                "replex: triple fault",
            ]
        );
        assert_eq!(
            shown(engine, PAGE_FAULT, &["--intercept", "14"]),
            [
                "replex: intercepted vector 0x0e, exception, error code 0x0, CR2 00100013, at 0010:00100013",
                "replex: triple fault",
            ]
        );
        assert_eq!(
            shown(engine, CALL, &["--intercept", "14"]),
            ["replex: triple fault"]
        );
    }
}

#[test]
fn traced_events_are_logged() {
    for engine in ["translator", "emulator"] {
        for (args, vectors) in [
            (&["--trace-irq"][..], &["0x80", "0x0d", "0x08"][..]),
            (&["--trace-irq", "8,0x80"], &["0x80", "0x08"]),
            (
                &["--trace-irq", "--intercept", "13"],
                &["0x80", "0x0d", "0x08"],
            ),
        ] {
            let lines = shown(engine, CALL, args);
            assert_eq!(lines.len(), vectors.len() + 1, "{lines:?}");
            for (line, vector) in lines.iter().zip(vectors) {
                assert!(line.contains(&format!("vector {vector}, ")), "{lines:?}");
                let intercepted = args.contains(&"13") && *vector == "0x0d";
                assert_eq!(line.contains("INFO  irq]"), !intercepted, "{lines:?}");
            }
        }
    }
}

/// Nobody.
pub struct Nobody;

impl Console for Nobody {
    fn input(&mut self, _: usize) -> io::Result<Input> {
        Ok(Input::Bytes(Vec::new()))
    }

    fn output(&mut self, _: Channel, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A machine with `code` that intercepts `vectors`.
pub fn machine(engine: Engine, code: &[u8], vectors: &[u8]) -> Vm {
    let kernel = Kernel::read(elf(code), None, &mut |_| {}).unwrap();
    let config = VmConfig {
        memory: 16 << 20,
        vcpu: VcpuConfig {
            engine,
            ..VcpuConfig::default()
        },
    };
    let source = BootSource {
        kernel: &kernel,
        initrd: &[],
        cmdline: "",
    };
    let mut vm = Vm::boot(&config, &source).unwrap();
    let mut policy = Policy::new();
    for &vector in vectors {
        policy.set_vector(vector, Action::Intercept);
    }
    vm.set_policy(policy);
    vm
}

fn next_event(vm: &mut Vm) -> GuestEvent {
    match vm.run(&mut Nobody) {
        StopReason::Intercepted(event) => event,
        stop => panic!("{stop}"),
    }
}

#[test]
fn a_call_may_be_swallowed_and_changed() {
    for engine in [Engine::Emulator, Engine::Translator] {
        let mut vm = machine(engine, CALL, &[0x80]);
        let event = next_event(&mut vm);
        assert_eq!((event.vector, event.eip), (0x80, START));
        vm.decide(Decision::Swallow);
        assert!(matches!(vm.run(&mut Nobody), StopReason::DebugExit(42)));

        let mut vm = machine(engine, CALL, &[0x80, 13]);
        next_event(&mut vm);
        vm.decide(Decision::Change {
            vector: 0x81,
            error_code: None,
        });
        let fault = next_event(&mut vm);
        assert_eq!(fault.error_code, Some(0x81 << 3 | 2));
        assert!(matches!(vm.run(&mut Nobody), StopReason::TripleFault));
    }
}

#[test]
fn a_swallowed_interrupt_does_not_keep_the_next_from_coming() {
    for engine in [Engine::Emulator, Engine::Translator] {
        let mut vm = machine(engine, TIMER, &[0x20]);
        for _ in 0..5 {
            let event = next_event(&mut vm);
            assert_eq!((event.vector, event.source), (0x20, EventSource::External));
            vm.decide(Decision::Swallow);
        }
        assert_eq!(vm.stats().exits.intercept, 5);
        next_event(&mut vm);
        assert!(matches!(vm.run(&mut Nobody), StopReason::TripleFault));
    }
}

#[test]
fn what_is_decided_before_a_pause_may_be_decided_again_behind_it() {
    /// In the text of the master's registers.
    const SERVED: &str = "ISR 01";
    for engine in [Engine::Emulator, Engine::Translator] {
        let mut vm = machine(engine, TIMER, &[0x20]);
        let event = next_event(&mut vm);
        let master = |vm: &Vm| vm.board().chipset().to_string();
        assert!(master(&vm).contains(SERVED), "{}", master(&vm));
        vm.decide(Decision::Swallow);
        vm.control().pause();
        assert!(matches!(vm.run(&mut Nobody), StopReason::Paused));
        assert_eq!(vm.vcpu().intercepted(), Some(event));
        assert!(master(&vm).contains(SERVED), "{}", master(&vm));
        vm.decide(Decision::Reflect);
        assert!(matches!(vm.run(&mut Nobody), StopReason::TripleFault));
        assert!(master(&vm).contains(SERVED), "{}", master(&vm));
    }
}
