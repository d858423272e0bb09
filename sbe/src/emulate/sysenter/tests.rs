use crate::cpu::eflags::{FIXED, IF, TF};
use crate::cpu::regs::{ECX, EDX, ESP};
use crate::cpu::segment::SegReg;
use crate::emulate::bench::*;
use crate::fault::Fault;

const SYSENTER: &[u8] = &[0x0f, 0x34];
const SYSEXIT: &[u8] = &[0x0f, 0x35];

fn ready(mut bench: Bench) -> Bench {
    bench.cpu.sysenter_cs = 0x63;
    bench.cpu.sysenter_esp = u64::from(STACK0);
    bench.cpu.sysenter_eip = 0xc012_3456;
    bench
}

#[test]
fn sysenter_goes_to_ring_0_with_interrupts_off() {
    let mut bench = ready(Bench::user());
    bench.cpu.eflags = FIXED | IF | TF;
    bench.step(SYSENTER).expect("enters");
    assert_eq!(bench.place_of_execution(), (0x60, 0xc012_3456));
    assert_eq!(
        (bench.selector(SegReg::Ss), bench.cpu.regs.get(ESP)),
        (0x68, STACK0)
    );
    assert_eq!((bench.cpu.cpl, bench.cpu.eflags), (0, FIXED | TF));
    assert_eq!(bench.cpu.seg(SegReg::Cs).limit, u32::MAX);
}

#[test]
fn sysexit_goes_to_ring_3() {
    let mut bench = ready(Bench::protected());
    bench.cpu.regs.set(ECX, 0x7000);
    bench.cpu.regs.set(EDX, 0x1234);
    bench.step(SYSEXIT).expect("leaves");
    assert_eq!(bench.place_of_execution(), (0x73, 0x1234));
    assert_eq!(
        (bench.selector(SegReg::Ss), bench.cpu.regs.get(ESP)),
        (0x7b, 0x7000)
    );
    assert_eq!(bench.cpu.cpl, 3);
    assert_eq!(bench.cpu.seg(SegReg::Ss).attributes.dpl(), 3);
}

#[test]
fn both_need_a_selector_and_sysexit_ring_0() {
    assert_eq!(Bench::user().step(SYSENTER), Err(Fault::gp(0)));
    assert_eq!(Bench::protected().step(SYSEXIT), Err(Fault::gp(0)));
    assert_eq!(ready(Bench::user()).step(SYSEXIT), Err(Fault::gp(0)));
    assert_eq!(ready(Bench::real()).step(SYSENTER), Err(Fault::gp(0)));
}
