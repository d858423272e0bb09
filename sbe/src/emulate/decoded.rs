//! [`Decoded`]: an instruction with its handler, as the decode cache keeps it.

use super::exec::Handler;
use super::{data, fpu, table};
use crate::cpu::model::Level;
use crate::decode::Insn;
use crate::decode::decoder::{CodeSize, DecodeError, MAX_LENGTH, decode_announced, resolve};
use crate::host_fpu::HostFpu;
use iced_x86::Mnemonic;
use std::ops::RangeInclusive;

/// Legacy prefixes (SDM Vol. 2A, 2.1.1 "Instruction Prefixes").
const PREFIXES: [u8; 11] = [
    0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3,
];
/// The prefix that changes the operand size.
const OPERAND_SIZE: u8 = 0x66;
/// REX prefixes of 64-bit mode (SDM Vol. 2A, 2.2.1 "REX Prefixes").
const REX: RangeInclusive<u8> = 0x40..=0x4f;
/// Prefixes that choose between the instructions of a two-byte opcode; the first, DS, stands for none.
const MANDATORY_PREFIXES: [u8; 4] = [0x3e, 0x66, 0xf3, 0xf2];

/// A decoded instruction, ready to be executed. The operands come first: their address, which the handler gets, needs no
/// addition.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Decoded {
    /// The operands, for the handler.
    pub insn: Insn,
    /// The handler, which executes it.
    pub exec: Handler,
}

impl Decoded {
    /// An instruction that raises #UD.
    pub const UNDEFINED: Self = Self {
        exec: data::undefined,
        insn: Insn::NONE,
    };
}

/// Decodes the instruction at the start of `bytes` for a processor of this level.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(
    bytes: &[u8],
    size: CodeSize,
    level: Level,
    host: &mut HostFpu,
) -> Result<Decoded, DecodeError> {
    let raw = match decode_announced(bytes, size, level, 0) {
        Err(DecodeError::Invalid) if is_cut_removed_opcode(bytes, size) => {
            return Err(DecodeError::NeedMoreBytes);
        }
        raw => raw?,
    };
    let exec = table::handler(&raw).ok_or(DecodeError::Invalid)?;
    let mut insn = resolve(&raw, size);
    if matches!(raw.mnemonic(), Mnemonic::Ud0 | Mnemonic::Ud1) {
        // AMD's processors do not fetch the ModRM byte, nor what follows.
        insn.len = prefix_count(bytes, size) as u8 + 2;
    }
    if fpu::is_host_executed(&raw) {
        insn.aux = host.template(&raw, &bytes[..raw.len()]);
    }
    Ok(Decoded { exec, insn })
}

/// Whether `bytes` are too few for the operands of an opcode that 64-bit mode has removed. The processor fetches them before #UD.
fn is_cut_removed_opcode(bytes: &[u8], size: CodeSize) -> bool {
    let (prefixes, rest) = bytes.split_at(prefix_count(bytes, size));
    let length = match rest.first() {
        _ if size != CodeSize::Bits64 => return false,
        Some(0x82) => 3,
        Some(0x9a | 0xea) if prefixes.contains(&OPERAND_SIZE) => 5,
        Some(0x9a | 0xea) => 7,
        _ => return false,
    };
    rest.len() < length && bytes.len() < MAX_LENGTH
}

/// The number of prefixes at the start of `bytes`.
fn prefix_count(bytes: &[u8], size: CodeSize) -> usize {
    let is_prefix =
        |byte: &u8| PREFIXES.contains(byte) || size == CodeSize::Bits64 && REX.contains(byte);
    bytes.iter().take_while(|byte| is_prefix(byte)).count()
}

/// The opcodes of one byte without operands that 64-bit mode has removed (SDM Vol. 2D, A.2.1 "Codes for Addressing Method", "i64").
const REMOVED: [u8; 15] = [
    0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0xce, 0xd6,
];

/// Whether `bytes`, which end in the middle of an instruction, hold an opcode that is undefined for a processor of this level.
/// If so, the processor raises #UD without fetching more.
///
/// An opcode is undefined if there is no mandatory prefix and ModRM byte that make an instruction of it. Of any other the
/// length is known, and the instruction is fetched to its end before #UD.
///
/// Known limit: where iced-x86 calls an encoding invalid before its last byte (66 f3 0f dd, or dd /5 before its
/// displacement), #UD is raised although a processor would first fetch on, and fault if the next page is absent.
pub fn is_undefined_opcode(bytes: &[u8], size: CodeSize, level: Level) -> bool {
    match bytes[prefix_count(bytes, size)..] {
        [opcode] if size == CodeSize::Bits64 => REMOVED.contains(&opcode),
        // Complete: iced asks for a third byte if these two are undefined.
        [0xd8..=0xdf, 0xc0..=0xff] => true,
        // UD1 and UD0, without their ModRM byte.
        [0x0f, 0xb9 | 0xff, ..] => true,
        [0x0f, opcode] => MANDATORY_PREFIXES.iter().all(|&prefix| {
            (0..=u8::MAX).all(|modrm| {
                let mut whole = [0; MAX_LENGTH];
                whole[..4].copy_from_slice(&[prefix, 0x0f, opcode, modrm]);
                match decode_announced(&whole, size, level, 0) {
                    Ok(raw) => table::handler(&raw).is_none(),
                    Err(_) => true,
                }
            })
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opcode_without_any_instruction_is_undefined() {
        let undefined =
            |bytes: &[u8]| is_undefined_opcode(bytes, CodeSize::Bits32, Level::Baseline);
        for bytes in [
            &[0x0f, 0x04][..],
            &[0x66, 0x0f, 0x0a],
            &[0xf0, 0xdb, 0xe5],
            // UD1, UD0.
            &[0x0f, 0xb9],
            &[0x66, 0x0f, 0xb9, 0x82, 0, 0],
            &[0x0f, 0xff],
        ] {
            assert_eq!(
                decode_announced(bytes, CodeSize::Bits32, Level::Baseline, 0),
                Err(DecodeError::NeedMoreBytes)
            );
            assert!(undefined(bytes), "{bytes:02X?}");
        }
        // An escape, PADDD, XADD, IMUL, group 4, FLD.
        for bytes in [
            &[0x0f][..],
            &[0x0f, 0xfe],
            &[0xf0, 0x0f, 0xc1],
            &[0x0f, 0xaf],
            &[0xfe],
            &[0xd9],
        ] {
            assert!(!undefined(bytes), "{bytes:02X?}");
        }
    }

    /// The real CPU's answers for instructions cut by the end of the code.
    #[test]
    fn opcodes_that_64_bit_mode_removed_are_fetched_as_far_as_they_go() {
        let mut host = HostFpu::new().unwrap();
        let size = CodeSize::Bits64;
        let mut ends = |bytes: &[u8]| match decode(bytes, size, Level::Baseline, &mut host) {
            Err(DecodeError::NeedMoreBytes) => is_undefined_opcode(bytes, size, Level::Baseline),
            Err(DecodeError::Invalid) => true,
            Ok(_) => panic!("{bytes:02x?} is an instruction"),
            Err(error) => panic!("{bytes:02x?}: {error:?}"),
        };
        for bytes in [
            &[0x06][..],
            &[0x1f],
            &[0x66, 0x60],
            &[0x48, 0xd6],
            &[0x82, 0xc0, 0],
            &[0x9a, 0, 0, 0, 0, 0, 0],
            &[0x66, 0xea, 0, 0, 0, 0],
            &[0xd4, 0],
        ] {
            assert!(ends(bytes), "{bytes:02x?}");
        }
        for bytes in [
            &[0x82, 0xc0][..],
            &[0x9a, 0, 0, 0, 0, 0],
            &[0x66, 0xea, 0, 0, 0],
            &[0xd4],
        ] {
            assert!(!ends(bytes), "{bytes:02x?}");
        }
    }

    #[test]
    fn ud1_ends_behind_its_opcode() {
        let mut host = HostFpu::new().unwrap();
        let bytes = [
            0x66, 0x0f, 0xb9, 0xb1, 0x78, 0x29, 0, 0xa0, 0, 0, 0, 0, 0, 0, 0,
        ];
        let decoded = decode(&bytes, CodeSize::Bits32, Level::Baseline, &mut host).unwrap();
        assert_eq!(decoded.insn.len, 3);
    }
}
