//! Instructions that must not be there, and registers that they must not write.

use super::*;

#[test]
fn only_known_instructions() {
    let instructions: [(&str, &[u8]); 37] = [
        ("syscall", &[0x0f, 0x05]),
        ("sysenter", &[0x0f, 0x34]),
        ("sysret", &[0x48, 0x0f, 0x07]),
        ("int 0x80", &[0xcd, 0x80]),
        ("int3", &[0xcc]),
        ("in al, dx", &[0xec]),
        ("out dx, al", &[0xee]),
        ("insb", &[0x6c]),
        ("hlt", &[0xf4]),
        ("cli", &[0xfa]),
        ("sti", &[0xfb]),
        ("std", &[0xfd]),
        ("iretq", &[0x48, 0xcf]),
        ("retf", &[0xcb]),
        ("ret 8", &[0xc2, 8, 0]),
        ("jmp far [rbx]", &[0xff, 0x2b]),
        ("call far [rbx]", &[0xff, 0x1b]),
        ("call rax", &[0xff, 0xd0]),
        ("mov ds, ax", &[0x8e, 0xd8]),
        ("mov eax, ds", &[0x8c, 0xd8]),
        ("mov cr3, rax", &[0x0f, 0x22, 0xd8]),
        ("mov rax, dr7", &[0x0f, 0x21, 0xf8]),
        ("lgdt [rbx]", &[0x0f, 0x01, 0x13]),
        ("rdmsr", &[0x0f, 0x32]),
        ("wrgsbase rax", &[0xf3, 0x48, 0x0f, 0xae, 0xd8]),
        ("xsave [rbx]", &[0x0f, 0xae, 0x23]),
        ("fxrstor [r15]", &[0x41, 0x0f, 0xae, 0x0f]),
        ("ldmxcsr [r15]", &[0x41, 0x0f, 0xae, 0x17]),
        ("popfq", &[0x9d]),
        ("pushfq", &[0x9c]),
        ("leave", &[0xc9]),
        ("movsb", &[0xa4]),
        ("lodsb", &[0xac]),
        ("xlat", &[0xd7]),
        ("ud2", &[0x0f, 0x0b]),
        ("loop", &[0xe2, 0x00]),
        ("add rax, rbx", &[0x48, 0x01, 0xd8]),
    ];
    for (name, bytes) in instructions {
        let instruction = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
        assert!(!instruction.is_invalid(), "{name}");
        let result = mutant(load, |[hot, _], _| {
            let index = first(hot, Code::Retnq);
            let mut instruction = instruction;
            if name == "loop" {
                instruction.set_near_branch64(hot[index].ip());
            }
            insert_behind(hot, index, instruction);
        });
        assert_eq!(result, Err(Rule::Instruction), "{name}");
    }
}

#[test]
fn pinned_registers_stay() {
    type Write = (Program, usize);
    let writes: [Write; 12] = [
        (|a| a.mov(r14, rax), 14),
        (|a| a.mov(r15d, eax), 15),
        (|a| a.xor(r14d, r14d), 14),
        (|a| a.lea(r15, ptr(r15 + 8)), 15),
        (|a| a.mov(r13d, eax), 13),
        (|a| a.mov(r13, r15), 13),
        (|a| a.lea(r13d, ptr(r13 + 1)), 13),
        (|a| a.inc(r13d), 13),
        (|a| a.mov(rsp, rax), 4),
        (|a| a.lea(rsp, ptr(rsp - 8)), 4),
        (|a| a.pop(r14), 14),
        (|a| a.setc(r15b), 15),
    ];
    for (number, (write, register)) in writes.into_iter().enumerate() {
        let result = mutant(load, |[hot, _], _| {
            let index = first(hot, Code::Retnq);
            if number == 10 {
                insert_behind(hot, index, host(|a| a.push(rax)));
            }
            insert_behind(hot, index + usize::from(number == 10), host(write));
        });
        let rule = match number {
            // An address by RSP is refused already.
            9 => Rule::Pinned(4),
            _ => Rule::Pinned(register),
        };
        assert_eq!(result, Err(rule), "{number}");
    }
    let entered_elsewhere = mutant(load, |[hot, _], _| {
        let displacement = hot[0].memory_displacement64();
        hot[0].set_memory_displacement64(displacement - 1);
    });
    assert_eq!(entered_elsewhere, Err(Rule::Pinned(13)));
}

#[test]
fn guest_registers_leave_with_32_bits() {
    let result = mutant(load, |[hot, _], _| {
        let index = first(hot, Code::Retnq);
        insert_behind(hot, index, host(|a| a.lea(rbx, ptr(rbx + rcx))));
    });
    assert_eq!(result, Err(Rule::Wide(3)));
    let narrowed = mutant(load, |[hot, _], _| {
        let index = first(hot, Code::Retnq);
        insert_behind(hot, index, host(|a| a.mov(ebx, ebx)));
        insert_behind(hot, index, host(|a| a.lea(rbx, ptr(rbx + rcx))));
    });
    assert_eq!(narrowed, Ok(()));
    let before_a_miss = mutant(load, |[hot, _], _| {
        let index = table(hot);
        insert_behind(hot, index, host(|a| a.not(rdi)));
    });
    assert_eq!(before_a_miss, Err(Rule::Wide(7)));
}

#[test]
fn divisions_are_checked() {
    for guest in [divide as Program, divide_signed] {
        let divides = |instruction: &Instruction| {
            matches!(instruction.mnemonic(), Mnemonic::Div | Mnemonic::Idiv)
        };
        let of_another = mutant(guest, |[hot, _], _| {
            let index = find(hot, divides);
            hot[index].set_op0_register(Register::ESI);
        });
        assert_eq!(of_another, Err(Rule::Division));
        let of_more = mutant(guest, |[hot, _], _| {
            let index = find(hot, divides);
            insert(hot, index, host(|a| a.mov(edx, esi)));
        });
        assert_eq!(of_more, Err(Rule::Division));
        let unlike = mutant(guest, |[hot, _], _| {
            let index = find(hot, divides);
            insert(hot, index, host(|a| a.mov(r8d, esi)));
        });
        assert_eq!(unlike, Err(Rule::Division));
        let of_less = mutant(guest, |[hot, _], _| {
            let index = find(hot, divides);
            replace(hot, index, host(|a| a.div(r8b)));
        });
        assert_eq!(of_less, Err(Rule::Division));
    }
}

#[test]
fn the_fpu_is_the_guests() {
    let unchecked = mutant(float, |[hot, _], _| {
        let index = first(hot, Code::Mov_r64_rm64);
        replace(hot, index, host(|a| a.mov(rcx, qword_ptr(r15 - 10))));
    });
    assert_eq!(unchecked, Err(Rule::Fpu));
    let too_early = mutant(float, |[hot, _], _| {
        insert_behind(hot, 1, host(|a| a.emms()));
    });
    assert_eq!(too_early, Err(Rule::Fpu));
    let unmasking = mutant(control_word, |[hot, _], _| {
        let index = find(hot, |instruction| {
            instruction.code() == Code::VEX_Shlx_r32_rm32_r32
        });
        replace(hot, index, host(|a| a.shlx(ecx, r9d, r13d)));
    });
    assert_eq!(unmasking, Err(Rule::ControlWord));
    let another = mutant(control_word, |[hot, _], _| {
        let index = first(hot, Code::Fldcw_m2byte);
        insert(hot, index, host(|a| a.mov(byte_ptr(r8), al)));
    });
    // The word was probed for reading.
    assert_eq!(another, Err(Rule::ReadSlot));
}
