//! Good fragments, each broken in one way.

use super::super::rule::{Need, Rule};
use super::*;
use crate::translate::context::{WRITE_TABLE, field};
use crate::translate::trampoline::Trampoline;
use iced_x86::code_asm::*;
use iced_x86::{
    BlockEncoder, BlockEncoderOptions, Code, Decoder, DecoderOptions, IcedError, Instruction,
    InstructionBlock, Mnemonic, OpKind, Register,
};

const AT: u32 = 0x200;

/// Instructions of a fragment, hot and cold.
type Code2 = [Vec<Instruction>; 2];

/// The guest's code and what it is made into in `mode`.
fn emitted(bench: &mut Bench, guest: Program, mode: Mode) -> (Emission, Code2) {
    let mut assembler = CodeAssembler::new(32).expect("32 bits");
    guest(&mut assembler).expect("a program");
    let bytes = assembler.assemble(AT.into()).expect("assembles");
    let (emission, _) = bench.emit(&bytes, AT, mode).expect("is emitted");
    let code = [0, 1].map(|section| {
        let ip = emission.origins[section].into();
        let bytes = &emission.code[section];
        Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE)
            .into_iter()
            .collect()
    });
    (emission, code)
}

fn encode(emission: &Emission, code: &Code2) -> Emission {
    let blocks = [0, 1]
        .map(|section| InstructionBlock::new(&code[section], emission.origins[section].into()));
    let encoded =
        BlockEncoder::encode_slice(64, &blocks, BlockEncoderOptions::NONE).expect("can be encoded");
    let mut changed = emission.clone();
    for (bytes, result) in changed.code.iter_mut().zip(encoded) {
        *bytes = result.code_buffer;
    }
    changed
}

type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// What the checker finds when `change` has been made to `guest`'s code. Unchanged it finds nothing.
fn mutant(guest: Program, change: impl FnOnce(&mut Code2, &Trampolines)) -> Result<(), Rule> {
    mutant_in(Mode::Supervisor, guest, change)
}

/// As [`mutant`], of code executed in `mode`.
fn mutant_in(
    mode: Mode,
    guest: Program,
    change: impl FnOnce(&mut Code2, &Trampolines),
) -> Result<(), Rule> {
    let mut bench = Bench::new();
    let (emission, mut code) = emitted(&mut bench, guest, mode);
    let same = encode(&emission, &code);
    assert_eq!(bench.check(&same), Ok(()), "unchanged");
    let before = code.clone();
    change(&mut code, &bench.trampolines);
    assert_ne!(before, code, "nothing was changed");
    let changed = encode(&emission, &code);
    bench.check(&changed).map_err(|violation| violation.rule)
}

/// The first instruction that `is` one.
fn find(code: &[Instruction], is: impl Fn(&Instruction) -> bool) -> usize {
    code.iter().position(is).expect("there is one")
}

fn first(code: &[Instruction], wanted: Code) -> usize {
    find(code, |instruction| instruction.code() == wanted)
}

/// The first access to guest memory: by an address and RCX.
fn access(code: &[Instruction]) -> usize {
    find(code, |instruction| {
        instruction.memory_index() == Register::RCX
            && instruction.memory_base() != Register::R14
            && instruction.mnemonic() != Mnemonic::Lea
    })
}

/// The first load from a table.
fn table(code: &[Instruction]) -> usize {
    find(code, |instruction| {
        instruction.memory_base() == Register::R14
    })
}

/// One host instruction.
fn host(program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Instruction {
    let mut assembler = CodeAssembler::new(64).expect("64 bits");
    program(&mut assembler).expect("an instruction");
    assembler.instructions()[0]
}

/// `instruction` in the place of the one at `index`, as a target of the same branches.
fn replace(code: &mut [Instruction], index: usize, mut instruction: Instruction) {
    instruction.set_ip(code[index].ip());
    code[index] = instruction;
}

/// `instruction` before the one at `index`, as a target of the branches that led there.
fn insert(code: &mut Vec<Instruction>, index: usize, instruction: Instruction) {
    let ip = code[index].ip();
    code.insert(index, instruction);
    code[index + 1].set_ip(0);
    code[index].set_ip(ip);
}

/// As [`insert`], behind the branches.
fn insert_behind(code: &mut Vec<Instruction>, index: usize, instruction: Instruction) {
    code.insert(index, instruction);
}

fn store(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(dword_ptr(ebx + 8), eax)?;
    a.ret()
}

fn load(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(edx, dword_ptr(esi))?;
    a.ret()
}

fn call(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.call(0x300)
}

fn fill(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.rep().stosb()?;
    a.ret()
}

fn divide(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.div(ebx)?;
    a.ret()
}

fn divide_signed(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.idiv(ebx)?;
    a.ret()
}

fn float(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.fchs()?;
    a.ret()
}

fn control_word(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.fldcw(word_ptr(ebx))?;
    a.ret()
}

fn moves(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.movups(xmm0, xmmword_ptr(ebx))?;
    a.movaps(xmm1, xmmword_ptr(esi))?;
    a.ret()
}

fn frame(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(eax, dword_ptr(ebp - 4))?;
    a.mov(dword_ptr(ebp - 8), eax)?;
    a.mov(edx, dword_ptr(ebp - 12))?;
    a.add(edx, dword_ptr(ebp + 8))?;
    a.jmp(0x300)
}

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
    let accesses: [Access; 15] = [
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

#[test]
fn windows_are_the_guests() {
    let accesses: [Program; 4] = [
        |a| a.mov(eax, dword_ptr(ebx).gs()),
        |a| a.add(dword_ptr(ebx + edi * 8 + 0x1234).gs(), eax),
        |a| a.movzx(edx, byte_ptr(r12d + r11d).gs()),
        |a| a.mov(byte_ptr(edi).gs(), al),
    ];
    for access in accesses {
        let result = Mode::ALL.map(|mode| {
            mutant_in(mode, load, |[hot, _], _| {
                let index = first(hot, Code::Retnq);
                insert(hot, index, host(access));
            })
        });
        let elsewhere = Err(Rule::Segment);
        assert_eq!(result, [elsewhere, elsewhere, Ok(())]);
    }
}

#[test]
fn only_known_instructions() {
    let instructions: [(&str, &[u8]); 38] = [
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
        ("lock inc eax", &[0xf0, 0xff, 0x03]),
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
    let mut bench = Bench::new();
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
    let end = size_of::<crate::translate::context::Context>() as i32;
    for offset in [-11, -100, end - 10 - 3, end] {
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
    let backward = mutant(fill, |[hot, _], _| {
        let index = find(hot, |instruction| {
            instruction.code() == Code::Lea_r32_m && instruction.op0_register() == Register::EDI
        });
        hot.remove(index);
    });
    assert_eq!(backward, Err(Rule::Wide(7)));
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
fn links_lead_to_entries() {
    let mut bench = Bench::new();
    let jump: Program = |a| a.jmp(0x300);
    let far: Program = |a| a.jmp(0x2300);
    let (target, _) = emitted(&mut bench, store, Mode::Supervisor);
    bench.check(&target).expect("is good");
    let entry = target.origins[0];
    let inside = entry + crate::translate::emit::ENTRY_BYTES;
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
