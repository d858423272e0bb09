//! Decoding one instruction: bytes to [`Insn`].

use super::insn::{Flags, Insn, MemRef, Operand};
use crate::cpu::regs::ZERO;
use crate::cpu::segment::SegReg;
use crate::emulate;
use crate::host_fpu::HostFpu;
use iced_x86::{
    ConditionCode, CpuidFeature, Decoder, DecoderError, DecoderOptions, Instruction, OpKind,
    Register,
};

/// Encodings that later processors gave a meaning of their own (prefetch hints, ENDBR, WBNOINVD, TZCNT, LZCNT) keep their
/// old one.
const OPTIONS: u32 = DecoderOptions::FORCE_RESERVED_NOP
    | DecoderOptions::NO_WBNOINVD
    | DecoderOptions::NO_MPFX_0FBC
    | DecoderOptions::NO_MPFX_0FBD;

/// Longest instruction in bytes (SDM Vol. 2A, 2.3.11).
pub const MAX_LENGTH: usize = 15;

/// Legacy prefixes (SDM Vol. 2A, 2.1.1 "Instruction Prefixes").
const PREFIXES: [u8; 11] = [
    0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3,
];
/// Prefixes that choose between the instructions of a two-byte opcode; the first, DS, stands for none.
const MANDATORY_PREFIXES: [u8; 4] = [0x3E, 0x66, 0xF3, 0xF2];

/// Why bytes are not an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end in the middle of the instruction.
    NeedMoreBytes,
    /// The instruction is longer than 15 bytes: #GP(0).
    TooLong,
    /// Not an instruction of this processor: #UD.
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

/// Decodes the instruction at the start of `bytes`.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(bytes: &[u8], size: CodeSize, host: &mut HostFpu) -> Result<Insn, DecodeError> {
    let raw = decode_announced(bytes, size, 0)?;
    let exec = emulate::handler(&raw).ok_or(DecodeError::Invalid)?;
    let mut insn = Insn {
        exec,
        mem: memory_operand(&raw),
        imm: 0,
        aux: 0,
        ops: [Operand::None; 3],
        len: raw.len() as u8,
        flags: flags(&raw, size),
    };
    resolve_operands(&raw, &mut insn);
    if raw.condition_code() != ConditionCode::None {
        insn.aux = raw.condition_code() as u32 - 1;
    }
    if emulate::fpu::is_host_executed(&raw) {
        insn.aux = host.template(&raw, &bytes[..raw.len()]);
    }
    Ok(insn)
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

/// Whether `bytes`, in which an instruction does not end, hold an undefined opcode: then the processor raises #UD without
/// fetching more.
///
/// An opcode is undefined if there is no mandatory prefix and ModRM byte that make an instruction of it. Of any other the
/// length is known, and the instruction is fetched to its end before #UD.
///
/// Known limit: where iced-x86 calls an encoding invalid before its last byte (66 F3 0F DD, or DD /5 before its
/// displacement), #UD is raised although a processor would first fetch on, and fault if the next page is absent.
pub fn is_undefined_opcode(bytes: &[u8], size: CodeSize) -> bool {
    let prefixes = bytes.iter().take_while(|byte| PREFIXES.contains(byte));
    match bytes[prefixes.count()..] {
        // Complete: iced asks for a third byte if these two are undefined.
        [0xD8..=0xDF, 0xC0..=0xFF] => true,
        [0x0F, opcode] => MANDATORY_PREFIXES.iter().all(|&prefix| {
            (0..=u8::MAX).all(|modrm| {
                let mut whole = [0; MAX_LENGTH];
                whole[..4].copy_from_slice(&[prefix, 0x0F, opcode, modrm]);
                match decode_announced(&whole, size, 0) {
                    Ok(raw) => emulate::handler(&raw).is_none(),
                    Err(_) => true,
                }
            })
        }),
        _ => false,
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

/// Whether what the decoder calls invalid is an instruction that does not end within 15 bytes: then it lacks bytes when
/// given fewer.
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
    Flags(bits)
}

/// Address size of the memory operand or of the string and loop registers.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opcode_without_any_instruction_is_undefined() {
        let undefined = |bytes: &[u8]| is_undefined_opcode(bytes, CodeSize::Bits32);
        for bytes in [&[0x0F, 0x04][..], &[0x66, 0x0F, 0x0A], &[0xF0, 0xDB, 0xE5]] {
            assert_eq!(
                decode_announced(bytes, CodeSize::Bits32, 0),
                Err(DecodeError::NeedMoreBytes)
            );
            assert!(undefined(bytes), "{bytes:02X?}");
        }
        // An escape, PADDD, XADD, UD1, group 4, FLD.
        for bytes in [
            &[0x0F][..],
            &[0x0F, 0xFE],
            &[0xF0, 0x0F, 0xC1],
            &[0x0F, 0xB9],
            &[0xFE],
            &[0xD9],
        ] {
            assert!(!undefined(bytes), "{bytes:02X?}");
        }
    }
}
