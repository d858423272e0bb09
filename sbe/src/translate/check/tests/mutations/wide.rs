//! Code with 48-bit linear addresses, broken in ways of its own.

use super::*;
use crate::translate::mode::Mode::{Supervisor, Supervisor64};

/// The checker's verdict, as in [`mutant`], on 64-bit code.
fn long(guest: Program, change: impl FnOnce(&mut Code2, &Trampolines)) -> Result<(), Rule> {
    mutant_in(Supervisor64, guest, change)
}

/// The checker's verdict, as in [`mutant`], on 32-bit code with 48-bit linear addresses.
fn compatible(guest: Program, change: impl FnOnce(&mut Code2, &Trampolines)) -> Result<(), Rule> {
    mutant_of(Bench::new(LinearWidth::Bits48), Supervisor, guest, change)
}

/// The first access to guest memory by an address and a slot in RCX.
fn access(code: &[Instruction]) -> usize {
    find(code, |instruction| {
        let registers = [instruction.memory_base(), instruction.memory_index()];
        registers.contains(&Register::RCX)
            && instruction.memory_index_scale() == 1
            && instruction.mnemonic() != Mnemonic::Lea
    })
}

/// The first load from a table.
fn table(code: &[Instruction]) -> usize {
    find(code, |instruction| {
        instruction.memory_index() == Register::RCX && instruction.memory_index_scale() == 8
    })
}

/// The first load of a table's address.
fn table_field(code: &[Instruction]) -> usize {
    find(code, |instruction| {
        instruction.memory_base() == Register::R15
            && instruction.memory_displacement64() == field::WRITE_TABLE as u64
    })
}

fn rotation(code: &[Instruction]) -> usize {
    first(code, Code::VEX_Rorx_r64_rm64_imm8)
}

fn extraction(code: &[Instruction]) -> usize {
    first(code, Code::VEX_Pext_r64_r64_rm64)
}

/// The first load of a byte at R8, only to see whether it faults.
fn touch(code: &[Instruction]) -> usize {
    find(code, |instruction| {
        instruction.code() == Code::Movzx_r32_rm8 && instruction.memory_base() == Register::R8
    })
}

fn store(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(qword_ptr(rbx + 8), rax)?;
    a.ret()
}

fn load(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rdx, qword_ptr(rsi))?;
    a.ret()
}

fn load_by_rbp(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rdx, qword_ptr(rbp))?;
    a.ret()
}

fn upper(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(r9, qword_ptr(rsi))?;
    a.ret()
}

fn fill(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.rep().stosq()?;
    a.ret()
}

fn push_flags(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.pushfq()?;
    a.ret()
}

fn divide(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.div(rbx)?;
    a.ret()
}

fn divide_signed(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.idiv(rbx)?;
    a.ret()
}

fn frame(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rax, qword_ptr(rbp - 8))?;
    a.mov(qword_ptr(rbp - 16), rax)?;
    a.mov(rdx, qword_ptr(rbp - 24))?;
    a.add(rdx, qword_ptr(rbp + 8))?;
    a.jmp(0x300)
}

fn exchange(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.cmpxchg16b(xmmword_ptr(rdi))?;
    a.ret()
}

#[test]
fn addresses_may_be_sums_of_many_registers() {
    let mut bench = Bench::new(LinearWidth::Bits48);
    let sums: Program = |a| {
        a.lea(rsi, qword_ptr(rax + rbx * 2))?;
        a.lea(rsi, qword_ptr(rsi + rdi * 4))?;
        a.lea(rsi, qword_ptr(rsi + r13))?;
        a.add(rsi, 8)?;
        a.lea(rsi, qword_ptr(rsi + r14 - 8))?;
        a.add(byte_ptr(rsi), al)?;
        a.mov(rdx, qword_ptr(rsi + rdx * 8).fs())?;
        a.hlt()
    };
    let (emission, _) = emitted(&mut bench, sums, Supervisor64);
    assert_eq!(bench.check(&emission), Ok(()));
}

/// The last byte of the group is at the register itself, which holds the low half of another.
#[test]
fn groups_may_end_at_a_register_of_32_bits() {
    let mut bench = Bench::new(LinearWidth::Bits48);
    let group: Program = |a| {
        a.mov(eax, edx)?;
        a.mov(ebx, dword_ptr(rax - 0x46))?;
        a.and(byte_ptr(rax), bl)?;
        a.add(byte_ptr(rax), bl)?;
        a.hlt()
    };
    let (emission, _) = emitted(&mut bench, group, Supervisor64);
    assert_eq!(bench.check(&emission), Ok(()));
}

#[test]
fn a_slot_must_have_been_tested() {
    let result = long(load, |[hot, _], _| {
        let index = first(hot, Code::Jrcxz_rel8_64);
        hot.remove(index);
    });
    assert_eq!(result, Err(Rule::Unreachable));
    let result = long(load, |[hot, _], _| {
        let target = hot[access(hot)].ip();
        let test = first(hot, Code::Jrcxz_rel8_64);
        insert_behind(hot, test, host(|a| a.jrcxz(target)));
    });
    assert_eq!(result, Err(Rule::Address));
}

#[test]
fn the_index_is_extracted_from_the_address() {
    let rotations: [(Program, Rule); 5] = [
        (|a| a.mov(rcx, r8), Rule::Index),
        (|a| a.rorx(rcx, r8, 2u32), Rule::Index),
        (|a| a.rorx(rcx, r8, 4u32), Rule::Index),
        (|a| a.rorx(ecx, r8d, 3u32), Rule::Index),
        (|a| a.rorx(rcx, rdi, 3u32), Rule::Address),
    ];
    for (number, (rotation_of, rule)) in rotations.into_iter().enumerate() {
        let result = long(store, |[hot, _], _| {
            let index = rotation(hot);
            replace(hot, index, host(rotation_of));
        });
        assert_eq!(result, Err(rule), "{number}");
    }
    let masks = [
        (field::MASKS, Rule::Address),
        (field::MASKS + 8, Rule::Index),
        (field::MASKS + 16, Rule::Index),
        (field::MASKS + 32, Rule::Index),
        (field::MASKS + 23, Rule::Index),
        (field::MASKS + 40, Rule::Index),
        (field::SCRATCH, Rule::Index),
        (field::REGS + 8 * 9, Rule::Index),
    ];
    for (mask, rule) in masks {
        let result = long(store, |[hot, _], _| {
            let index = extraction(hot);
            hot[index].set_memory_displacement64(i64::from(mask) as u64);
        });
        assert_eq!(result, Err(rule), "{mask}");
    }
    let extractions: [Program; 5] = [
        |a| a.pext(ecx, ecx, dword_ptr(r15 + (field::MASKS + 24))),
        |a| a.pext(rcx, rcx, rax),
        |a| a.shrx(rcx, r8, r15),
        |a| a.shrx(ecx, r8d, r15d),
        |a| a.mov(rcx, qword_ptr(r15 + (field::MASKS + 24))),
    ];
    for (number, extraction_of) in extractions.into_iter().enumerate() {
        let result = long(store, |[hot, _], _| {
            let index = extraction(hot);
            replace(hot, index, host(extraction_of));
        });
        assert_eq!(result, Err(Rule::Index), "{number}");
    }
    let elsewhere = long(store, |[hot, _], _| {
        let index = extraction(hot);
        replace(hot, index, host(|a| a.pext(rcx, rcx, qword_ptr(rbx))));
    });
    assert_eq!(elsewhere, Err(Rule::Address));
    let by_page_number = compatible(super::store, |[hot, _], _| {
        let index = extraction(hot);
        replace(hot, index, host(|a| a.shrx(ecx, ecx, r15d)));
    });
    assert_eq!(by_page_number, Err(Rule::Index));
}

#[test]
fn the_table_is_the_right_one_of_the_context() {
    for (table, rule) in [
        (field::FETCH_TABLE, Rule::Index),
        (field::CODE_TABLE, Rule::Index),
        (field::TABLE, Rule::ReadSlot),
        (field::HOST_STACK, Rule::Address),
        (field::SCRATCH, Rule::Address),
        (field::REGS + 8 * 9, Rule::Address),
        (field::WRITE_TABLE + 4, Rule::Address),
    ] {
        let result = long(store, |[hot, _], _| {
            let index = table_field(hot);
            hot[index].set_memory_displacement64(i64::from(table) as u64);
        });
        assert_eq!(result, Err(rule), "{table}");
    }
    for (base, rule) in [
        (Register::R14, Rule::Address),
        (Register::RBX, Rule::Address),
        (Register::R15, Rule::Field),
    ] {
        let result = long(store, |[hot, _], _| {
            let index = table(hot);
            hot[index].set_memory_base(base);
        });
        assert_eq!(result, Err(rule), "{base:?}");
    }
    for displacement in [8, -8, WRITE_TABLE] {
        let result = long(store, |[hot, _], _| {
            let index = table(hot);
            hot[index].set_memory_displacement64(i64::from(displacement) as u64);
            hot[index].set_memory_displ_size(8);
        });
        assert_eq!(result, Err(Rule::Index), "{displacement:#x}");
    }
    for scale in [1, 2, 4] {
        let result = long(store, |[hot, _], _| {
            let index = table(hot);
            hot[index].set_memory_index_scale(scale);
        });
        assert_eq!(result, Err(Rule::Index), "{scale}");
    }
    let written = long(store, |[hot, _], _| {
        let index = table(hot);
        insert_behind(hot, index, host(|a| a.mov(qword_ptr(r9 + rcx * 8), rcx)));
    });
    assert_eq!(written, Err(Rule::Index));
    let half = long(store, |[hot, _], _| {
        let index = table(hot);
        replace(hot, index, host(|a| a.mov(ecx, dword_ptr(r9 + rcx * 8))));
    });
    assert_eq!(half, Err(Rule::Index));
}

#[test]
fn accesses_lie_in_what_was_probed() {
    for displacement in [-2, 0, 1, 7, 0x1000] {
        let result = long(store, |[hot, _], _| {
            let index = access(hot);
            hot[index].set_memory_displacement64(displacement as u64);
            hot[index].set_memory_displ_size(if displacement == 0 { 0 } else { 8 });
        });
        assert_eq!(result, Err(Rule::Size), "{displacement}");
    }
    let accesses: [(Program, Result<(), Rule>); 5] = [
        (|a| a.cmpxchg16b(xmmword_ptr(r8 + rcx - 1)), Err(Rule::Size)),
        (
            |a| a.bts(qword_ptr(r8 + rcx - 1), rax),
            Err(Rule::Instruction),
        ),
        (
            |a| a.mov(qword_ptr(r8 + rcx * 2 - 1), rax),
            Err(Rule::Address),
        ),
        (|a| a.mov(qword_ptr(r8 - 1), rax), Err(Rule::Address)),
        (|a| a.mov(dword_ptr(r8 + rcx + 3), eax), Ok(())),
    ];
    for (number, (access_of, verdict)) in accesses.into_iter().enumerate() {
        let result = long(store, |[hot, _], _| {
            let index = access(hot);
            replace(hot, index, host(access_of));
        });
        assert_eq!(result, verdict, "{number}");
    }
    let unaligned = long(exchange, |[hot, cold], trampolines| {
        let index = rotation(hot);
        replace(hot, index, host(|a| a.rorx(rcx, rdi, 3u32)));
        let index = extraction(hot);
        hot[index].set_memory_displacement64((field::MASKS + 24) as u64);
        let index = first(cold, Code::Call_rel32_64);
        let trampoline = trampolines.at(Trampoline::Miss(AccessKind::new(8, true)));
        cold[index].set_near_branch64(trampoline.into());
    });
    assert_eq!(unaligned, Err(Rule::Size));
    let smaller = long(store, |[_, cold], trampolines| {
        let index = first(cold, Code::Call_rel32_64);
        let trampoline = trampolines.at(Trampoline::Miss(AccessKind::new(4, true)));
        cold[index].set_near_branch64(trampoline.into());
    });
    assert_eq!(smaller, Err(Rule::Size));
}

#[test]
fn accesses_are_by_the_address_probed() {
    for (base, rule) in [
        (Register::R9, Rule::Address),
        (Register::RSI, Rule::Address),
        (Register::R10, Rule::Address),
        // It is 8 less.
        (Register::RBX, Rule::Size),
    ] {
        let result = long(store, |[hot, _], _| {
            let index = access(hot);
            hot[index].set_memory_base(base);
        });
        assert_eq!(result, Err(rule), "{base:?}");
    }
    let changes: [(Program, Rule); 6] = [
        (|a| a.lea(rsi, ptr(rsi + 0x1000)), Rule::Size),
        (|a| a.mov(esi, esi), Rule::Address),
        (|a| a.mov(rsi, rax), Rule::Address),
        (|a| a.inc(rsi), Rule::Address),
        (|a| a.mov(ecx, ecx), Rule::Address),
        (|a| a.rorx(rcx, rcx, 40u32), Rule::Address),
    ];
    for (number, (change, rule)) in changes.into_iter().enumerate() {
        let result = long(load, |[hot, _], _| {
            let index = access(hot);
            insert(hot, index, host(change));
        });
        assert_eq!(result, Err(rule), "{number}");
    }
}

#[test]
fn the_stack_segment_reaches_no_guest_memory() {
    let result = long(load_by_rbp, |[hot, _], _| {
        let index = access(hot);
        assert_eq!(hot[index].memory_index(), Register::RBP);
        hot[index].set_memory_base(Register::RBP);
        hot[index].set_memory_index(Register::RCX);
    });
    assert_eq!(result, Err(Rule::Segment));
    let grouped = long(frame, |[hot, _], _| {
        let index = find(hot, |instruction| {
            instruction.memory_base() == Register::R10
        });
        let displacement = hot[index].memory_displacement64();
        hot[index].set_memory_base(Register::RBP);
        insert_behind(hot, index, host(|a| a.mov(rbp, r10)));
        assert!(displacement < 32);
    });
    assert_eq!(grouped, Err(Rule::Segment));
}

#[test]
fn groups_are_as_long_as_was_checked() {
    let by_r10 = |instruction: &Instruction| instruction.memory_base() == Register::R10;
    for displacement in [-1, 33, 0x1000] {
        let beyond = long(frame, |[hot, _], _| {
            let index = find(hot, by_r10);
            hot[index].set_memory_displacement64(displacement as u64);
            hot[index].set_memory_displ_size(8);
        });
        assert_eq!(beyond, Err(Rule::Size), "{displacement}");
    }
    let to_last = |instruction: &Instruction| {
        instruction.code() == Code::Lea_r64_m && instruction.op0_register() == Register::RCX
    };
    let shorter = long(frame, |[hot, _], _| {
        let index = find(hot, to_last);
        replace(hot, index, host(|a| a.lea(rcx, ptr(r8 + 1))));
    });
    assert_eq!(shorter, Err(Rule::Size));
    let narrow = long(frame, |[hot, _], _| {
        let index = first(hot, Code::VEX_Shrx_r64_rm64_r64);
        replace(hot, index, host(|a| a.shrx(ecx, ecx, r9d)));
        let index = first(hot, Code::VEX_Shrx_r64_rm64_r64);
        replace(hot, index, host(|a| a.shrx(r9d, r8d, r9d)));
    });
    assert_eq!(narrow, Err(Rule::Size));
}

#[test]
fn instructions_can_begin_anew_where_they_may_fault() {
    let changes: [(Program, Rule); 9] = [
        (|a| a.mov(rbx, rax), Rule::Restart),
        (|a| a.mov(r13, rax), Rule::Restart),
        (|a| a.add(r14, rax), Rule::Restart),
        (|a| a.lea(r12, ptr(r12 - 8)), Rule::Restart),
        (|a| a.cmp(rax, rdi), Rule::Restart),
        (|a| a.setc(al), Rule::Restart),
        (
            |a| a.mov(qword_ptr(r15 + (field::REGS + 8 * 12)), rax),
            Rule::Restart,
        ),
        (
            |a| a.mov(qword_ptr(r15 + field::GS_BASE), rax),
            Rule::Restart,
        ),
        (|a| a.push(rax), Rule::Stack),
    ];
    for (number, (change, rule)) in changes.into_iter().enumerate() {
        let result = long(load, |[hot, _], _| {
            let index = access(hot);
            insert(hot, index, host(change));
        });
        assert_eq!(result, Err(rule), "{number}");
    }
    let harmless: Program = |a| a.mov(qword_ptr(r15 + field::SCRATCH), rax);
    let kept = long(load, |[hot, _], _| {
        let index = access(hot);
        insert(hot, index, host(harmless));
    });
    assert_eq!(kept, Ok(()));
    let in_32_bit_code = compatible(super::load, |[hot, _], _| {
        let index = access(hot);
        insert(hot, index, host(|a| a.mov(ebx, eax)));
    });
    assert_eq!(in_32_bit_code, Err(Rule::Restart));
}

#[test]
fn the_fault_map_has_all_accesses() {
    for program in [load as Program, store, fill, frame] {
        let mut bench = Bench::new(LinearWidth::Bits48);
        let (emission, _) = emitted(&mut bench, program, Supervisor64);
        assert_eq!(bench.check(&emission), Ok(()));
        let mut without = emission.clone();
        without.faults = Default::default();
        let rule = bench.check(&without).map_err(|violation| violation.rule);
        assert_eq!(rule, Err(Rule::Restart));
        let mut ended = emission.clone();
        for fault in ended.faults.iter_mut().flatten() {
            fault.offset = None;
        }
        let rule = bench.check(&ended).map_err(|violation| violation.rule);
        assert_eq!(rule, Err(Rule::Restart));
    }
    let mut bench = Bench::new(LinearWidth::Bits48);
    let (mut emission, _) = emitted(&mut bench, fill, Supervisor64);
    emission.faults[1].clear();
    let rule = bench.check(&emission).map_err(|violation| violation.rule);
    assert_eq!(rule, Err(Rule::Restart), "in cold code");
}

#[test]
fn strings_are_touched_before_they_begin() {
    let untouched = long(fill, |[hot, _], _| {
        let index = touch(hot);
        hot.remove(index);
    });
    assert_eq!(untouched, Err(Rule::Restart));
    let too_late = long(fill, |[hot, _], _| {
        let index = touch(hot);
        let touch = hot.remove(index);
        let index = find(hot, |instruction| instruction.has_rep_prefix());
        insert_behind(hot, index, touch);
    });
    assert_eq!(too_late, Err(Rule::Restart));
    let elsewhere = long(fill, |[hot, _], _| {
        let index = touch(hot);
        replace(hot, index, host(|a| a.movzx(r9d, byte_ptr(r8 + 1))));
    });
    assert_eq!(elsewhere, Err(Rule::Size));
    let in_cold_code = long(fill, |[_, cold], _| {
        let index = touch(cold);
        cold.remove(index);
    });
    assert_eq!(in_cold_code, Err(Rule::Restart));
    let flags = long(push_flags, |[hot, _], _| {
        let index = touch(hot);
        hot.remove(index);
    });
    assert_eq!(flags, Err(Rule::Restart));
}

#[test]
fn strings_have_a_count_that_does_not_wrap() {
    let upper_half = |code: &[Instruction]| {
        find(code, |instruction| {
            instruction.code() == Code::VEX_Rorx_r64_rm64_imm8
                && instruction.op1_register() == Register::R11
        })
    };
    let unchecked = long(fill, |[hot, _], _| {
        let index = upper_half(hot);
        replace(hot, index, host(|a| a.rorx(rcx, rdi, 32u32)));
    });
    assert_eq!(unchecked, Err(Rule::Size));
    let less = long(fill, |[hot, _], _| {
        let index = upper_half(hot);
        replace(hot, index, host(|a| a.rorx(rcx, r11, 33u32)));
    });
    assert_eq!(less, Err(Rule::Size));
    let all_bits = long(fill, |[hot, _], _| {
        let index = upper_half(hot);
        replace(hot, index, host(|a| a.rorx(rcx, r11, 33u32)));
        let string = find(hot, |instruction| instruction.has_rep_prefix());
        let index = string - 1;
        insert_behind(hot, index + 1, host(|a| a.mov(rcx, r11)));
    });
    assert_eq!(all_bits, Err(Rule::Size));
}

#[test]
fn only_some_fields_are_written() {
    for place in [
        field::EIP,
        field::REGS,
        field::REGS + 8 * 7,
        field::PAGE,
        field::POINTER,
        field::TABLES,
        field::TABLE,
        field::WRITE_TABLE,
        field::FETCH_TABLE,
        field::CODE_TABLE,
        field::MASKS,
        field::MASKS + 8,
        field::ENTRIES,
        field::WINDOW,
        field::STACK,
        field::STACK_BOTTOM,
        field::USER_STACK,
        field::HOST_STACK,
        field::LSTAR,
        field::SYSCALL_USABLE,
        field::REGS + 8 * 15 + 4,
    ] {
        let result = long(load, |[hot, _], _| {
            let index = first(hot, Code::Retnq);
            insert_behind(hot, index, host(|a| a.mov(qword_ptr(r15 + place), rax)));
        });
        assert_eq!(result, Err(Rule::Field), "{place}");
    }
    let register = field::REGS + 8 * 9;
    let whole: Program = |a| a.mov(qword_ptr(r15 + (field::REGS + 8 * 9)), rax);
    let with = |code: &mut Vec<Instruction>| {
        let index = first(code, Code::Retnq);
        insert_behind(code, index, host(whole));
    };
    assert_eq!(long(load, |[hot, _], _| with(hot)), Ok(()));
    assert_eq!(
        compatible(super::load, |[hot, _], _| with(hot)),
        Err(Rule::Field)
    );
    let half = long(upper, |[hot, _], _| {
        let index = find(hot, |instruction| {
            instruction.op0_kind() == OpKind::Memory
                && instruction.memory_displacement64() == register as u64
        });
        replace(hot, index, host(|a| a.mov(dword_ptr(r15 + register), r9d)));
    });
    assert_eq!(half, Err(Rule::Field));
}

#[test]
fn code_of_32_bits_has_32_bit_registers() {
    let result = compatible(super::load, |[hot, _], _| {
        let index = first(hot, Code::Retnq);
        insert_behind(hot, index, host(|a| a.lea(rbx, ptr(rbx + rcx))));
    });
    assert_eq!(result, Err(Rule::Wide(3)));
    let wide = compatible(super::load, |[hot, _], _| {
        let index = first(hot, Code::Retnq);
        insert_behind(hot, index, host(|a| a.add(rbx, rcx)));
    });
    assert_eq!(wide, Err(Rule::Instruction));
    let system_call = compatible(super::load, |[hot, _], trampolines| {
        let index = first(hot, Code::Retnq);
        let to = trampolines.at(Trampoline::Syscall);
        replace(hot, index, host(|a| a.jmp(u64::from(to))));
        insert(hot, index, host(|a| a.mov(r9d, 5)));
        insert(hot, index, host(|a| a.mov(r8d, 5)));
    });
    assert_eq!(system_call, Err(Rule::Contract(Need::Long)));
}

#[test]
fn pinned_registers_stay() {
    let writes: [(Program, usize); 3] = [
        (|a| a.mov(r15, r9), 15),
        (|a| a.add(r15, rax), 15),
        (|a| a.mov(rsp, rax), 4),
    ];
    for (number, (write, register)) in writes.into_iter().enumerate() {
        let result = long(load, |[hot, _], _| {
            let index = first(hot, Code::Retnq);
            insert_behind(hot, index, host(write));
        });
        assert_eq!(result, Err(Rule::Pinned(register)), "{number}");
    }
}

/// 32-bit code keeps the upper registers of 64-bit code.
#[test]
fn code_of_32_bits_leaves_upper_registers_alone() {
    let writes: [(Program, usize); 7] = [
        (|a| a.mov(r14d, eax), 14),
        (|a| a.mov(r14, qword_ptr(r15 + field::TABLES)), 14),
        (|a| a.inc(r14d), 14),
        (|a| a.mov(r13, r8), 13),
        (|a| a.mov(r13, qword_ptr(r15 + field::PAGE)), 13),
        (|a| a.lea(r13d, ptr(r13 + 1)), 13),
        (|a| a.add(r13d, eax), 13),
    ];
    for (number, (write, register)) in writes.into_iter().enumerate() {
        let result = compatible(super::load, |[hot, _], _| {
            let index = first(hot, Code::Retnq);
            insert_behind(hot, index, host(write));
        });
        assert_eq!(result, Err(Rule::Pinned(register)), "{number}");
    }
}

/// The context's page is the one that executes, and the host's stack has it behind a call.
#[test]
fn the_page_stays_one() {
    let stores: [Program; 4] = [
        |a| a.mov(qword_ptr(r15 + field::PAGE), rax),
        |a| a.mov(qword_ptr(r15 + field::PAGE), r15),
        |a| a.mov(dword_ptr(r15 + field::PAGE), r8d),
        |a| a.mov(qword_ptr(r15 + (field::PAGE + 4)), r8),
    ];
    for (number, store_of) in stores.into_iter().enumerate() {
        let result = long(load, |[hot, _], _| {
            let index = first(hot, Code::Retnq);
            insert_behind(hot, index, host(store_of));
        });
        assert_eq!(result, Err(Rule::Field), "{number}");
    }
    let push = |code: &[Instruction]| first(code, Code::Push_rm64);
    let pushes: [Program; 3] = [
        |a| a.push(rax),
        |a| a.push(qword_ptr(r15 + field::SCRATCH)),
        |a| a.push(qword_ptr(r15 + field::EIP)),
    ];
    for (number, push_of) in pushes.into_iter().enumerate() {
        let result = long(call, |[hot, _], _| {
            let index = push(hot);
            replace(hot, index, host(push_of));
        });
        assert_eq!(result, Err(Rule::Stack), "{number}");
    }
    let by_entry: [Program; 2] = [
        |a| a.mov(qword_ptr(r15 + field::PAGE), r9),
        |a| a.mov(qword_ptr(r15 + field::PAGE), rsi),
    ];
    for store_of in by_entry {
        let result = long(load, |[hot, _], _| {
            let index = find(hot, |instruction| {
                instruction.code() == Code::Mov_rm64_r64
                    && instruction.memory_displacement64() == i64::from(field::PAGE) as u64
            });
            replace(hot, index, host(store_of));
        });
        assert_eq!(result, Err(Rule::Field));
    }
}

#[test]
fn divisions_are_checked() {
    for guest in [divide as Program, divide_signed] {
        let divides = |instruction: &Instruction| {
            matches!(instruction.mnemonic(), Mnemonic::Div | Mnemonic::Idiv)
        };
        let changes: [Program; 3] = [|a| a.mov(rdx, rsi), |a| a.mov(r8, rsi), |a| a.mov(r8d, r8d)];
        for change in changes {
            let result = long(guest, |[hot, _], _| {
                let index = find(hot, divides);
                insert(hot, index, host(change));
            });
            assert_eq!(result, Err(Rule::Division));
        }
        let of_another = long(guest, |[hot, _], _| {
            let index = find(hot, divides);
            hot[index].set_op0_register(Register::RSI);
        });
        assert_eq!(of_another, Err(Rule::Division));
    }
    let not_zero = long(divide, |[hot, _], _| {
        let index = find(hot, |instruction| {
            instruction.code() == Code::Mov_r64_rm64
                && instruction.op0_register() == Register::RCX
                && instruction.op1_register() == Register::R8
        });
        replace(hot, index, host(|a| a.mov(rcx, rax)));
    });
    assert_eq!(not_zero, Err(Rule::Division));
}
