use crate::cpu::eflags::{AC, CF, FIXED, ID, IF, IOPL, NT, RF, TF, VIF, VIP, VM};
use crate::cpu::regs::ESP;
use crate::cpu::segment::{SegReg, Segment, Selector};
use crate::emulate::bench::*;
use crate::fault::Fault;

const TARGET: u32 = 0x1_2345;
const IRET: &[u8] = &[0xcf];
const ALL: u32 = CF | TF | IF | IOPL | NT | RF | AC | ID | VIF | VIP;

#[test]
fn a_return_within_a_level_pops_three_items_and_unblocks_nmis() {
    let mut bench = Bench::protected();
    bench.cpu.nmi_blocked = true;
    bench.place(&[TARGET, KCODE.into(), FIXED | IF | CF]);
    bench.step(IRET).expect("returns");
    assert_eq!(bench.place_of_execution(), (KCODE, TARGET));
    assert_eq!(
        (bench.cpu.eflags, bench.cpu.regs.get(ESP)),
        (FIXED | IF | CF, STACK)
    );
    assert!(!bench.cpu.nmi_blocked);
}

#[test]
fn a_return_to_an_outer_level_pops_the_stack_too() {
    let mut bench = Bench::protected();
    bench.place(&[TARGET, UCODE.into(), FIXED | IF, 0x7000, UDATA.into()]);
    bench.step(IRET).expect("returns");
    assert_eq!(bench.place_of_execution(), (UCODE, TARGET));
    assert_eq!((bench.cpu.cpl, bench.cpu.regs.get(ESP)), (3, 0x7000));
    assert_eq!(
        (bench.selector(SegReg::Ss), bench.selector(SegReg::Ds)),
        (UDATA, 0)
    );
    assert_eq!(bench.cpu.eflags, FIXED | IF);
}

#[test]
fn privileged_flags_are_restored_by_privilege() {
    let unprivileged = CF | TF | NT | RF | AC | ID;
    let cases = [
        ("ring 0", Bench::protected(), KCODE, 0, ALL),
        ("ring 3", Bench::user(), UCODE, 0, unprivileged),
        (
            "ring 3 with IOPL 3",
            Bench::user(),
            UCODE,
            IOPL,
            unprivileged | IF | IOPL,
        ),
    ];
    for (name, mut bench, code, before, after) in cases {
        bench.cpu.eflags = FIXED | before;
        bench.place(&[TARGET, code.into(), FIXED | ALL]);
        bench.step(IRET).expect("returns");
        assert_eq!(bench.cpu.eflags, FIXED | after, "{name}");
    }
    let mut bench = Bench::user();
    bench.cpu.eflags = FIXED | IF;
    bench.place(&[TARGET, UCODE.into(), FIXED | VM]);
    bench.step(IRET).expect("returns");
    assert_eq!(
        bench.cpu.eflags,
        FIXED | IF,
        "ring 3 can neither clear IF nor set VM"
    );
}

#[test]
fn a_16_bit_return_keeps_the_upper_flags() {
    let mut bench = Bench::protected();
    bench.cpu.eflags = FIXED | AC | ID;
    bench.place(&[u32::from(KCODE) << 16 | 0x2345, FIXED | IF]);
    bench.step(&[0x66, 0xcf]).expect("returns");
    assert_eq!(bench.place_of_execution(), (KCODE, 0x2345));
    assert_eq!(bench.cpu.eflags, FIXED | IF | AC | ID);
    assert_eq!(bench.cpu.regs.get(ESP), STACK - 2);
}

#[test]
fn a_faulting_return_changes_nothing() {
    let mut bench = Bench::protected();
    bench.place(&[TARGET, UCODE.into(), FIXED | IF, 0x7000, 0]);
    let before = (bench.cpu.segs, bench.cpu.regs.clone(), bench.cpu.eflags);
    assert_eq!(bench.step(IRET), Err(Fault::gp(0)));
    assert_eq!(
        (bench.cpu.segs, bench.cpu.regs.clone(), bench.cpu.eflags),
        before
    );
}

#[test]
fn ring_0_enters_virtual_8086_mode() {
    let mut bench = Bench::protected();
    let items = [
        0x1234,
        0x11,
        FIXED | VM | IF | IOPL,
        0x7000,
        0x22,
        0x33,
        0x44,
        0x55,
        0x66,
    ];
    bench.place(&items);
    bench.step(IRET).expect("returns");
    assert_eq!(bench.place_of_execution(), (0x11, 0x1234));
    assert_eq!(
        (bench.cpu.cpl, bench.cpu.eflags),
        (3, FIXED | VM | IF | IOPL)
    );
    assert_eq!(bench.cpu.regs.get(ESP), 0x7000);
    let selectors = [0x33, 0x11, 0x22, 0x44, 0x55, 0x66];
    assert_eq!(
        bench.cpu.segs,
        selectors.map(|selector| Segment::v86(Selector(selector)))
    );
    let mut bench = Bench::protected();
    bench.place(&[
        0x1_0000,
        0x11,
        FIXED | VM,
        0x7000,
        0x22,
        0x33,
        0x44,
        0x55,
        0x66,
    ]);
    assert_eq!(bench.step(IRET), Err(Fault::gp(0)));
}

#[test]
fn virtual_8086_mode_needs_iopl_3_and_keeps_it() {
    let mut bench = Bench::user();
    bench.cpu.segs = [Segment::v86(Selector(0)); 6];
    bench.cpu.eflags = FIXED | VM;
    assert_eq!(bench.step(&[0xcf]), Err(Fault::gp(0)));
    bench.cpu.eflags = FIXED | VM | IOPL;
    bench.place(&[0x11 << 16 | 0x1234, FIXED | IF]);
    bench.step(IRET).expect("returns");
    assert_eq!(bench.place_of_execution(), (0x11, 0x1234));
    assert_eq!(bench.cpu.eflags, FIXED | VM | IOPL | IF);
}

#[test]
fn real_mode_restores_what_it_pushed() {
    let mut bench = Bench::real();
    bench.place(&[0x11 << 16 | 0x1234, FIXED | IF | IOPL | NT]);
    bench.step(IRET).expect("returns");
    assert_eq!(bench.place_of_execution(), (0x11, 0x1234));
    assert_eq!(bench.cpu.eflags, FIXED | IF | IOPL | NT);
}
