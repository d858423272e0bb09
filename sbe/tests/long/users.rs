//! 64-bit programs at CPL 3, on the emulator, and on the translator by tables and through windows.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mmu::GuestPhys;
use sbe::cpu::regs::{EDI, ESI};
use sbe::{EmptyBus, Engine, Exit, Vcpu, VcpuConfig, Windows};

use super::{CpuModel, GDT, HANDLER, HIGH, STACK, TABLES};
use super::{booted_with, config, place, poke};

const USER_DATA: u16 = 0x23;
const USER_CODE64: u16 = 0x2b;
const TASK: u16 = 0x30;
const TASK_STATE: u32 = 0x3000;
/// Where the program lies, and the memory that it may only read.
const PROGRAM: u32 = 0x80_0000;
const READ_ONLY: u64 = 0xa0_0000;
const SOURCE: u64 = 0xc0_0000;
const TARGET: u64 = 0xd0_0000;
/// The bytes of each part of memory that is compared.
const BYTES: usize = 0x8000;

type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// Runs `program`, which ends with a fault, on each engine; they must agree. Returns the processors of the translator.
fn agree(program: Program) -> [Vcpu; 2] {
    let on = |engine, windows| {
        let config = VcpuConfig {
            windows,
            ..config(CpuModel::X86_64, engine)
        };
        let mut vcpu = at_program(&config, program);
        run_to_end(&mut vcpu);
        vcpu
    };
    let reference = on(Engine::Emulator, Windows::Never);
    let others = [Windows::Never, Windows::Always].map(|windows| on(Engine::Translator, windows));
    for other in &others {
        let registers =
            |vcpu: &Vcpu| -> [u64; 16] { std::array::from_fn(|at| vcpu.cpu.regs.get64(at as u8)) };
        assert_eq!(registers(&reference), registers(other));
        assert_eq!(reference.cpu.cr2, other.cpu.cr2);
        assert!(memory(&reference) == memory(other), "memory differs");
    }
    let [_, windowed] = &others;
    let faults = windowed.translation().map(|stats| stats.exits.window);
    assert!(faults > Some(0), "no access went through the window");
    others
}

/// The memory that programs write, and the kernel's stack.
fn memory(vcpu: &Vcpu) -> Vec<u8> {
    let mut bytes = [0; 3 * BYTES];
    let starts = [SOURCE, TARGET, STACK - BYTES as u64];
    for (start, part) in starts.into_iter().zip(bytes.chunks_exact_mut(BYTES)) {
        let at = GuestPhys::new(start);
        vcpu.mmu.memory().read(at, part).expect("RAM");
    }
    bytes.to_vec()
}

/// Runs until the handler of the program's last fault halts.
fn run_to_end(vcpu: &mut Vcpu) {
    const MOST_SLICES: usize = 100;
    let halts = (0..MOST_SLICES).any(|_| vcpu.run(&mut EmptyBus, 1000) == Exit::Halt);
    assert!(halts, "at {:x}", vcpu.cpu.eip);
    assert_eq!(vcpu.cpu.eip, u64::from(HANDLER) + 1);
}

/// A processor about to enter `program`.
fn at_program(config: &VcpuConfig, program: Program) -> Vcpu {
    const FOR_ALL: u64 = 0x87;
    const FOR_ALL_TO_READ: u64 = 0x85;
    let vcpu = booted_with(config, |a| {
        a.mov(eax, i32::from(TASK))?;
        a.ltr(ax)?;
        a.push(i32::from(USER_DATA))?;
        a.push(STACK as i32 - 0x1000)?;
        a.push(2)?;
        a.push(i32::from(USER_CODE64))?;
        a.push(PROGRAM as i32)?;
        a.iretq()
    });
    let tables = u64::from(TABLES);
    poke(&vcpu, TABLES, (tables + 0x1000) | 7);
    poke(&vcpu, TABLES + 0x1000, (tables + 0x2000) | 7);
    for page in 0..8_u64 {
        let address = page << 21;
        let rights = match address {
            READ_ONLY => FOR_ALL_TO_READ,
            _ => FOR_ALL,
        };
        poke(&vcpu, TABLES + 0x2000 + 8 * page as u32, address | rights);
    }
    let task = 0x0000_8900_0000_0067 | u64::from(TASK_STATE) << 16;
    for (selector, descriptor) in [
        (USER_DATA & !3, 0x00cf_f300_0000_ffff),
        (USER_CODE64 & !3, 0x00af_fb00_0000_ffff),
        (TASK, task),
    ] {
        poke(&vcpu, GDT + u32::from(selector), descriptor);
    }
    poke(&vcpu, TASK_STATE + 4, HIGH | STACK);
    place(&vcpu, PROGRAM, 64, program);
    vcpu
}

/// Ends a program.
fn end(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(byte_ptr(READ_ONLY as i32), 0)
}

/// The direction is not known where the code is translated.
#[test]
fn single_strings_in_either_direction() {
    const ROUNDS: u32 = 500;
    let others = agree(|a| {
        let (mut again, mut either) = (a.create_label(), a.create_label());
        a.mov(ebp, ROUNDS as i32)?;
        a.mov(rsi, SOURCE + 0x800)?;
        a.mov(rdi, TARGET + 0x1800)?;
        a.set_label(&mut again)?;
        a.cld()?;
        a.test(ebp, 0x24)?;
        a.jz(either)?;
        a.std()?;
        a.set_label(&mut either)?;
        a.lodsq()?;
        a.add(rax, rbp)?;
        a.stosq()?;
        a.movsw()?;
        a.stosd()?;
        a.scasb()?;
        a.adc(rax, rbp)?;
        a.movsq()?;
        a.lodsd()?;
        a.movsd()?;
        a.scasq()?;
        a.sbb(rax, rdi)?;
        a.stosb()?;
        a.dec(ebp)?;
        a.jnz(again)?;
        end(a)
    });
    for vcpu in others {
        assert!(vcpu.cpu.retired < u64::from(ROUNDS), "{}", vcpu.cpu.retired);
    }
}

/// The source is read, and shown by the window, before the target faults. Nothing has moved then.
#[test]
fn a_move_whose_store_faults_moves_no_pointer() {
    let [up, down]: [Program; 2] = [|a| moves(a, false), |a| moves(a, true)];
    for (number, program) in [up, down].into_iter().enumerate() {
        for vcpu in agree(program) {
            let moved = [SOURCE + 0x3000 - 8, SOURCE + 0x3000 + 8][1 - number];
            let pointers = [ESI, EDI].map(|register| vcpu.cpu.regs.get64(register));
            assert_eq!(pointers, [moved, READ_ONLY + 0x120]);
            assert_eq!(vcpu.cpu.cr2, READ_ONLY + 0x120);
        }
    }
}

/// Moves one quadword to a page that the window has yet to show for writing, and one to where nothing may be written.
fn moves(a: &mut CodeAssembler, downwards: bool) -> Result<(), IcedError> {
    a.mov(rsi, SOURCE + 0x3000)?;
    a.mov(rdi, TARGET)?;
    a.mov(rax, qword_ptr(rdi))?;
    match downwards {
        false => a.cld()?,
        true => a.std()?,
    }
    a.movsq()?;
    a.mov(rdi, READ_ONLY + 0x120)?;
    a.mov(rax, qword_ptr(rdi))?;
    a.movsq()?;
    end(a)
}
