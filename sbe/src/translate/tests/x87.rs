//! The pointers to the last x87 instruction, which FNSTENV stores: they are the guest's, whatever emitted code made of the
//! instruction, and the same on both engines (SDM Vol. 1, 8.1.8 "x87 FPU Instruction and Data (Operand) Pointers").

use super::users::{HANDLER, LAST_SELECTOR, USER, set_up, set_up_sysenter, write};
use super::{ORIGIN, Program, STACK, agree_within, processor};
use crate::cpu::fpu::Pointers;
use crate::{EmptyBus, Exit, Vcpu, VcpuConfig};
use iced_x86::code_asm::*;
use mmu::GuestPhys;
use proptest::prelude::*;

/// Addresses of environments, and of what else the programs use.
const ENVIRONMENTS: u32 = 0x0021_0000;
const DATA: u32 = 0x0022_0000;
const ABSENT: u32 = 0x0031_0000;

/// Flat data of users, as one more segment.
const OTHER_DATA: u64 = 0x00cf_f300_0000_ffff;

/// Selectors at the start.
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;

/// Last opcodes.
const FLD1: u16 = 0x1e8;
const FLD_ABSOLUTE: u16 = 0x105;

/// Address of the first instruction of a program.
const START: u32 = ORIGIN + 8;
/// CR4.OSFXSR, without which emitted code does not use the host's unit.
const OSFXSR: i32 = 1 << 9;

/// Runs a program on both engines.
fn agree(program: impl FnOnce(&mut CodeAssembler) -> Program) -> Vcpu {
    agree_in(VcpuConfig::default().code_cache, program)
}

/// Runs a program on both engines, with room for `code_cache` bytes of translated code.
fn agree_in(code_cache: usize, program: impl FnOnce(&mut CodeAssembler) -> Program) -> Vcpu {
    let vcpu = agree_within(code_cache, |a| {
        a.mov(eax, OSFXSR)?;
        a.mov(cr4, eax)?;
        program(a)
    });
    let stats = vcpu.translation().expect("a translator");
    assert_ne!(stats.exits.load_fpu, 0, "nothing ran on the host's unit");
    vcpu
}

/// Emits FNSTENV to environment `number`.
fn store(a: &mut CodeAssembler, number: u32) -> Program {
    a.fnstenv(ptr(environment(number)))
}

fn environment(number: u32) -> u32 {
    ENVIRONMENTS + 32 * number
}

/// The pointers in environment `number`.
fn stored(vcpu: &Vcpu, number: u32) -> Pointers {
    let mut bytes = [0; 28];
    let address = GuestPhys::new(environment(number).into());
    vcpu.mmu.memory().read(address, &mut bytes).expect("memory");
    let field = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
    Pointers {
        fop: (field(16) >> 16) as u16,
        fip: u64::from(field(12)),
        fcs: field(16) as u16,
        fdp: u64::from(field(20)),
        fds: field(24) as u16,
    }
}

#[test]
fn an_environment_names_the_last_instruction_and_its_operand() {
    let vcpu = agree(|a| {
        a.fninit()?;
        store(a, 0)?;
        a.fld(dword_ptr(DATA))?;
        a.fld1()?;
        store(a, 1)?;
        // Control, MMX and SSE instructions leave the pointers alone.
        a.fnstcw(word_ptr(DATA))?;
        a.fldcw(word_ptr(DATA))?;
        a.fnstsw(ax)?;
        a.fnclex()?;
        a.wait()?;
        a.emms()?;
        a.paddd(mm0, mm1)?;
        a.emms()?;
        store(a, 2)?;
        a.fnsave(ptr(environment(3)))?;
        store(a, 7)?;
        a.hlt()
    });
    let expected = Pointers {
        fop: FLD1,
        // FNINIT, FNSTENV and FLD are before it.
        fip: u64::from(START + 2 + 6 + 6),
        fcs: CODE_SELECTOR,
        fdp: u64::from(DATA),
        fds: DATA_SELECTOR,
    };
    assert_eq!(stored(&vcpu, 0), Pointers::default());
    for number in 1..=3 {
        assert_eq!(stored(&vcpu, number), expected, "{number}");
    }
    assert_eq!(stored(&vcpu, 7), Pointers::default(), "after FNSAVE");
}

#[test]
fn operands_of_all_forms_are_named() {
    type Form = fn(&mut CodeAssembler) -> Program;
    let forms: [(Form, u32); 8] = [
        (|a| a.fld(dword_ptr(DATA)), DATA),
        (|a| a.fld(dword_ptr(esi)), DATA + 0x10),
        (|a| a.fld(qword_ptr(esi - 0x80)), DATA - 0x70),
        (|a| a.fld(dword_ptr(ecx * 8 + DATA)), DATA + 0x18),
        (|a| a.fild(word_ptr(esi + ecx * 4 + 4)), DATA + 0x20),
        (|a| a.fstp(qword_ptr(esp + 8)), STACK - 0x18),
        (|a| a.fld(tbyte_ptr(esi + 4)), DATA + 0x14),
        (|a| a.fisub(dword_ptr(ebp + 0x1000)), STACK + 0xff0),
    ];
    let vcpu = agree(|a| {
        a.fninit()?;
        a.mov(esi, DATA as i32 + 0x10)?;
        a.mov(ecx, 3)?;
        a.sub(esp, 0x20)?;
        a.lea(ebp, dword_ptr(esp + 0x10))?;
        for (number, (form, _)) in (0..).zip(&forms) {
            form(a)?;
            // The note does not depend on what becomes of the registers, nor on the next instruction.
            a.xor(esi, ecx)?;
            a.fld1()?;
            a.xor(esi, ecx)?;
            store(a, number)?;
        }
        a.hlt()
    });
    for (number, (_, address)) in (0..).zip(&forms) {
        assert_eq!(stored(&vcpu, number).fdp, u64::from(*address), "{number}");
        assert_eq!(stored(&vcpu, number).fds, DATA_SELECTOR, "{number}");
    }
}

#[test]
fn operands_of_a_group_are_named() {
    let vcpu = agree(|a| {
        a.fninit()?;
        a.mov(ebp, DATA as i32 + 0x100)?;
        for round in 0..2 {
            a.fld(dword_ptr(ebp - 8))?;
            a.fadd(dword_ptr(ebp + 4))?;
            a.fmul(qword_ptr(ebp + 8))?;
            a.fst(dword_ptr(ebp - 4))?;
            a.fxch(st0, st1)?;
            store(a, round)?;
            // The second time the group fails.
            a.mov(ebp, DATA as i32 + 0x1000)?;
        }
        a.hlt()
    });
    assert_eq!(stored(&vcpu, 0).fdp, u64::from(DATA) + 0xfc);
    assert_eq!(stored(&vcpu, 1).fdp, u64::from(DATA) + 0xffc);
    assert_eq!(stored(&vcpu, 0).fop, 0x1c9);
}

#[test]
fn loaded_pointers_last_as_long_as_no_instruction_sets_them() {
    let loaded = Pointers {
        fop: 0x123,
        fip: 0x1234_5678,
        fcs: 0x1b,
        fdp: 0x9abc_def0,
        fds: 0x2b,
    };
    let vcpu = agree(|a| {
        a.fninit()?;
        store(a, 0)?;
        write(a, environment(0) + 12, loaded.fip as u32)?;
        let selector = u32::from(loaded.fop) << 16 | u32::from(loaded.fcs);
        write(a, environment(0) + 16, selector)?;
        write(a, environment(0) + 20, loaded.fdp as u32)?;
        write(a, environment(0) + 24, loaded.fds.into())?;
        a.fldenv(ptr(environment(0)))?;
        // Translated, with the FPU's state on the host's unit.
        a.movups(xmm0, xmmword_ptr(DATA))?;
        a.fnstcw(word_ptr(DATA))?;
        store(a, 1)?;
        a.fld1()?;
        store(a, 2)?;
        a.hlt()
    });
    assert_eq!(stored(&vcpu, 1), loaded);
    let Pointers { fop, fdp, fds, .. } = stored(&vcpu, 2);
    assert_eq!((fop, fdp, fds), (FLD1, loaded.fdp, loaded.fds));
}

/// Emits the placement of `program`, assembled for `address`.
fn place(
    a: &mut CodeAssembler,
    address: u32,
    program: impl FnOnce(&mut CodeAssembler) -> Program,
) -> Program {
    let mut assembler = CodeAssembler::new(32)?;
    program(&mut assembler)?;
    let mut code = assembler.assemble(address.into())?;
    code.resize(code.len().next_multiple_of(4), 0x90);
    for (at, word) in (address..).step_by(4).zip(code.as_chunks().0) {
        write(a, at, u32::from_le_bytes(*word))?;
    }
    Ok(())
}

#[test]
fn an_instruction_that_faults_is_not_named() {
    let vcpu = agree(|a| {
        place(a, HANDLER, |a| {
            store(a, 0)?;
            a.hlt()
        })?;
        // Its end faults when it is not known yet what follows.
        place(a, USER, |a| {
            a.fld(dword_ptr(DATA))?;
            a.fld(dword_ptr(ABSENT))
        })?;
        set_up(a, (ABSENT, 0), OTHER_DATA)?;
        a.fninit()?;
        a.mov(eax, USER as i32)?;
        a.jmp(eax)
    });
    let expected = Pointers {
        fop: FLD_ABSOLUTE,
        fip: u64::from(USER),
        fcs: CODE_SELECTOR,
        fdp: u64::from(DATA),
        fds: DATA_SELECTOR,
    };
    assert_eq!(stored(&vcpu, 0), expected);
}

/// A function that emits code.
type Emit = fn(&mut CodeAssembler) -> Program;

/// Emits a run of `user` at [`USER`] with CPL 3, and a handler of page faults that stores environment 0.
fn in_user_mode(
    a: &mut CodeAssembler,
    user: impl FnOnce(&mut CodeAssembler) -> Program,
) -> Program {
    const TASK: u32 = 0x0030_4000;
    const TASK_DESCRIPTOR: u64 = 0x0000_8930_4000_0067;
    place(a, HANDLER, |a| {
        store(a, 0)?;
        a.hlt()
    })?;
    place(a, USER, user)?;
    set_up(a, (ABSENT, 0), TASK_DESCRIPTOR)?;
    // The handler's stack.
    write(a, TASK + 4, STACK)?;
    write(a, TASK + 8, 16)?;
    a.mov(eax, LAST_SELECTOR)?;
    a.ltr(ax)?;
    a.fninit()?;
    a.mov(eax, 32 | 3)?;
    a.mov(ds, eax)?;
    a.mov(es, eax)?;
    a.mov(ecx, 3)?;
    a.mov(esi, DATA as i32)?;
    // SS, ESP, EFLAGS, CS and EIP.
    for value in [32 | 3, STACK - 0x1000, 2, 24 | 3, USER] {
        a.push(value as i32)?;
    }
    a.iretd()
}

#[test]
fn a_fault_behind_an_instruction_finds_its_note() {
    const FSTP_ABSOLUTE: u16 = 0x51d;
    // Code before the instruction that faults; FOP, offset and operand of its last instruction.
    let cases: [(Emit, u16, u32, u32); 5] = [
        (|a| a.fld(dword_ptr(DATA + 8)), FLD_ABSOLUTE, 0, DATA + 8),
        (
            |a| a.fld(dword_ptr(esi + ecx * 8 + 4)),
            0x144,
            0,
            DATA + 0x1c,
        ),
        (|a| a.fld(dword_ptr(esp - 0x4000)), 0x184, 0, STACK - 0x5000),
        (
            |a| {
                a.fld(dword_ptr(esi))?;
                a.fstp(qword_ptr(DATA + 0x20))?;
                a.fld(dword_ptr(ecx + DATA as i32 + 1))?;
                a.fld1()
            },
            FLD1,
            14,
            DATA + 4,
        ),
        (
            |a| {
                a.fld1()?;
                a.fstp(qword_ptr(DATA + 0x28))
            },
            FSTP_ABSOLUTE,
            2,
            DATA + 0x28,
        ),
    ];
    for (before, fop, offset, fdp) in cases {
        let vcpu = agree(|a| {
            in_user_mode(a, |a| {
                before(a)?;
                a.fstp(qword_ptr(ABSENT))
            })
        });
        let expected = Pointers {
            fop,
            fip: u64::from(USER + offset),
            fcs: 24 | 3,
            fdp: fdp.into(),
            fds: 32 | 3,
        };
        assert_eq!(stored(&vcpu, 0), expected);
    }
}

#[test]
fn the_selector_of_an_operand_is_named_behind_a_fault_that_the_window_served() {
    const UNTOUCHED: u32 = DATA + 0x1000;
    let vcpu = agree(|a| {
        in_user_mode(a, |a| {
            a.fld(dword_ptr(DATA))?;
            a.mov(eax, 32)?;
            a.mov(es, eax)?;
            a.fld(dword_ptr(DATA + 4))?;
            a.nop()?;
            a.fld(dword_ptr(DATA + 8).es())?;
            // The note of the instruction before is the engine's to store.
            a.fld(dword_ptr(UNTOUCHED))?;
            a.mov(eax, dword_ptr(ABSENT))
        })
    });
    let Pointers { fdp, fds, .. } = stored(&vcpu, 0);
    assert_eq!((fdp, fds), (UNTOUCHED.into(), 32 | 3));
}

#[test]
fn selectors_are_those_at_the_instruction() {
    const KERNEL_DATA: u32 = 16;
    let vcpu = agree(|a| {
        place(a, HANDLER, |a| {
            // The kernel, behind SYSENTER.
            store(a, 0)?;
            a.mov(ecx, LAST_SELECTOR)?;
            // Once more, when the effect of the loads is known.
            for number in 1..=2 {
                a.mov(edx, KERNEL_DATA)?;
                a.mov(es, ecx)?;
                a.fld(dword_ptr(DATA).es())?;
                a.mov(es, edx)?;
                a.fld(dword_ptr(DATA + 8).es())?;
                a.mov(es, ecx)?;
                a.fld1()?;
                store(a, number)?;
            }
            a.hlt()
        })?;
        place(a, USER, |a| {
            a.fld(dword_ptr(DATA))?;
            a.sysenter()
        })?;
        set_up(a, (ABSENT, 0), OTHER_DATA)?;
        a.mov(ebx, HANDLER as i32)?;
        set_up_sysenter(a)?;
        // CS as SYSENTER loads it, and data segments that user code may use.
        a.push(8)?;
        a.push(USER as i32 + 0x100)?;
        place(a, USER + 0x100, |a| {
            a.mov(eax, 32 | 3)?;
            a.mov(ds, eax)?;
            a.mov(es, eax)?;
            a.mov(ecx, STACK as i32 - 0x1000)?;
            a.mov(edx, USER as i32)?;
            a.fninit()?;
            a.sysexit()
        })?;
        a.retf()
    });
    let user = Pointers {
        fop: FLD_ABSOLUTE,
        fip: u64::from(USER),
        fcs: 24 | 3,
        fdp: u64::from(DATA),
        fds: 32 | 3,
    };
    assert_eq!(stored(&vcpu, 0), user);
    for number in 1..=2 {
        let Pointers { fcs, fdp, fds, .. } = stored(&vcpu, number);
        assert_eq!(
            (fcs, fdp, fds),
            (8, u64::from(DATA) + 8, KERNEL_DATA as u16),
            "{number}"
        );
    }
}

#[test]
fn pointers_outlive_the_code_that_set_them() {
    /// Instructions whose code fills the smallest code cache.
    const MANY: usize = 20_000;
    const LEAST_CODE_CACHE: usize = 1 << 20;
    let vcpu = agree_in(LEAST_CODE_CACHE, |a| {
        a.fninit()?;
        a.fld(dword_ptr(DATA))?;
        for _ in 0..MANY {
            a.add(dword_ptr(DATA + 4), eax)?;
        }
        store(a, 0)?;
        a.hlt()
    });
    assert!(vcpu.translation().expect("a translator").cleared > 0);
    let Pointers { fop, fip, fdp, .. } = stored(&vcpu, 0);
    assert_eq!(
        (fop, fip, fdp),
        (FLD_ABSOLUTE, u64::from(START) + 2, DATA.into())
    );
}

#[test]
fn an_instruction_across_pages_is_named() {
    const AT: u32 = USER + 0xffd;
    let vcpu = agree(|a| {
        place(a, AT, |a| {
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.fld(dword_ptr(DATA))?;
            a.dec(ecx)?;
            a.jne(again)?;
            store(a, 0)?;
            a.hlt()
        })?;
        a.fninit()?;
        a.mov(ecx, 3)?;
        a.mov(eax, AT as i32)?;
        a.jmp(eax)
    });
    let Pointers { fop, fip, fdp, .. } = stored(&vcpu, 0);
    assert_eq!((fop, fip, fdp), (FLD_ABSOLUTE, AT.into(), DATA.into()));
}

#[test]
fn a_processor_that_stops_has_the_pointers() {
    let mut assembler = CodeAssembler::new(32).expect("32 bits");
    let endless = |a: &mut CodeAssembler| -> Program {
        a.mov(eax, OSFXSR)?;
        a.mov(cr4, eax)?;
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.fld(dword_ptr(DATA))?;
        a.jmp(again)
    };
    endless(&mut assembler).expect("a program");
    let code = assembler.assemble(ORIGIN.into()).expect("assembles");
    let mut vcpu = processor(&VcpuConfig::default(), &code);
    for _ in 0..3 {
        assert_eq!(vcpu.run(&mut EmptyBus, 100), Exit::Budget);
        let saved = vcpu.save(0).cpu.fpu;
        assert_eq!((saved.fop, saved.fip), (FLD_ABSOLUTE, START.into()));
        assert_eq!(
            (saved.fcs, saved.fdp, saved.fds),
            (CODE_SELECTOR, DATA.into(), DATA_SELECTOR)
        );
    }
}

/// An instruction of a random program: what it does, and the form, offset and segment of its operand.
type Random = (u8, u8, i32, u8);

/// Emits random instruction `number` of a user: x87 instructions, and few between them that leave the pointers alone.
fn emit_random(
    a: &mut CodeAssembler,
    number: u32,
    (what, form, offset, segment): Random,
) -> Program {
    let address = match form {
        0 => ptr(DATA as i32 + offset),
        1 => esi + offset,
        2 => esi + ecx * 4 + offset,
        3 => esp + (offset - 0x1000),
        _ => ecx * 8 + (DATA as i32 + offset),
    };
    let address = match segment {
        0 => address.es(),
        1 => address.gs(),
        2 => address.ss(),
        _ => address,
    };
    match what {
        0..=3 => a.fld(dword_ptr(address)),
        4 => a.fadd(qword_ptr(address)),
        5 => a.fistp(qword_ptr(address)),
        6 => a.fild(word_ptr(address)),
        7 => a.fstp(dword_ptr(address)),
        8 => a.fld1(),
        9 => a.fxch(st0, st1),
        10 => a.fnstsw(ax),
        11 => a.movq(mm0, qword_ptr(address)),
        12..=14 => store(a, number),
        15 => a.lea(esi, esi + 4),
        16 => a.push(ecx),
        _ => a.nop(),
    }
}

/// Offsets of operands: in pages of which most are not touched before, and across their ends.
fn offsets() -> impl Strategy<Value = i32> {
    (0..6, prop::sample::select(vec![0, 4, 0xffc, 0xffe]))
        .prop_map(|(page, offset)| page * 0x1_1000 + offset)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn pointers_in_random_programs_are_the_same_on_both_engines(
        random in prop::collection::vec((0u8..18, 0u8..5, offsets(), 0u8..5), 5..60),
    ) {
        agree(|a| {
            in_user_mode(a, |a| {
                for (segment, selector) in [(es, 32), (gs, 32 | 1)] {
                    a.mov(eax, selector)?;
                    a.mov(segment, eax)?;
                }
                for (number, instruction) in (1..).zip(&random) {
                    emit_random(a, number, *instruction)?;
                }
                a.fadd(dword_ptr(ABSENT))
            })
        });
    }
}
