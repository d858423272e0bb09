//! Decoding one instruction: bytes to `iced_x86::Instruction`, and that to [`Insn`].

use super::insn::{Flags, Insn, MemRef, Operand};
use crate::cpu::regs::ZERO;
use crate::cpu::segment::SegReg;
use iced_x86::{
    ConditionCode, CpuidFeature, Decoder, DecoderError, DecoderOptions, Instruction, Mnemonic,
    OpKind, Register,
};

/// Decoder options under which encodings that later processors gave a meaning of their own (prefetch hints, ENDBR,
/// WBNOINVD, TZCNT, LZCNT) keep their old one.
const OPTIONS: u32 = DecoderOptions::FORCE_RESERVED_NOP
    | DecoderOptions::NO_WBNOINVD
    | DecoderOptions::NO_MPFX_0FBC
    | DecoderOptions::NO_MPFX_0FBD;

/// Longest instruction in bytes (SDM Vol. 2A, 2.3.11).
pub const MAX_LENGTH: usize = 15;

/// The reason why bytes are not an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end in the middle of the instruction.
    NeedMoreBytes,
    /// The instruction is longer than 15 bytes: #GP(0).
    TooLong,
    /// The bytes are no instruction of this processor: #UD.
    Invalid,
}

/// Default operand and address size of the code segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeSize {
    /// D bit clear.
    Bits16,
    /// D bit set.
    Bits32,
}

/// Resolves the operands, prefixes and sizes of `raw`, which was decoded in a code segment of this size.
pub fn resolve(raw: &Instruction, size: CodeSize) -> Insn {
    let mut insn = Insn {
        mem: memory_operand(raw),
        imm: 0,
        aux: 0,
        ops: [Operand::None; 3],
        len: raw.len() as u8,
        flags: flags(raw, size),
    };
    resolve_operands(raw, &mut insn);
    if raw.condition_code() != ConditionCode::None {
        insn.aux = raw.condition_code() as u32 - 1;
    }
    insn
}

/// Decodes the instruction at the start of `bytes`, which has instruction pointer `ip`, if the processor has it.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_announced(bytes: &[u8], size: CodeSize, ip: u32) -> Result<Instruction, DecodeError> {
    let raw = decode_raw(bytes, size, ip)?;
    if is_announced(&raw) {
        Ok(raw)
    } else {
        Err(DecodeError::Invalid)
    }
}

fn decode_raw(bytes: &[u8], size: CodeSize, ip: u32) -> Result<Instruction, DecodeError> {
    let bits = if size == CodeSize::Bits32 { 32 } else { 16 };
    let bytes = &bytes[..bytes.len().min(MAX_LENGTH)];
    let mut decoder = Decoder::with_ip(bits, bytes, u64::from(ip), OPTIONS);
    let raw = decoder.decode();
    match decoder.last_error() {
        DecoderError::None => Ok(raw),
        DecoderError::NoMoreBytes => Err(DecodeError::NeedMoreBytes),
        _ if is_too_long(bits, bytes) => Err(DecodeError::TooLong),
        _ => Err(DecodeError::Invalid),
    }
}

/// Whether `bytes`, which the decoder calls invalid, begin an instruction that does not end within 15 bytes. If so, the decoder
/// asks for more bytes when it is given fewer.
fn is_too_long(bits: u32, bytes: &[u8]) -> bool {
    let Some(shorter) = bytes
        .get(..MAX_LENGTH - 1)
        .filter(|_| bytes.len() == MAX_LENGTH)
    else {
        return false;
    };
    let mut decoder = Decoder::new(bits, shorter, OPTIONS);
    let _ = decoder.decode();
    decoder.last_error() == DecoderError::NoMoreBytes
}

/// Whether every feature the instruction needs is one that CPUID announces (see [`crate::cpu::model`]).
fn is_announced(raw: &Instruction) -> bool {
    raw.cpuid_features().iter().all(|feature| {
        matches!(
            feature,
            CpuidFeature::INTEL8086
                | CpuidFeature::INTEL186
                | CpuidFeature::INTEL286
                | CpuidFeature::INTEL386
                | CpuidFeature::INTEL486
                | CpuidFeature::CPUID
                | CpuidFeature::CLFSH
                | CpuidFeature::CMOV
                | CpuidFeature::CX8
                | CpuidFeature::FPU
                | CpuidFeature::FPU287
                | CpuidFeature::FPU387
                | CpuidFeature::FXSR
                | CpuidFeature::MMX
                | CpuidFeature::MSR
                | CpuidFeature::MULTIBYTENOP
                | CpuidFeature::PAUSE
                | CpuidFeature::RDPMC
                | CpuidFeature::SEP
                | CpuidFeature::SSE
                | CpuidFeature::SSE2
                | CpuidFeature::TSC
        )
    })
}

fn flags(raw: &Instruction, size: CodeSize) -> Flags {
    let mut bits = 0;
    if raw.has_rep_prefix() {
        bits |= Flags::REP;
    }
    if raw.has_repne_prefix() {
        bits |= Flags::REPNE;
    }
    if uses_16bit_addresses(raw, size) {
        bits |= Flags::ADDR16;
    }
    if is_barrier(raw) {
        bits |= Flags::BARRIER;
    }
    Flags(bits)
}

/// Whether the instruction is a barrier for others who look at memory.
fn is_barrier(raw: &Instruction) -> bool {
    match raw.mnemonic() {
        Mnemonic::Mfence | Mnemonic::Sfence => true,
        Mnemonic::Xchg => raw.op0_kind() == OpKind::Memory,
        _ => raw.has_lock_prefix(),
    }
}

/// Whether the memory operand, or the string and loop registers, have 16-bit addresses.
fn uses_16bit_addresses(raw: &Instruction, size: CodeSize) -> bool {
    for index in 0..raw.op_count() {
        match raw.op_kind(index) {
            OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => return true,
            OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => return false,
            OpKind::Memory => {
                let base = raw.memory_base();
                let sized = if base == Register::None {
                    raw.memory_index()
                } else {
                    base
                };
                return if sized == Register::None {
                    raw.memory_displ_size() == 2
                } else {
                    sized.size() == 2
                };
            }
            _ => {}
        }
    }
    match raw.op_code().address_size() {
        0 => size == CodeSize::Bits16,
        bits => bits == 16,
    }
}

fn memory_operand(raw: &Instruction) -> MemRef {
    let number = |register: Register| {
        if register == Register::None {
            ZERO
        } else {
            register.number() as u8
        }
    };
    MemRef {
        displacement: raw.memory_displacement32(),
        base: number(raw.memory_base()),
        // XLAT's index is AL: its handler adds it.
        index: if raw.memory_index() == Register::AL {
            ZERO
        } else {
            number(raw.memory_index())
        },
        scale: raw.memory_index_scale().trailing_zeros() as u8,
        segment: segment(raw.memory_segment()),
    }
}

fn segment(register: Register) -> SegReg {
    match register {
        Register::ES => SegReg::Es,
        Register::CS => SegReg::Cs,
        Register::SS => SegReg::Ss,
        Register::FS => SegReg::Fs,
        Register::GS => SegReg::Gs,
        _ => SegReg::Ds,
    }
}

fn resolve_operands(raw: &Instruction, insn: &mut Insn) {
    for index in 0..raw.op_count().min(3) {
        insn.ops[index as usize] = match raw.op_kind(index) {
            OpKind::Register => Operand::Reg(raw.op_register(index).number() as u8),
            OpKind::NearBranch16 | OpKind::NearBranch32 => {
                // Relative to the next instruction: code is cached by physical address.
                insn.imm = (raw.near_branch_target() as u32).wrapping_sub(raw.next_ip32());
                Operand::Imm
            }
            OpKind::FarBranch16 => {
                insn.imm = u32::from(raw.far_branch16());
                insn.aux = u32::from(raw.far_branch_selector());
                Operand::Imm
            }
            OpKind::FarBranch32 => {
                insn.imm = raw.far_branch32();
                insn.aux = u32::from(raw.far_branch_selector());
                Operand::Imm
            }
            OpKind::Immediate8_2nd => {
                insn.aux = u32::from(raw.immediate8_2nd());
                Operand::Imm
            }
            OpKind::Immediate8
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate16
            | OpKind::Immediate32 => {
                insn.imm = raw.immediate(index) as u32;
                Operand::Imm
            }
            _ => Operand::Mem,
        };
    }
}
