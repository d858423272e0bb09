//! Memory operands: alignment, segments, faults that change nothing.

use super::*;
use crate::cpu::Pending;
use crate::cpu::regs::{EBX, EDI, ESP};
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
    assert_eq!(machine.execute(&[0x2e, 0x66, 0x0f, 0xf7, 0xc1]), Err(GP));
    assert_eq!(machine.cpu.fpu, before);
    machine.must(|a| a.clflush(ptr(DATA).cs()));
}

#[test]
fn sixteen_bit_addresses_wrap() {
    let mut machine = Machine::new();
    machine.poke_f64(0x0010, 6.5);
    machine.cpu.regs.set(EBX, 0x1234_fff8);
    // FLD qword [bx+0x18], 16-bit addressing.
    assert_eq!(machine.execute(&[0x67, 0xdd, 0x47, 0x18]), Ok(()));
    assert_eq!(machine.cpu.fpu.pointers().fdp, 0x0010);
    // ADDSD xmm0, [bx+0x18] in 16-bit code.
    assert_eq!(
        machine.execute_sized(&[0xf2, 0x0f, 0x58, 0x47, 0x18], CodeSize::Bits16),
        Ok(())
    );
    assert_eq!(machine.xmm_f64(0).0, 6.5);
    machine.must(|a| a.fstp(qword_ptr(DATA)));
    assert_eq!(machine.peek_f64(DATA), 6.5);
}

const AC: Fault = Fault::Exception(Exception::with_code(Vector::AlignmentCheck, 0));

#[test]
fn alignment_checks_want_what_the_processor_does() {
    let mut machine = Machine::new();
    machine.cpu.pending.set(Pending::ALIGN);
    assert_eq!(machine.fault(|a| a.fld(tbyte_ptr(DATA + 4))), AC);
    assert_eq!(machine.fault(|a| a.fbstp(tbyte_ptr(DATA + 4))), AC);
    machine.must(|a| a.fld(tbyte_ptr(DATA + 8)));
    machine.must(|a| a.fstp(tbyte_ptr(DATA + 8)));
    assert_eq!(machine.fault(|a| a.fnstenv(ptr(DATA + 2))), AC);
    assert_eq!(machine.fault(|a| a.fnsave(ptr(DATA + 2))), AC);
    machine.must(|a| a.fnsave(ptr(DATA + 4)));
    assert_eq!(machine.fault(|a| a.frstor(ptr(DATA + 2))), AC);
    machine.must(|a| a.frstor(ptr(DATA + 4)));
    // FNSTENV and FLDENV of 14 bytes.
    let at = |digit: u8, address: u32| {
        [&[0x66, 0xd9, digit << 3 | 5], &address.to_le_bytes()[..]].concat()
    };
    assert_eq!(machine.execute(&at(6, DATA + 1)), Err(AC));
    assert_eq!(machine.execute(&at(6, DATA + 2)), Ok(()));
    assert_eq!(machine.execute(&at(4, DATA + 1)), Err(AC));
    assert_eq!(machine.execute(&at(4, DATA + 2)), Ok(()));
}

#[test]
fn fxsave_asks_for_4_bytes_by_alignment_check_and_for_16_by_gp() {
    let mut machine = Machine::new();
    machine.cpu.pending.set(Pending::ALIGN);
    machine.must(|a| a.fxsave(ptr(DATA + 16)));
    machine.must(|a| a.fxrstor(ptr(DATA + 16)));
    assert_eq!(machine.fault(|a| a.fxsave(ptr(DATA + 1))), AC);
    assert_eq!(machine.fault(|a| a.fxrstor(ptr(DATA + 2))), AC);
    assert_eq!(machine.fault(|a| a.fxsave(ptr(DATA + 1).cs())), AC);
    assert_eq!(machine.fault(|a| a.fxsave(ptr(DATA).cs())), GP);
    assert_eq!(machine.fault(|a| a.fxsave(ptr(DATA + 4))), GP);
    assert_eq!(machine.fault(|a| a.fxrstor(ptr(DATA + 8))), GP);
    assert_eq!(machine.fault(|a| a.movaps(xmm0, xmmword_ptr(DATA + 1))), GP);
    // Code that cannot be read.
    machine.cpu.segs[SegReg::Cs as usize] =
        Segment::new(Selector(CODE_SELECTOR), 0, u32::MAX, Attributes(0xc099));
    assert_eq!(machine.fault(|a| a.fxsave(ptr(DATA + 1).cs())), AC);
    assert_eq!(machine.fault(|a| a.fxrstor(ptr(DATA + 2).cs())), AC);
    assert_eq!(machine.fault(|a| a.fxrstor(ptr(DATA + 4).cs())), GP);
    assert_eq!(machine.fault(|a| a.fxrstor(ptr(DATA).cs())), GP);
}

/// With 16-bit addresses the last byte of an operand at the end of 64 KiB lies at their start; then its parts fault in order.
#[test]
fn an_operand_that_leaves_its_segment_faults_where_it_does_or_where_a_page_is_absent() {
    const END: u32 = 0x1_0000;
    let mut machine = Machine::new();
    machine.cpu.segs[SegReg::Ds as usize] =
        Segment::new(Selector(DATA_SELECTOR), 0, END - 1, Attributes(0x0093));
    machine.cpu.regs.set(EBX, END - 0x60);
    for assemble in [
        (|a: &mut CodeAssembler| a.fxrstor(ptr(bx))) as fn(&mut _) -> _,
        |a| a.fxsave(ptr(bx)),
    ] {
        assert_eq!(machine.fault(assemble), GP);
    }
    machine.remove_page(END - 0x1000);
    for assemble in [
        (|a: &mut CodeAssembler| a.fxrstor(ptr(bx))) as fn(&mut _) -> _,
        |a| a.fxsave(ptr(bx)),
    ] {
        assert_eq!(page_fault(&mut machine, assemble), END - 0x60);
    }
}

#[test]
fn misalignment_goes_before_the_limit_but_not_before_the_first_bytes_of_fxsave() {
    let mut machine = Machine::new();
    machine.cpu.segs[SegReg::Ss as usize] =
        Segment::new(Selector(DATA_SELECTOR), 0, DATA - 1, Attributes(0x4093));
    machine.cpu.regs.set(ESP, DATA);
    assert_eq!(
        machine.fault(|a| a.movaps(xmm0, xmmword_ptr(esp))),
        Fault::ss(0)
    );
    assert_eq!(machine.fault(|a| a.movaps(xmm0, xmmword_ptr(esp + 8))), GP);
    assert_eq!(machine.fault(|a| a.fxsave(ptr(esp + 8))), Fault::ss(0));
    assert_eq!(machine.fault(|a| a.fxsave(ptr(esp - 8))), GP);
    assert_eq!(machine.fault(|a| a.fxrstor(ptr(esp - 1))), Fault::ss(0));
    assert_eq!(machine.fault(|a| a.fxrstor(ptr(esp - 16))), Fault::ss(0));
}

/// Linear address of the page fault that an instruction must raise.
fn page_fault(
    machine: &mut Machine,
    assemble: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> u32 {
    match machine.fault(assemble) {
        Fault::Exception(exception) if exception.vector == Vector::PageFault => {
            exception.address as u32
        }
        other => panic!("{other:?} is no page fault"),
    }
}

#[test]
fn long_operands_are_looked_at_by_their_ends() {
    const ABSENT: u32 = DATA + 0x1000;
    let mut machine = Machine::new();
    machine.remove_page(ABSENT);
    assert_eq!(
        page_fault(&mut machine, |a| a.fnstenv(ptr(ABSENT - 2))),
        ABSENT
    );
    assert_eq!(
        page_fault(&mut machine, |a| a.fnstenv(ptr(ABSENT - 4))),
        ABSENT + 23
    );
    assert_eq!(
        page_fault(&mut machine, |a| a.fldenv(ptr(ABSENT - 4))),
        ABSENT + 23
    );
    assert_eq!(
        page_fault(&mut machine, |a| a.fnsave(ptr(ABSENT - 8))),
        ABSENT + 99
    );
    assert_eq!(
        page_fault(&mut machine, |a| a.frstor(ptr(ABSENT - 8))),
        ABSENT + 99
    );
    assert_eq!(
        page_fault(&mut machine, |a| a.fxsave(ptr(ABSENT - 16))),
        ABSENT + 495
    );
    assert_eq!(
        page_fault(&mut machine, |a| a.fxrstor(ptr(ABSENT))),
        ABSENT + 511
    );
    assert_eq!(
        page_fault(&mut machine, |a| a.fxrstor(ptr(ABSENT + 0xff0))),
        ABSENT + 0xff0
    );
    assert_eq!(
        page_fault(&mut machine, |a| a.frstor(ptr(ABSENT + 0xff0))),
        ABSENT + 0xff0
    );
    assert_eq!(
        page_fault(&mut machine, |a| a.fld(tbyte_ptr(ABSENT - 9))),
        ABSENT
    );
    // FXSAVE [bx], 16-bit addressing: the last byte is at offset 0x01ef.
    machine.remove_page(0);
    machine.cpu.regs.set(EBX, 0xfff0);
    let fault = machine
        .execute(&[0x67, 0x0f, 0xae, 0x07])
        .expect_err("a page fault");
    assert!(
        matches!(fault, Fault::Exception(Exception { address: 0x1ef, .. })),
        "{fault:?}"
    );
}
