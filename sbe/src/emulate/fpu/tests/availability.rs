//! CR0.EM, TS, MP, NE and CR4.OSFXSR, and pending x87 errors.

use super::*;
use crate::cpu::control::{CR0_EM, CR0_MP, CR0_TS};
use crate::cpu::fpu::{FCW_INIT, X87_IE};
use iced_x86::code_asm::*;

#[test]
fn task_switched_raises_nm_for_every_unit() {
    let mut machine = Machine::new();
    machine.cpu.cr0 |= CR0_TS;
    assert_eq!(machine.fault(|a| a.fld1()), NM);
    assert_eq!(machine.fault(|a| a.fninit()), NM);
    assert_eq!(machine.fault(|a| a.fnstsw(ax)), NM);
    assert_eq!(machine.fault(|a| a.paddb(mm0, mm1)), NM);
    assert_eq!(machine.fault(|a| a.emms()), NM);
    assert_eq!(machine.fault(|a| a.addps(xmm0, xmm1)), NM);
    assert_eq!(machine.fault(|a| a.fxsave(ptr(DATA))), NM);
    assert_eq!(machine.fault(|a| a.ldmxcsr(ptr(DATA))), NM);
    machine.must(|a| a.wait());
    machine.cpu.cr0 |= CR0_MP;
    assert_eq!(machine.fault(|a| a.wait()), NM);
}

#[test]
fn emulation_raises_nm_for_x87_and_ud_for_simd() {
    let mut machine = Machine::new();
    machine.cpu.cr0 |= CR0_EM;
    assert_eq!(machine.fault(|a| a.fld1()), NM);
    assert_eq!(machine.fault(|a| a.fxrstor(ptr(DATA))), NM);
    assert_eq!(machine.fault(|a| a.paddb(mm0, mm1)), Fault::ud());
    assert_eq!(machine.fault(|a| a.addps(xmm0, xmm1)), Fault::ud());
    machine.must(|a| a.wait());
}

#[test]
fn without_osfxsr_only_xmm_instructions_are_undefined() {
    let mut machine = Machine::new();
    machine.cpu.cr4 &= !CR4_OSFXSR;
    assert_eq!(machine.fault(|a| a.movaps(xmm0, xmm1)), Fault::ud());
    assert_eq!(machine.fault(|a| a.movdq2q(mm0, xmm1)), Fault::ud());
    assert_eq!(machine.fault(|a| a.stmxcsr(ptr(DATA))), Fault::ud());
    assert_eq!(machine.fault(|a| a.maskmovdqu(xmm0, xmm1)), Fault::ud());
    machine.must(|a| a.pavgb(mm0, mm1));
    machine.must(|a| a.paddq(mm0, mm1));
    machine.must(|a| a.fxsave(ptr(DATA)));
}

#[test]
fn hints_and_movnti_need_nothing() {
    let mut machine = Machine::new();
    machine.cpu.cr0 |= CR0_EM | CR0_TS;
    machine.cpu.cr4 = 0;
    machine.cpu.regs.set(0, 0x1234_5678);
    machine.must(|a| a.movnti(dword_ptr(DATA), eax));
    assert_eq!(machine.peek_u32(DATA), 0x1234_5678);
    machine.must(|a| a.sfence());
    machine.must(|a| a.lfence());
    machine.must(|a| a.mfence());
    machine.must(|a| a.clflush(ptr(DATA)));
}

/// A machine whose last x87 instruction raised an unmasked invalid-operation exception.
fn with_pending_error() -> Machine {
    let mut machine = Machine::new();
    machine.cpu.fpu.set_fcw(FCW_INIT & !X87_IE);
    machine.must(|a| a.fchs());
    assert!(
        machine.cpu.fpu.has_pending_x87_error(),
        "FCHS of an empty register"
    );
    machine
}

#[test]
fn a_pending_error_is_reported_by_the_next_waiting_instruction() {
    let mut machine = with_pending_error();
    machine.must(|a| a.fnstsw(ax));
    machine.must(|a| a.fnstcw(ptr(DATA)));
    machine.must(|a| a.fxsave(ptr(DATA)));
    machine.must(|a| a.addps(xmm0, xmm1));
    assert_eq!(machine.fault(|a| a.wait()), MF);
    assert_eq!(machine.fault(|a| a.fld1()), MF);
    assert_eq!(machine.fault(|a| a.fldcw(ptr(DATA))), MF);
    assert_eq!(machine.fault(|a| a.fldenv(ptr(DATA))), MF);
    assert_eq!(machine.fault(|a| a.paddb(mm0, mm1)), MF);
    assert_eq!(machine.fault(|a| a.emms()), MF);
    assert_eq!(machine.fault(|a| a.maskmovq(mm0, mm1)), MF);
    assert_eq!(machine.fault(|a| a.cvtpi2ps(xmm0, mm1)), MF);
    machine.must(|a| a.cvtpi2ps(xmm0, qword_ptr(DATA)));
    machine.must(|a| a.cvttss2si(eax, dword_ptr(DATA)));
    machine.must(|a| a.fnclex());
    machine.must(|a| a.fld1());
}

#[test]
fn a_pending_error_without_ne_is_unsupported_and_says_so() {
    let mut machine = with_pending_error();
    machine.cpu.cr0 &= !CR0_NE;
    assert!(matches!(machine.fault(|a| a.fld1()), Fault::Unsupported(_)));
    machine.must(|a| a.fninit());
    machine.must(|a| a.fld1());
}
