use crate::cpu::eflags::{FIXED, IF, IOPL, RF, VM};
use crate::cpu::segment::{SegReg, Segment, Selector};
use crate::emulate::Event;
use crate::emulate::bench::*;
use crate::emulate::exec::Exec;
use crate::fault::{Exception, Fault, Vector};
use crate::guest_event::Decision;
use mmu::GuestPhys;

const HANDLER: u32 = 0x1_2345;
/// Selector of a task.
const NEW: u16 = 0x30;
const INTERRUPT32: u16 = 0x8e;
const INTERRUPT16: u16 = 0x86;
const TASK_GATE: u16 = 0x85;
/// int 0x40
const INT_40: &[u8] = &[0xcd, 0x40];
/// Memory that deliveries may change.
const USED: usize = 0x1_0000;

/// A processor, and what happens to it.
struct Case {
    name: &'static str,
    start: fn() -> Bench,
    happens: fn(&mut Bench) -> Result<(), Fault>,
    /// Bytes of the instruction that asks for the event, if one does.
    length: u32,
    /// Whether the event is a fault.
    faults: bool,
}

const CASES: [Case; 9] = [
    Case {
        name: "at the same level",
        start: || with_gate(Bench::protected(), INTERRUPT32),
        happens: interrupt,
        length: 0,
        faults: false,
    },
    Case {
        name: "to an inner level",
        start: || with_gate(Bench::user(), INTERRUPT32 | dpl(3)),
        happens: |bench| bench.step(INT_40),
        length: 2,
        faults: false,
    },
    Case {
        name: "16-bit gate",
        start: || with_gate(Bench::protected(), INTERRUPT16),
        happens: |bench| bench.step(INT_40),
        length: 2,
        faults: false,
    },
    Case {
        name: "task gate",
        start: with_task,
        happens: interrupt,
        length: 0,
        faults: false,
    },
    Case {
        name: "exception through a task gate",
        start: with_task,
        happens: protection_fault,
        length: 0,
        faults: true,
    },
    Case {
        name: "virtual-8086 mode",
        start: || with_gate(v86(), INTERRUPT32),
        happens: interrupt,
        length: 0,
        faults: false,
    },
    Case {
        name: "INT n of virtual-8086 mode",
        start: || with_gate(v86(), INTERRUPT32 | dpl(3)),
        happens: |bench| bench.step(INT_40),
        length: 2,
        faults: false,
    },
    Case {
        name: "fault of virtual-8086 mode",
        start: || with_gate(v86(), INTERRUPT32),
        happens: protection_fault,
        length: 0,
        faults: true,
    },
    Case {
        name: "real-address mode",
        start: || {
            let mut bench = Bench::real();
            bench.poke(0x40 * 4, 0x1234_5678_u32);
            bench
        },
        happens: |bench| bench.step(INT_40),
        length: 2,
        faults: false,
    },
];

/// A bench whose vectors 13 and 0x40 lead to the handler.
fn with_gate(mut bench: Bench, access: u16) -> Bench {
    for vector in [13, 0x40] {
        bench.vector(vector, gate(KCODE, HANDLER, access, 0));
    }
    bench.cpu.eflags |= IF;
    bench
}

/// A bench whose vectors 13 and 0x40 lead to a task.
fn with_task() -> Bench {
    let mut bench = Bench::protected();
    bench.define(NEW, segment(TSS2, 0x67, TSS32));
    bench.poke(TSS2 + 0x20, HANDLER);
    bench.poke(TSS2 + 0x24, FIXED);
    bench.poke(TSS2 + 0x38, 0xa000_u32);
    for (register, selector) in (0..).zip([KDATA, KCODE, KDATA, UDATA, 0, KDATA]) {
        bench.poke(TSS2 + 0x48 + 4 * register, selector);
    }
    for vector in [13, 0x40] {
        bench.vector(vector, gate(NEW, 0, TASK_GATE, 0));
    }
    bench
}

fn v86() -> Bench {
    let mut bench = Bench::user();
    bench.cpu.segs = std::array::from_fn(|index| Segment::v86(Selector(index as u16 * 0x11)));
    for register in [SegReg::Cs, SegReg::Ss] {
        bench.cpu.segs[register as usize] = Segment::v86(Selector(0));
    }
    bench.cpu.eflags = FIXED | VM | IOPL;
    bench
}

fn interrupt(bench: &mut Bench) -> Result<(), Fault> {
    bench.exec().deliver(Event::External(0x40))
}

fn protection_fault(bench: &mut Bench) -> Result<(), Fault> {
    let exception = Exception::with_code(Vector::GeneralProtection, 0x18);
    bench.exec().raise(exception)
}

/// The state of `bench` as the guest can tell it, in registers and memory.
fn state(bench: &Bench) -> (String, Vec<u8>) {
    let mut memory = vec![0; USED];
    bench
        .mmu
        .memory()
        .read(GuestPhys::new(0), &mut memory)
        .expect("RAM");
    (format!("{:?}", bench.cpu), memory)
}

/// The machine of `case`, stopped for its event; nothing has happened yet.
fn stopped(case: &Case) -> Bench {
    let mut bench = (case.start)();
    let before = state(&bench);
    bench.intercept_all();
    let happened = (case.happens)(&mut bench);
    assert_eq!(happened, Err(Fault::Intercepted), "{}", case.name);
    assert_eq!(state(&bench), before, "{}", case.name);
    bench
}

#[test]
fn what_is_reflected_is_delivered_as_if_nobody_had_looked() {
    for case in &CASES {
        let mut undisturbed = (case.start)();
        assert_eq!((case.happens)(&mut undisturbed), Ok(()), "{}", case.name);
        let mut bench = stopped(case);
        assert_eq!(bench.exec().resume(), Ok(()), "{}", case.name);
        assert_eq!(state(&bench), state(&undisturbed), "{}", case.name);
        assert_eq!(bench.exec().resume(), Ok(()), "nothing is left");
        assert_eq!(state(&bench), state(&undisturbed), "{}", case.name);
    }
}

#[test]
fn what_is_swallowed_changes_nothing_but_eip_or_rf() {
    for case in &CASES {
        let mut bench = stopped(case);
        bench.exec().interceptor.decide(Decision::Swallow);
        assert_eq!(bench.exec().resume(), Ok(()), "{}", case.name);
        let mut expected = (case.start)();
        expected.cpu.eip += u64::from(case.length);
        if case.faults {
            expected.cpu.eflags |= RF;
        }
        assert_eq!(state(&bench), state(&expected), "{}", case.name);
    }
}

#[test]
fn what_is_held_is_saved_with_what_was_decided() {
    let decisions = [
        Decision::Reflect,
        Decision::Swallow,
        Decision::Change {
            vector: 13,
            error_code: Some(0x18),
        },
    ];
    for case in &CASES {
        for decision in decisions {
            let mut undisturbed = stopped(case);
            undisturbed.exec().interceptor.decide(decision);
            let held = undisturbed.exec().interceptor.save();
            let seen = undisturbed.exec().interceptor.held();

            let mut restored = stopped(case);
            let Exec {
                interceptor, cpu, ..
            } = restored.exec();
            interceptor.release();
            assert_eq!(interceptor.restore(held, cpu), Ok(()));
            assert_eq!(interceptor.held(), seen, "{}", case.name);
            assert_eq!(interceptor.save(), held, "{}", case.name);
            let ends = [&mut undisturbed, &mut restored].map(|bench| bench.exec().resume());
            assert_eq!(ends[0], ends[1], "{}", case.name);
            assert_eq!(state(&restored), state(&undisturbed), "{}", case.name);
        }
    }
}
