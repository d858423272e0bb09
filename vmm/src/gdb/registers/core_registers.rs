//! The registers of gdb's feature `org.gnu.gdb.i386.core`, in the order of gdb/i386-tdep.h (`enum i386_regnum`) and gdb/amd64-tdep.h
//! (`enum amd64_regnum`).

use sbe::cpu::{
    Cpu,
    fpu::{FxState, Pointers},
    regs::{EAX, EBP, EBX, ECX, EDI, EDX, ESI, ESP},
    segment::SegReg,
};

use super::{bits, int, processor, register::Register};
use crate::linear::Width;

const GENERAL_32: [(&str, u8); 8] = [
    ("eax", EAX),
    ("ecx", ECX),
    ("edx", EDX),
    ("ebx", EBX),
    ("esp", ESP),
    ("ebp", EBP),
    ("esi", ESI),
    ("edi", EDI),
];
const GENERAL_64: [(&str, u8); 16] = [
    ("rax", EAX),
    ("rbx", EBX),
    ("rcx", ECX),
    ("rdx", EDX),
    ("rsi", ESI),
    ("rdi", EDI),
    ("rbp", EBP),
    ("rsp", ESP),
    ("r8", 8),
    ("r9", 9),
    ("r10", 10),
    ("r11", 11),
    ("r12", 12),
    ("r13", 13),
    ("r14", 14),
    ("r15", 15),
];
const SEGMENTS: [(&str, SegReg); 6] = [
    ("cs", SegReg::Cs),
    ("ss", SegReg::Ss),
    ("ds", SegReg::Ds),
    ("es", SegReg::Es),
    ("fs", SegReg::Fs),
    ("gs", SegReg::Gs),
];
const ST: [&str; 8] = ["st0", "st1", "st2", "st3", "st4", "st5", "st6", "st7"];

/// The general registers of a width.
fn general_registers(width: Width) -> &'static [(&'static str, u8)] {
    match width {
        Width::Bits32 => &GENERAL_32,
        Width::Bits64 => &GENERAL_64,
    }
}

/// The registers, in the order of their numbers.
pub(super) fn registers(width: Width) -> Vec<Register> {
    let mut registers = Vec::new();
    for &(name, index) in general_registers(width) {
        let kind = match index {
            ESP | EBP => "data_ptr",
            _ => int(width),
        };
        let get = move |cpu: &Cpu| processor::general(cpu, index).into();
        let set =
            move |cpu: &mut Cpu, value: u128| processor::set_general(cpu, index, value as u64);
        registers.push(Register::new(name, bits(width), kind, get).set_by(set));
    }
    let ip = match width {
        Width::Bits32 => "eip",
        Width::Bits64 => "rip",
    };
    registers.extend([
        Register::new(ip, bits(width), "code_ptr", |cpu| {
            processor::linear_ip(cpu).into()
        })
        .try_set_by(|cpu, value| processor::set_linear_ip(cpu, value as u64)),
        Register::new("eflags", 32, "i386_eflags", |cpu| cpu.eflags.into())
            .set_by(|cpu, value| processor::set_eflags(cpu, value as u32)),
    ]);
    for (name, segment) in SEGMENTS {
        let get = move |cpu: &Cpu| cpu.seg(segment).selector.0.into();
        registers.push(Register::new(name, 32, "int32", get));
    }
    registers.extend(x87_registers());
    registers
}

/// The x87 registers.
fn x87_registers() -> Vec<Register> {
    let mut registers = Vec::new();
    for (name, index) in ST.into_iter().zip(0..) {
        let get = move |cpu: &Cpu| {
            let mut bytes = [0; size_of::<u128>()];
            let value = cpu.fpu.st(index);
            bytes[..value.len()].copy_from_slice(&value);
            u128::from_le_bytes(bytes)
        };
        let set = move |cpu: &mut Cpu, value: u128| {
            let bytes = value.to_le_bytes();
            cpu.fpu.set_st(index, std::array::from_fn(|at| bytes[at]));
        };
        registers.push(Register::new(name, 80, "i387_ext", get).set_by(set));
    }
    registers.extend([
        x87(
            "fctrl",
            |fpu| fpu.fcw().into(),
            |fpu, value| fpu.set_fcw(value as u16),
        ),
        x87(
            "fstat",
            |fpu| fpu.fsw().into(),
            |fpu, value| fpu.set_fsw(value as u16),
        ),
        x87(
            "ftag",
            |fpu| fpu.full_tags().into(),
            |fpu, value| fpu.set_full_tags(value as u16),
        ),
        pointer(
            "fiseg",
            |at| at.fcs.into(),
            |at, value| at.fcs = value as u16,
        ),
        pointer(
            "fioff",
            |at| at.fip as u32,
            |at, value| at.fip = value.into(),
        ),
        pointer(
            "foseg",
            |at| at.fds.into(),
            |at, value| at.fds = value as u16,
        ),
        pointer(
            "fooff",
            |at| at.fdp as u32,
            |at, value| at.fdp = value.into(),
        ),
        pointer("fop", |at| at.fop.into(), |at, value| at.fop = value as u16),
    ]);
    registers
}

fn x87(name: &'static str, get: fn(&FxState) -> u32, set: fn(&mut FxState, u32)) -> Register {
    Register::new(name, 32, "int", move |cpu| get(&cpu.fpu).into())
        .set_by(move |cpu, value| set(&mut cpu.fpu, value as u32))
}

fn pointer(name: &'static str, get: fn(&Pointers) -> u32, set: fn(&mut Pointers, u32)) -> Register {
    let change = move |cpu: &mut Cpu, value: u128| {
        let mut pointers = cpu.fpu.pointers();
        set(&mut pointers, value as u32);
        cpu.fpu.set_pointers(pointers);
    };
    Register::new(name, 32, "int", move |cpu| get(&cpu.fpu.pointers()).into()).set_by(change)
}
