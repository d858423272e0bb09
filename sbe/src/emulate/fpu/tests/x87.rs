//! x87 arithmetic, stores, exceptions and last-instruction pointers.

use super::*;
use crate::cpu::fpu::{FCW_INIT, FSW_ES, Pointers, X87_IE, X87_OE, X87_UE};
use crate::cpu::regs::{EAX, EBX};
use iced_x86::code_asm::*;

const X87_PE: u16 = 1 << 5;
const C1: u16 = 1 << 9;

#[test]
fn arithmetic_is_the_hosts() {
    let mut machine = Machine::new();
    machine.poke_f64(DATA, 2.0);
    machine.must(|a| a.fld(qword_ptr(DATA)));
    machine.must(|a| a.fsqrt());
    machine.must(|a| a.fld1());
    machine.must(|a| a.faddp(st1, st0));
    machine.must(|a| a.fstp(qword_ptr(DATA + 8)));
    assert_eq!(machine.peek_f64(DATA + 8), 2f64.sqrt() + 1.0);
    assert_eq!(machine.cpu.fpu.tags(), 0, "popped");
    assert_eq!(machine.cpu.fpu.top(), 0);
}

#[test]
fn integers_and_bcd_of_all_sizes_move() {
    let mut machine = Machine::new();
    machine.poke(DATA, &(-1234i64).to_le_bytes());
    machine.must(|a| a.fild(qword_ptr(DATA)));
    machine.must(|a| a.fist(word_ptr(DATA + 8)));
    machine.must(|a| a.fist(dword_ptr(DATA + 12)));
    machine.must(|a| a.fld(st0));
    machine.must(|a| a.fbstp(ptr(DATA + 16)));
    machine.must(|a| a.fstp(tbyte_ptr(DATA + 32)));
    assert_eq!(machine.peek(DATA + 8), (-1234i16).to_le_bytes());
    assert_eq!(machine.peek(DATA + 12), (-1234i32).to_le_bytes());
    assert_eq!(
        machine.peek(DATA + 16),
        [0x34, 0x12, 0, 0, 0, 0, 0, 0, 0, 0x80]
    );
    assert_eq!(
        machine.peek(DATA + 32),
        [0, 0, 0, 0, 0, 0, 0x40, 0x9a, 0x09, 0xc0]
    );
}

#[test]
fn comparisons_set_eflags_and_conditional_moves_read_them() {
    let mut machine = Machine::new();
    machine.must(|a| a.fldz());
    machine.must(|a| a.fld1());
    machine.cpu.eflags |= eflags::CF | eflags::OF | eflags::DF;
    machine.must(|a| a.fcomi(st0, st1));
    assert_eq!(machine.flags(), 0, "1 > 0");
    assert!(machine.cpu.eflags & eflags::DF != 0, "not a status flag");
    machine.must(|a| a.fcmovb(st0, st1));
    assert_eq!(machine.cpu.fpu.st(0)[9], 0x3f, "still one");
    machine.cpu.eflags |= eflags::CF;
    machine.must(|a| a.fcmovb(st0, st1));
    assert_eq!(machine.cpu.fpu.st(0), [0; 10]);
    assert!(machine.flags() & eflags::CF != 0);
}

#[test]
fn undocumented_aliases_do_what_processors_do() {
    let mut machine = Machine::new();
    machine.must(|a| a.fld1());
    machine.must(|a| a.fldz());
    // FFREEP ST(1): frees it and pops.
    assert_eq!(machine.execute(&[0xdf, 0xc1]), Ok(()));
    assert_eq!((machine.cpu.fpu.top(), machine.cpu.fpu.tags()), (7, 0));
    machine.must(|a| a.fninit());
    machine.must(|a| a.fld1());
    // FXCH4 and FSTP8 ST(0).
    assert_eq!(machine.execute(&[0xdd, 0xc8]), Ok(()));
    assert_eq!(machine.execute(&[0xdf, 0xd0]), Ok(()));
    assert_eq!(machine.cpu.fpu.tags(), 0);
    // FNENI, FNDISI and FNSETPM.
    for second in [0xe0, 0xe1, 0xe4] {
        let before = machine.cpu.fpu.clone();
        assert_eq!(machine.execute(&[0xdb, second]), Ok(()));
        assert_eq!(machine.cpu.fpu, before);
    }
}

#[test]
fn pointers_are_the_guests() {
    let mut machine = Machine::new();
    machine.cpu.regs.set(EBX, DATA);
    machine.must(|a| a.nop());
    let start = machine.cpu.eip;
    machine.must(|a| a.fld(qword_ptr(ebx + 8).fs()));
    let expected = Pointers {
        fop: 0x543,
        fip: start,
        fcs: CODE_SELECTOR,
        fdp: u64::from(DATA + 8),
        fds: DATA_SELECTOR,
    };
    assert_eq!(machine.cpu.fpu.pointers(), expected);
    machine.must(|a| a.fnstcw(word_ptr(ebx)));
    machine.must(|a| a.wait());
    machine.must(|a| a.fnclex());
    assert_eq!(machine.cpu.fpu.pointers(), expected, "control instructions");
    machine.must(|a| a.addps(xmm0, xmm1));
    machine.must(|a| a.emms());
    assert_eq!(machine.cpu.fpu.pointers(), expected, "SIMD instructions");
    let start = machine.cpu.eip;
    machine.must(|a| a.fld1());
    assert_eq!(
        machine.cpu.fpu.pointers(),
        Pointers {
            fop: 0x1e8,
            fip: start,
            ..expected
        },
        "without memory operand, FDP stays"
    );
    machine.must(|a| a.fninit());
    assert_eq!(machine.cpu.fpu.pointers(), Pointers::default());
}

#[test]
fn an_unmasked_exception_is_pending_and_keeps_operands() {
    let mut machine = Machine::new();
    machine.cpu.fpu.set_fcw(FCW_INIT & !(1 << 2));
    machine.must(|a| a.fldz());
    machine.must(|a| a.fld1());
    machine.must(|a| a.fdiv_2(st0, st1));
    assert!(machine.cpu.fpu.fsw() & FSW_ES != 0);
    assert_eq!(machine.cpu.fpu.st(0)[9], 0x3f, "still one");
    assert_eq!(machine.fault(|a| a.fld1()), MF);
}

#[test]
fn a_store_that_raises_unmasked_overflow_writes_and_pops_nothing() {
    let mut machine = Machine::new();
    machine.poke_f64(DATA, 1e300);
    machine.must(|a| a.fld(qword_ptr(DATA)));
    machine.poke(DATA + 8, &[0xaa; 4]);
    let tags = machine.cpu.fpu.tags();
    for unmasked in [X87_OE, X87_UE] {
        machine.must(|a| a.fnclex());
        machine.cpu.fpu.set_fcw(FCW_INIT & !unmasked);
        let stored = unmasked == X87_UE;
        if stored {
            machine.must(|a| a.fst(dword_ptr(DATA + 8)));
            assert_eq!(f32::from_le_bytes(machine.peek(DATA + 8)), f32::INFINITY);
        } else {
            machine.must(|a| a.fstp(dword_ptr(DATA + 8)));
            assert_eq!(machine.peek(DATA + 8), [0xaa; 4]);
            assert!(machine.cpu.fpu.has_pending_x87_error());
        }
        assert_eq!(machine.cpu.fpu.tags(), tags);
    }
}

#[test]
fn an_unmasked_inexact_result_is_stored() {
    let mut machine = Machine::new();
    machine.poke_f64(DATA, 0.1);
    machine.must(|a| a.fld(qword_ptr(DATA)));
    machine.cpu.fpu.set_fcw(FCW_INIT & !X87_PE);
    machine.must(|a| a.fstp(dword_ptr(DATA + 8)));
    assert_eq!(f32::from_le_bytes(machine.peek(DATA + 8)), 0.1);
    assert_eq!(machine.cpu.fpu.tags(), 0, "popped");
    assert!(machine.cpu.fpu.has_pending_x87_error());
}

#[test]
fn stack_faults_set_sf_and_c1() {
    let mut machine = Machine::new();
    for _ in 0..8 {
        machine.must(|a| a.fld1());
    }
    machine.must(|a| a.fld1());
    assert_eq!(
        machine.cpu.fpu.fsw() & (0x40 | X87_IE | C1),
        0x40 | X87_IE | C1,
        "overflow"
    );
    machine.must(|a| a.fninit());
    machine.cpu.regs.set(EAX, u32::MAX);
    machine.must(|a| a.fstp(st0));
    machine.must(|a| a.fnstsw(ax));
    assert_eq!(machine.cpu.regs.get(EAX), 0xffff_0841, "underflow, TOP 1");
}

#[test]
fn precision_and_rounding_control_are_obeyed() {
    let mut machine = Machine::new();
    let third = |machine: &mut Machine, fcw: u16| {
        machine.must(|a| a.fninit());
        machine.cpu.fpu.set_fcw(fcw);
        machine.poke(DATA, &3u32.to_le_bytes());
        machine.must(|a| a.fld1());
        machine.must(|a| a.fidiv(dword_ptr(DATA)));
        machine.cpu.fpu.st(0)
    };
    assert_eq!(third(&mut machine, FCW_INIT)[..4], [0xab, 0xaa, 0xaa, 0xaa]);
    assert_eq!(
        third(&mut machine, 0x0f7f)[..4],
        [0xaa, 0xaa, 0xaa, 0xaa],
        "truncated"
    );
    assert_eq!(
        third(&mut machine, 0x007f)[..8],
        [0, 0, 0, 0, 0, 0xab, 0xaa, 0xaa],
        "single"
    );
}
