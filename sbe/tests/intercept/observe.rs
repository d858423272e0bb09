//! The observations that the bus is told of a processor that is observed.

use iced_x86::code_asm::*;
use sbe::cpu::control::{CR0_MP, CR0_PG, CR0_TS, CR4_PSE, ControlRegister};
use sbe::cpu::segment::{Attributes, Segment, Selector};
use sbe::{
    ControlWrite, Decision, Direction, EventSource, Exit, GuestEvent, Observation, PortAccess,
    Width,
};

use crate::machine::{ABSENT, CS, DIRECTORY, GDT, Machine, Program, STACK, plain};
use crate::{
    ABSENT_WRITE, BEFORE_CALL, CALL, DOUBLE_FAULT, LINE, PAGE_FAULT, PROTECTION, calls, counting,
    on_both, page_fault, store_to_absent,
};

/// The value that the processor holds in CR0 before paging is on.
const CR0: u32 = 0x11;
/// Bytes of the MOV to CR3, CR0 or CR4.
const MOV_CR: u32 = 3;
/// Bytes of `mov eax, cr0` and `or eax, imm32`, which come between the first two of them.
const BETWEEN: u32 = 8;

/// Runs `test` with an observed machine on each engine that intercepts `vectors` of `program`.
fn observed(vectors: &[u8], program: Program, test: impl Fn(Machine)) {
    on_both(vectors, program, |mut machine| {
        machine.vcpu.set_observed(true);
        test(machine);
    });
}

/// The observations of the program proper: those made before paging is on are checked and left out.
#[track_caller]
fn told(machine: &mut Machine) -> Vec<Observation> {
    let last = machine.start - MOV_CR;
    let first = [
        control(
            ControlRegister::Cr3,
            (0, DIRECTORY),
            last - BETWEEN - MOV_CR,
        ),
        control(ControlRegister::Cr0, (CR0, CR0 | CR0_PG), last),
    ];
    let mut told = machine.observed();
    let rest = told.split_off(first.len().min(told.len()));
    assert_eq!(told, first);
    rest
}

fn event(vector: u8, source: EventSource, eip: impl Into<u64>) -> Observation {
    Observation::Event(plain(vector, source, eip))
}

fn control(register: ControlRegister, (old, new): (u32, u32), eip: impl Into<u64>) -> Observation {
    Observation::Control(ControlWrite {
        register,
        old: old.into(),
        new: new.into(),
        cs: CS,
        eip: eip.into(),
    })
}

fn port(
    direction: Direction,
    port: u16,
    (width, value): (Width, u32),
    eip: impl Into<u64>,
) -> Observation {
    Observation::Port(PortAccess {
        direction,
        port,
        width,
        value,
        cs: CS,
        eip: eip.into(),
    })
}

#[test]
fn nothing_is_told_unless_wanted() {
    on_both(&[], calls, |mut machine| {
        assert_eq!(machine.run(), Exit::Halt);
        assert_eq!(machine.observed(), []);
    });
}

#[test]
fn interrupts_and_exceptions_are_told() {
    observed(&[], calls, |mut machine| {
        assert_eq!(machine.run(), Exit::Halt);
        let call = event(CALL, EventSource::Software, machine.start + BEFORE_CALL);
        assert_eq!(told(&mut machine), [call; 40]);
    });
    observed(&[], store_to_absent, |mut machine| {
        assert_eq!(machine.run(), Exit::Halt);
        let fault = Observation::Event(page_fault(machine.start));
        assert_eq!(told(&mut machine), [fault]);
    });
    observed(&[], counting, |mut machine| {
        machine.run_for_a_while();
        machine.interrupt(LINE);
        assert_eq!(machine.run(), Exit::Halt);
        match told(&mut machine)[..] {
            [Observation::Event(told)] => {
                assert_eq!(told, plain(LINE, EventSource::External, told.eip));
            }
            ref other => panic!("{other:?}"),
        }
    });
}

#[test]
fn what_cannot_be_delivered_is_followed_by_what_comes_of_it() {
    observed(&[], store_to_absent, |mut machine| {
        machine.forget(PAGE_FAULT);
        machine.forget(DOUBLE_FAULT);
        assert!(matches!(machine.run(), Exit::Shutdown(_)));
        let double = GuestEvent {
            error_code: Some(0),
            ..plain(DOUBLE_FAULT, EventSource::Exception, machine.start)
        };
        let expected = [page_fault(machine.start), double].map(Observation::Event);
        assert_eq!(told(&mut machine), expected);
    });
}

#[test]
fn what_is_intercepted_is_told_as_the_guest_gets_it() {
    observed(&[CALL], calls, |mut machine| {
        let place = machine.start + BEFORE_CALL;
        let change = Decision::Change {
            vector: 0x81,
            error_code: None,
        };
        for decision in [Decision::Reflect, Decision::Swallow, change] {
            machine.event();
            machine.vcpu.decide(decision);
        }
        machine.event();
        assert_eq!(
            told(&mut machine),
            [CALL, 0x81].map(|vector| event(vector, EventSource::Software, place))
        );
    });
    observed(&[PAGE_FAULT], store_to_absent, |mut machine| {
        machine.event();
        machine.vcpu.decide(Decision::Change {
            vector: PROTECTION,
            error_code: Some(ABSENT_WRITE),
        });
        machine.event();
        let changed = GuestEvent {
            vector: PROTECTION,
            cr2: None,
            ..page_fault(machine.start)
        };
        assert_eq!(told(&mut machine), [Observation::Event(changed)]);
    });
}

#[test]
fn every_write_of_a_control_register_is_told() {
    let program: Program = |a| {
        a.mov(eax, 0x1234)?;
        a.mov(cr2, eax)?;
        a.mov(eax, CR4_PSE as i32)?;
        a.mov(cr4, eax)?;
        a.mov(ax, (CR0 | CR0_MP | CR0_TS) as i32)?;
        a.lmsw(ax)?;
        a.clts()?;
        a.mov(eax, cr3)?;
        a.mov(cr3, eax)?;
        // Refused: not written.
        a.mov(eax, -1)?;
        a.mov(cr4, eax)?;
        a.hlt()
    };
    observed(&[PROTECTION], program, |mut machine| {
        let refused = machine.event().eip;
        let (paging, tasking) = (CR0 | CR0_PG, CR0 | CR0_PG | CR0_MP | CR0_TS);
        let expected = [
            (ControlRegister::Cr2, (0, 0x1234), 5),
            (ControlRegister::Cr4, (0, CR4_PSE), 13),
            (ControlRegister::Cr0, (paging, tasking), 20),
            (ControlRegister::Cr0, (tasking, tasking & !CR0_TS), 24),
            (ControlRegister::Cr3, (DIRECTORY, DIRECTORY), 29),
        ]
        .map(|(register, values, offset)| control(register, values, machine.start + offset));
        assert_eq!(told(&mut machine), expected);
        assert_eq!(refused, u64::from(machine.start) + 37);
    });
}

#[test]
fn a_task_switch_is_told_as_what_it_writes() {
    const TASK: u16 = 0x28;
    const OLD_TSS: u32 = 0x0020_1000;
    const NEW_TSS: u32 = 0x0020_2000;
    const ENTRY: u32 = 0x0010_0800;
    /// A 32-bit TSS that is present: available, and busy.
    const AVAILABLE: u16 = 0x89;
    const BUSY: u16 = 0x8b;
    const LIMIT: u32 = 0x67;
    let program: Program = |a| {
        // jmp far TASK:0
        a.db(&[0xea, 0, 0, 0, 0, TASK as u8, 0])
    };
    observed(&[], program, |mut machine| {
        let at = GDT + u32::from(TASK);
        machine.store(at, NEW_TSS << 16 | LIMIT);
        machine.store(at + 4, u32::from(AVAILABLE) << 8 | NEW_TSS >> 16);
        let cpu = &mut machine.vcpu.cpu;
        cpu.gdtr.limit = TASK + 7;
        cpu.tr = Segment::new(Selector(0x20), OLD_TSS.into(), LIMIT, Attributes(BUSY));
        let data = 0x18;
        for (offset, value) in [
            (0x1c, DIRECTORY | 8),
            (0x20, ENTRY),
            (0x24, 2),
            (0x38, STACK),
            (0x48, data),
            (0x4c, CS.into()),
            (0x50, data),
            (0x54, data),
        ] {
            machine.store(NEW_TSS + offset, value);
        }
        // hlt
        machine.store(ENTRY, 0xf4);
        assert_eq!(machine.run(), Exit::Halt);
        let paging = CR0 | CR0_PG;
        let expected = [
            control(ControlRegister::Cr0, (paging, paging | CR0_TS), ENTRY),
            control(ControlRegister::Cr3, (DIRECTORY, DIRECTORY | 8), ENTRY),
        ];
        assert_eq!(told(&mut machine), expected);
    });
}

#[test]
fn port_accesses_are_told_one_by_one() {
    let program: Program = |a| {
        a.mov(eax, 0x1234_5678)?;
        a.out(0x43, al)?;
        a.out(0x44, ax)?;
        a.in_(ax, 0x60)?;
        a.mov(dx, 0x1f0)?;
        a.out(dx, eax)?;
        a.mov(edi, (ABSENT + 0x1000) as i32)?;
        a.mov(ecx, 2)?;
        a.rep().insb()?;
        a.hlt()
    };
    observed(&[], program, |mut machine| {
        assert_eq!(machine.run(), Exit::Halt);
        let repeated = (Direction::In, 0x1f0, (Width::Byte, 0xff), 28);
        let expected = [
            (Direction::Out, 0x43, (Width::Byte, 0x78), 5),
            (Direction::Out, 0x44, (Width::Word, 0x5678), 7),
            (Direction::In, 0x60, (Width::Word, 0xffff), 10),
            (Direction::Out, 0x1f0, (Width::Dword, 0x1234_ffff), 17),
            repeated,
            repeated,
        ]
        .map(|(direction, number, data, offset)| {
            port(direction, number, data, machine.start + offset)
        });
        assert_eq!(told(&mut machine), expected);
    });
}
