use super::super::bench::{Bench, CODE, STACK};
use crate::cpu::eflags::{DF, FIXED, IF, RF};
use crate::cpu::regs::{ECX, ESP, R11};
use crate::cpu::segment::SegReg;
use crate::fault::Fault;

const SYSCALL: [u8; 2] = [0x0f, 0x05];
const SYSRET: [u8; 2] = [0x0f, 0x07];
const SYSRETQ: [u8; 3] = [0x48, 0x0f, 0x07];
const SWAPGS: [u8; 3] = [0x0f, 0x01, 0xf8];
const TARGET: u64 = 0xffff_ffff_8180_0000;

fn with_targets(mut bench: Bench) -> Bench {
    // As Linux has it: SYSCALL to 0x10, SYSRET to 0x23.
    bench.cpu.syscall.star = 0x0023_0010_0000_0000;
    bench.cpu.syscall.lstar = TARGET;
    bench.cpu.syscall.fmask = IF | DF;
    bench
}

#[test]
fn syscall_saves_rip_and_flags_and_masks_them() {
    let mut bench = with_targets(Bench::long_user());
    bench.cpu.eflags = FIXED | IF | DF | RF | 1;
    bench.step(&SYSCALL).expect("no fault");
    let cpu = &bench.cpu;
    assert_eq!((cpu.cpl, cpu.eip), (0, TARGET));
    assert_eq!(cpu.regs.get64(ECX), u64::from(CODE) + 2);
    assert_eq!(cpu.regs.get64(R11), u64::from(FIXED | IF | DF | 1));
    assert_eq!(cpu.eflags, FIXED | 1);
    assert_eq!(cpu.regs.get64(ESP), u64::from(STACK), "RSP stays");
    assert_eq!(
        (bench.selector(SegReg::Cs), bench.selector(SegReg::Ss)),
        (0x10, 0x18)
    );
    assert!(bench.cpu.is_code64());
}

#[test]
fn sysret_returns_to_both_modes() {
    let mut bench = with_targets(Bench::long());
    bench.cpu.regs.set64(ECX, 0x7fff_1234_5678);
    bench.cpu.regs.set64(R11, u64::from(IF | RF));
    bench.step(&SYSRETQ).expect("no fault");
    assert_eq!((bench.cpu.cpl, bench.cpu.eip), (3, 0x7fff_1234_5678));
    assert_eq!(bench.cpu.eflags, FIXED | IF);
    assert_eq!(
        (bench.selector(SegReg::Cs), bench.selector(SegReg::Ss)),
        (0x33, 0x2b)
    );
    assert!(bench.cpu.is_code64());

    let mut bench = with_targets(Bench::long());
    bench.cpu.regs.set64(ECX, 0x7fff_1234_5678);
    bench.step(&SYSRET).expect("no fault");
    assert_eq!((bench.cpu.cpl, bench.cpu.eip), (3, 0x1234_5678));
    assert_eq!(
        (bench.selector(SegReg::Cs), bench.selector(SegReg::Ss)),
        (0x23, 0x2b)
    );
    assert!(!bench.cpu.is_code64() && bench.cpu.is_code32());
}

#[test]
fn sysret_to_no_canonical_address_faults_before_it_leaves() {
    let mut bench = with_targets(Bench::long());
    bench.cpu.regs.set64(ECX, 1 << 47);
    assert_eq!(bench.step(&SYSRETQ), Err(Fault::gp(0)));
    assert_eq!(bench.cpu.cpl, 0);
    let mut bench = with_targets(Bench::long_user());
    assert_eq!(bench.step(&SYSRETQ), Err(Fault::gp(0)), "CPL 3");
}

#[test]
fn they_need_64_bit_mode_and_sce() {
    for bench in [Bench::protected(), Bench::compatibility()] {
        let mut bench = with_targets(bench);
        assert_eq!(bench.step(&SYSCALL), Err(Fault::ud()));
        assert_eq!(bench.step(&SYSRET), Err(Fault::ud()));
        // Followed by a byte, as the form that is decoded outside of 64-bit mode has it.
        assert_eq!(
            bench.step(&[SWAPGS[0], SWAPGS[1], SWAPGS[2], 0]),
            Err(Fault::ud())
        );
    }
    let mut bench = with_targets(Bench::long());
    bench.cpu.efer &= !1;
    assert_eq!(bench.step(&SYSCALL), Err(Fault::ud()));
    assert_eq!(bench.step(&SYSRETQ), Err(Fault::ud()));
}

#[test]
fn swapgs_exchanges_the_bases() {
    let mut bench = Bench::long();
    bench.cpu.segs[SegReg::Gs as usize].base = 0x1000;
    bench.cpu.kernel_gs_base = 0xffff_8880_0000_0000;
    bench.step(&SWAPGS).expect("no fault");
    assert_eq!(bench.cpu.seg(SegReg::Gs).base, 0xffff_8880_0000_0000);
    assert_eq!(bench.cpu.kernel_gs_base, 0x1000);
    let mut bench = Bench::long_user();
    assert_eq!(bench.step(&SWAPGS), Err(Fault::gp(0)));
}
