//! Small programs on both engines: registers, flags and memory must agree.

use crate::{CpuModel, EmptyBus, Engine, Exit, Vcpu};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mmu::{GuestPhys, Mmu, PhysMemory};

const ORIGIN: u32 = 0x0010_0000;
const STACK: u32 = 0x0020_0000;
const MEMORY: u64 = 4 << 20;

/// Runs `code` to its HLT on `engine`.
fn run(engine: Engine, code: &[u8]) -> Vcpu {
    let mut phys = PhysMemory::new(MEMORY).expect("memory");
    phys.write(GuestPhys::new(ORIGIN.into()), code)
        .expect("code fits");
    let mmu = Mmu::new(phys).expect("tables");
    let mut vcpu = Vcpu::with_engine(CpuModel::default(), engine, mmu).expect("processor");
    vcpu.set_linux_entry(ORIGIN, 0);
    vcpu.cpu.regs.set(4, STACK);
    for _ in 0..10_000 {
        match vcpu.run(&mut EmptyBus, 1000) {
            Exit::Budget => {}
            Exit::Halt => return vcpu,
            other => panic!("{engine:?}: {other:?} at {:#x}", vcpu.cpu.eip),
        }
    }
    panic!("{engine:?} does not halt: EIP {:#x}", vcpu.cpu.eip);
}

fn agree(program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vcpu {
    let mut assembler = CodeAssembler::new(32).expect("32 bits");
    program(&mut assembler).expect("a program");
    let code = assembler.assemble(ORIGIN.into()).expect("assembles");
    let reference = run(Engine::Emulator, &code);
    let translated = run(Engine::Translator, &code);
    assert_eq!(reference.cpu.regs, translated.cpu.regs);
    assert_eq!(reference.cpu.eip, translated.cpu.eip);
    assert_eq!(reference.cpu.eflags, translated.cpu.eflags);
    let bytes = |vcpu: &Vcpu| {
        let mut bytes = vec![0; MEMORY as usize - STACK as usize / 2];
        vcpu.mmu
            .phys
            .read(GuestPhys::new(u64::from(STACK) / 2), &mut bytes)
            .expect("memory");
        bytes
    };
    assert!(bytes(&reference) == bytes(&translated), "memory differs");
    translated
}

#[test]
fn straight_line_arithmetic() {
    agree(|a| {
        a.mov(eax, 5)?;
        a.add(eax, eax)?;
        a.lea(ecx, ptr(eax + eax * 4 + 7))?;
        a.sub(ecx, 1000)?;
        a.hlt()
    });
}

#[test]
fn a_loop_within_the_page() {
    let vcpu = agree(|a| {
        let mut again = a.create_label();
        a.mov(ecx, 100)?;
        a.xor(eax, eax)?;
        a.set_label(&mut again)?;
        a.add(eax, ecx)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
    assert_eq!(vcpu.cpu.regs.get(0), 5050);
}

#[test]
fn loads_and_stores() {
    agree(|a| {
        a.mov(ebx, STACK as i32)?;
        a.mov(dword_ptr(ebx + 4), 0x1234_5678)?;
        a.add(byte_ptr(ebx + 5), 0x77)?;
        a.mov(ecx, dword_ptr(ebx + 5))?;
        a.movzx(edx, word_ptr(ebx + 4))?;
        a.mov(esi, dword_ptr(ebx + 4))?;
        a.adc(dword_ptr(ebx + 8), esi)?;
        a.hlt()
    });
}

#[test]
fn calls_and_the_stack() {
    agree(|a| {
        let mut function = a.create_label();
        let mut over = a.create_label();
        a.jmp(over)?;
        a.set_label(&mut function)?;
        a.push(ebp)?;
        a.mov(ebp, esp)?;
        a.mov(eax, dword_ptr(ebp + 8))?;
        a.imul_3(eax, eax, 3)?;
        a.leave()?;
        a.ret_1(4u32)?;
        a.set_label(&mut over)?;
        a.push(14)?;
        a.call(function)?;
        a.push(eax)?;
        a.push(dword_ptr(esp))?;
        a.pop(edx)?;
        a.mov(edi, esp)?;
        a.hlt()
    });
}
