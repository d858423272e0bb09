//! 64-bit code with a window, broken in ways of its own.

use super::*;
use crate::translate::mode::Mode::{User64, Windowed64};

/// The bits of half a quadword.
const HALF: u32 = 32;

/// The checker's verdict, as in [`mutant`], on 64-bit code with a window.
fn windowed(guest: Program, change: impl FnOnce(&mut Code2, &Trampolines)) -> Result<(), Rule> {
    mutant_in(Windowed64, guest, change)
}

/// The first load of a word of the directory.
fn word(code: &[Instruction]) -> usize {
    find(code, |instruction| {
        instruction.segment_prefix() == Register::GS
    })
}

/// The first access by a word in RCX or R10.
fn access(code: &[Instruction]) -> usize {
    find(code, |instruction| {
        matches!(instruction.memory_base(), Register::RCX | Register::R10)
    })
}

fn load(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rdx, qword_ptr(rsi))?;
    a.ret()
}

/// A group, whose register moves.
fn frame(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(qword_ptr(rsp + 8), rax)?;
    a.sub(rsp, 0x40)?;
    a.mov(qword_ptr(rsp + 0x50), rdi)?;
    a.mov(rdx, qword_ptr(rsp))?;
    a.mov(rax, qword_ptr(rsp + 0x18))?;
    a.hlt()
}

fn exchange(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.movsq()?;
    a.ret()
}

#[test]
fn the_index_of_a_word_is_the_upper_half() {
    let indexes: [(Program, Rule); 6] = [
        // More than 32 bits.
        (|a| a.mov(rcx, rcx), Rule::Index),
        (|a| a.shrx(rcx, rcx, r15), Rule::Address),
        // 32 bits that are no upper half.
        (|a| a.mov(ecx, esi), Rule::Address),
        (|a| a.mov(ecx, r8d), Rule::Address),
        (|a| a.mov(ecx, 5), Rule::Address),
        (
            |a| a.mov(ecx, dword_ptr(r15 + field::SCRATCH)),
            Rule::Address,
        ),
    ];
    for (number, (index_of, rule)) in indexes.into_iter().enumerate() {
        let result = windowed(load, |[hot, _], _| {
            let index = word(hot) - 1;
            replace(hot, index, host(index_of));
        });
        assert_eq!(result, Err(rule), "{number}");
    }
    for count in [31u32, 33, 0] {
        let result = windowed(load, |[hot, _], _| {
            let index = first(hot, Code::VEX_Rorx_r64_rm64_imm8);
            replace(hot, index, host(|a| a.rorx(rcx, rsi, count)));
        });
        assert_eq!(result, Err(Rule::Address), "{count}");
    }
}

#[test]
fn the_directory_is_all_that_gs_reaches() {
    let loads: [Program; 7] = [
        |a| a.mov(rcx, qword_ptr(rcx * 8).gs() + 8),
        |a| a.mov(rcx, qword_ptr(rcx * 4).gs()),
        |a| a.mov(rcx, qword_ptr(r8 + rcx * 8).gs()),
        |a| a.mov(rcx, qword_ptr(ecx * 8).gs()),
        |a| a.mov(ecx, dword_ptr(rcx * 8).gs()),
        |a| a.mov(qword_ptr(rcx * 8).gs(), rcx),
        |a| a.mov(rcx, qword_ptr(rcx * 8).fs()),
    ];
    for (number, load_of) in loads.into_iter().enumerate() {
        let result = windowed(load, |[hot, _], _| {
            let index = word(hot);
            replace(hot, index, host(load_of));
        });
        assert_eq!(result, Err(Rule::Segment), "{number}");
    }
    let without = mutant_in(User64, load, |[hot, _], _| {
        let index = first(hot, Code::VEX_Rorx_r64_rm64_imm8);
        insert(hot, index, host(|a| a.mov(rcx, qword_ptr(rcx * 8).gs())));
    });
    assert_eq!(without, Err(Rule::Segment));
}

#[test]
fn accesses_are_by_the_address_of_the_word() {
    let accesses: [Program; 4] = [
        |a| a.mov(rdx, qword_ptr(rcx + rdi)),
        |a| a.mov(rdx, qword_ptr(rcx)),
        |a| a.mov(rdx, qword_ptr(rcx + rsi * 2)),
        |a| a.mov(rdx, qword_ptr(rsi)),
    ];
    for (number, access_of) in accesses.into_iter().enumerate() {
        let result = windowed(load, |[hot, _], _| {
            let index = access(hot);
            replace(hot, index, host(access_of));
        });
        assert_eq!(result, Err(Rule::Address), "{number}");
    }
    let by_stack_segment = windowed(load, |[hot, _], _| {
        let index = access(hot);
        let far = host(|a| a.mov(rdx, qword_ptr(rsi + rcx).ss()));
        replace(hot, index, far);
    });
    assert_eq!(by_stack_segment, Err(Rule::Segment));
}

#[test]
fn operands_of_two_registers_are_near_the_one_that_the_word_is_by() {
    // RDX + RAX, of which RAX is a sign-extended doubleword; then R8 is loaded with that.
    let sum = |code: &[Instruction]| {
        find(code, |instruction| {
            instruction.mnemonic() == Mnemonic::Lea && instruction.memory_base() == Register::RDX
        })
    };
    let bounded: Program = |a| {
        a.movsxd(rax, ecx)?;
        a.mov(bl, byte_ptr(rdx + rax))?;
        a.hlt()
    };
    let sums: [(Program, Result<(), Rule>); 8] = [
        (|a| a.lea(r8, qword_ptr(rdx + rax + 0x7fff_ffff)), Ok(())),
        (|a| a.lea(r8, qword_ptr(rdx + rax - 0x7fff_ffff)), Ok(())),
        (
            |a| a.lea(r8, qword_ptr(rdx + rax * 2 + 0x7fff_ffff)),
            Ok(()),
        ),
        (
            |a| a.lea(r8, qword_ptr(rdx + rax * 2 - 1)),
            Err(Rule::Address),
        ),
        (|a| a.lea(r8, qword_ptr(rdx + rax * 4)), Err(Rule::Address)),
        (|a| a.lea(r8, qword_ptr(rdx + rsi)), Err(Rule::Address)),
        (|a| a.lea(r8, qword_ptr(rsi + rax)), Err(Rule::Address)),
        (|a| a.lea(r8, qword_ptr(rdx + rdx)), Err(Rule::Address)),
    ];
    for (number, (sum_of, expected)) in sums.into_iter().enumerate() {
        let result = windowed(bounded, |[hot, _], _| {
            let index = sum(hot);
            replace(hot, index, host(sum_of));
        });
        assert_eq!(result, expected, "{number}");
    }
    let extensions: [(Program, Result<(), Rule>); 5] = [
        (|a| a.mov(eax, ecx), Ok(())),
        (|a| a.and(rax, 0x7fff), Ok(())),
        (|a| a.mov(rax, rcx), Err(Rule::Address)),
        (|a| a.and(rax, -2), Err(Rule::Address)),
        (|a| a.shr(rax, 30), Err(Rule::Address)),
    ];
    for (number, (extension_of, expected)) in extensions.into_iter().enumerate() {
        let result = windowed(bounded, |[hot, _], _| {
            let index = first(hot, Code::Movsxd_r64_rm32);
            replace(hot, index, host(extension_of));
        });
        assert_eq!(result, expected, "{number}");
    }
}

#[test]
fn the_register_of_a_group_moves_by_constants_only() {
    let moves: [(Program, Rule); 4] = [
        (|a| a.sub(r12, rax), Rule::Address),
        (|a| a.xor(r12, 0x40), Rule::Address),
        (|a| a.mov(r12, rax), Rule::Address),
        (|a| a.sub(r12d, 0x40), Rule::Address),
    ];
    for (number, (moved, rule)) in moves.into_iter().enumerate() {
        let result = windowed(frame, |[hot, _], _| {
            let index = first(hot, Code::Sub_rm64_imm8);
            replace(hot, index, host(moved));
        });
        assert_eq!(result, Err(rule), "{number}");
    }
    let by_another = windowed(frame, |[hot, _], _| {
        let index = first(hot, Code::Sub_rm64_imm8);
        insert(hot, index, host(|a| a.mov(r10, rax)));
    });
    assert_eq!(by_another, Err(Rule::Address));
}

#[test]
fn operands_are_found_by_what_registers_hold_by_then() {
    let programs: [Program; 4] = [
        // The register of the group has moved.
        |a| {
            a.mov(qword_ptr(rsp), rax)?;
            a.mov(qword_ptr(rsp + 8), rax)?;
            a.cdqe()?;
            a.sub(rsp, 0x10_0000)?;
            a.mov(edx, dword_ptr(rsp + rax * 2))?;
            a.mov(edx, dword_ptr(rsp + 8))?;
            a.hlt()
        },
        // R9 has another copy of the bounded register.
        |a| {
            a.movzx(r8d, ax)?;
            a.mov(rdx, rbx)?;
            a.mov(qword_ptr(rsi), r8)?;
            a.mov(rcx, qword_ptr(rdi + r8 * 4))?;
            a.hlt()
        },
        // The bounded register has moved.
        |a| {
            a.movsxd(rsp, eax)?;
            a.push(rdx)?;
            a.mov(ecx, dword_ptr(rsp + rdi - 0x7000_0000))?;
            a.hlt()
        },
        |a| {
            a.and(ecx, -8)?;
            a.mov(rdx, qword_ptr(rdi + rcx * 8))?;
            a.hlt()
        },
    ];
    for (number, program) in programs.into_iter().enumerate() {
        let mut bench = Bench::new(LinearWidth::Bits48);
        let (emission, _) = emitted(&mut bench, program, Windowed64);
        assert_eq!(bench.check(&emission), Ok(()), "{number}");
    }
}

#[test]
fn scratch_registers_do_not_survive_a_fault() {
    let copied: Program = |a| {
        a.mov(rcx, rax)?;
        a.mov(qword_ptr(rsi), rdx)?;
        a.hlt()
    };
    // A word that was loaded for the instruction before.
    let early = windowed(copied, |[hot, _], _| {
        let index = word(hot);
        let loads = [index - 2, index - 1, index].map(|at| hot[at]);
        hot.drain(index - 2..=index);
        for load in loads.into_iter().rev() {
            insert(hot, 0, load);
        }
    });
    assert!(early.is_err(), "{early:?}");
    // The group's word, from where it was left for the next instruction.
    let in_context = windowed(frame, |[hot, _], _| {
        let index = store_in_group(hot);
        let loads: [Program; 2] = [
            |a| a.mov(r9, qword_ptr(r15 + field::SCRATCH)),
            |a| a.movzx(r9d, byte_ptr(r9 + r12)),
        ];
        for load in loads.into_iter().rev() {
            insert(hot, index, host(load));
        }
        let before = first(hot, Code::Sub_rm64_imm8);
        let store = host(|a| a.mov(qword_ptr(r15 + field::SCRATCH), r10));
        insert(hot, before, store);
    });
    assert_eq!(in_context, Err(Rule::Address));
}

/// The second store of [`frame`], all of whose code that is.
fn store_in_group(code: &[Instruction]) -> usize {
    find(code, |instruction| {
        instruction.memory_base() == Register::R10 && instruction.op1_register() == Register::RDI
    })
}

#[test]
fn the_word_of_a_group_is_kept_until_the_last_access() {
    let loads: [Program; 3] = [
        |a| a.rorx(r10, r12, HALF),
        |a| a.mov(r10d, r10d),
        |a| a.mov(r10, qword_ptr(r10 * 8).gs()),
    ];
    let access: Program = |a| a.movzx(r9d, byte_ptr(r10 + r12));
    let anew = |accesses: &[Program]| {
        windowed(frame, |[hot, _], _| {
            let index = store_in_group(hot);
            for &other in loads.iter().rev().chain(accesses) {
                insert(hot, index, host(other));
            }
        })
    };
    assert_eq!(anew(&[]), Ok(()));
    assert_eq!(anew(&[access]), Err(Rule::Address));
}

#[test]
fn slots_do_not_survive_a_fault() {
    let by_table: Program = |a| {
        a.bt(qword_ptr(rsi), rax)?;
        a.mov(rdx, rdi)?;
        a.hlt()
    };
    let access: Program = |a| a.movzx(r9d, byte_ptr(r10));
    let kept = windowed(by_table, |[hot, _], _| {
        let index = find(hot, |instruction| {
            instruction.op0_register() == Register::RDX
                && instruction.op1_register() == Register::RDI
        });
        insert(hot, index, host(access));
        let index = find(hot, |instruction| {
            instruction.memory_base() == Register::R8 && instruction.memory_index() == Register::RCX
        });
        insert(hot, index, host(|a| a.lea(r10, ptr(r8 + rcx - 1))));
    });
    assert_eq!(kept, Err(Rule::Address));
}

#[test]
fn code_that_may_fault_is_entered_where_it_begins() {
    let behind_another: Program = |a| {
        a.jz(0x300)?;
        load(a)
    };
    let over = windowed(behind_another, |[hot, _], _| {
        let index = first(hot, Code::VEX_Rorx_r64_rm64_imm8);
        insert(hot, index, host(|a| a.mov(r9d, 0)));
        let behind = 1 << 20;
        hot[index + 1].set_ip(behind);
        let jump = Instruction::with_branch(Code::Jrcxz_rel8_64, behind);
        insert_behind(hot, index, jump.expect("a branch"));
    });
    assert_eq!(over, Err(Rule::Restart));
}

#[test]
fn every_access_can_begin_anew() {
    let changes: [(Program, Rule); 4] = [
        (|a| a.mov(rbx, rax), Rule::Restart),
        (|a| a.cmp(rax, rdi), Rule::Restart),
        (
            |a| a.mov(qword_ptr(r15 + field::GS_BASE), rax),
            Rule::Restart,
        ),
        (|a| a.push(rax), Rule::Stack),
    ];
    for (number, (change, rule)) in changes.into_iter().enumerate() {
        for place in [word, access] {
            let result = windowed(load, |[hot, _], _| {
                let index = place(hot);
                insert(hot, index, host(change));
            });
            assert_eq!(result, Err(rule), "{number}");
        }
    }
    // A second access by the same word is no exception: the page may be shown for reading only.
    let again = windowed(exchange, |[hot, _], _| {
        let store = find(hot, |instruction| {
            instruction.memory_base() == Register::RCX && instruction.op0_kind() == OpKind::Memory
        });
        let twice = hot[store];
        insert(hot, store, twice);
    });
    assert_eq!(again, Err(Rule::Restart));
}
