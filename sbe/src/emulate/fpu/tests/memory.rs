//! Memory operands: alignment, segments, faults that change nothing.

use super::*;
use crate::cpu::regs::{EBX, EDI};
use crate::decode::decoder::CodeSize;
use iced_x86::code_asm::*;

#[test]
fn sixteen_byte_operands_must_be_aligned() {
    let mut machine = Machine::new();
    assert_eq!(machine.fault(|a| a.movaps(xmm0, xmmword_ptr(DATA + 8))), GP);
    assert_eq!(machine.fault(|a| a.addps(xmm0, xmmword_ptr(DATA + 1))), GP);
    assert_eq!(
        machine.fault(|a| a.movntdq(xmmword_ptr(DATA + 8), xmm0)),
        GP
    );
    assert_eq!(machine.fault(|a| a.fxsave(ptr(DATA + 8))), GP);
    assert_eq!(machine.fault(|a| a.fxrstor(ptr(DATA + 8))), GP);
    machine.must(|a| a.movups(xmm0, xmmword_ptr(DATA + 1)));
    machine.must(|a| a.movdqu(xmmword_ptr(DATA + 1), xmm0));
    machine.must(|a| a.addss(xmm0, dword_ptr(DATA + 1)));
    machine.must(|a| a.movlps(xmm0, qword_ptr(DATA + 1)));
    machine.must(|a| a.fld(tbyte_ptr(DATA + 1)));
}

#[test]
fn alignment_is_of_the_linear_address() {
    let mut machine = Machine::new();
    machine.cpu.segs[SegReg::Gs as usize] =
        Segment::new(Selector(DATA_SELECTOR), 8, u32::MAX, DATA32);
    machine.must(|a| a.movaps(xmm0, xmmword_ptr(DATA + 8).gs()));
    assert_eq!(
        machine.fault(|a| a.movaps(xmm0, xmmword_ptr(DATA).gs())),
        GP
    );
}

#[test]
fn segment_limits_fault_before_anything_changes() {
    let mut machine = Machine::new();
    let small = Segment::new(Selector(DATA_SELECTOR), 0, DATA + 7, Attributes(0x4093));
    machine.cpu.segs[SegReg::Ds as usize] = small;
    machine.cpu.segs[SegReg::Ss as usize] = small;
    machine.must(|a| a.fld1());
    assert_eq!(machine.fault(|a| a.fstp(tbyte_ptr(DATA))), GP);
    assert_eq!(machine.fault(|a| a.fld(qword_ptr(DATA + 4))), GP);
    assert_eq!(machine.fault(|a| a.fnsave(ptr(DATA))), GP);
    assert_eq!(machine.fault(|a| a.fxsave(ptr(DATA - 240))), GP);
    assert_eq!(
        machine.fault(|a| a.fxrstor(ptr(DATA - 496))),
        GP,
        "one paragraph too long"
    );
    machine.cpu.regs.set(4, DATA);
    assert_eq!(machine.fault(|a| a.fstp(tbyte_ptr(esp))), Fault::ss(0));
    machine.must(|a| a.fstp(qword_ptr(DATA)));
    assert_eq!(machine.peek_f64(DATA), 1.0);
}

#[test]
fn stores_to_a_read_only_segment_fault() {
    let mut machine = Machine::new();
    machine.cpu.regs.set(EDI, DATA);
    machine.must(|a| a.fldpi());
    assert_eq!(machine.fault(|a| a.fstp(qword_ptr(DATA).cs())), GP);
    assert_eq!(
        machine.fault(|a| a.movups(xmmword_ptr(DATA).cs(), xmm0)),
        GP
    );
    machine.must(|a| a.movups(xmm0, xmmword_ptr(DATA).cs()));
    machine.cpu.fpu.set_xmm(1, 0x80);
    // MASKMOVDQU xmm0, xmm1 to CS:[EDI].
    let before = machine.cpu.fpu.clone();
    assert_eq!(machine.execute(&[0x2E, 0x66, 0x0F, 0xF7, 0xC1]), Err(GP));
    assert_eq!(machine.cpu.fpu, before);
    machine.must(|a| a.clflush(ptr(DATA).cs()));
}

#[test]
fn sixteen_bit_addresses_wrap() {
    let mut machine = Machine::new();
    machine.poke_f64(0x0010, 6.5);
    machine.cpu.regs.set(EBX, 0x1234_FFF8);
    // FLD qword [bx+18h], 16-bit addressing.
    assert_eq!(machine.execute(&[0x67, 0xDD, 0x47, 0x18]), Ok(()));
    assert_eq!(machine.cpu.fpu.pointers().fdp, 0x0010);
    // ADDSD xmm0, [bx+18h] in 16-bit code.
    assert_eq!(
        machine.execute_sized(&[0xF2, 0x0F, 0x58, 0x47, 0x18], CodeSize::Bits16),
        Ok(())
    );
    assert_eq!(machine.xmm_f64(0).0, 6.5);
    machine.must(|a| a.fstp(qword_ptr(DATA)));
    assert_eq!(machine.peek_f64(DATA), 6.5);
}
