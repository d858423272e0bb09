//! Decoding one instruction: bytes to `iced_x86::Instruction`, and that to [`Insn`].
//!
//! In 64-bit mode encodings are those of Intel's processors where they differ from AMD's: near branches have 64-bit operands
//! whatever the prefixes.

use super::insn::{Flags, Insn, MemRef, Operand};
use crate::cpu::Cpu;
use crate::cpu::model::Level;
use crate::cpu::regs::{HIGH_BYTE, ZERO};
use crate::cpu::segment::SegReg;
use iced_x86::{
    Code, ConditionCode, CpuidFeature, Decoder, DecoderError, DecoderOptions, Instruction,
    Mnemonic, OpKind, Register,
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
    /// 64-bit mode: addresses have 64 bits, operands 32 unless the instruction says otherwise.
    Bits64,
}

impl CodeSize {
    /// The size of the code that `cpu` executes.
    pub fn of(cpu: &Cpu) -> Self {
        if cpu.is_code64() {
            Self::Bits64
        } else if cpu.is_code32() {
            Self::Bits32
        } else {
            Self::Bits16
        }
    }

    /// The code size in bits.
    pub fn bits(self) -> u32 {
        match self {
            Self::Bits16 => 16,
            Self::Bits32 => 32,
            Self::Bits64 => 64,
        }
    }
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

/// Decodes the instruction at the start of `bytes`, which has instruction pointer `ip`, if a processor of this level has it.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_announced(
    bytes: &[u8],
    size: CodeSize,
    level: Level,
    ip: u64,
) -> Result<Instruction, DecodeError> {
    let mut decoder = Decoder::with_ip(size.bits(), bytes, ip, OPTIONS);
    decode_next(&mut decoder, bytes, size, level)
}

/// A decoder of the instructions in a piece of code, whose instruction pointers count from its start.
pub struct CodeDecoder<'a> {
    decoder: Decoder<'a>,
    code: &'a [u8],
    size: CodeSize,
    level: Level,
}

impl<'a> CodeDecoder<'a> {
    /// Creates a decoder of `code` for processors of this level.
    pub fn new(code: &'a [u8], size: CodeSize, level: Level) -> Self {
        Self {
            decoder: Decoder::new(size.bits(), code, OPTIONS),
            code,
            size,
            level,
        }
    }

    /// Decodes the instruction at `offset`.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode_at(&mut self, offset: usize) -> Result<Instruction, DecodeError> {
        let bytes = self.code.get(offset..).unwrap_or_default();
        if self.decoder.set_position(offset).is_err() {
            return Err(DecodeError::NeedMoreBytes);
        }
        self.decoder.set_ip(offset as u64);
        decode_next(&mut self.decoder, bytes, self.size, self.level)
    }
}

/// Decodes the instruction at the position of `decoder`, where `bytes` lie, if a processor of this level has it.
fn decode_next(
    decoder: &mut Decoder<'_>,
    bytes: &[u8],
    size: CodeSize,
    level: Level,
) -> Result<Instruction, DecodeError> {
    let raw = decoder.decode();
    match decoder.last_error() {
        DecoderError::None if is_announced(&raw, size, level) => Ok(raw),
        DecoderError::NoMoreBytes => Err(DecodeError::NeedMoreBytes),
        DecoderError::InvalidInstruction if is_too_long(size.bits(), bytes) => {
            Err(DecodeError::TooLong)
        }
        _ => Err(DecodeError::Invalid),
    }
}

/// Whether `bytes`, which the decoder calls invalid, begin an instruction that does not end within 15 bytes. If so, the decoder
/// asks for more bytes when it is given fewer.
fn is_too_long(bits: u32, bytes: &[u8]) -> bool {
    if bytes.len() < MAX_LENGTH {
        return false;
    }
    let shorter = &bytes[..MAX_LENGTH - 1];
    let mut decoder = Decoder::new(bits, shorter, OPTIONS);
    let _ = decoder.decode();
    decoder.last_error() == DecoderError::NoMoreBytes
}

/// Whether every feature the instruction needs is one that CPUID announces (see [`crate::cpu::model`]): only models with 64-bit mode
/// execute 64-bit code.
fn is_announced(raw: &Instruction, size: CodeSize, level: Level) -> bool {
    raw.cpuid_features().iter().all(|feature| match feature {
        CpuidFeature::X64 | CpuidFeature::CMPXCHG16B | CpuidFeature::SYSCALL => {
            size == CodeSize::Bits64
        }
        CpuidFeature::SSE3
        | CpuidFeature::SSSE3
        | CpuidFeature::SSE4_1
        | CpuidFeature::SSE4_2
        | CpuidFeature::POPCNT => level == Level::V2,
        feature => matches!(
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
        ),
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
    bits |= match (size, address_bits(raw, size)) {
        (CodeSize::Bits64, 32) => Flags::LONG | Flags::ADDR32,
        (CodeSize::Bits64, _) => Flags::LONG,
        (_, 16) => Flags::ADDR16,
        _ => 0,
    };
    if raw.is_ip_rel_memory_operand() {
        bits |= Flags::RIP;
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

/// The address size of the memory operand, or of the string and loop registers, in bits.
fn address_bits(raw: &Instruction, size: CodeSize) -> u32 {
    for index in 0..raw.op_count() {
        match raw.op_kind(index) {
            OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => return 16,
            OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => return 32,
            OpKind::MemorySegRSI | OpKind::MemorySegRDI | OpKind::MemoryESRDI => return 64,
            OpKind::Memory => {
                let base = raw.memory_base();
                let sized = if base == Register::None {
                    raw.memory_index()
                } else {
                    base
                };
                return if sized == Register::None {
                    raw.memory_displ_size() * 8
                } else {
                    sized.size() as u32 * 8
                };
            }
            _ => {}
        }
    }
    match raw.op_code().address_size() {
        0 => size.bits(),
        bits => bits,
    }
}

fn memory_operand(raw: &Instruction) -> MemRef {
    let number = |register: Register| {
        if matches!(register, Register::None | Register::RIP | Register::EIP) {
            ZERO
        } else {
            register.number() as u8
        }
    };
    MemRef {
        displacement: if raw.is_ip_rel_memory_operand() {
            // Relative to the next instruction: code is cached by physical address.
            raw.memory_displacement64().wrapping_sub(raw.next_ip()) as u32
        } else {
            raw.memory_displacement64() as u32
        },
        base: number(raw.memory_base()),
        // XLAT's index is AL: its handler adds it.
        index: if raw.memory_index() == Register::AL {
            ZERO
        } else {
            number(raw.memory_index())
        },
        scale: raw.memory_index_scale().trailing_zeros() as u8,
        segment: memory_segment(raw),
    }
}

/// The segment of the memory operand. In 64-bit mode the prefixes of other segments than FS and GS have no effect.
pub fn memory_segment(raw: &Instruction) -> SegReg {
    let segment = segment(raw.memory_segment());
    let is_ignored = raw.code_size() == iced_x86::CodeSize::Code64
        && !matches!(segment, SegReg::Fs | SegReg::Gs);
    match is_ignored {
        true => default_segment(raw.memory_base()),
        false => segment,
    }
}

/// The segment of memory at `base` without a prefix.
fn default_segment(base: Register) -> SegReg {
    match base {
        Register::RSP | Register::RBP | Register::ESP | Register::EBP => SegReg::Ss,
        _ => SegReg::Ds,
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
            OpKind::Register => Operand::Reg(register_number(raw.op_register(index))),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
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
            | OpKind::Immediate8to64
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate32to64 => {
                insn.imm = raw.immediate(index) as u32;
                Operand::Imm
            }
            OpKind::Immediate64 => {
                set_immediate64(insn, raw.immediate64());
                Operand::Imm
            }
            OpKind::Memory if is_absolute(raw) => {
                set_immediate64(insn, raw.memory_displacement64());
                Operand::Mem
            }
            _ => Operand::Mem,
        };
    }
}

fn set_immediate64(insn: &mut Insn, value: u64) {
    insn.imm = value as u32;
    insn.aux = (value >> 32) as u32;
}

/// Whether this is MOV between the accumulator and an absolute address, which in 64-bit mode has 64 bits.
pub fn is_absolute(raw: &Instruction) -> bool {
    matches!(
        raw.code(),
        Code::Mov_AL_moffs8
            | Code::Mov_AX_moffs16
            | Code::Mov_EAX_moffs32
            | Code::Mov_RAX_moffs64
            | Code::Mov_moffs8_AL
            | Code::Mov_moffs16_AX
            | Code::Mov_moffs32_EAX
            | Code::Mov_moffs64_RAX
    )
}

/// The number of a register, that of a byte register being as [`crate::cpu::regs`] says.
fn register_number(register: Register) -> u8 {
    match register {
        Register::AH | Register::CH | Register::DH | Register::BH => {
            (register.number() as u8 - 4) | HIGH_BYTE
        }
        _ if register.is_gpr8() => register.full_register().number() as u8,
        _ => register.number() as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes of which many are prefixes, so that some instructions are too long.
    fn code() -> impl Strategy<Value = Vec<u8>> {
        let prefix = prop::sample::select(vec![0x66, 0x67, 0x2e, 0xf0, 0xf3]);
        prop::collection::vec(prop_oneof![prefix, any::<u8>()], 0..48)
    }

    proptest! {
        #[test]
        fn an_instruction_is_the_same_alone_and_within_code(code in code()) {
            for size in [CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64] {
                let mut decoder = CodeDecoder::new(&code, size, Level::V2);
                for at in (0..=code.len()).rev() {
                    let alone = &code[at..code.len().min(at + MAX_LENGTH)];
                    let expected = decode_announced(alone, size, Level::V2, at as u64);
                    prop_assert_eq!(decoder.decode_at(at), expected);
                }
            }
        }
    }

    #[test]
    fn an_instruction_that_is_too_long_is_so_within_code_too() {
        let mut code = vec![0x66; 2 * MAX_LENGTH];
        code.push(0x90);
        let mut decoder = CodeDecoder::new(&code, CodeSize::Bits32, Level::V2);
        assert_eq!(decoder.decode_at(0), Err(DecodeError::TooLong));
        assert_eq!(
            decoder.decode_at(2 * MAX_LENGTH - 13).map(|raw| raw.len()),
            Ok(14)
        );
        assert_eq!(
            decoder.decode_at(code.len() - 15).map(|raw| raw.len()),
            Ok(15)
        );
        let cut = &code[..MAX_LENGTH - 1];
        let mut decoder = CodeDecoder::new(cut, CodeSize::Bits32, Level::V2);
        assert_eq!(decoder.decode_at(0), Err(DecodeError::NeedMoreBytes));
    }
}
