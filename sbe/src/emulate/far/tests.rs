use crate::cpu::regs::ESP;
use crate::cpu::segment::{SegReg, Segment, Selector};
use crate::emulate::bench::*;
use crate::fault::Fault;

const TARGET: u32 = 0x1_2345;
const CALL_GATE32: u16 = 0x8c;
const CALL_GATE16: u16 = 0x84;

/// JMP or CALL ptr16:32.
fn far(opcode: u8, selector: u16) -> Vec<u8> {
    let mut bytes = vec![opcode];
    bytes.extend(TARGET.to_le_bytes());
    bytes.extend(selector.to_le_bytes());
    bytes
}

fn jump(selector: u16) -> Vec<u8> {
    far(0xea, selector)
}

fn call(selector: u16) -> Vec<u8> {
    far(0x9a, selector)
}

#[test]
fn jumps_and_calls_check_the_code_segment_alike() {
    let cases = [
        (0, CODE32, 0, Ok(FREE)),
        (0, CODE32, 3, Err(Fault::gp(0x30))),
        (3, CODE32, 0, Err(Fault::gp(0x30))),
        (3, CODE32 | dpl(3), 0, Ok(FREE | 3)),
        (3, CODE32 | dpl(3), 3, Ok(FREE | 3)),
        (3, CONFORMING32, 0, Ok(FREE | 3)),
        (0, CONFORMING32, 3, Ok(FREE)),
        (0, CONFORMING32 | dpl(3), 0, Err(Fault::gp(0x30))),
        (0, DATA32, 0, Err(Fault::gp(0x30))),
        (0, LDT, 0, Err(Fault::gp(0x30))),
        (0, CODE32 & !PRESENT, 0, Err(Fault::np(0x30))),
    ];
    for (cpl, attributes, rpl, result) in cases {
        for instruction in [jump(FREE | rpl), call(FREE | rpl)] {
            let mut bench = if cpl == 3 {
                Bench::user()
            } else {
                Bench::protected()
            };
            bench.define(FREE, flat(attributes));
            let done = bench
                .step(&instruction)
                .map(|()| bench.place_of_execution());
            let expected = result.map(|selector| (selector, TARGET));
            assert_eq!(
                done, expected,
                "cpl {cpl}, attributes {attributes:x}, rpl {rpl}"
            );
            assert_eq!(bench.cpu.cpl, cpl);
        }
    }
}

#[test]
fn null_selectors_and_offsets_beyond_the_limit_are_refused() {
    let mut bench = Bench::protected();
    assert_eq!(bench.step(&jump(0)), Err(Fault::gp(0)));
    assert_eq!(bench.step(&call(3)), Err(Fault::gp(0)));
    assert_eq!(bench.step(&call(0x100)), Err(Fault::gp(0x100)));
    bench.define(FREE, segment(0, 0xffff, 0x409b));
    assert_eq!(bench.step(&call(FREE)), Err(Fault::gp(0)));
    assert_eq!(bench.cpu.regs.get(ESP), STACK);
}

#[test]
fn a_call_pushes_selector_and_offset() {
    let mut bench = Bench::protected();
    bench.step(&call(KCODE)).expect("calls");
    assert_eq!(bench.top(), [CODE + 7, KCODE.into()]);
}

#[test]
fn a_call_gate_to_an_inner_level_copies_parameters_to_the_stack_of_the_tss() {
    let mut bench = Bench::user();
    bench.define(FREE, gate(KCODE, TARGET, CALL_GATE32 | dpl(3), 2));
    bench.place(&[11, 22, 33]);
    let user_stack = bench.cpu.regs.get(ESP);
    bench.step(&call(FREE)).expect("calls");
    assert_eq!(bench.place_of_execution(), (KCODE, TARGET));
    assert_eq!((bench.cpu.cpl, bench.selector(SegReg::Ss)), (0, KDATA));
    assert_eq!(bench.cpu.regs.get(ESP), STACK0 - 24);
    assert_eq!(
        bench.top(),
        [CODE + 7, UCODE.into(), 11, 22, user_stack, UDATA.into()]
    );
}

#[test]
fn a_16_bit_gate_pushes_words() {
    let mut bench = Bench::user();
    bench.define(FREE, gate(KCODE, TARGET, CALL_GATE16 | dpl(3), 1));
    bench.place(&[0x4444_3333]);
    bench.step(&call(FREE)).expect("calls");
    assert_eq!(bench.place_of_execution(), (KCODE, TARGET & 0xffff));
    assert_eq!(bench.cpu.regs.get(ESP), STACK0 - 10);
    assert_eq!(
        bench.top(),
        [
            u32::from(UCODE) << 16 | (CODE + 7),
            (STACK - 4) << 16 | 0x3333
        ]
    );
}

#[test]
fn a_call_gate_to_conforming_code_stays_at_its_level() {
    let mut bench = Bench::user();
    bench.define(FREE, gate(0x38, TARGET, CALL_GATE32 | dpl(3), 2));
    bench.define(0x38, flat(CONFORMING32));
    bench.step(&call(FREE)).expect("calls");
    assert_eq!(bench.place_of_execution(), (0x38 | 3, TARGET));
    assert_eq!(bench.top(), [CODE + 7, UCODE.into()]);
}

#[test]
fn gates_are_checked_before_what_they_name() {
    let cases = [
        (
            "dpl below cpl",
            FREE,
            gate(KCODE, TARGET, CALL_GATE32, 0),
            Fault::gp(0x30),
        ),
        (
            "dpl below rpl",
            FREE | 3,
            gate(KCODE, TARGET, CALL_GATE32 | dpl(2), 0),
            Fault::gp(0x30),
        ),
        (
            "absent",
            FREE,
            gate(KCODE, TARGET, CALL_GATE32 & !PRESENT | dpl(3), 0),
            Fault::np(0x30),
        ),
        (
            "null",
            FREE,
            gate(0, TARGET, CALL_GATE32 | dpl(3), 0),
            Fault::gp(0),
        ),
        (
            "beyond",
            FREE,
            gate(0x100, TARGET, CALL_GATE32 | dpl(3), 0),
            Fault::gp(0x100),
        ),
        (
            "data",
            FREE,
            gate(KDATA, TARGET, CALL_GATE32 | dpl(3), 0),
            Fault::gp(0x10),
        ),
        (
            "absent code",
            FREE,
            gate(0x38, TARGET, CALL_GATE32 | dpl(3), 0),
            Fault::np(0x38),
        ),
        (
            "interrupt gate",
            FREE,
            gate(KCODE, TARGET, 0x8e | dpl(3), 0),
            Fault::gp(0x30),
        ),
    ];
    for (name, selector, gate, fault) in cases {
        let mut bench = Bench::user();
        bench.define(FREE, gate);
        bench.define(0x38, flat(CODE32 & !PRESENT));
        assert_eq!(bench.step(&call(selector)), Err(fault), "{name}");
        assert_eq!(
            (bench.cpu.cpl, bench.cpu.regs.get(ESP)),
            (3, STACK),
            "{name}"
        );
    }
}

#[test]
fn a_jump_through_a_gate_cannot_change_the_level() {
    let mut bench = Bench::user();
    bench.define(FREE, gate(KCODE, TARGET, CALL_GATE32 | dpl(3), 0));
    assert_eq!(bench.step(&jump(FREE)), Err(Fault::gp(KCODE.into())));
    bench.define(FREE, gate(UCODE, TARGET, CALL_GATE32 | dpl(3), 0));
    assert_eq!(bench.step(&jump(FREE)), Ok(()));
    assert_eq!(bench.place_of_execution(), (UCODE, TARGET));
}

#[test]
fn the_inner_stack_is_checked() {
    let cases = [
        ("null", 0_u16, DATA32, 0x67, Fault::ts(0)),
        ("beyond", 0x100, DATA32, 0x67, Fault::ts(0x100)),
        ("rpl", 0x3b, DATA32, 0x67, Fault::ts(0x38)),
        ("dpl", 0x38, DATA32 | dpl(1), 0x67, Fault::ts(0x38)),
        ("read-only", 0x38, READ_ONLY, 0x67, Fault::ts(0x38)),
        ("absent", 0x38, DATA32 & !PRESENT, 0x67, Fault::ss(0x38)),
        ("short TSS", 0x38, DATA32, 8, Fault::ts(TASK.into())),
    ];
    for (name, stack, attributes, limit, fault) in cases {
        let mut bench = Bench::user();
        bench.define(FREE, gate(KCODE, TARGET, CALL_GATE32 | dpl(3), 0));
        bench.define(0x38, flat(attributes));
        bench.poke(TSS + 8, stack);
        bench.cpu.tr.limit = limit;
        assert_eq!(bench.step(&call(FREE)), Err(fault), "{name}");
    }
}

#[test]
fn an_inner_stack_without_room_faults_with_its_selector() {
    let mut bench = Bench::user();
    bench.define(FREE, gate(KCODE, TARGET, CALL_GATE32 | dpl(3), 0));
    bench.define(0x38, segment(0, 0xfff, 0x4093));
    bench.poke(TSS + 4, 12_u32);
    bench.poke(TSS + 8, 0x38_u16);
    assert_eq!(bench.step(&call(FREE)), Err(Fault::ss(0x38)));
}

#[test]
fn a_return_to_an_outer_level_releases_both_stacks_and_drops_inner_segments() {
    let mut bench = Bench::protected();
    bench.place(&[TARGET, UCODE.into(), 11, 22, 0x7000, UDATA.into()]);
    bench.cpu.segs[SegReg::Es as usize] =
        Segment::from_descriptor(Selector(UDATA), flat(DATA32 | dpl(3)));
    bench.cpu.segs[SegReg::Fs as usize] = Segment::from_descriptor(Selector(8), flat(CONFORMING32));
    bench.cpu.segs[SegReg::Gs as usize] = Segment::null(Selector(3));
    // ret far 8
    bench.step(&[0xca, 8, 0]).expect("returns");
    assert_eq!(bench.place_of_execution(), (UCODE, TARGET));
    assert_eq!(
        (
            bench.cpu.cpl,
            bench.selector(SegReg::Ss),
            bench.cpu.regs.get(ESP)
        ),
        (3, UDATA, 0x7008)
    );
    let selectors =
        [SegReg::Ds, SegReg::Es, SegReg::Fs, SegReg::Gs].map(|register| bench.selector(register));
    assert_eq!(selectors, [0, UDATA, 8, 0]);
}

#[test]
fn returns_are_checked() {
    let absent = 0x38;
    let cases = [
        ("null", [TARGET, 3, 0, 0], Fault::gp(0)),
        ("beyond", [TARGET, 0x103, 0, 0], Fault::gp(0x100)),
        ("data", [TARGET, KDATA.into(), 0, 0], Fault::gp(0x10)),
        (
            "rpl is not dpl",
            [TARGET, u32::from(KCODE) + 3, 0, 0],
            Fault::gp(8),
        ),
        ("absent", [TARGET, absent, 0, 0], Fault::np(0x38)),
        (
            "null stack",
            [TARGET, UCODE.into(), 0x7000, 0],
            Fault::gp(0),
        ),
        (
            "stack rpl",
            [TARGET, UCODE.into(), 0x7000, 0x20],
            Fault::gp(0x20),
        ),
        (
            "stack dpl",
            [TARGET, UCODE.into(), 0x7000, u32::from(KDATA) + 3],
            Fault::gp(0x10),
        ),
        (
            "absent stack",
            [TARGET, UCODE.into(), 0x7000, 0x43],
            Fault::ss(0x40),
        ),
    ];
    for (name, items, fault) in cases {
        let mut bench = Bench::protected();
        bench.define(0x38, flat(CODE32 & !PRESENT));
        bench.define(0x40, flat(DATA32 & !PRESENT | dpl(3)));
        bench.place(&items);
        assert_eq!(bench.step(&[0xcb]), Err(fault), "{name}");
        assert_eq!(bench.cpu.regs.get(ESP), STACK - 16, "{name}");
    }
    let mut bench = Bench::user();
    bench.place(&[TARGET, KCODE.into()]);
    assert_eq!(
        bench.step(&[0xcb]),
        Err(Fault::gp(KCODE.into())),
        "inner level"
    );
}

#[test]
fn a_16_bit_outer_stack_keeps_the_upper_half_of_esp() {
    let mut bench = Bench::protected();
    bench.define(0x38, segment(0, 0xffff, DATA32 & 0xff | dpl(3)));
    bench.cpu.regs.set(ESP, STACK | 0x5_0000);
    bench.place(&[TARGET, UCODE.into(), 0x7000, 0x3b]);
    bench.step(&[0xcb]).expect("returns");
    assert_eq!(bench.cpu.regs.get(ESP), 0x5_7000);
}

#[test]
fn real_mode_transfers_compute_paragraphs() {
    let mut bench = Bench::real();
    // call 0x1234:0x5678
    bench.step(&[0x9a, 0x78, 0x56, 0x34, 0x12]).expect("calls");
    assert_eq!(bench.place_of_execution(), (0x1234, 0x5678));
    assert_eq!(bench.cpu.seg(SegReg::Cs).base, 0x1_2340);
    assert_eq!(bench.cpu.regs.get(ESP), STACK - 4);
    assert_eq!(bench.top(), [CODE + 5]);
    bench.step(&[0xcb]).expect("returns");
    assert_eq!(bench.place_of_execution(), (0, CODE + 5));
}
