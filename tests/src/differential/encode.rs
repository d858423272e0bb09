//! Bytes for a form: prefixes, opcode and random operands, confirmed by the decoder.
//!
//! Encodings are drawn at the level of bytes, so that redundant ones (scaled index without base, long displacement of
//! zero, both opcodes of `add r32, r32`, useless prefixes in any order) turn up like all others.

use super::values::{percent, register};
use fastrand::Rng;
use iced_x86::{
    Code, ConstantOffsets, Decoder, DecoderOptions, Instruction, MandatoryPrefix, OpCodeInfo,
    OpCodeOperandKind, OpCodeTableKind,
};

/// Attempts before a form counts as impossible to draw this time.
const ATTEMPTS: usize = 200;
/// Longest instruction.
const MAX_LEN: usize = 15;
/// A REX prefix of no effect but on SPL, BPL, SIL and DIL.
const REX: u8 = 0x40;
/// The bit of REX for operands of 64 bits.
const REX_W: u8 = 0x08;
/// Segment-override prefixes: ES, CS, SS, DS, FS, GS.
const SEGMENT_PREFIXES: [u8; 6] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];

/// One encoded instruction.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The instruction that they decode to, at address 0.
    pub instruction: Instruction,
    /// Bits of the code segment: 16, 32 or 64.
    pub bits: u32,
    /// The places of displacement and immediates in the bytes.
    pub offsets: ConstantOffsets,
}

impl Encoded {
    /// Decodes the first instruction of `bytes` in a segment of 16, 32 or 64 bits; `None` if it is none.
    pub fn decode(bytes: &[u8], bits: u32) -> Option<Self> {
        let mut decoder = Decoder::new(bits, bytes, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return None;
        }
        let offsets = decoder.get_constant_offsets(&instruction);
        Some(Self {
            bytes: bytes[..instruction.len()].to_vec(),
            instruction,
            bits,
            offsets,
        })
    }

    /// Overwrites `size` bytes at `offset` with the low bytes of `value` and decodes again.
    pub fn patch(&mut self, offset: usize, size: usize, value: u64) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes[offset..offset + size].copy_from_slice(&value.to_le_bytes()[..size]);
        *self = Self::decode(&bytes, self.bits)
            .expect("operand values do not decide whether an instruction exists");
    }

    /// Overwrites the displacement of the memory operand.
    pub fn set_displacement(&mut self, value: u64) {
        self.patch(
            self.offsets.displacement_offset(),
            self.offsets.displacement_size(),
            value,
        );
    }

    /// Overwrites the first immediate, or the target of a relative branch.
    pub fn set_immediate(&mut self, value: u64) {
        self.patch(
            self.offsets.immediate_offset(),
            self.offsets.immediate_size(),
            value,
        );
    }

    /// Whether processors, or the decoder and they, differ about the instruction.
    fn is_ambiguous(&self) -> bool {
        has_reserved_prefix(&self.instruction) || self.is_extended_pause()
    }

    /// Whether it is PAUSE with a REX prefix: with REX.B, processors exchange EAX and R8D.
    fn is_extended_pause(&self) -> bool {
        self.bits == 64 && self.instruction.code() == Code::Pause && self.bytes.len() > 2
    }
}

/// Random bytes that decode to `form` in a segment of 16, 32 or 64 bits; `None` if none was met.
pub fn random(form: Code, bits: u32, rng: &mut Rng) -> Option<Encoded> {
    (0..ATTEMPTS).find_map(|_| {
        let mut encoded = Encoded::decode(&draw(form.op_code(), bits, rng), bits)?;
        let is_wanted = encoded.instruction.code() == form && !encoded.is_extended_pause();
        is_wanted.then(|| {
            if encoded.offsets.has_immediate() && percent(rng, 70) {
                encoded.set_immediate(register(bits, rng));
            }
            encoded
        })
    })
}

/// Random bytes of any meaning, with a bias to prefixes and two-byte opcodes.
pub fn noise(bits: u32, rng: &mut Rng) -> Option<Encoded> {
    let mut bytes = Vec::new();
    for _ in 0..rng.usize(0..3) {
        let prefix = [0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x64][rng.usize(0..6)];
        bytes.push(prefix);
    }
    if bits == 64 && percent(rng, 50) {
        bytes.push(REX | rng.u8(0..16));
    }
    if percent(rng, 40) {
        bytes.push(0x0f);
    }
    bytes.extend((bytes.len()..MAX_LEN).map(|_| rng.u8(..)));
    Encoded::decode(&bytes, bits).filter(|encoded| !encoded.is_ambiguous())
}

/// Whether a loop instruction has a repeat prefix, which is reserved for string instructions (SDM Vol. 2A, 2.1.1 "Instruction
/// Prefixes"). Most instructions ignore it; AMD processors take 0xf2 in front of LOOPE for LOOPNE, and the reverse.
fn has_reserved_prefix(instruction: &Instruction) -> bool {
    instruction.is_loopcc() && (instruction.has_rep_prefix() || instruction.has_repne_prefix())
}

fn draw(info: &OpCodeInfo, bits: u32, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = prefixes(info, bits, rng);
    rng.shuffle(&mut bytes);
    if bits == 64 {
        bytes.extend(rex(info, rng));
    }
    match info.table() {
        OpCodeTableKind::T0F => bytes.push(0x0f),
        OpCodeTableKind::T0F38 => bytes.extend([0x0f, 0x38]),
        OpCodeTableKind::T0F3A => bytes.extend([0x0f, 0x3a]),
        _ => {}
    }
    let opcode = info.op_code().to_be_bytes();
    bytes.extend(&opcode[4 - info.op_code_len() as usize..]);
    if has_register_in_opcode(info) {
        *bytes.last_mut().expect("there is an opcode") |= rng.u8(0..8);
    }
    let mut modrm = if percent(rng, 35) {
        rng.u8(..) | 0xc0
    } else {
        rng.u8(..)
    };
    if bits == 64 && percent(rng, 10) {
        // mod 0, r/m 5: relative to RIP.
        modrm = modrm & 0x38 | 5;
    }
    if info.is_group() {
        modrm = modrm & !0x38 | (info.group_index() as u8) << 3;
    }
    if info.is_rm_group() {
        modrm = modrm & !0x07 | info.rm_group_index() as u8;
    }
    bytes.push(modrm);
    while bytes.len() < MAX_LEN {
        bytes.push(rng.u8(..));
    }
    bytes
}

fn prefixes(info: &OpCodeInfo, bits: u32, rng: &mut Rng) -> Vec<u8> {
    // The size that the prefixes choose, for operands and for addresses.
    let (other, other_address) = match bits {
        16 => (32, 32),
        32 => (16, 16),
        _ => (16, 32),
    };
    let mut prefixes = Vec::new();
    if info.operand_size() == other || info.mandatory_prefix() == MandatoryPrefix::P66 {
        prefixes.push(0x66);
    }
    let overridden = match bits {
        16 => 40,
        32 => 4,
        _ => 12,
    };
    if info.address_size() == other_address || info.address_size() == 0 && percent(rng, overridden)
    {
        prefixes.push(0x67);
    }
    match info.mandatory_prefix() {
        MandatoryPrefix::PF3 => prefixes.push(0xf3),
        MandatoryPrefix::PF2 => prefixes.push(0xf2),
        _ => {}
    }
    if info.can_use_rep_prefix() && percent(rng, 40) {
        prefixes.push(0xf3);
    } else if info.can_use_repne_prefix() && percent(rng, 30) {
        prefixes.push(0xf2);
    }
    if info.can_use_lock_prefix() && percent(rng, 20) {
        prefixes.push(0xf0);
    }
    if percent(rng, 12) {
        prefixes.push(SEGMENT_PREFIXES[rng.usize(..SEGMENT_PREFIXES.len())]);
    }
    prefixes
}

/// A REX prefix, if the form needs one; else by chance. One in front of other prefixes has no effect, and is not drawn here.
fn rex(info: &OpCodeInfo, rng: &mut Rng) -> Option<u8> {
    let wide = info.operand_size() == 64 && !info.default_op_size64() && !info.force_op_size64();
    let registers = rng.u8(0..8);
    if wide {
        return Some(REX | REX_W | registers);
    }
    let useless_w = if percent(rng, 10) { REX_W } else { 0 };
    percent(rng, 50).then_some(REX | useless_w | registers)
}

fn has_register_in_opcode(info: &OpCodeInfo) -> bool {
    info.op_kinds().iter().any(|kind| {
        matches!(
            kind,
            OpCodeOperandKind::r8_opcode
                | OpCodeOperandKind::r16_opcode
                | OpCodeOperandKind::r32_opcode
                | OpCodeOperandKind::r64_opcode
                | OpCodeOperandKind::sti_opcode
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::forms;
    use super::super::mode::Mode;
    use super::*;

    #[test]
    fn every_form_of_the_table_can_be_drawn() {
        let mut rng = Rng::with_seed(1);
        for (mode, widths) in [(Mode::Protected, &[16, 32][..]), (Mode::Bits64, &[64])] {
            let missing: Vec<Code> = forms::generated(mode)
                .into_iter()
                .filter(|&form| {
                    widths
                        .iter()
                        .any(|&bits| random(form, bits, &mut rng).is_none())
                })
                .collect();
            assert_eq!(missing, [], "{mode:?}");
        }
    }
}
