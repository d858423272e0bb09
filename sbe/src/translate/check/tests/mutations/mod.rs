//! Good fragments, each broken in one way.

mod flow;
mod instructions;
mod memory;
mod wide;
mod wide_window;

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
    let bits = if mode.is_64() { 64 } else { 32 };
    let mut assembler = CodeAssembler::new(bits).expect("known bits");
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
    let options = BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
    let encoded = BlockEncoder::encode_slice(64, &blocks, options).expect("can be encoded");
    let mut changed = emission.clone();
    for fault in changed.faults.iter_mut().flatten() {
        // It lies where the instruction does that it was for.
        let mut places = encoded.iter().zip(code).flat_map(|(result, instructions)| {
            let offsets = result.new_instruction_offsets.iter().zip(instructions);
            offsets.map(|(offset, instruction)| (result.rip as u32 + offset, instruction.ip()))
        });
        if let Some((place, _)) = places.find(|&(_, ip)| ip == u64::from(fault.code)) {
            fault.code = place;
        }
    }
    for (bytes, result) in changed.code.iter_mut().zip(encoded) {
        *bytes = result.code_buffer;
    }
    changed
}

type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// The checker's verdict on the code of `guest` after `change`; unchanged, the code must pass.
fn mutant(guest: Program, change: impl FnOnce(&mut Code2, &Trampolines)) -> Result<(), Rule> {
    mutant_in(Mode::Supervisor, guest, change)
}

/// The checker's verdict, as in [`mutant`], on code executed in `mode`.
fn mutant_in(
    mode: Mode,
    guest: Program,
    change: impl FnOnce(&mut Code2, &Trampolines),
) -> Result<(), Rule> {
    let width = if mode.is_64() {
        LinearWidth::Bits48
    } else {
        LinearWidth::Bits32
    };
    mutant_of(Bench::new(width), mode, guest, change)
}

/// The checker's verdict, as in [`mutant`], on code emitted and checked by `bench` and executed in `mode`.
fn mutant_of(
    mut bench: Bench,
    mode: Mode,
    guest: Program,
    change: impl FnOnce(&mut Code2, &Trampolines),
) -> Result<(), Rule> {
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

/// `instruction` before the one at `index`, which stays the target of the branches.
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
