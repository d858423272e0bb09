//! Control that goes where it must not.

use super::*;

#[test]
fn branches_lead_to_instructions() {
    for (distance, rule) in [(1, Rule::Target), (0x10_0000, Rule::Target)] {
        let result = mutant(store, |[_, cold], _| {
            let index = first(cold, Code::Jmp_rel32_64);
            let target = cold[index].near_branch_target() + distance;
            cold[index].set_near_branch64(target);
        });
        assert_eq!(result, Err(rule), "{distance}");
    }
    let looping = mutant(store, |[hot, _], _| {
        let index = first(hot, Code::Retnq);
        let target = hot[1].ip();
        replace(hot, index, host(|a| a.jmp(target)));
    });
    assert_eq!(looping, Err(Rule::Loop));
    let falling = mutant(store, |[_, cold], _| {
        cold.pop();
    });
    assert_eq!(falling, Err(Rule::FallsOff));
    for wrong in [1, 2, 0x40] {
        let inside_a_trampoline = mutant(store, |[_, cold], trampolines| {
            let index = first(cold, Code::Call_rel32_64);
            cold[index].set_near_branch64(u64::from(trampolines.at(Trampoline::LoadFpu)) + wrong);
        });
        // A call that is none of a trampoline's is taken for the guest's.
        assert_eq!(inside_a_trampoline, Err(Rule::Stack), "{wrong}");
    }
}

#[test]
fn bytes_are_instructions() {
    let mut bench = Bench::new(LinearWidth::Bits32);
    let (emission, _) = emitted(&mut bench, store, Mode::User);
    let mut cut = emission.clone();
    cut.code[1].pop();
    let rule = bench.check(&cut).map_err(|violation| violation.rule);
    assert_eq!(rule, Err(Rule::Undecodable));
    let mut more = emission.clone();
    more.code[0].extend([0x31, 0xc0]);
    let rule = bench.check(&more).map_err(|violation| violation.rule);
    assert_eq!(rule, Err(Rule::Unreachable));
    let mut undefined = emission;
    undefined.code[0].push(0x06);
    let rule = bench.check(&undefined).map_err(|violation| violation.rule);
    assert_eq!(rule, Err(Rule::Undecodable));
}

#[test]
fn the_stack_is_level_where_control_leaves() {
    for (code, rule) in [
        (host(|a| a.push(rax)), Rule::Stack),
        (host(|a| a.pop(rax)), Rule::Stack),
    ] {
        let result = mutant(load, |[hot, _], _| {
            let index = first(hot, Code::Retnq);
            insert_behind(hot, index, code);
        });
        assert_eq!(result, Err(rule));
    }
    let before_a_miss = mutant(load, |[hot, _], _| {
        let index = table(hot);
        insert_behind(hot, index, host(|a| a.push(rax)));
    });
    assert_eq!(before_a_miss, Err(Rule::Stack));
    let no_page = mutant(call, |[hot, _], _| {
        let index = first(hot, Code::Push_r64);
        replace(hot, index, host(|a| a.push(rax)));
    });
    assert_eq!(no_page, Err(Rule::Stack));
    let nothing = mutant(call, |[hot, _], _| {
        let index = first(hot, Code::Push_r64);
        hot.remove(index);
    });
    assert_eq!(nothing, Err(Rule::Stack));
    let not_popped = mutant(call, |[hot, _], _| {
        let index = first(hot, Code::Pop_r64);
        replace(hot, index, host(|a| a.mov(r9, r13)));
    });
    assert_eq!(not_popped, Err(Rule::Stack));
}

#[test]
fn calls_count_polls() {
    let uncounted = mutant(call, |[hot, _], _| {
        let index = find(hot, |instruction| {
            instruction.code() == Code::Mov_rm32_r32 && instruction.memory_base() == Register::R15
        });
        hot.remove(index);
    });
    assert_eq!(uncounted, Err(Rule::Poll));
    let not_less = mutant(call, |[hot, _], _| {
        let index = find(hot, |instruction| {
            instruction.code() == Code::Lea_r32_m && instruction.memory_base() == Register::RCX
        });
        hot.remove(index);
    });
    assert_eq!(not_less, Err(Rule::Field));
    let untested = mutant(call, |[hot, _], _| {
        let index = first(hot, Code::Jrcxz_rel8_64);
        // Another register is tested.
        insert(hot, index, host(|a| a.mov(ecx, eax)));
    });
    assert_eq!(untested, Err(Rule::Poll));
}

#[test]
fn indirect_jumps_are_dispatched() {
    let jumps: [Program; 3] = [
        |a| a.jmp(rax),
        |a| a.jmp(rcx),
        |a| a.jmp(qword_ptr(r15 + 16)),
    ];
    for jump in jumps {
        let result = mutant(load, |[hot, _], _| {
            let index = first(hot, Code::Retnq);
            replace(hot, index, host(jump));
        });
        assert_eq!(result, Err(Rule::Indirect));
    }
    let no_target = mutant(load, |[hot, _], _| {
        let index = first(hot, Code::Retnq);
        insert_behind(hot, index, host(|a| a.mov(r8, r15)));
    });
    assert_eq!(no_target, Err(Rule::Contract(Need::Word8)));
}

#[test]
fn links_lead_to_entries() {
    let mut bench = Bench::new(LinearWidth::Bits32);
    let jump: Program = |a| a.jmp(0x300);
    let far: Program = |a| a.jmp(0x2300);
    let (target, _) = emitted(&mut bench, store, Mode::Supervisor);
    bench.check(&target).expect("is good");
    let entry = target.origins[0];
    let inside = entry + crate::translate::emit::entry_bytes(LinearWidth::Bits32);
    let mut after = |guest, mode| {
        let (emission, code) = emitted(&mut bench, guest, mode);
        bench.check(&emission).expect("is good");
        let mut branches = code[0].iter();
        let branch = branches.rfind(|instruction| instruction.op0_kind() == OpKind::NearBranch64);
        branch.expect("there is one").next_ip() as u32
    };
    let near = after(jump, Mode::Supervisor);
    let other_level = after(jump, Mode::User);
    let across = after(far, Mode::Supervisor);
    let same_offset = after(|a| a.jmp(0x1200), Mode::Supervisor);
    let may = |after, target| bench.checker.link(after, target).is_ok();
    assert!(may(near, inside));
    assert!(!may(near, entry), "EIP is not in R8");
    assert!(!may(near, inside + 1));
    assert!(!may(near + 1, inside));
    assert!(!may(other_level, inside));
    assert!(
        !may(near, bench.trampolines.at(Trampoline::Dispatch)),
        "EIP is not in R8"
    );
    assert!(may(across, bench.trampolines.at(Trampoline::Dispatch)));
    assert!(!may(across, bench.trampolines.at(Trampoline::LoadFpu)));
    assert!(!may(across, bench.trampolines.at(Trampoline::Dispatch) + 1));
    assert!(!may(across, entry), "the entry is for another offset");
    assert!(may(same_offset, entry));
    assert!(bench.checker.number(near).is_err());
    bench.checker.clear();
    assert!(bench.checker.link(near, inside).is_err());
}
