//! Accesses to memory that were not proven.

use super::*;
use crate::translate::context::{CONTEXT_BIAS, Context};

#[test]
fn a_slot_must_have_been_tested() {
    let result = mutant(load, |[hot, _], _| {
        let index = first(hot, Code::Jrcxz_rel8_64);
        hot.remove(index);
    });
    // Without a way to it, what follows a miss would be dead as well.
    assert_eq!(result, Err(Rule::Unreachable));
    let result = mutant(load, |[hot, _], _| {
        // Whatever the table has, both ways lead to the access.
        let target = hot[access(hot)].ip();
        let test = first(hot, Code::Jrcxz_rel8_64);
        let over = host(|a| a.jrcxz(target));
        insert_behind(hot, test, over);
    });
    assert_eq!(result, Err(Rule::Address));
}

#[test]
fn the_index_must_be_that_of_the_address() {
    let without_rotation = mutant(store, |[hot, _], _| {
        let index = first(hot, Code::VEX_Rorx_r32_rm32_imm8);
        replace(hot, index, host(|a| a.mov(ecx, r8d)));
    });
    assert_eq!(without_rotation, Err(Rule::Index));
    let rotated_less = mutant(store, |[hot, _], _| {
        let index = first(hot, Code::VEX_Rorx_r32_rm32_imm8);
        replace(hot, index, host(|a| a.rorx(ecx, r8d, 1u32)));
    });
    assert_eq!(rotated_less, Err(Rule::Index));
    let shifted_otherwise = mutant(store, |[hot, _], _| {
        let index = first(hot, Code::VEX_Shrx_r32_rm32_r32);
        replace(hot, index, host(|a| a.shrx(ecx, ecx, r13d)));
    });
    // An index all the same, but of the address rotated.
    assert_eq!(shifted_otherwise, Err(Rule::Address));
    let of_another = mutant(store, |[hot, _], _| {
        let index = first(hot, Code::VEX_Rorx_r32_rm32_imm8);
        replace(hot, index, host(|a| a.rorx(ecx, edi, 2u32)));
    });
    assert_eq!(of_another, Err(Rule::Address));
    let of_no_word = mutant(store, |[hot, _], _| {
        let index = table(hot);
        insert_behind(hot, index, host(|a| a.mov(rcx, qword_ptr(r15))));
    });
    assert_eq!(of_no_word, Err(Rule::Index));
}

#[test]
fn the_table_must_be_the_right_one() {
    let for_reading = mutant(store, |[hot, _], _| {
        let index = table(hot);
        hot[index].set_memory_displacement64(0);
    });
    assert_eq!(for_reading, Err(Rule::ReadSlot));
    for distance in [8, -8, WRITE_TABLE / 2, WRITE_TABLE + 8, 2 * WRITE_TABLE] {
        let elsewhere = mutant(store, |[hot, _], _| {
            let index = table(hot);
            hot[index].set_memory_displacement64(i64::from(distance) as u64);
        });
        assert_eq!(elsewhere, Err(Rule::Index), "{distance:#x}");
    }
    let scaled = mutant(store, |[hot, _], _| {
        let index = table(hot);
        hot[index].set_memory_index_scale(4);
    });
    assert_eq!(scaled, Err(Rule::Index));
    let written = mutant(store, |[hot, _], _| {
        let index = table(hot);
        let access = host(|a| a.mov(qword_ptr(r14 + rcx * 8), rcx));
        insert_behind(hot, index, access);
    });
    assert_eq!(written, Err(Rule::Index));
}

#[test]
fn accesses_lie_in_what_was_probed() {
    for displacement in [-2, 0, 1, 3, 0x1000] {
        let result = mutant(store, |[hot, _], _| {
            let index = access(hot);
            hot[index].set_memory_displacement64(displacement as u64);
            hot[index].set_memory_displ_size(if displacement == 0 { 0 } else { 8 });
        });
        assert_eq!(result, Err(Rule::Size), "{displacement}");
    }
    let wider = mutant(store, |[hot, _], _| {
        let index = access(hot);
        replace(hot, index, host(|a| a.mov(qword_ptr(r8 + rcx - 1), rax)));
    });
    assert_eq!(wider, Err(Rule::Size));
    let narrower = mutant(store, |[hot, _], _| {
        let index = access(hot);
        replace(hot, index, host(|a| a.mov(word_ptr(r8 + rcx + 1), ax)));
    });
    assert_eq!(narrower, Ok(()));
    let scaled = mutant(store, |[hot, _], _| {
        let index = access(hot);
        hot[index].set_memory_index_scale(2);
    });
    assert_eq!(scaled, Err(Rule::Address));
    let beyond = mutant(store, |[hot, _], _| {
        let index = access(hot);
        replace(hot, index, host(|a| a.bts(dword_ptr(r8 + rcx - 1), eax)));
    });
    assert_eq!(beyond, Err(Rule::Instruction));
}

#[test]
fn accesses_are_by_the_address_probed() {
    for base in [Register::R9, Register::RBX, Register::RSI, Register::R10] {
        let result = mutant(store, |[hot, _], _| {
            let index = access(hot);
            hot[index].set_memory_base(base);
        });
        assert_eq!(result, Err(Rule::Address), "{base:?}");
    }
    let changes: [Program; 5] = [
        |a| a.lea(esi, ptr(rsi + 4)),
        |a| a.mov(esi, eax),
        |a| a.inc(esi),
        |a| a.mov(ecx, ecx),
        |a| a.mov(cl, al),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let result = mutant(load, |[hot, _], _| {
            let index = access(hot);
            insert(hot, index, host(change));
        });
        assert_eq!(result, Err(Rule::Address), "{number}");
    }
}

#[test]
fn memory_is_reached_in_no_other_way() {
    type Access = (Program, Rule);
    let accesses: [Access; 16] = [
        (|a| a.pext(ecx, eax, dword_ptr(rbx)), Rule::Address),
        (|a| a.mov(eax, dword_ptr(rbx)), Rule::Address),
        (|a| a.mov(eax, dword_ptr(0x1000)), Rule::Address),
        (|a| a.mov(eax, dword_ptr(rbx + rdx * 4)), Rule::Address),
        (|a| a.mov(eax, dword_ptr(rsp + 8)), Rule::Pinned(4)),
        (|a| a.mov(dword_ptr(rsp - 8), eax), Rule::Pinned(4)),
        (|a| a.mov(eax, dword_ptr(ebx)), Rule::Segment),
        (|a| a.mov(eax, dword_ptr(rbx).fs()), Rule::Segment),
        (|a| a.mov(eax, dword_ptr(rbx).gs()), Rule::Segment),
        (|a| a.mov(eax, dword_ptr(ebx).fs()), Rule::Segment),
        (|a| a.mov(eax, dword_ptr(ebx).ds()), Rule::Segment),
        (|a| a.mov(eax, dword_ptr(0x1000).gs()), Rule::Segment),
        (|a| a.push(qword_ptr(rbx)), Rule::Instruction),
        (|a| a.add(dword_ptr(r15), eax), Rule::Field),
        (|a| a.mov(eax, dword_ptr(r14)), Rule::Index),
        (|a| a.mov(rax, qword_ptr(r13)), Rule::Address),
    ];
    for (number, (access, rule)) in accesses.into_iter().enumerate() {
        let result = mutant(load, |[hot, _], _| {
            let index = first(hot, Code::Retnq);
            insert(hot, index, host(access));
        });
        assert_eq!(result, Err(rule), "{number}");
    }
    let relative = mutant(load, |[hot, _], _| {
        let index = first(hot, Code::Retnq);
        let mut relative = host(|a| a.mov(eax, dword_ptr(rbx)));
        relative.set_memory_base(Register::RIP);
        relative.set_memory_displacement64(hot[0].ip());
        relative.set_memory_displ_size(8);
        insert(hot, index, relative);
    });
    assert_eq!(relative, Err(Rule::Address));
}

/// The number of the instruction behind that which notes the page, with 32-bit linear addresses.
const BEHIND_ENTRY: usize = 1;

fn leave(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.jmp(0x300)
}

#[test]
fn windows_are_the_guests() {
    let accesses: [Program; 4] = [
        |a| a.mov(eax, dword_ptr(ebx).gs()),
        |a| a.add(dword_ptr(ebx + edi * 8 + 0x1234).gs(), eax),
        |a| a.movzx(edx, byte_ptr(r12d + r11d).gs()),
        |a| a.mov(byte_ptr(edi).gs(), al),
    ];
    for access in accesses {
        let result = NARROW.map(|mode| {
            mutant_in(mode, leave, |[hot, _], _| {
                insert(hot, BEHIND_ENTRY, host(access));
            })
        });
        let elsewhere = Err(Rule::Segment);
        assert_eq!(result, [elsewhere, elsewhere, Ok(())]);
    }
}

#[test]
fn instructions_can_begin_anew_where_a_window_may_fault() {
    let changes: [Program; 3] = [
        |a| a.mov(ebx, eax),
        |a| a.cmp(eax, edi),
        |a| a.mov(byte_ptr(edi).gs(), al),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let result = mutant_in(Mode::Windowed, leave, |[hot, _], _| {
            insert(hot, BEHIND_ENTRY, host(|a| a.mov(eax, dword_ptr(ebx).gs())));
            insert(hot, BEHIND_ENTRY, host(change));
        });
        assert_eq!(result, Err(Rule::Restart), "{number}");
    }
}

#[test]
fn misses_return_what_they_were_asked_for() {
    let other_address = mutant(load, |[_, cold], _| {
        let index = first(cold, Code::Mov_r32_rm32);
        cold[index].set_op1_register(Register::EDI);
    });
    assert_eq!(other_address, Err(Rule::Address));
    let smaller = mutant(store, |[_, cold], trampolines| {
        let index = first(cold, Code::Call_rel32_64);
        let trampoline = trampolines.at(Trampoline::Miss(AccessKind::new(2, true)));
        cold[index].set_near_branch64(trampoline.into());
    });
    assert_eq!(smaller, Err(Rule::Size));
    let for_reading = mutant(store, |[_, cold], trampolines| {
        let index = first(cold, Code::Call_rel32_64);
        let trampoline = trampolines.at(Trampoline::Miss(AccessKind::new(4, false)));
        cold[index].set_near_branch64(trampoline.into());
    });
    assert_eq!(for_reading, Err(Rule::ReadSlot));
    let another_trampoline = mutant(store, |[_, cold], trampolines| {
        let index = first(cold, Code::Call_rel32_64);
        cold[index].set_near_branch64(trampolines.at(Trampoline::LoadFpu).into());
    });
    assert_eq!(another_trampoline, Err(Rule::Address));
    let jumped_to = mutant(store, |[_, cold], trampolines| {
        let index = first(cold, Code::Call_rel32_64);
        let trampoline = trampolines.at(Trampoline::Miss(AccessKind::new(4, true)));
        replace(cold, index, host(|a| a.jmp(u64::from(trampoline))));
        cold.truncate(index + 1);
    });
    assert_eq!(jumped_to, Err(Rule::Contract(Need::Linkage)));
    let without_offset = mutant(store, |[_, cold], _| {
        let index = first(cold, Code::Mov_r32_imm32);
        replace(cold, index, host(|a| a.mov(r9, r15)));
    });
    assert_eq!(without_offset, Err(Rule::Contract(Need::Offset9)));
}

#[test]
fn only_some_fields_are_written() {
    for name in [
        field::EIP,
        field::TABLE,
        field::STACK,
        field::FS_BASE,
        field::REASON,
    ] {
        let result = mutant(load, |[hot, _], _| {
            let index = first(hot, Code::Retnq);
            insert_behind(hot, index, host(|a| a.mov(dword_ptr(r15 + name), eax)));
        });
        assert_eq!(result, Err(Rule::Field));
    }
    let end = size_of::<Context>() as i32;
    let start = -CONTEXT_BIAS;
    for offset in [start - 1, start - 100, start + end - 3, end] {
        let result = mutant(load, |[hot, _], _| {
            let index = first(hot, Code::Retnq);
            insert_behind(hot, index, host(|a| a.mov(eax, dword_ptr(r15 + offset))));
        });
        assert_eq!(result, Err(Rule::Field), "{offset}");
    }
    let indexed = mutant(load, |[hot, _], _| {
        let index = first(hot, Code::Retnq);
        insert_behind(hot, index, host(|a| a.mov(eax, dword_ptr(r15 + rbx * 4))));
    });
    assert_eq!(indexed, Err(Rule::Field));
    let in_part = mutant(load, |[hot, _], _| {
        let index = first(hot, Code::Retnq);
        let scratch = field::SCRATCH;
        insert_behind(hot, index, host(|a| a.mov(dword_ptr(r15 + scratch), eax)));
    });
    assert_eq!(in_part, Err(Rule::Field));
}

#[test]
fn repeated_strings_stay_in_a_page() {
    let string = |code: &[Instruction]| find(code, |instruction| instruction.has_rep_prefix());
    let another_count = mutant(fill, |[hot, _], _| {
        let index = string(hot);
        insert_behind(hot, index, host(|a| a.mov(ecx, ebx)));
    });
    assert_eq!(another_count, Err(Rule::Size));
    let more = mutant(fill, |[hot, _], _| {
        let index = string(hot);
        replace(hot, index, host(|a| a.rep().stosd()));
    });
    assert_eq!(more, Err(Rule::Size));
    let another_pointer = mutant(fill, |[hot, _], _| {
        let index = string(hot);
        insert_behind(hot, index, host(|a| a.lea(rdi, ptr(rdi + 1))));
    });
    assert_eq!(another_pointer, Err(Rule::Address));
    let unprobed = mutant(fill, |[hot, _], _| {
        let index = find(hot, |instruction| {
            instruction.code() == Code::Mov_r64_rm64 && instruction.op0_register() == Register::RDI
        });
        hot.remove(index);
    });
    assert_eq!(unprobed, Err(Rule::Address));
    let from_reading = mutant(fill, |[hot, cold], trampolines| {
        let index = table(hot);
        hot[index].set_memory_displacement64(0);
        let index = first(cold, Code::Call_rel32_64);
        let trampoline = trampolines.at(Trampoline::Miss(AccessKind::new(1, false)));
        cold[index].set_near_branch64(trampoline.into());
    });
    assert_eq!(from_reading, Err(Rule::ReadSlot));
    let unchecked = mutant(fill, |[hot, _], _| {
        // What tells that the last byte lies elsewhere no longer does.
        let index = find(hot, |instruction| {
            instruction.code() == Code::Lea_r64_m && instruction.op0_register() == Register::RCX
        });
        replace(hot, index, host(|a| a.mov(ecx, eax)));
    });
    assert_eq!(unchecked, Err(Rule::Size));
    let split = mutant(fill, |[_, cold], _| {
        let index = string(cold);
        insert_behind(cold, index, host(|a| a.mov(ecx, r11d)));
    });
    assert_eq!(split, Err(Rule::Size));
    let uncounted = mutant(fill, |[_, cold], _| {
        let count = |instruction: &Instruction| instruction.op0_register() == Register::R10D;
        let index = find(cold, count);
        let index = index + 1 + find(&cold[index + 1..], count);
        replace(cold, index, host(|a| a.mov(r10, rsi)));
        insert_behind(cold, index + 1, host(|a| a.not(r10)));
        let index = find(cold, |instruction| {
            instruction.code() == Code::Mov_r32_rm32
                && instruction.op0_register() == Register::ECX
                && instruction.op1_register() == Register::R10D
                && instruction.ip() > cold[index + 1].next_ip()
        });
        replace(cold, index, host(|a| a.mov(rcx, r10)));
    });
    assert_eq!(uncounted, Err(Rule::Size));
    let backward = mutant(fill, |[hot, _], _| {
        let index = find(hot, |instruction| {
            instruction.code() == Code::Lea_r32_m && instruction.op0_register() == Register::EDI
        });
        hot.remove(index);
    });
    assert_eq!(backward, Err(Rule::Wide(7)));
}

#[test]
fn sixteen_bytes_are_aligned_where_they_must_be() {
    let unaligned = mutant(moves, |[hot, _], _| {
        let index = first(hot, Code::Movups_xmm_xmmm128);
        hot[index].set_code(Code::Movaps_xmm_xmmm128);
    });
    assert_eq!(unaligned, Err(Rule::Alignment));
    let moved = mutant(moves, |[hot, _], _| {
        let index = first(hot, Code::Movaps_xmm_xmmm128);
        hot[index].set_code(Code::Movups_xmm_xmmm128);
    });
    assert_eq!(moved, Ok(()));
    let any = mutant(moves, |[_, cold], trampolines| {
        let aligned = trampolines.at(Trampoline::Miss(AccessKind::new(16, false)));
        let index = find(cold, |instruction| {
            instruction.near_branch_target() == u64::from(aligned)
        });
        let trampoline = trampolines.at(Trampoline::Miss(AccessKind::unaligned(false)));
        cold[index].set_near_branch64(trampoline.into());
    });
    assert_eq!(any, Err(Rule::Alignment));
}

#[test]
fn groups_are_as_long_as_was_checked() {
    let by_r10 = |instruction: &Instruction| instruction.memory_base() == Register::R10;
    for displacement in [-1, 21, 0x1000] {
        let beyond = mutant(frame, |[hot, _], _| {
            let index = find(hot, by_r10);
            hot[index].set_memory_displacement64(displacement as u64);
            hot[index].set_memory_displ_size(8);
        });
        assert_eq!(beyond, Err(Rule::Size), "{displacement}");
    }
    let unchecked = mutant(frame, |[hot, _], _| {
        let index = find(hot, |instruction| {
            instruction.code() == Code::Lea_r32_m && instruction.op0_register() == Register::ECX
        });
        replace(hot, index, host(|a| a.lea(ecx, ptr(r8 + 1))));
    });
    assert_eq!(unchecked, Err(Rule::Size));
    let changed = mutant(frame, |[hot, _], _| {
        let index = find(hot, by_r10);
        insert_behind(hot, index, host(|a| a.lea(r10, ptr(r10 + rax))));
    });
    assert_eq!(changed, Err(Rule::Address));
}

#[test]
fn locked_accesses_are_checked_like_others() {
    let lock = |hot: &mut Vec<Instruction>| {
        let index = access(hot);
        let mut locked = host(|a| a.lock().inc(dword_ptr(rbx)));
        locked.set_memory_base(hot[index].memory_base());
        locked.set_memory_index(hot[index].memory_index());
        locked.set_memory_displacement64(hot[index].memory_displacement64());
        locked.set_memory_displ_size(hot[index].memory_displ_size());
        replace(hot, index, locked);
    };
    assert_eq!(mutant(store, |[hot, _], _| lock(hot)), Ok(()));
    let by_a_read_slot = mutant(load, |[hot, _], _| lock(hot));
    assert_eq!(by_a_read_slot, Err(Rule::ReadSlot));
    let elsewhere = mutant(load, |[hot, _], _| {
        let index = first(hot, Code::Retnq);
        insert_behind(hot, index, host(|a| a.lock().inc(dword_ptr(rbx))));
    });
    assert_eq!(elsewhere, Err(Rule::Address));
}
