//! MMX, SSE and SSE2: values, general registers, flags and exceptions.

use super::*;
use crate::cpu::fpu::{
    FCW_INIT, MXCSR_DE, MXCSR_FLAGS, MXCSR_FTZ, MXCSR_IE, MXCSR_INIT, MXCSR_OE, MXCSR_PE, MXCSR_UE,
    MXCSR_ZE,
};
use crate::cpu::regs::{EAX, EBP, EDI, ESP};
use iced_x86::code_asm::*;

/// MXCSR with the given exceptions unmasked.
fn unmasking(exceptions: u32) -> u32 {
    MXCSR_INIT & !(exceptions << 7)
}

#[test]
fn packed_and_scalar_arithmetic_is_the_hosts() {
    let mut machine = Machine::new();
    machine.set_xmm_f64(0, 1.5, -2.0);
    machine.set_xmm_f64(7, 0.25, 8.0);
    machine.must(|a| a.addpd(xmm0, xmm7));
    assert_eq!(machine.xmm_f64(0), (1.75, 6.0));
    machine.poke_f64(DATA + 8, 3.0);
    machine.must(|a| a.mulsd(xmm0, qword_ptr(DATA + 8)));
    assert_eq!(machine.xmm_f64(0), (5.25, 6.0));
    machine.must(|a| a.movupd(xmmword_ptr(DATA + 17), xmm0));
    assert_eq!(
        (machine.peek_f64(DATA + 17), machine.peek_f64(DATA + 25)),
        (5.25, 6.0)
    );
}

#[test]
fn general_registers_are_the_guests_own() {
    let mut machine = Machine::new();
    machine.cpu.regs.set(ESP, (-7i32) as u32);
    machine.must(|a| a.cvtsi2sd(xmm3, esp));
    assert_eq!(machine.xmm_f64(3).0, -7.0);
    machine.must(|a| a.cvttsd2si(ebp, xmm3));
    assert_eq!(machine.cpu.regs.get(EBP) as i32, -7);
    machine.must(|a| a.movd(edi, xmm3));
    assert_eq!(machine.cpu.regs.get(EDI), 0);
    machine.must(|a| a.pinsrw(xmm1, esp, 5));
    machine.must(|a| a.pextrw(eax, xmm1, 5));
    assert_eq!(machine.cpu.regs.get(EAX), 0xfff9);
    machine.must(|a| a.movmskpd(eax, xmm3));
    assert_eq!(machine.cpu.regs.get(EAX), 1);
    assert_eq!(machine.cpu.regs.get(ESP) as i32, -7, "sources stay");
}

#[test]
fn ordered_comparisons_set_all_status_flags() {
    let mut machine = Machine::new();
    machine.set_xmm_f64(0, 1.0, 0.0);
    machine.set_xmm_f64(1, 2.0, 0.0);
    machine.cpu.eflags |= eflags::OF | eflags::SF | eflags::AF;
    machine.must(|a| a.comisd(xmm0, xmm1));
    assert_eq!(machine.flags(), eflags::CF);
    machine.set_xmm_f64(1, f64::NAN, 0.0);
    machine.must(|a| a.ucomisd(xmm0, xmm1));
    assert_eq!(machine.flags(), eflags::ZF | eflags::PF | eflags::CF);
}

#[test]
fn mmx_switches_the_register_file() {
    let mut machine = Machine::new();
    machine.must(|a| a.fld1());
    let pointers = machine.cpu.fpu.pointers();
    machine.poke(DATA, &0x0102_0304_0506_0708u64.to_le_bytes());
    machine.must(|a| a.movq(mm2, qword_ptr(DATA)));
    machine.must(|a| a.paddb(mm2, mm2));
    assert_eq!(machine.cpu.fpu.mm(2), 0x0204_0608_0a0c_0e10);
    assert_eq!((machine.cpu.fpu.top(), machine.cpu.fpu.tags()), (0, 0xff));
    assert_eq!(
        machine.cpu.fpu.mm(7),
        1 << 63,
        "what FLD1 left in physical register 7"
    );
    assert_eq!(machine.cpu.fpu.pointers(), pointers);
    machine.must(|a| a.emms());
    assert_eq!(machine.cpu.fpu.tags(), 0);
}

#[test]
fn masked_stores_write_the_selected_bytes() {
    let mut machine = Machine::new();
    machine.must(|a| a.fld1());
    machine.poke(DATA, &[0x55; 16]);
    machine.cpu.regs.set(EDI, DATA + 3);
    machine.poke(
        DATA + 64,
        &[1, 2, 3, 4, 5, 6, 7, 8, 0x80, 0x7f, 0, 0xff, 0, 0, 0, 0x80],
    );
    machine.must(|a| a.movq(mm1, qword_ptr(DATA + 64)));
    machine.must(|a| a.movq(mm2, qword_ptr(DATA + 72)));
    machine.must(|a| a.emms());
    machine.must(|a| a.fld1());
    machine.must(|a| a.maskmovq(mm1, mm2));
    assert_eq!(
        machine.peek(DATA + 3),
        [1, 0x55, 0x55, 4, 0x55, 0x55, 0x55, 8]
    );
    assert_eq!((machine.cpu.fpu.top(), machine.cpu.fpu.tags()), (0, 0xff));
}

#[test]
fn masked_stores_check_the_whole_operand_and_switch_first() {
    let mut machine = Machine::new();
    machine.must(|a| a.fld1());
    machine.cpu.segs[SegReg::Ds as usize] = Segment::null(Selector(0));
    machine.cpu.regs.set(EDI, DATA);
    assert_eq!(machine.run(|a| a.maskmovq(mm0, mm0)), Err(Fault::gp(0)));
    assert_eq!((machine.cpu.fpu.top(), machine.cpu.fpu.tags()), (0, 0xff));
}

#[test]
fn an_unmasked_exception_comes_after_the_switch_to_mmx() {
    let mut machine = Machine::new();
    machine.must(|a| a.fld1());
    machine.set_xmm_f64(0, f64::NAN, 0.0);
    machine.cpu.fpu.set_mxcsr(unmasking(MXCSR_IE));
    let expected = Err(Fault::plain(Vector::SimdError));
    assert_eq!(machine.run(|a| a.cvtpd2pi(mm1, xmm0)), expected);
    assert_eq!((machine.cpu.fpu.top(), machine.cpu.fpu.tags()), (0, 0xff));
}

#[test]
fn masked_exceptions_accumulate_flags() {
    let mut machine = Machine::new();
    machine.set_xmm_f64(0, 1.0, f64::INFINITY);
    machine.set_xmm_f64(1, 0.0, f64::INFINITY);
    machine.must(|a| a.divpd(xmm0, xmm1));
    assert_eq!(machine.cpu.fpu.mxcsr(), MXCSR_INIT | MXCSR_ZE | MXCSR_IE);
    machine.set_xmm_f64(0, 1.0, 1.0);
    machine.set_xmm_f64(1, 3.0, 1.0);
    machine.must(|a| a.divpd(xmm0, xmm1));
    assert_eq!(
        machine.cpu.fpu.mxcsr(),
        MXCSR_INIT | MXCSR_ZE | MXCSR_IE | MXCSR_PE,
        "sticky"
    );
}

/// Flags that an instruction raises which must end in #XM under `mxcsr`.
fn raised(
    machine: &mut Machine,
    mxcsr: u32,
    assemble: fn(&mut CodeAssembler) -> Result<(), IcedError>,
) -> u32 {
    machine.cpu.fpu.set_mxcsr(mxcsr);
    assert_eq!(machine.fault(assemble), XM);
    assert_eq!(machine.cpu.fpu.mxcsr() & !MXCSR_FLAGS, mxcsr & !MXCSR_FLAGS);
    machine.cpu.fpu.mxcsr() & MXCSR_FLAGS
}

#[test]
fn exceptions_before_the_computation_hide_those_after_it() {
    let mut machine = Machine::new();
    machine.set_xmm_f64(0, 1.0, 1.0);
    machine.set_xmm_f64(1, 0.0, 3.0);
    assert_eq!(
        raised(&mut machine, unmasking(MXCSR_ZE), |a| a.divpd(xmm0, xmm1)),
        MXCSR_ZE
    );
    assert_eq!(
        raised(&mut machine, unmasking(MXCSR_PE), |a| a.divpd(xmm0, xmm1)),
        MXCSR_ZE | MXCSR_PE
    );
    machine.set_xmm_f64(0, 1.0, f64::from_bits(1));
    machine.set_xmm_f64(1, 0.0, 1.0);
    assert_eq!(
        raised(&mut machine, unmasking(MXCSR_ZE), |a| a.divpd(xmm0, xmm1)),
        MXCSR_ZE | MXCSR_DE
    );
}

#[test]
fn without_osxmmexcpt_an_unmasked_exception_is_ud() {
    let mut machine = Machine::new();
    machine.cpu.cr4 &= !CR4_OSXMMEXCPT;
    machine.cpu.fpu.set_mxcsr(unmasking(MXCSR_ZE));
    machine.set_xmm_f64(0, 1.0, 1.0);
    assert_eq!(machine.fault(|a| a.divsd(xmm0, xmm1)), Fault::ud());
}

#[test]
fn unmasked_underflow_needs_only_a_tiny_result() {
    let mut machine = Machine::new();
    let tiny = f64::MIN_POSITIVE;
    machine.set_xmm_f64(0, tiny, 1.0);
    machine.set_xmm_f64(1, 0.5, 1.0);
    for flush in [0, MXCSR_FTZ] {
        let mxcsr = unmasking(MXCSR_UE) | flush;
        assert_eq!(
            raised(&mut machine, mxcsr, |a| a.mulpd(xmm0, xmm1)),
            MXCSR_UE,
            "exact"
        );
    }
    machine.cpu.fpu.set_mxcsr(MXCSR_INIT);
    machine.must(|a| a.mulpd(xmm0, xmm1));
    assert_eq!(
        machine.cpu.fpu.mxcsr(),
        MXCSR_INIT,
        "masked: tiny and exact is no exception"
    );
    assert_eq!(machine.xmm_f64(0).0, tiny / 2.0);

    machine.set_xmm_f64(0, tiny * 1.5, 1.0);
    machine.set_xmm_f64(1, 1.0 / 3.0, 1.0);
    assert_eq!(
        raised(&mut machine, unmasking(MXCSR_UE), |a| a.mulpd(xmm0, xmm1)),
        MXCSR_UE | MXCSR_PE
    );
    machine.cpu.fpu.set_mxcsr(unmasking(MXCSR_UE));
    machine.set_xmm_f64(0, 0.1, 1.0);
    machine.must(|a| a.mulpd(xmm0, xmm1));
    assert_eq!(machine.cpu.fpu.mxcsr() & MXCSR_FLAGS, MXCSR_PE, "not tiny");
}

#[test]
fn precision_beside_an_unmasked_exception_is_that_of_an_unbounded_exponent() {
    let mut machine = Machine::new();
    machine.set_xmm_f64(0, f64::MAX, 1.0);
    machine.set_xmm_f64(1, 2.0, 1.0);
    let overflow = unmasking(MXCSR_OE);
    assert_eq!(
        raised(&mut machine, overflow, |a| a.mulpd(xmm0, xmm1)),
        MXCSR_OE
    );
    assert_eq!(
        raised(&mut machine, overflow, |a| a.addsd(xmm0, xmm0)),
        MXCSR_OE
    );
    machine.poke_f64(DATA, 1e200);
    assert_eq!(
        raised(&mut machine, overflow, |a| a
            .cvtsd2ss(xmm0, qword_ptr(DATA))),
        MXCSR_OE | MXCSR_PE
    );
    // The other element rounds.
    machine.set_xmm_f64(1, 2.0, f64::EPSILON / 2.0);
    assert_eq!(
        raised(&mut machine, overflow, |a| a.mulpd(xmm0, xmm1)),
        MXCSR_OE
    );
    machine.set_xmm_f64(0, f64::MAX, 1.0);
    machine.set_xmm_f64(1, f64::MAX, f64::EPSILON / 2.0);
    assert_eq!(
        raised(&mut machine, overflow, |a| a.addpd(xmm0, xmm1)),
        MXCSR_OE | MXCSR_PE
    );
    // A masked underflow in the other element rounds, too.
    machine.set_xmm_f64(0, f64::MAX, f64::MIN_POSITIVE * (1.0 + f64::EPSILON));
    machine.set_xmm_f64(1, 2.0, 0.5);
    assert_eq!(
        raised(&mut machine, overflow, |a| a.mulpd(xmm0, xmm1)),
        MXCSR_OE | MXCSR_UE | MXCSR_PE
    );
    assert_eq!(
        raised(&mut machine, unmasking(MXCSR_UE | MXCSR_OE), |a| a
            .mulpd(xmm0, xmm1)),
        MXCSR_OE | MXCSR_UE
    );
}

#[test]
fn unmasked_overflow_faults() {
    let mut machine = Machine::new();
    machine.set_xmm_f64(0, 1.1e300, 1.0);
    assert_eq!(
        raised(&mut machine, unmasking(MXCSR_OE), |a| a.mulpd(xmm0, xmm0)),
        MXCSR_OE | MXCSR_PE
    );
}

#[test]
fn sse_runs_beside_a_pending_x87_error() {
    let mut machine = Machine::new();
    machine.cpu.fpu.set_fcw(FCW_INIT & !1);
    machine.must(|a| a.fchs());
    let before = machine.cpu.fpu.clone();
    machine.set_xmm_f64(0, 1.0, 2.0);
    machine.must(|a| a.addpd(xmm0, xmm0));
    assert_eq!(machine.xmm_f64(0), (2.0, 4.0));
    machine.cpu.fpu.copy_xmm(&before);
    assert_eq!(machine.cpu.fpu, before);
}

#[test]
fn conversions_between_mmx_and_sse_switch_and_convert() {
    let mut machine = Machine::new();
    machine.must(|a| a.fld1());
    machine.set_xmm_f64(0, -3.0, 4.0);
    machine.must(|a| a.cvtpd2pi(mm5, xmm0));
    assert_eq!(machine.cpu.fpu.mm(5), 4 << 32 | u64::from(-3i32 as u32));
    assert_eq!((machine.cpu.fpu.top(), machine.cpu.fpu.tags()), (0, 0xff));
    machine.must(|a| a.cvtpi2pd(xmm1, mm5));
    assert_eq!(machine.xmm_f64(1), (-3.0, 4.0));
}
