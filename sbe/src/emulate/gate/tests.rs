use crate::cpu::control::{CR0_AM, DR6_BD, DR6_BS, DR7_GD};
use crate::cpu::eflags::{AC, FIXED, IF, IOPL, NT, RF, TF, VM};
use crate::cpu::regs::ESP;
use crate::cpu::segment::{SegReg, Segment, Selector};
use crate::emulate::Event;
use crate::emulate::bench::*;
use crate::fault::{Exception, Fault, Vector};

const HANDLER: u32 = 0x1_2345;
const INTERRUPT32: u16 = 0x8e;
const INTERRUPT16: u16 = 0x86;
const TRAP32: u16 = 0x8f;
/// int 0x40
const INT_40: &[u8] = &[0xcd, 0x40];

fn handler(access: u16) -> crate::cpu::segment::Descriptor {
    gate(KCODE, HANDLER, access, 0)
}

#[test]
fn a_handler_at_the_same_level_finds_three_items() {
    let mut bench = Bench::protected();
    bench.vector(0x40, handler(TRAP32));
    bench.cpu.eflags = FIXED | IF | TF | NT;
    bench.step(INT_40).expect("delivers");
    assert_eq!(bench.place_of_execution(), (KCODE, HANDLER));
    assert_eq!(bench.cpu.eflags, FIXED | IF, "a trap gate keeps IF");
    assert_eq!(bench.top(), [CODE + 2, KCODE.into(), FIXED | IF | TF | NT]);
}

#[test]
fn a_handler_at_an_inner_level_runs_on_the_stack_of_the_tss() {
    let mut bench = Bench::user();
    bench.vector(0x40, handler(INTERRUPT32 | dpl(3)));
    bench.cpu.eflags = FIXED | IF;
    bench.step(INT_40).expect("delivers");
    assert_eq!(bench.place_of_execution(), (KCODE, HANDLER));
    assert_eq!((bench.cpu.cpl, bench.cpu.eflags), (0, FIXED));
    assert_eq!(bench.cpu.regs.get(ESP), STACK0 - 20);
    assert_eq!(
        bench.top(),
        [CODE + 2, UCODE.into(), FIXED | IF, STACK, UDATA.into()]
    );
}

#[test]
fn a_16_bit_gate_pushes_words() {
    let mut bench = Bench::protected();
    bench.vector(0x40, handler(INTERRUPT16));
    bench.step(INT_40).expect("delivers");
    assert_eq!(bench.place_of_execution(), (KCODE, HANDLER & 0xffff));
    assert_eq!(bench.cpu.regs.get(ESP), STACK - 6);
    assert_eq!(bench.top(), [u32::from(KCODE) << 16 | (CODE + 2)]);
}

#[test]
fn faults_push_rf_and_their_error_code() {
    let mut bench = Bench::protected();
    bench.vector(13, handler(INTERRUPT32));
    bench
        .exec()
        .raise(Exception::with_code(Vector::GeneralProtection, 0x1238))
        .expect("delivers");
    assert_eq!(bench.top(), [0x1238, CODE, KCODE.into(), FIXED | RF]);
    assert_eq!(bench.cpu.eflags, FIXED);
}

#[test]
fn interrupts_push_rf_as_it_stands() {
    let mut bench = Bench::protected();
    bench.vector(0x40, handler(INTERRUPT32));
    bench
        .exec()
        .deliver(Event::External(0x40))
        .expect("delivers");
    assert_eq!(bench.top(), [CODE, KCODE.into(), FIXED]);
    let mut bench = Bench::protected();
    bench.vector(0x40, handler(INTERRUPT32));
    bench.cpu.eflags |= RF;
    bench
        .exec()
        .deliver(Event::External(0x40))
        .expect("delivers");
    assert_eq!(bench.top(), [CODE, KCODE.into(), FIXED | RF]);
}

#[test]
fn faults_about_the_gate_tell_software_from_other_events() {
    let code = |attributes| flat(attributes);
    let cases = [
        (
            "not a gate",
            gate(KCODE, HANDLER, 0x8c, 0),
            Fault::gp(0x202),
        ),
        ("absent", handler(INTERRUPT32 & !PRESENT), Fault::np(0x202)),
        ("null", gate(0, HANDLER, INTERRUPT32, 0), Fault::gp(0)),
        (
            "beyond",
            gate(0x100, HANDLER, INTERRUPT32, 0),
            Fault::gp(0x100),
        ),
        (
            "data",
            gate(KDATA, HANDLER, INTERRUPT32, 0),
            Fault::gp(0x10),
        ),
        (
            "outer code",
            gate(UCODE, HANDLER, INTERRUPT32, 0),
            Fault::gp(0x18),
        ),
        (
            "absent code",
            gate(0x38, HANDLER, INTERRUPT32, 0),
            Fault::np(0x38),
        ),
        ("limit", gate(0x40, HANDLER, INTERRUPT32, 0), Fault::gp(0)),
    ];
    for (name, gate, fault) in cases {
        let mut bench = Bench::protected();
        bench.define(0x38, code(CODE32 & !PRESENT));
        bench.define(0x40, segment(0, 0xffff, 0x409b));
        bench.vector(0x40, gate);
        bench.vector(13, handler(INTERRUPT32));
        bench.vector(11, handler(INTERRUPT32));
        assert_eq!(bench.step(INT_40), Err(fault), "{name}");
        bench.cpu.eip = u64::from(CODE);
        bench
            .exec()
            .deliver(Event::External(0x40))
            .expect("raises the fault");
        let Fault::Exception(Exception {
            code: Some(code), ..
        }) = fault
        else {
            unreachable!()
        };
        assert_eq!(bench.top(), [u32::from(code) | 1, CODE], "{name}");
    }
}

#[test]
fn only_software_interrupts_obey_the_gate_dpl() {
    let mut bench = Bench::user();
    bench.vector(0x40, handler(INTERRUPT32));
    bench.vector(3, handler(INTERRUPT32));
    assert_eq!(bench.step(INT_40), Err(Fault::gp(0x202)));
    assert_eq!(bench.step(&[0xcc]), Err(Fault::gp(0x1a)));
    bench.cpu.idtr.limit = 0x1ff;
    assert_eq!(bench.step(INT_40), Err(Fault::gp(0x202)), "beyond the IDT");
    bench.cpu.idtr.limit = 0x7ff;
    assert_eq!(bench.exec().deliver(Event::External(0x40)), Ok(()));
}

#[test]
fn exceptions_during_delivery_make_double_and_triple_faults() {
    let absent = handler(INTERRUPT32 & !PRESENT);
    let mut bench = Bench::protected();
    bench.vector(13, absent);
    bench.vector(8, handler(INTERRUPT32));
    bench
        .exec()
        .raise(Exception::with_code(Vector::GeneralProtection, 0))
        .expect("double fault");
    assert_eq!(bench.top(), [0, CODE, KCODE.into(), FIXED | RF]);

    let mut bench = Bench::protected();
    bench.vector(6, absent);
    bench.vector(11, handler(INTERRUPT32));
    bench
        .raise_ud()
        .expect("#NP in place of the benign exception");
    assert_eq!(bench.top(), [6 * 8 + 3, CODE]);

    let mut bench = Bench::protected();
    bench.vector(13, absent);
    assert_eq!(
        bench
            .exec()
            .raise(Exception::with_code(Vector::GeneralProtection, 0)),
        Err(Fault::Shutdown)
    );
    assert_eq!(bench.place_of_execution(), (KCODE, CODE));
}

#[test]
fn an_alignment_check_that_recurs_for_ever_stops_the_machine() {
    let mut bench = Bench::user();
    bench.vector(17, gate(UCODE, HANDLER, INTERRUPT32, 0));
    bench.cpu.cr0 |= CR0_AM;
    bench.cpu.eflags |= AC;
    bench.cpu.regs.set(ESP, STACK + 1);
    bench.exec().update_access_checks();
    let raised = bench
        .exec()
        .raise(Exception::with_code(Vector::AlignmentCheck, 0));
    assert!(matches!(raised, Err(Fault::Unsupported(_))), "{raised:?}");
}

#[test]
fn a_page_fault_on_the_new_stack_comes_before_any_change() {
    let mut bench = Bench::user();
    bench.vector(0x40, handler(INTERRUPT32 | dpl(3)));
    bench.define(KCODE, flat(CODE32 & !1));
    bench.page_without(STACK0 - 4);
    let before = (bench.cpu.segs, bench.cpu.regs.clone(), bench.cpu.eflags);
    let fault = Exception {
        address: u64::from(STACK0 - 4),
        ..Exception::with_code(Vector::PageFault, 2)
    };
    assert_eq!(bench.step(INT_40), Err(Fault::Exception(fault)));
    assert_eq!(
        (bench.cpu.segs, bench.cpu.regs.clone(), bench.cpu.eflags),
        before
    );
    assert_eq!(bench.cpu.cpl, 3);
    assert_eq!(
        bench.peek::<u8>(GDT + u32::from(KCODE) + 5),
        0x9a,
        "not yet accessed"
    );
}

#[test]
fn a_page_fault_sets_cr2() {
    let mut bench = Bench::protected();
    bench.vector(14, handler(INTERRUPT32));
    let fault = Exception {
        address: 0xdead_b000,
        ..Exception::with_code(Vector::PageFault, 2)
    };
    bench.exec().raise(fault).expect("delivers");
    assert_eq!((bench.cpu.cr2, bench.top()), (0xdead_b000, [2]));
}

#[test]
fn debug_exceptions_set_dr6_and_clear_general_detect() {
    for (bits, flags) in [(DR6_BS, FIXED), (1, FIXED), (DR6_BD, FIXED | RF)] {
        let mut bench = Bench::protected();
        bench.vector(1, handler(INTERRUPT32));
        bench.cpu.dr[7] |= DR7_GD;
        bench.exec().raise_debug(bits).expect("delivers");
        assert_eq!(bench.cpu.dr[6] & 0xe00f, bits);
        assert_eq!(bench.cpu.dr[7] & DR7_GD, 0);
        assert_eq!(bench.top(), [CODE, KCODE.into(), flags]);
    }
}

#[test]
fn an_nmi_blocks_further_ones() {
    let mut bench = Bench::protected();
    bench.vector(2, handler(INTERRUPT32));
    bench.exec().deliver(Event::Nmi).expect("delivers");
    assert!(bench.cpu.nmi_blocked);
}

fn v86() -> Bench {
    let mut bench = Bench::user();
    bench.cpu.segs = std::array::from_fn(|index| Segment::v86(Selector(index as u16 * 0x11)));
    bench.cpu.segs[SegReg::Cs as usize] = Segment::v86(Selector(0));
    bench.cpu.segs[SegReg::Ss as usize] = Segment::v86(Selector(0));
    bench.cpu.eflags = FIXED | VM | IF;
    bench
}

#[test]
fn a_handler_of_virtual_8086_mode_finds_all_segments_and_starts_with_none() {
    let mut bench = v86();
    bench.vector(0x40, handler(INTERRUPT32));
    bench
        .exec()
        .deliver(Event::External(0x40))
        .expect("delivers");
    assert_eq!(bench.cpu.regs.get(ESP), STACK0 - 36);
    assert_eq!(
        bench.top(),
        [CODE, 0, FIXED | VM | IF, STACK, 0, 0, 0x33, 0x44, 0x55]
    );
    assert_eq!((bench.cpu.cpl, bench.cpu.eflags), (0, FIXED));
    let selectors =
        [SegReg::Ds, SegReg::Es, SegReg::Fs, SegReg::Gs].map(|register| bench.selector(register));
    assert_eq!(selectors, [0; 4]);
    assert!(!bench.cpu.seg(SegReg::Ds).attributes.is_present());
}

#[test]
fn int_n_of_virtual_8086_mode_needs_iopl_3_and_a_handler_in_ring_0() {
    let mut bench = v86();
    bench.vector(0x40, handler(INTERRUPT32 | dpl(3)));
    bench.vector(3, handler(INTERRUPT32 | dpl(3)));
    assert_eq!(bench.step(INT_40), Err(Fault::gp(0)));
    assert_eq!(bench.step(&[0xcc]), Ok(()), "int3 does not");
    let mut bench = v86();
    bench.cpu.eflags |= IOPL;
    bench.vector(0x40, gate(0x38, HANDLER, INTERRUPT32 | dpl(3), 0));
    for attributes in [CODE32 | dpl(1), CONFORMING32, CODE32 | dpl(3)] {
        bench.define(0x38, flat(attributes));
        assert_eq!(bench.step(INT_40), Err(Fault::gp(0x38)), "{attributes:x}");
    }
    bench.define(0x38, flat(CODE32));
    assert_eq!(bench.step(INT_40), Ok(()));
}

#[test]
fn real_mode_uses_the_vector_table() {
    let mut bench = Bench::real();
    bench.poke(0x40 * 4, 0x1234_5678_u32);
    bench.cpu.eflags = FIXED | IF | TF;
    bench.step(INT_40).expect("delivers");
    assert_eq!(bench.place_of_execution(), (0x1234, 0x5678));
    assert_eq!(bench.cpu.eflags, FIXED);
    assert_eq!(bench.cpu.regs.get(ESP), STACK - 6);
    assert_eq!(bench.top(), [CODE + 2]);
    bench.cpu.idtr.limit = 0xff;
    assert_eq!(bench.step(INT_40), Err(Fault::gp(0x202)));
}
