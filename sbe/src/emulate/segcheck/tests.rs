use crate::cpu::eflags::ZF;
use crate::cpu::regs::{EAX, ECX};
use crate::emulate::bench::*;
use crate::fault::Fault;

/// lar ecx, eax
const LAR: &[u8] = &[0x0f, 0x02, 0xc8];
/// lsl ecx, eax
const LSL: &[u8] = &[0x0f, 0x03, 0xc8];
/// verr ax
const VERR: &[u8] = &[0x0f, 0x00, 0xe0];
/// verw ax
const VERW: &[u8] = &[0x0f, 0x00, 0xe8];
/// arpl ax, cx
const ARPL: &[u8] = &[0x63, 0xc8];

fn ask(bench: &mut Bench, instruction: &[u8], selector: u16) -> Option<u32> {
    bench.cpu.regs.set(EAX, selector.into());
    bench.step(instruction).expect("no fault");
    (bench.cpu.eflags & ZF != 0).then(|| bench.cpu.regs.get(ECX))
}

#[test]
fn access_rights_and_limits_are_reported_for_the_types_that_have_them() {
    let base = 0x1234_5678;
    let cases = [
        (DATA32, true, true),
        (CODE32, true, true),
        (TSS32, true, true),
        (LDT, true, true),
        (DATA32 & !PRESENT, true, true),
        (0x8c, true, false),
        (0x84, true, false),
        (0x85, true, false),
        (0x8e, false, false),
        (0x8f, false, false),
        (0x80, false, false),
    ];
    for (attributes, has_rights, has_limit) in cases {
        let mut bench = Bench::protected();
        let granular = attributes & 0x8000 != 0;
        bench.define(FREE, segment(base, 0xa_bcde, attributes));
        let rights = u32::from(attributes) << 8 | 0xa_0000;
        let limit = if granular { 0xabcd_efff } else { 0xa_bcde };
        assert_eq!(
            ask(&mut bench, LAR, FREE),
            has_rights.then_some(rights),
            "{attributes:x}"
        );
        assert_eq!(
            ask(&mut bench, LSL, FREE),
            has_limit.then_some(limit),
            "{attributes:x}"
        );
    }
}

#[test]
fn what_privilege_hides_is_not_reported() {
    let mut bench = Bench::user();
    bench.define(FREE, flat(CONFORMING32));
    let cases = [
        (KDATA, false),
        (UDATA, true),
        (FREE | 3, true),
        (0, false),
        (0x100, false),
    ];
    for (selector, visible) in cases {
        assert_eq!(
            ask(&mut bench, LAR, selector).is_some(),
            visible,
            "{selector:x}"
        );
        assert_eq!(
            ask(&mut bench, VERR, selector).is_some(),
            visible,
            "{selector:x}"
        );
    }
    assert!(
        ask(&mut Bench::protected(), LAR, KDATA | 3).is_none(),
        "RPL counts as well"
    );
}

#[test]
fn verification_looks_at_the_type() {
    let cases = [
        (DATA32, true, true),
        (READ_ONLY, true, false),
        (CODE32, true, false),
        (EXECUTE_ONLY32, false, false),
        (LDT, false, false),
    ];
    for (attributes, readable, writable) in cases {
        let mut bench = Bench::protected();
        bench.define(FREE, flat(attributes));
        let answers = [VERR, VERW].map(|instruction| ask(&mut bench, instruction, FREE).is_some());
        assert_eq!(answers, [readable, writable], "{attributes:x}");
    }
}

#[test]
fn arpl_raises_the_rpl_only() {
    for (selector, floor, result, raised) in [
        (0x10, 3, 0x13, true),
        (0x13, 3, 0x13, false),
        (0x13, 0, 0x13, false),
    ] {
        let mut bench = Bench::user();
        bench.cpu.regs.set(ECX, floor);
        assert_eq!(ask(&mut bench, ARPL, selector).is_some(), raised);
        assert_eq!(bench.cpu.regs.get(EAX), result);
    }
}

#[test]
fn real_mode_does_not_know_them() {
    for instruction in [LAR, LSL, VERR, VERW, ARPL] {
        assert_eq!(Bench::real().step(instruction), Err(Fault::ud()));
    }
}
