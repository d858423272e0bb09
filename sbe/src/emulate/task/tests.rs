use crate::cpu::control::{CR0_TS, DR6_BT, DR7_FIXED};
use crate::cpu::eflags::{CF, FIXED, IF, NT, RF, VM};
use crate::cpu::regs::{EAX, EDI, ESP};
use crate::cpu::segment::{SegReg, Segment, Selector};
use crate::emulate::Event;
use crate::emulate::bench::*;
use crate::fault::{Exception, Fault, Vector};

const NEW: u16 = 0x30;
const START: u32 = 0x6000;
const IRET: &[u8] = &[0xcf];
const TASK_GATE: u16 = 0x85;

/// A bench whose selector [`NEW`] names a ready 32-bit task at ring 0.
fn bench() -> Bench {
    let mut bench = Bench::protected();
    bench.define(NEW, segment(TSS2, 0x67, TSS32));
    bench.poke(TSS2 + 0x20, START);
    bench.poke(TSS2 + 0x24, FIXED | CF);
    for register in 0..8 {
        bench.poke(TSS2 + 0x28 + 4 * register, 0x100 + register);
    }
    bench.poke(TSS2 + 0x38, 0xa000_u32);
    for (register, selector) in (0..).zip([KDATA, KCODE, KDATA, UDATA, 0, KDATA]) {
        bench.poke(TSS2 + 0x48 + 4 * register, selector);
    }
    bench
}

fn transfer(opcode: u8, selector: u16) -> [u8; 7] {
    let [low, high] = selector.to_le_bytes();
    [opcode, 0, 0, 0, 0, low, high]
}

fn jump() -> [u8; 7] {
    transfer(0xea, NEW)
}

fn call() -> [u8; 7] {
    transfer(0x9a, NEW)
}

fn is_busy(bench: &Bench, selector: u16) -> bool {
    bench.peek::<u8>(GDT + Selector(selector).offset() + 5) & 2 != 0
}

#[test]
fn a_jump_saves_the_old_task_and_loads_the_new_one() {
    let mut bench = bench();
    bench.cpu.regs.set(EDI, 77);
    bench.cpu.eflags = FIXED | IF;
    bench.cpu.dr[7] = DR7_FIXED | 0x3ff;
    bench.step(&jump()).expect("switches");
    assert_eq!(bench.place_of_execution(), (KCODE, START));
    assert_eq!((bench.cpu.eflags, bench.cpu.cpl), (FIXED | CF, 0));
    assert_eq!(
        (bench.cpu.regs.get(EAX), bench.cpu.regs.get(ESP)),
        (0x100, 0xa000)
    );
    assert_eq!(
        (bench.selector(SegReg::Ds), bench.selector(SegReg::Gs)),
        (UDATA, KDATA)
    );
    assert_ne!(bench.cpu.cr0 & CR0_TS, 0);
    assert_eq!(bench.cpu.dr[7], DR7_FIXED | 0x2aa, "global enables stay");
    assert_eq!(
        (bench.cpu.tr.selector, bench.cpu.tr.base),
        (Selector(NEW), TSS2.into())
    );
    assert_eq!((is_busy(&bench, TASK), is_busy(&bench, NEW)), (false, true));
    assert_eq!(bench.peek::<u32>(TSS + 0x20), CODE + 7);
    assert_eq!(bench.peek::<u32>(TSS + 0x24), FIXED | IF);
    assert_eq!(bench.peek::<u32>(TSS + 0x44), 77);
    assert_eq!(bench.peek::<u16>(TSS + 0x4c), KCODE);
}

#[test]
fn a_call_nests_and_iret_comes_back() {
    let mut bench = bench();
    bench.step(&call()).expect("switches");
    assert_eq!(bench.cpu.eflags, FIXED | CF | NT);
    assert_eq!(bench.peek::<u16>(TSS2), TASK, "back link");
    assert_eq!((is_busy(&bench, TASK), is_busy(&bench, NEW)), (true, true));
    bench.step(IRET).expect("switches back");
    assert_eq!(bench.place_of_execution(), (KCODE, CODE + 7));
    assert_eq!((is_busy(&bench, TASK), is_busy(&bench, NEW)), (true, false));
    assert_eq!(
        bench.peek::<u32>(TSS2 + 0x24),
        FIXED | CF,
        "NT is saved clear"
    );
    assert_eq!(bench.peek::<u32>(TSS2 + 0x20), START + 1);
    assert_eq!(bench.cpu.tr.selector, Selector(TASK));
}

#[test]
fn unsuitable_tasks_are_refused_in_the_old_one() {
    let cases = [
        (
            "busy",
            segment(TSS2, 0x67, BUSY_TSS32),
            Fault::gp(NEW.into()),
        ),
        (
            "absent",
            segment(TSS2, 0x67, TSS32 & !PRESENT),
            Fault::np(NEW.into()),
        ),
        ("short", segment(TSS2, 0x66, TSS32), Fault::ts(NEW.into())),
        (
            "short 16-bit",
            segment(TSS2, 0x2a, TSS16),
            Fault::ts(NEW.into()),
        ),
    ];
    for (name, descriptor, fault) in cases {
        let mut bench = bench();
        bench.define(NEW, descriptor);
        let before = bench.cpu.regs.clone();
        assert_eq!(bench.step(&jump()), Err(fault), "{name}");
        assert_eq!(
            (bench.cpu.regs.clone(), bench.cpu.tr.selector),
            (before, Selector(TASK)),
            "{name}"
        );
        assert!(is_busy(&bench, TASK), "{name}");
    }
    let mut user = Bench::user();
    user.define(NEW, segment(TSS2, 0x67, TSS32));
    assert_eq!(user.step(&jump()), Err(Fault::gp(NEW.into())), "DPL");
}

#[test]
fn a_return_needs_a_busy_task_in_the_link() {
    for (link, code) in [
        (0, 0),
        (NEW, NEW.into()),
        (KDATA, KDATA.into()),
        (0x104, 0x104),
        (0x100, 0x100),
    ] {
        let mut bench = bench();
        bench.cpu.eflags = FIXED | NT;
        bench.poke(TSS, link);
        assert_eq!(bench.step(IRET), Err(Fault::ts(code)), "{link:x}");
    }
}

#[test]
fn bad_segments_fault_in_the_new_task() {
    let (cs, ss, ds, ldt) = (0x4c, 0x50, 0x54, 0x60);
    let cases = [
        ("null CS", cs, 0, Vector::InvalidTss, 0),
        ("data CS", cs, KDATA, Vector::InvalidTss, KDATA),
        ("CS RPL", cs, KCODE | 3, Vector::InvalidTss, KCODE),
        ("absent CS", cs, 0x38, Vector::SegmentNotPresent, 0x38),
        ("null SS", ss, 0, Vector::InvalidTss, 0),
        ("SS RPL", ss, KDATA | 3, Vector::InvalidTss, KDATA),
        ("absent SS", ss, 0x40, Vector::StackFault, 0x40),
        ("DS beyond", ds, 0x100, Vector::InvalidTss, 0x100),
        ("absent DS", ds, 0x40, Vector::SegmentNotPresent, 0x40),
        ("LDT", ldt, KDATA, Vector::InvalidTss, KDATA),
        ("absent LDT", ldt, 0x48, Vector::InvalidTss, 0x48),
    ];
    for (name, field, selector, vector, code) in cases {
        let mut bench = bench();
        bench.define(0x38, flat(CODE32 & !PRESENT));
        bench.define(0x40, flat(DATA32 & !PRESENT));
        bench.define(0x48, segment(0, 0xff, LDT & !PRESENT));
        bench.poke(TSS2 + field, selector);
        // The handler is a task, for the new one may lack a usable stack.
        let third = 0x50;
        let tss3 = 0xb000;
        bench.define(third, segment(tss3, 0x67, TSS32));
        bench.poke(tss3 + 0x20, 0x6660_u32);
        bench.poke(tss3 + 0x24, FIXED);
        bench.poke(tss3 + 0x38, 0xc000_u32);
        bench.poke(tss3 + 0x4c, KCODE);
        bench.poke(tss3 + 0x50, KDATA);
        bench.vector(vector as u8, gate(third, 0, TASK_GATE, 0));
        assert_eq!(bench.step(&jump()), Ok(()), "{name}");
        assert_eq!(bench.place_of_execution(), (KCODE, 0x6660), "{name}");
        assert_eq!(bench.top(), [u32::from(code)], "{name}");
        assert_eq!(
            bench.peek::<u16>(tss3),
            NEW,
            "{name}: interrupted the new task"
        );
        assert_eq!(
            bench.peek::<u32>(TSS2 + 0x20),
            START,
            "{name}: at its first instruction"
        );
    }
}

#[test]
fn an_exception_through_a_task_gate_leaves_its_code_on_the_new_stack() {
    let mut bench = bench();
    bench.vector(13, gate(NEW, 0, TASK_GATE, 0));
    bench
        .exec()
        .raise(Exception::with_code(Vector::GeneralProtection, 0x18))
        .expect("switches");
    assert_eq!(bench.place_of_execution(), (KCODE, START));
    assert_eq!((bench.cpu.regs.get(ESP), bench.top()), (0xa000 - 4, [0x18]));
    assert_eq!(bench.peek::<u32>(TSS + 0x24), FIXED | RF);
    assert_eq!(bench.peek::<u32>(TSS + 0x20), CODE);
}

#[test]
fn task_gates_in_the_idt_are_checked() {
    let mut bench = bench();
    bench.vector(0x40, gate(NEW | 4, 0, TASK_GATE, 0));
    assert_eq!(
        bench.step(&[0xcd, 0x40]),
        Err(Fault::gp(u32::from(NEW) | 4))
    );
    bench.vector(0x40, gate(TASK, 0, TASK_GATE, 0));
    assert_eq!(
        bench.step(&[0xcd, 0x40]),
        Err(Fault::gp(TASK.into())),
        "busy"
    );
    bench.vector(0x40, gate(NEW, 0, TASK_GATE, 0));
    bench
        .exec()
        .deliver(Event::External(0x40))
        .expect("switches");
    assert_eq!(bench.cpu.regs.get(ESP), 0xa000);
}

#[test]
fn a_16_bit_task_has_half_registers_and_four_segments() {
    let mut bench = bench();
    bench.define(NEW, segment(TSS2, 0x2b, TSS16));
    let slots: [u16; 15] = [
        0x6000,
        FIXED as u16,
        1,
        2,
        3,
        4,
        0xa000,
        6,
        7,
        8,
        KDATA,
        KCODE,
        KDATA,
        KDATA,
        0,
    ];
    for (slot, index) in slots.into_iter().zip(0..) {
        bench.poke(TSS2 + 0x0e + 2 * index, slot);
    }
    bench.step(&call()).expect("switches");
    assert_eq!(bench.place_of_execution(), (KCODE, 0x6000));
    assert_eq!(bench.cpu.regs.get16(EAX), 1);
    assert_eq!(
        (bench.selector(SegReg::Ds), bench.selector(SegReg::Fs)),
        (KDATA, 0)
    );
    bench.cpu.regs.set(EAX, 0x1_5555);
    bench.step(IRET).expect("switches back");
    assert_eq!(bench.peek::<u16>(TSS2 + 0x12), 0x5555);
    assert_eq!(bench.place_of_execution(), (KCODE, CODE + 7));
}

#[test]
fn the_trap_flag_of_the_tss_asks_for_a_debug_trap() {
    let mut bench = bench();
    bench.poke(TSS2 + 0x64, 1_u16);
    bench.step(&jump()).expect("switches");
    assert_eq!(bench.cpu.debug_hits, DR6_BT);
}

#[test]
fn a_task_may_be_in_virtual_8086_mode() {
    let mut bench = bench();
    bench.poke(TSS2 + 0x24, FIXED | VM);
    bench.step(&jump()).expect("switches");
    assert_eq!(bench.cpu.cpl, 3);
    assert_eq!(*bench.cpu.seg(SegReg::Ds), Segment::v86(Selector(UDATA)));
}

#[test]
fn a_page_fault_in_the_old_tss_comes_before_any_change() {
    let mut bench = bench();
    bench.page_without(TSS);
    let fault = Exception {
        address: u64::from(TSS + 0x20),
        ..Exception::with_code(Vector::PageFault, 2)
    };
    assert_eq!(bench.step(&jump()), Err(Fault::Exception(fault)));
    assert!(!is_busy(&bench, NEW) && is_busy(&bench, TASK));
}

#[test]
fn a_switch_loads_cr3_only_under_paging() {
    let mut bench = bench();
    bench.poke(TSS2 + 0x1c, 0x2_0008_u32);
    bench.step(&jump()).expect("switches");
    assert_eq!(bench.cpu.cr3, 0);
    let mut bench = self::bench();
    bench.page_without(0);
    bench.poke(TSS2 + 0x1c, 0x2_0008_u32);
    bench.step(&jump()).expect("switches");
    assert_eq!(bench.cpu.cr3, 0x2_0008);
}
