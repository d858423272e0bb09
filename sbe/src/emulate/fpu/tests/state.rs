//! Saving and restoring state.

use super::*;
use crate::cpu::fpu::{FCW_INIT, FSW_ES, MXCSR_INIT, Pointers, X87_EXCEPTIONS, X87_IE};
use crate::cpu::regs::ESP;
use iced_x86::code_asm::*;

#[test]
fn fxsave_and_fxrstor_round_trip() {
    let mut machine = Machine::new();
    machine.must(|a| a.fldpi());
    machine.must(|a| a.fld(qword_ptr(DATA)));
    machine.cpu.fpu.set_xmm(5, 0x0123_4567_89ab_cdef << 32);
    let saved = machine.cpu.fpu.clone();
    machine.poke(DATA, &[0x77; 512]);
    machine.must(|a| a.fxsave(ptr(DATA)));
    assert_eq!(machine.peek::<288>(DATA), saved.as_bytes()[..288]);
    assert_eq!(
        machine.peek::<224>(DATA + 288),
        [0x77; 224],
        "reserved bytes are left alone"
    );
    machine.must(|a| a.fninit());
    machine.must(|a| a.xorps(xmm5, xmm5));
    machine.must(|a| a.fxrstor(ptr(DATA)));
    assert_eq!(machine.cpu.fpu, saved);
}

#[test]
fn reserved_mxcsr_bits_raise_gp() {
    let mut machine = Machine::new();
    machine.must(|a| a.fxsave(ptr(DATA)));
    machine.poke(DATA + 24, &0x0001_1f80u32.to_le_bytes());
    assert_eq!(machine.fault(|a| a.fxrstor(ptr(DATA))), GP);
    assert_eq!(machine.fault(|a| a.ldmxcsr(ptr(DATA + 24))), GP);
    machine.poke(DATA + 24, &0xffffu32.to_le_bytes());
    machine.must(|a| a.ldmxcsr(ptr(DATA + 24)));
    machine.must(|a| a.stmxcsr(ptr(DATA)));
    assert_eq!(machine.peek_u32(DATA), 0xffff);
}

#[test]
fn mxcsr_starts_with_everything_masked() {
    let mut machine = Machine::new();
    machine.must(|a| a.stmxcsr(ptr(DATA)));
    assert_eq!(machine.peek_u32(DATA), MXCSR_INIT);
    machine.must(|a| a.fxsave(ptr(DATA)));
    assert_eq!(machine.peek_u32(DATA + 28), 0xffff, "MXCSR_MASK");
}

#[test]
fn fnstenv_stores_and_then_masks_all_exceptions() {
    let mut machine = Machine::new();
    machine.cpu.fpu.set_fcw(FCW_INIT & !X87_IE);
    machine.must(|a| a.fld1());
    machine.must(|a| a.fldz());
    let fip = machine.cpu.eip;
    machine.must(|a| a.fst(qword_ptr(DATA + 64)));
    machine.must(|a| a.fnstenv(ptr(DATA)));
    assert_eq!(machine.peek_u32(DATA), 0xffff_037e);
    assert_eq!(machine.peek_u32(DATA + 4), 0xffff_3000);
    assert_eq!(
        machine.peek_u32(DATA + 8),
        0xffff_1fff,
        "registers 7 valid, 6 zero"
    );
    assert_eq!(u64::from(machine.peek_u32(DATA + 12)), fip);
    assert_eq!(machine.peek_u32(DATA + 16), 0x0515_0060);
    assert_eq!(machine.peek_u32(DATA + 20), DATA + 64);
    assert_eq!(machine.peek_u32(DATA + 24), 0xffff_007b);
    assert_eq!(machine.cpu.fpu.fcw() & X87_EXCEPTIONS, X87_EXCEPTIONS);
    machine.must(|a| a.fldenv(ptr(DATA)));
    assert_eq!(machine.cpu.fpu.fcw(), FCW_INIT & !X87_IE);
}

#[test]
fn fldenv_moves_the_stack_and_can_make_an_error_pending() {
    let mut machine = Machine::new();
    machine.must(|a| a.fld1());
    machine.must(|a| a.fnstenv(ptr(DATA)));
    machine.poke(DATA, &(FCW_INIT & !X87_IE).to_le_bytes());
    machine.poke(DATA + 4, &X87_IE.to_le_bytes());
    machine.must(|a| a.fldenv(ptr(DATA)));
    assert_eq!(machine.cpu.fpu.top(), 0);
    assert_eq!(
        machine.cpu.fpu.st(7)[9],
        0x3f,
        "physical register 7 keeps its one"
    );
    assert!(machine.cpu.fpu.fsw() & FSW_ES != 0);
    assert_eq!(machine.fault(|a| a.wait()), MF);
}

#[test]
fn fnsave_initializes_and_frstor_brings_back() {
    let mut machine = Machine::new();
    machine.must(|a| a.fldpi());
    machine.must(|a| a.fld(qword_ptr(DATA)));
    machine.must(|a| a.fnclex());
    let saved = machine.cpu.fpu.clone();
    machine.must(|a| a.fnsave(ptr(DATA)));
    assert_eq!(
        (
            machine.cpu.fpu.fcw(),
            machine.cpu.fpu.fsw(),
            machine.cpu.fpu.tags()
        ),
        (FCW_INIT, 0, 0)
    );
    assert_eq!(machine.cpu.fpu.pointers(), Pointers::default());
    assert_eq!(machine.peek::<10>(DATA + 28 + 10), saved.st(1));
    machine.must(|a| a.frstor(ptr(DATA)));
    assert_eq!(machine.cpu.fpu, saved);
}

#[test]
fn virtual_8086_environments_hold_linear_addresses() {
    let mut machine = Machine::new();
    for seg in &mut machine.cpu.segs {
        *seg = Segment::v86(Selector(0x0200));
    }
    machine.cpu.eflags |= eflags::VM;
    machine.cpu.cpl = 3;
    machine.cpu.eip = 0x100;
    // FLD qword [0x40]; FNSTENV [0x80], 16-bit code.
    assert_eq!(
        machine.execute_sized(&[0xdd, 0x06, 0x40, 0x00], CodeSize::Bits16),
        Ok(())
    );
    assert_eq!(
        machine.execute_sized(&[0xd9, 0x36, 0x80, 0x00], CodeSize::Bits16),
        Ok(())
    );
    assert_eq!(
        machine.peek(0x2080 + 6),
        0x2100u16.to_le_bytes(),
        "linear FIP"
    );
    assert_eq!(machine.peek(0x2080 + 8), 0x0506u16.to_le_bytes(), "opcode");
    assert_eq!(
        machine.peek(0x2080 + 10),
        0x2040u16.to_le_bytes(),
        "linear FDP"
    );
}

#[test]
fn fnstsw_keeps_the_upper_half_of_eax() {
    let mut machine = Machine::new();
    machine.must(|a| a.fld1());
    machine.cpu.regs.set(0, 0xabcd_0000);
    machine.must(|a| a.fnstsw(ax));
    assert_eq!(machine.cpu.regs.get(0), 0xabcd_3800);
    assert_eq!(machine.cpu.regs.get(ESP), 0);
}
