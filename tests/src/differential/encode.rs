//! Bytes for a form: prefixes, opcode and random operands, confirmed by the decoder.
//!
//! Encodings are drawn at the level of bytes, so that redundant ones (scaled index without base, long displacement of
//! zero, both opcodes of `add r32, r32`, useless prefixes in any order) turn up like all others.

use super::values::{integer, percent};
use fastrand::Rng;
use iced_x86::{
    Code, ConstantOffsets, Decoder, DecoderOptions, Instruction, MandatoryPrefix, OpCodeInfo,
    OpCodeOperandKind, OpCodeTableKind,
};

/// Attempts before a form counts as impossible to draw this time.
const ATTEMPTS: usize = 200;
/// Longest instruction.
const MAX_LEN: usize = 15;
/// Segment-override prefixes: ES, CS, SS, DS, FS, GS.
const SEGMENT_PREFIXES: [u8; 6] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];

/// One encoded instruction.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The instruction that they decode to, at address 0.
    pub instruction: Instruction,
    /// Bits of the code segment: 16 or 32.
    pub bits: u32,
    /// The places of displacement and immediates in the bytes.
    pub offsets: ConstantOffsets,
}

impl Encoded {
    /// Decodes the first instruction of `bytes` in a segment of 16 or 32 bits; `None` if it is none.
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
    pub fn patch(&mut self, offset: usize, size: usize, value: u32) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes[offset..offset + size].copy_from_slice(&value.to_le_bytes()[..size]);
        *self = Self::decode(&bytes, self.bits)
            .expect("operand values do not decide whether an instruction exists");
    }

    /// Overwrites the displacement of the memory operand.
    pub fn set_displacement(&mut self, value: u32) {
        self.patch(
            self.offsets.displacement_offset(),
            self.offsets.displacement_size(),
            value,
        );
    }

    /// Overwrites the first immediate, or the target of a relative branch.
    pub fn set_immediate(&mut self, value: u32) {
        self.patch(
            self.offsets.immediate_offset(),
            self.offsets.immediate_size(),
            value,
        );
    }
}

/// Random bytes that decode to `form` in a segment of 16 or 32 bits; `None` if none was met.
pub fn random(form: Code, bits: u32, rng: &mut Rng) -> Option<Encoded> {
    (0..ATTEMPTS).find_map(|_| {
        let mut encoded = Encoded::decode(&draw(form.op_code(), bits, rng), bits)?;
        (encoded.instruction.code() == form).then(|| {
            if encoded.offsets.has_immediate() && percent(rng, 70) {
                encoded.set_immediate(integer(rng));
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
    if percent(rng, 40) {
        bytes.push(0x0f);
    }
    bytes.extend((bytes.len()..MAX_LEN).map(|_| rng.u8(..)));
    Encoded::decode(&bytes, bits).filter(|encoded| !has_reserved_prefix(&encoded.instruction))
}

/// Whether a loop instruction has a repeat prefix, which is reserved for string instructions (SDM Vol. 2A, 2.1.1 "Instruction
/// Prefixes"). Most instructions ignore it; AMD processors take 0xf2 in front of LOOPE for LOOPNE, and the reverse.
fn has_reserved_prefix(instruction: &Instruction) -> bool {
    instruction.is_loopcc() && (instruction.has_rep_prefix() || instruction.has_repne_prefix())
}

fn draw(info: &OpCodeInfo, bits: u32, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = prefixes(info, bits, rng);
    rng.shuffle(&mut bytes);
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
    let other = 48 - bits;
    let mut prefixes = Vec::new();
    if info.operand_size() == other || info.mandatory_prefix() == MandatoryPrefix::P66 {
        prefixes.push(0x66);
    }
    let overridden = if bits == 16 { 40 } else { 4 };
    if info.address_size() == other || info.address_size() == 0 && percent(rng, overridden) {
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

fn has_register_in_opcode(info: &OpCodeInfo) -> bool {
    info.op_kinds().iter().any(|kind| {
        matches!(
            kind,
            OpCodeOperandKind::r8_opcode
                | OpCodeOperandKind::r16_opcode
                | OpCodeOperandKind::r32_opcode
                | OpCodeOperandKind::sti_opcode
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::forms;
    use super::*;

    #[test]
    fn every_form_of_the_table_can_be_drawn() {
        let mut rng = Rng::with_seed(1);
        let missing: Vec<Code> = forms::generated()
            .into_iter()
            .filter(|&form| {
                [16, 32]
                    .iter()
                    .any(|&bits| random(form, bits, &mut rng).is_none())
            })
            .collect();
        assert_eq!(missing, []);
    }
}
