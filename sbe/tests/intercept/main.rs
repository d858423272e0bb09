//! Events that the policy intercepts and the decisions about them, reports to observers, and stops for a debugger, all on both
//! engines.

mod machine;
mod observe;
mod stops;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use machine::{ABSENT, CS, Machine, Program, plain};
use sbe::cpu::control::DR6_BS;
use sbe::cpu::eflags::TF;
use sbe::{Decision, Engine, EventSource, Exit, GuestEvent, Policy};

const PAGE_FAULT: u8 = 14;
const PROTECTION: u8 = 13;
const DOUBLE_FAULT: u8 = 8;
const DEBUG: u8 = 1;
const NMI: u8 = 2;
/// Vector of INT 0x80.
const CALL: u8 = 0x80;
/// A vector of the interrupt controller's.
const LINE: u8 = 0x30;

const ECX: u8 = 1;
const EDX: u8 = 2;

/// Error code of a supervisor's store to a page that is absent.
const ABSENT_WRITE: u32 = 2;

/// Runs `test` with a machine on each engine that intercepts `vectors` of `program`.
fn on_both(vectors: &[u8], program: Program, test: impl Fn(Machine)) {
    for engine in [Engine::Emulator, Engine::Translator] {
        let machine = Machine::new(engine, vectors, program);
        test(machine);
    }
}

/// Stores to the absent page: `mov [ABSENT + 8], 7`, of 10 bytes.
fn store_to_absent(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(dword_ptr(ABSENT + 8), 7)?;
    a.mov(edx, dword_ptr(ABSENT + 8))?;
    a.hlt()
}

fn page_fault(eip: impl Into<u64>) -> GuestEvent {
    GuestEvent {
        error_code: Some(ABSENT_WRITE),
        cr2: Some((ABSENT + 8).into()),
        ..plain(PAGE_FAULT, EventSource::Exception, eip)
    }
}

/// INT 0x80 of 2 bytes, forty times.
fn calls(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.mov(ecx, 40)?;
    a.set_label(&mut again)?;
    a.int(0x80)?;
    a.inc(edx)?;
    a.dec(ecx)?;
    a.jnz(again)?;
    a.hlt()
}

/// Bytes of `mov ecx, 40` in [`calls`].
const BEFORE_CALL: u32 = 5;

/// Counts to five thousand with interrupts enabled.
fn counting(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.sti()?;
    a.mov(ecx, 5000)?;
    a.set_label(&mut again)?;
    a.inc(edx)?;
    a.dec(ecx)?;
    a.jnz(again)?;
    a.hlt()
}

#[test]
fn a_page_fault_is_shown_before_it_is_delivered_and_reflected() {
    on_both(&[PAGE_FAULT], store_to_absent, |mut machine| {
        assert_eq!(machine.event(), page_fault(machine.start));
        assert_eq!(machine.vcpu.cpu.cr2, 0, "nothing is delivered");
        machine.finish(Decision::Reflect);
        assert_eq!(machine.vcpu.cpu.cr2, u64::from(ABSENT) + 8);
        assert_eq!(machine.handled(PAGE_FAULT), 1);
        assert_eq!(machine.code(PAGE_FAULT), ABSENT_WRITE);
        assert_eq!(machine.vcpu.cpu.regs.get(EDX), 7);
    });
}

#[test]
fn a_page_fault_that_is_swallowed_comes_again_until_its_cause_is_gone() {
    on_both(&[PAGE_FAULT], store_to_absent, |mut machine| {
        for _ in 0..3 {
            assert_eq!(machine.event(), page_fault(machine.start));
            machine.vcpu.decide(Decision::Swallow);
        }
        machine.event();
        machine.map();
        machine.finish(Decision::Swallow);
        assert_eq!(machine.handled(PAGE_FAULT), 0);
        assert_eq!(machine.vcpu.cpu.cr2, 0);
        assert_eq!(machine.vcpu.cpu.regs.get(EDX), 7);
    });
}

#[test]
fn a_page_fault_is_changed() {
    on_both(&[PAGE_FAULT], store_to_absent, |mut machine| {
        machine.event();
        machine.vcpu.decide(Decision::Change {
            vector: PROTECTION,
            error_code: Some(0x1234),
        });
        assert_eq!(machine.event(), page_fault(machine.start), "once more");
        assert_eq!(machine.handled(PROTECTION), 1);
        assert_eq!(machine.code(PROTECTION), 0x1234);
        assert_eq!(machine.vcpu.cpu.cr2, 0);
        machine.finish(Decision::Change {
            vector: PAGE_FAULT,
            error_code: Some(0x11),
        });
        assert_eq!(machine.handled(PAGE_FAULT), 1);
        assert_eq!(machine.code(PAGE_FAULT), 0x11);
        assert_eq!(machine.vcpu.cpu.cr2, u64::from(ABSENT) + 8);
    });
}

#[test]
fn calls_are_shown_and_reflected_unless_decided_otherwise() {
    on_both(&[CALL], calls, |mut machine| {
        let call = plain(CALL, EventSource::Software, machine.start + BEFORE_CALL);
        for done in 0..40 {
            assert_eq!(machine.event(), call);
            assert_eq!(machine.handled(CALL), done);
        }
        assert_eq!(machine.run(), Exit::Halt);
        assert_eq!(machine.handled(CALL), 40);
        assert_eq!(machine.vcpu.cpu.regs.get(EDX), 40);
    });
}

#[test]
fn calls_are_swallowed_and_changed() {
    on_both(&[CALL], calls, |mut machine| {
        for count in 0..40 {
            machine.event();
            machine.vcpu.decide(match count % 2 {
                0 => Decision::Swallow,
                _ => Decision::Change {
                    vector: 0x81,
                    error_code: None,
                },
            });
        }
        assert_eq!(machine.run(), Exit::Halt);
        assert_eq!(machine.handled(CALL), 0);
        assert_eq!(machine.handled(0x81), 20);
        assert_eq!(machine.vcpu.cpu.regs.get(EDX), 40);
    });
}

#[test]
fn external_interrupts_are_reflected_swallowed_and_changed() {
    let change = Decision::Change {
        vector: 0x31,
        error_code: None,
    };
    for (decision, counts) in [
        (Decision::Reflect, [1, 0]),
        (Decision::Swallow, [0, 0]),
        (change, [0, 1]),
    ] {
        on_both(&[LINE], counting, |mut machine| {
            machine.run_for_a_while();
            machine.interrupt(LINE);
            let event = machine.event();
            assert_eq!(event, plain(LINE, EventSource::External, event.eip));
            let done = machine.vcpu.cpu.regs.get(EDX);
            assert!((1..5000).contains(&done), "{done}");
            machine.finish(decision);
            assert_eq!([LINE, 0x31].map(|vector| machine.handled(vector)), counts);
            assert_eq!(machine.vcpu.cpu.regs.get(ECX), 0);
            assert_eq!(machine.vcpu.cpu.regs.get(EDX), 5000);
        });
    }
}

#[test]
fn a_swallowed_interrupt_does_not_end_hlt() {
    let waiting: Program = |a| {
        a.sti()?;
        a.hlt()?;
        a.cli()?;
        a.hlt()
    };
    on_both(&[LINE], waiting, |mut machine| {
        assert_eq!(machine.run(), Exit::Halt);
        let behind = machine.vcpu.cpu.eip;
        machine.interrupt(LINE);
        assert_eq!(machine.event(), plain(LINE, EventSource::External, behind));
        machine.finish(Decision::Swallow);
        assert_eq!(machine.vcpu.cpu.eip, behind);
        machine.interrupt(LINE);
        machine.event();
        machine.finish(Decision::Reflect);
        assert_eq!(machine.handled(LINE), 1);
        assert_eq!(machine.vcpu.cpu.eip, behind + 2);
    });
}

#[test]
fn an_nmi_is_external_and_does_not_block_others_when_swallowed() {
    on_both(&[NMI], counting, |mut machine| {
        for decision in [Decision::Swallow, Decision::Reflect] {
            machine.vcpu.inject_nmi();
            let event = machine.event();
            assert_eq!(event, plain(NMI, EventSource::External, event.eip));
            assert!(!machine.vcpu.cpu.nmi_blocked);
            machine.vcpu.decide(decision);
        }
        assert_eq!(machine.run(), Exit::Halt);
        assert_eq!(machine.handled(NMI), 1);
    });
}

#[test]
fn a_fault_of_int_n_is_an_event_of_its_own() {
    // The table ends before this vector.
    let program: Program = |a| a.int(0x90);
    on_both(&[0x90, PROTECTION], program, |mut machine| {
        let call = plain(0x90, EventSource::Software, machine.start);
        assert_eq!(machine.event(), call);
        let fault = GuestEvent {
            error_code: Some(0x90 << 3 | 2),
            ..plain(PROTECTION, EventSource::Exception, machine.start)
        };
        assert_eq!(machine.event(), fault);
    });
}

#[test]
fn a_double_fault_is_an_event_of_its_own() {
    on_both(
        &[PAGE_FAULT, DOUBLE_FAULT],
        store_to_absent,
        |mut machine| {
            machine.forget(PAGE_FAULT);
            assert_eq!(machine.event(), page_fault(machine.start));
            let double = GuestEvent {
                error_code: Some(0),
                ..plain(DOUBLE_FAULT, EventSource::Exception, machine.start)
            };
            assert_eq!(machine.event(), double);
            assert_eq!(machine.vcpu.cpu.cr2, u64::from(ABSENT) + 8);
            machine.forget(DOUBLE_FAULT);
            assert!(matches!(machine.run(), Exit::Shutdown(_)));
        },
    );
}

#[test]
fn a_call_that_is_swallowed_is_single_stepped_and_one_that_is_reflected_is_not() {
    let program: Program = |a| {
        a.pushfd()?;
        a.or(dword_ptr(esp), TF as i32)?;
        a.popfd()?;
        a.int(0x80)?;
        a.nop()?;
        a.hlt()
    };
    for (decision, instructions) in [(Decision::Swallow, 0), (Decision::Reflect, 1)] {
        on_both(&[CALL, DEBUG], program, |mut machine| {
            let behind = machine.event().eip + 2;
            machine.vcpu.decide(decision);
            let trap = plain(DEBUG, EventSource::Exception, behind + instructions);
            assert_eq!(machine.event(), trap);
            assert_ne!(machine.vcpu.cpu.dr[6] & DR6_BS, 0);
            machine.vcpu.cpu.eflags &= !TF;
            machine.finish(Decision::Swallow);
            assert_eq!(machine.handled(DEBUG), 0);
        });
    }
}

#[test]
fn breakpoint_and_overflow_are_software_and_int1_is_an_exception() {
    let program: Program = |a| {
        a.int3()?;
        a.mov(eax, i32::MAX)?;
        a.inc(eax)?;
        a.into()?;
        a.int1()?;
        a.hlt()
    };
    on_both(&[3, 4, DEBUG], program, |mut machine| {
        for (vector, source, offset) in [
            (3, EventSource::Software, 0),
            (4, EventSource::Software, 7),
            (DEBUG, EventSource::Exception, 8),
        ] {
            assert_eq!(
                machine.event(),
                plain(vector, source, machine.start + offset)
            );
            machine.vcpu.decide(Decision::Swallow);
        }
        assert_eq!(machine.run(), Exit::Halt);
        assert_eq!(machine.handled(DEBUG), 0);
    });
}

#[test]
fn without_a_policy_nothing_stops() {
    on_both(&[CALL], calls, |mut machine| {
        assert_eq!(machine.event().cs, CS);
        machine.vcpu.set_policy(Policy::new());
        machine.finish(Decision::Reflect);
        assert_eq!(machine.handled(CALL), 40);
    });
}
