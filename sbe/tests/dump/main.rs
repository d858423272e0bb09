//! The code emitted for small programs, as `Vcpu::dump_code` shows it, compared with the text files of this folder.
//!
//! `UPDATE_GOLDEN=1 cargo test -p sbe --test dump` rewrites the files; what has changed in them is to be looked at.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mmu::{GuestPhys, Memory, Mmu};
use sbe::cpu::control::CR4_OSFXSR;
use sbe::{EmptyBus, Engine, Exit, NoDump, Vcpu, VcpuConfig};
use std::path::PathBuf;
use std::{env, fs};

const ORIGIN: u32 = 0x0010_0000;
const DATA: u32 = 0x0018_0000;
const STACK: u32 = 0x0020_0000;
const MEMORY: u64 = 4 << 20;

type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// A processor that has run `program` to its HLT, with ESI at data and ESP at `stack`.
fn run(engine: Engine, stack: u32, program: Program) -> Vcpu {
    let mut assembler = CodeAssembler::new(32).expect("32 bits");
    program(&mut assembler).expect("a program");
    let code = assembler.assemble(ORIGIN.into()).expect("assembles");
    let phys = Memory::new(MEMORY).expect("memory");
    phys.write(GuestPhys::new(ORIGIN.into()), &code)
        .expect("code fits");
    let mmu = Mmu::new(phys).expect("tables");
    let config = VcpuConfig {
        engine,
        record_code: true,
        ..VcpuConfig::default()
    };
    let mut vcpu = Vcpu::new(&config, mmu).expect("processor");
    vcpu.set_linux_entry(ORIGIN, DATA);
    vcpu.cpu.cr4 |= CR4_OSFXSR;
    vcpu.cpu.regs.set(4, stack);
    let exit = vcpu.run(&mut EmptyBus, 1000);
    assert_eq!(exit, Exit::Halt, "at {:#x}", vcpu.cpu.eip);
    vcpu
}

/// Compares the dump of the first page of `program` with the file `name`.txt.
#[track_caller]
fn golden(name: &str, stack: u32, program: Program) {
    let vcpu = run(Engine::Translator, stack, program);
    let dump = vcpu.dump_code(ORIGIN.into()).expect("a dump");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/dump")
        .join(name)
        .with_extension("txt");
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &dump).expect("the file can be written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let lines = expected.lines().chain(["(end)"]);
    let mut pairs = lines.zip(dump.lines().chain(["(end)"])).enumerate();
    let difference = pairs.find(|(_, (expected, dumped))| expected != dumped);
    if let Some((index, (expected, dumped))) = difference {
        panic!(
            "{} differs from line {} on:\n  {expected}\nis now\n  {dumped}\nIf it should, rewrite the files: \
             UPDATE_GOLDEN=1 cargo test -p sbe --test dump",
            path.display(),
            index + 1
        );
    }
}

#[test]
fn arithmetic_with_memory() {
    golden("arithmetic", STACK, |a| {
        a.mov(eax, dword_ptr(esi))?;
        a.add(dword_ptr(esi + 4), eax)?;
        a.adc(ecx, dword_ptr(esi + ebx * 4 + 8))?;
        a.movzx(edx, byte_ptr(DATA))?;
        a.nop()?;
        a.shl(edx, cl)?;
        a.hlt()
    });
}

/// Accesses enough for a group, to a page that has been written before.
fn frame(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(dword_ptr(STACK - 4), eax)?;
    a.push(ebp)?;
    a.mov(ebp, esp)?;
    a.push(ebx)?;
    a.sub(esp, 8)?;
    a.mov(dword_ptr(esp), eax)?;
    a.mov(ebx, dword_ptr(esp + 4))?;
    a.add(esp, 8)?;
    a.pop(ebx)?;
    a.pop(ebp)?;
    a.hlt()
}

#[test]
fn a_stack_frame_in_one_page() {
    golden("frame", STACK - 0x100, frame);
}

#[test]
fn a_stack_frame_across_two_pages() {
    golden("frame_across", STACK + 8, frame);
}

#[test]
fn a_loop() {
    golden("loop", STACK, |a| {
        let mut again = a.create_label();
        a.mov(ecx, 10)?;
        a.set_label(&mut again)?;
        a.add(eax, ecx)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
}

#[test]
fn a_call() {
    golden("call", STACK, |a| {
        let (mut function, mut over) = (a.create_label(), a.create_label());
        a.jmp(over)?;
        a.set_label(&mut function)?;
        a.inc(eax)?;
        a.ret()?;
        a.set_label(&mut over)?;
        a.call(function)?;
        a.hlt()
    });
}

#[test]
fn flags_with_cpl_0() {
    golden("flags", STACK, |a| {
        a.pushfd()?;
        a.cli()?;
        a.popfd()?;
        a.sti()?;
        a.nop()?;
        a.cli()?;
        a.hlt()
    });
}

#[test]
fn a_repeated_string() {
    golden("rep_movs", STACK, |a| {
        a.mov(ecx, 16)?;
        a.lea(edi, ptr(esi + 0x100))?;
        a.rep().movsd()?;
        a.hlt()
    });
}

#[test]
fn x87() {
    golden("x87", STACK, |a| {
        a.fninit()?;
        a.fld(qword_ptr(esi))?;
        a.fld1()?;
        a.faddp(st1, st0)?;
        a.fstp(dword_ptr(esi + 8))?;
        a.hlt()
    });
}

#[test]
fn privileged_instructions() {
    golden("privileged", STACK, |a| {
        a.inc(ebx)?;
        a.mov(eax, cr0)?;
        a.mov(cr0, eax)?;
        a.invlpg(ptr(esi))?;
        a.hlt()
    });
}

#[test]
fn an_instruction_across_two_pages() {
    golden("page_end", STACK, |a| {
        let mut over = a.create_label();
        a.jmp(over)?;
        for _ in 5..0xffd {
            a.nop()?;
        }
        a.add(dword_ptr(eax), 0x1234_5678)?;
        a.hlt()?;
        // The next page is known by the time the instruction across its begin is reached.
        a.set_label(&mut over)?;
        a.mov(eax, DATA)?;
        a.mov(ecx, ORIGIN + 0xffd)?;
        a.jmp(ecx)
    });
}

#[test]
fn what_cannot_be_dumped() {
    let vcpu = run(Engine::Translator, STACK, |a| a.hlt());
    assert!(vcpu.dump_code((ORIGIN + 0xfff).into()).is_ok());
    assert_eq!(vcpu.dump_code(DATA.into()), Err(NoDump::NothingTranslated));
    let vcpu = run(Engine::Emulator, STACK, |a| a.hlt());
    assert_eq!(vcpu.dump_code(ORIGIN.into()), Err(NoDump::NoTranslator));
}
