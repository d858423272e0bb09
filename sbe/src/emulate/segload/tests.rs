use crate::cpu::Pending;
use crate::cpu::regs::{EAX, ESP};
use crate::cpu::segment::{SegReg, Segment, Selector};
use crate::emulate::bench::*;
use crate::fault::Fault;

/// mov ds, eax
const MOV_DS: &[u8] = &[0x8e, 0xd8];
/// mov ss, eax
const MOV_SS: &[u8] = &[0x8e, 0xd0];

fn load(bench: &mut Bench, instruction: &[u8], selector: u16) -> Result<(), Fault> {
    bench.cpu.regs.set(EAX, selector.into());
    bench.step(instruction)
}

#[test]
fn data_segments_are_checked_for_type_privilege_and_presence() {
    let cases = [
        (0, DATA32, 0, Ok(())),
        (3, DATA32 | dpl(3), 3, Ok(())),
        (3, DATA32 | dpl(3), 0, Ok(())),
        (3, DATA32, 0, Err(Fault::gp(0x30))),
        (0, DATA32, 3, Err(Fault::gp(0x30))),
        (0, READ_ONLY, 0, Ok(())),
        (0, CODE32, 0, Ok(())),
        (3, CODE32, 3, Err(Fault::gp(0x30))),
        (3, CONFORMING32, 3, Ok(())),
        (0, EXECUTE_ONLY32, 0, Err(Fault::gp(0x30))),
        (0, LDT, 0, Err(Fault::gp(0x30))),
        (0, DATA32 & !PRESENT, 0, Err(Fault::np(0x30))),
        (3, DATA32 & !PRESENT, 3, Err(Fault::gp(0x30))),
    ];
    for (cpl, attributes, rpl, result) in cases {
        let mut bench = if cpl == 3 {
            Bench::user()
        } else {
            Bench::protected()
        };
        bench.define(FREE, flat(attributes));
        let before = *bench.cpu.seg(SegReg::Ds);
        let loaded = load(&mut bench, MOV_DS, FREE | rpl);
        assert_eq!(
            loaded, result,
            "cpl {cpl}, attributes {attributes:x}, rpl {rpl}"
        );
        if result.is_ok() {
            assert_eq!(bench.selector(SegReg::Ds), FREE | rpl);
        } else {
            assert_eq!(*bench.cpu.seg(SegReg::Ds), before);
        }
    }
}

#[test]
fn stack_segments_need_the_current_level_in_rpl_and_dpl() {
    let cases = [
        (DATA32, 0, Ok(())),
        (DATA32, 1, Err(Fault::gp(0x30))),
        (DATA32 | dpl(1), 0, Err(Fault::gp(0x30))),
        (READ_ONLY, 0, Err(Fault::gp(0x30))),
        (CODE32, 0, Err(Fault::gp(0x30))),
        (DATA32 & !PRESENT, 0, Err(Fault::ss(0x30))),
    ];
    for (attributes, rpl, result) in cases {
        let mut bench = Bench::protected();
        bench.define(FREE, flat(attributes));
        let loaded = load(&mut bench, MOV_SS, FREE | rpl);
        assert_eq!(loaded, result, "attributes {attributes:x}, rpl {rpl}");
        let inhibits = bench.cpu.pending.has(Pending::SHADOW_SS);
        assert_eq!(inhibits, result.is_ok());
    }
}

#[test]
fn null_empties_a_data_segment_and_is_refused_for_the_stack() {
    let mut bench = Bench::protected();
    assert_eq!(load(&mut bench, MOV_DS, 3), Ok(()));
    assert_eq!(bench.selector(SegReg::Ds), 3);
    // mov al, [0]
    assert_eq!(bench.step(&[0xa0, 0, 0, 0, 0]), Err(Fault::gp(0)));
    assert_eq!(load(&mut bench, MOV_SS, 0), Err(Fault::gp(0)));
}

#[test]
fn selectors_beyond_their_table_are_refused() {
    let mut bench = Bench::protected();
    assert_eq!(load(&mut bench, MOV_DS, 0x103), Err(Fault::gp(0x100)));
    bench.cpu.ldtr = Segment::null(Selector(0));
    assert_eq!(load(&mut bench, MOV_DS, 4), Err(Fault::gp(4)));
}

#[test]
fn descriptors_come_from_the_ldt_if_the_selector_says_so() {
    let mut bench = Bench::protected();
    bench.define(FREE, segment(0x6000, 0xf, LDT));
    bench.poke(0x6008, segment(0x7000, 0xff, DATA32 & 0xff).0);
    // lldt ax
    assert_eq!(load(&mut bench, &[0x0f, 0x00, 0xd0], FREE), Ok(()));
    assert_eq!(load(&mut bench, MOV_DS, 0x0c), Ok(()));
    assert_eq!(bench.cpu.seg(SegReg::Ds).base, 0x7000);
    assert_eq!(load(&mut bench, MOV_DS, 0x14), Err(Fault::gp(0x14)));
}

#[test]
fn loading_sets_the_accessed_bit_in_the_table() {
    let mut bench = Bench::protected();
    bench.define(FREE, flat(DATA32 & !1));
    load(&mut bench, MOV_DS, FREE).expect("loads");
    assert_eq!(bench.peek::<u8>(GDT + u32::from(FREE) + 5), 0x93);
}

#[test]
fn cs_and_registers_six_and_seven_cannot_be_loaded() {
    let mut bench = Bench::protected();
    // mov cs, eax; registers 6 and 7
    for modrm in [0xc8, 0xf0, 0xf8] {
        assert_eq!(bench.step(&[0x8e, modrm]), Err(Fault::ud()), "{modrm:x}");
    }
}

#[test]
fn a_faulting_pop_leaves_the_stack_pointer() {
    let mut bench = Bench::protected();
    bench.place(&[0x100]);
    let top = bench.cpu.regs.get(ESP);
    // pop ds
    assert_eq!(bench.step(&[0x1f]), Err(Fault::gp(0x100)));
    assert_eq!(bench.cpu.regs.get(ESP), top);
    bench.poke(top, u32::from(KDATA));
    assert_eq!(bench.step(&[0x1f]), Ok(()));
    assert_eq!(bench.cpu.regs.get(ESP), top + 4);
}

#[test]
fn pushes_and_moves_zero_extend_the_selector() {
    let mut bench = Bench::protected();
    bench.poke(STACK - 4, u32::MAX);
    // push ds
    bench.step(&[0x1e]).expect("pushes");
    assert_eq!(bench.top(), [u32::from(KDATA)]);
    bench.cpu.regs.set(EAX, u32::MAX);
    // mov eax, ds
    bench.step(&[0x8c, 0xd8]).expect("moves");
    assert_eq!(bench.cpu.regs.get(EAX), u32::from(KDATA));
    bench.poke(0x7000, u32::MAX);
    // mov [0x7000], ds
    bench.step(&[0x8c, 0x1d, 0x00, 0x70, 0, 0]).expect("stores");
    assert_eq!(bench.peek::<u32>(0x7000), 0xffff_0010);
}

#[test]
fn a_far_pointer_load_changes_nothing_if_the_selector_faults() {
    let mut bench = Bench::protected();
    bench.poke(0x7000, 0x1234_5678_u32);
    bench.poke(0x7004, 0x100_u16);
    // les eax, [0x7000]
    let les = [0xc4, 0x05, 0x00, 0x70, 0, 0];
    assert_eq!(bench.step(&les), Err(Fault::gp(0x100)));
    assert_eq!(bench.cpu.regs.get(EAX), 0);
    bench.poke(0x7004, UDATA);
    assert_eq!(bench.step(&les), Ok(()));
    assert_eq!(
        (bench.cpu.regs.get(EAX), bench.selector(SegReg::Es)),
        (0x1234_5678, UDATA)
    );
}

#[test]
fn lss_loads_both_halves_without_inhibiting_interrupts() {
    let mut bench = Bench::protected();
    bench.poke(0x7000, 0x6000_u32);
    bench.poke(0x7004, KDATA);
    // lss esp, [0x7000]
    bench
        .step(&[0x0f, 0xb2, 0x25, 0x00, 0x70, 0, 0])
        .expect("loads");
    assert_eq!(bench.cpu.regs.get(ESP), 0x6000);
    assert!(!bench.cpu.pending.has(Pending::SHADOW | Pending::SHADOW_SS));
}

#[test]
fn real_mode_loads_keep_the_limit_of_protected_mode() {
    let mut bench = Bench::real();
    bench.cpu.segs[SegReg::Ds as usize] = Segment::from_descriptor(Selector(KDATA), flat(DATA32));
    load(&mut bench, MOV_DS, 0x1234).expect("loads");
    let ds = *bench.cpu.seg(SegReg::Ds);
    assert_eq!((ds.base, ds.limit), (0x1_2340, u32::MAX));
    bench.cpu.segs[SegReg::Ds as usize] = Segment::null(Selector(0));
    load(&mut bench, MOV_DS, 0x1234).expect("loads");
    assert_eq!(*bench.cpu.seg(SegReg::Ds), Segment::real(Selector(0x1234)));
}

#[test]
fn ltr_takes_an_available_task_and_marks_it_busy() {
    /// ltr ax
    const LTR: &[u8] = &[0x0f, 0x00, 0xd8];
    let mut bench = Bench::protected();
    let cases = [
        (FREE, TSS32, Ok(())),
        (FREE, TSS16, Ok(())),
        (FREE, BUSY_TSS32, Err(Fault::gp(0x30))),
        (FREE, LDT, Err(Fault::gp(0x30))),
        (FREE, TSS32 & !PRESENT, Err(Fault::np(0x30))),
        (FREE | 4, TSS32, Err(Fault::gp(0x34))),
        (0x100, TSS32, Err(Fault::gp(0x100))),
        (0, TSS32, Err(Fault::gp(0))),
    ];
    for (selector, attributes, result) in cases {
        bench.define(FREE, segment(TSS2, 0x67, attributes));
        assert_eq!(
            load(&mut bench, LTR, selector),
            result,
            "{selector:x} {attributes:x}"
        );
        if result.is_ok() {
            assert_eq!(bench.peek::<u8>(GDT + 0x35), attributes as u8 | 2);
            assert_eq!(bench.cpu.tr.base, u64::from(TSS2));
        }
    }
    let mut bench = Bench::user();
    assert_eq!(load(&mut bench, LTR, FREE), Err(Fault::gp(0)));
    assert_eq!(load(&mut Bench::real(), LTR, FREE), Err(Fault::ud()));
}
