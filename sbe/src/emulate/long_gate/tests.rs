use super::super::bench::{
    BUSY_TSS32, Bench, CODE, CODE32, FREE64, KCODE64, KDATA, STACK, STACK0, TSS, UCODE, UCODE64,
    UDATA, dpl, flat, gate,
};
use crate::cpu::eflags::{FIXED, IF, NT, RF, TF};
use crate::cpu::regs::ESP;
use crate::cpu::segment::{Attributes, SegReg};
use crate::fault::{Exception, Fault, Vector};

const INTERRUPT: u16 = 0x8e;
const TRAP: u16 = 0x8f;
const HANDLER: u64 = 0xffff_8000_0000_7000;
const UD: u8 = 6;
const UD2: [u8; 2] = [0x0f, 0x0b];
const INT80: [u8; 2] = [0xcd, 0x80];
const IRETQ: [u8; 2] = [0x48, 0xcf];

#[test]
fn a_handler_at_the_same_level_gets_an_aligned_frame_on_the_same_stack() {
    let mut bench = Bench::long();
    bench.vector64(UD, HANDLER, INTERRUPT, 0);
    bench.cpu.regs.set64(ESP, u64::from(STACK) - 4);
    bench.cpu.eflags = FIXED | IF | NT;
    bench.raise_ud().expect("delivered");
    assert_eq!(bench.place_of_execution64(), (KCODE64, HANDLER));
    assert_eq!(bench.cpu.regs.get64(ESP), u64::from(STACK) - 0x10 - 40);
    let flags = u64::from(FIXED | IF | NT | RF);
    let frame = [
        CODE.into(),
        KCODE64.into(),
        flags,
        u64::from(STACK) - 4,
        KDATA.into(),
    ];
    assert_eq!(bench.top64(), frame);
    assert_eq!(bench.cpu.eflags, FIXED);
    assert_eq!(bench.selector(SegReg::Ss), KDATA, "kept at the same level");
}

#[test]
fn an_inner_level_has_a_null_stack_segment_and_rsp_of_the_tss() {
    let mut bench = Bench::long_user();
    bench.vector64(0x80, HANDLER, TRAP | dpl(3), 0);
    bench.cpu.eflags = FIXED | IF | TF;
    bench.step(&INT80).expect("delivered");
    assert_eq!(bench.cpu.cpl, 0);
    assert_eq!(bench.selector(SegReg::Ss), 0);
    assert_eq!(bench.cpu.regs.get64(ESP), u64::from(STACK0) - 40);
    let flags = u64::from(FIXED | IF | TF);
    let rip = u64::from(CODE) + 2;
    assert_eq!(
        bench.top64(),
        [rip, UCODE64.into(), flags, STACK.into(), UDATA.into()]
    );
    assert_eq!(bench.cpu.eflags, FIXED | IF);
    bench.step(&IRETQ).expect("returns");
    assert_eq!(bench.place_of_execution64(), (UCODE64, rip));
    assert_eq!((bench.cpu.cpl, bench.selector(SegReg::Ss)), (3, UDATA));
    assert_eq!(bench.cpu.regs.get64(ESP), u64::from(STACK));
    assert_eq!(bench.cpu.eflags, FIXED | IF | TF);
}

#[test]
fn an_interrupt_stack_is_taken_at_any_level() {
    let mut bench = Bench::long();
    bench.vector64(UD, HANDLER, INTERRUPT, 3);
    bench.poke(TSS + 0x24 + 16, 0xa008_u64);
    bench.raise_ud().expect("delivered");
    assert_eq!(bench.cpu.regs.get64(ESP), 0xa000 - 40);
    assert_eq!(bench.top64::<5>()[3], u64::from(STACK));
}

#[test]
fn compatibility_mode_is_left_for_a_handler_and_returned_to() {
    let mut bench = Bench::compatibility();
    bench.vector64(UD, HANDLER, INTERRUPT, 0);
    assert_eq!(bench.step(&UD2), Err(Fault::ud()));
    bench.cpu.eip = CODE.into();
    bench.raise_ud().expect("delivered");
    assert!(bench.cpu.is_code64());
    assert_eq!(bench.top64(), [u64::from(CODE), UCODE.into()]);
    bench.step(&IRETQ).expect("returns");
    assert!(!bench.cpu.is_code64());
    assert_eq!(bench.place_of_execution64(), (UCODE, CODE.into()));
    assert_eq!(bench.cpu.regs.get(ESP), STACK);
}

#[test]
fn error_codes_are_quadwords() {
    let mut bench = Bench::long();
    bench.vector64(13, HANDLER, INTERRUPT, 0);
    let fault = Exception::with_code(Vector::GeneralProtection, 0x1234);
    bench.exec().raise(fault).expect("delivered");
    assert_eq!(bench.top64(), [0x1234, CODE.into()]);
    assert_eq!(bench.cpu.regs.get64(ESP), u64::from(STACK) - 48);
}

/// A change to a bench whose gate is valid.
type Change = fn(&mut Bench);

#[test]
fn gates_are_checked() {
    let code = u32::from(UD) << 3 | 2;
    let cases: [(Change, Fault); 8] = [
        (|bench| bench.cpu.idtr.limit = 0x6e, Fault::gp(code)),
        (
            |bench| bench.vector64(UD, HANDLER, 0x85, 0),
            Fault::gp(code),
        ),
        (
            |bench| bench.vector64(UD, HANDLER, 0x86, 0),
            Fault::gp(code),
        ),
        (
            |bench| bench.vector64(UD, HANDLER, 0x0e, 0),
            Fault::np(code),
        ),
        (
            |bench| bench.vector64(UD, 1 << 47, INTERRUPT, 0),
            Fault::gp(0),
        ),
        (
            |bench| bench.define(KCODE64, flat(CODE32)),
            Fault::gp(KCODE64.into()),
        ),
        (
            |bench| bench.define(KCODE64, flat(0xe09b)),
            Fault::gp(KCODE64.into()),
        ),
        (
            |bench| {
                bench.vector64(UD, HANDLER, INTERRUPT, 1);
                bench.poke(TSS + 0x24, (1_u64 << 47) + 0x1000);
            },
            Fault::ss(0),
        ),
    ];
    for (number, (break_it, fault)) in cases.into_iter().enumerate() {
        let mut bench = Bench::long();
        bench.vector64(UD, HANDLER, INTERRUPT, 0);
        break_it(&mut bench);
        let event = super::Event::Fault(Exception::plain(Vector::InvalidOpcode));
        assert_eq!(bench.exec().deliver_long(event), Err(fault), "{number}");
        assert_eq!(bench.cpu.regs.get64(ESP), u64::from(STACK));
    }
}

#[test]
fn iretq_pops_the_stack_even_at_the_same_level_and_null_is_valid_inside() {
    let mut bench = Bench::long();
    bench.place64(&[
        0x1000,
        KCODE64.into(),
        FIXED.into(),
        0xffff_8000_0000_0000,
        0,
    ]);
    bench.step(&IRETQ).expect("returns");
    assert_eq!(bench.cpu.regs.get64(ESP), 0xffff_8000_0000_0000);
    assert_eq!((bench.selector(SegReg::Ss), bench.cpu.eip), (0, 0x1000));
    // A null SS at ring 3.
    let mut bench = Bench::long();
    bench.place64(&[0x1000, UCODE64.into(), FIXED.into(), 0x2000, 3]);
    assert_eq!(bench.step(&IRETQ), Err(Fault::gp(0)));
    // RIP that is not canonical.
    let mut bench = Bench::long();
    bench.place64(&[1 << 47, KCODE64.into(), FIXED.into(), 0x2000, KDATA.into()]);
    assert_eq!(bench.step(&IRETQ), Err(Fault::gp(0)));
    // NT: IA-32e mode has no tasks.
    let mut bench = Bench::long();
    bench.cpu.eflags |= NT;
    assert_eq!(bench.step(&IRETQ), Err(Fault::gp(0)));
}

#[test]
fn a_null_fs_keeps_its_base_on_the_way_out() {
    let mut bench = Bench::long();
    let fs = &mut bench.cpu.segs[SegReg::Fs as usize];
    (fs.attributes, fs.base) = (Attributes(0), 0x1234_5678_9abc);
    bench.place64(&[0x1000, UCODE64.into(), FIXED.into(), 0x2000, UDATA.into()]);
    bench.step(&IRETQ).expect("returns");
    assert_eq!(bench.cpu.seg(SegReg::Fs).base, 0x1234_5678_9abc);
    assert_eq!(bench.selector(SegReg::Ds), 0, "a segment of ring 0 goes");
}

#[test]
fn a_call_gate_leads_to_64_bit_code_on_an_inner_stack() {
    let mut bench = Bench::long_user();
    bench.define(FREE64, gate(KCODE64, 0x1234_5678, 0x8c | dpl(3), 0));
    bench.define(FREE64 + 8, crate::cpu::segment::Descriptor(0xffff_8000));
    // call far [rip]: m16:32
    let at = CODE + 0x100;
    bench.poke(at, 0_u32);
    bench.poke(at + 4, FREE64);
    bench.step(&[0xff, 0x1d, 0xfa, 0, 0, 0]).expect("no fault");
    assert_eq!(
        bench.place_of_execution64(),
        (KCODE64, 0xffff_8000_1234_5678)
    );
    assert_eq!((bench.cpu.cpl, bench.selector(SegReg::Ss)), (0, 0));
    let back = u64::from(CODE) + 6;
    assert_eq!(
        bench.top64(),
        [back, UCODE64.into(), STACK.into(), UDATA.into()]
    );
    // retfq
    bench.step(&[0x48, 0xcb]).expect("returns");
    assert_eq!(bench.place_of_execution64(), (UCODE64, back));
    assert_eq!(bench.cpu.regs.get64(ESP), u64::from(STACK));
}

#[test]
fn task_switches_are_refused() {
    let mut bench = Bench::long();
    bench.define(
        FREE64,
        super::super::bench::segment(TSS, 0x67, BUSY_TSS32 & !2),
    );
    bench.poke(CODE + 0x100, 0_u32);
    bench.poke(CODE + 0x104, FREE64);
    let jump = [0xff, 0x2d, 0xfa, 0, 0, 0];
    assert_eq!(bench.step(&jump), Err(Fault::gp(FREE64.into())));
}
