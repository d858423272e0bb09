//! The status flags that are the emulator's own guess at each place of a sequence.
//!
//! The manual leaves flags undefined after many instructions. Both engines execute these on the host, so that the undefined
//! flags are the real CPU's, too, and compared like all others. The decimal adjustments, which do not exist in 64-bit mode, are
//! the exception: the emulator computes what it leaves undefined as AMD processors do. These flags are masked when an engine
//! is compared with the real CPU, and no generated instruction may consume them: [`undefined`] follows them through a sequence,
//! branches included, and says where they are undefined, or that one is consumed. The facts are iced-x86's; `effect` adds what
//! depends on operands.

use super::case::Piece;
use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register, RflagsBits};
use std::collections::BTreeMap;

/// CF.
pub const CF: u32 = 1 << 0;
/// PF.
pub const PF: u32 = 1 << 2;
/// AF.
pub const AF: u32 = 1 << 4;
/// ZF.
pub const ZF: u32 = 1 << 6;
/// SF.
pub const SF: u32 = 1 << 7;
/// TF.
pub const TF: u32 = 1 << 8;
/// DF.
pub const DF: u32 = 1 << 10;
/// OF.
pub const OF: u32 = 1 << 11;
/// NT.
pub const NT: u32 = 1 << 14;
/// RF.
pub const RF: u32 = 1 << 16;
/// AC.
pub const AC: u32 = 1 << 18;
/// ID.
pub const ID: u32 = 1 << 21;
/// The six status flags.
pub const STATUS: u32 = CF | PF | AF | ZF | SF | OF;

/// Bits of a shift count that the processor looks at.
const COUNT_MASK: u8 = 0x1f;

/// The error of a sequence in which the instruction at this address reads a flag that the manual leaves undefined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumed(pub u32);

/// The effect of an instruction on the status flags.
struct Effect {
    read: u32,
    defined: u32,
    undefined: u32,
}

/// iced-x86's flag set as EFLAGS bits.
fn eflags(bits: u32) -> u32 {
    [
        (RflagsBits::CF, CF),
        (RflagsBits::PF, PF),
        (RflagsBits::AF, AF),
        (RflagsBits::ZF, ZF),
        (RflagsBits::SF, SF),
        (RflagsBits::OF, OF),
    ]
    .into_iter()
    .filter(|&(theirs, _)| bits & theirs != 0)
    .fold(0, |all, (_, ours)| all | ours)
}

/// The count of a shift or rotate, masked; `None` if it is in CL.
pub fn shift_count(instruction: &Instruction) -> Option<u8> {
    let last = instruction.op_count() - 1;
    match instruction.op_kind(last) {
        OpKind::Register if instruction.op_register(last) == Register::CL => None,
        _ => Some(instruction.immediate8() & COUNT_MASK),
    }
}

/// Whether the host cannot execute the instruction in 64-bit mode.
fn is_decimal_adjustment(instruction: &Instruction) -> bool {
    matches!(
        instruction.mnemonic(),
        Mnemonic::Aaa
            | Mnemonic::Aad
            | Mnemonic::Aam
            | Mnemonic::Aas
            | Mnemonic::Daa
            | Mnemonic::Das
    )
}

/// The flags that a shift or rotate certainly sets: none by a count in CL, which may be zero.
fn set_by_shift(instruction: &Instruction, touched: u32) -> u32 {
    match shift_count(instruction) {
        None | Some(0) => 0,
        Some(_) => touched,
    }
}

fn effect(instruction: &Instruction) -> Effect {
    let read = eflags(instruction.rflags_read());
    let undefined = eflags(instruction.rflags_undefined());
    let written =
        instruction.rflags_written() | instruction.rflags_cleared() | instruction.rflags_set();
    let defined = eflags(written) & !undefined;
    let (read, defined) = match instruction.mnemonic() {
        Mnemonic::Shl
        | Mnemonic::Sal
        | Mnemonic::Shr
        | Mnemonic::Sar
        | Mnemonic::Shld
        | Mnemonic::Shrd => (read, set_by_shift(instruction, STATUS & !(AF | OF))),
        Mnemonic::Rol | Mnemonic::Ror => (read, set_by_shift(instruction, CF)),
        // A count of 9, 17 or 33 turns CF right round: it is read even so.
        Mnemonic::Rcl | Mnemonic::Rcr => (CF, set_by_shift(instruction, CF)),
        // With a count of zero a repeated comparison compares nothing.
        _ if instruction.has_rep_prefix() || instruction.has_repne_prefix() => (read, 0),
        _ => (read, defined),
    };
    let undefined = if is_decimal_adjustment(instruction) {
        undefined
    } else {
        0
    };
    Effect {
        read,
        defined,
        undefined,
    }
}

/// Follows undefined flags through the code in `pieces`, which is entered with `entry` undefined.
///
/// The result gives, for each instruction by its offset in the code, the flags undefined before it; the offset after the last
/// instruction is included.
///
/// # Errors
/// [`Consumed`] names the first instruction that reads an undefined flag.
pub fn undefined(pieces: &[Piece<'_>], entry: u32) -> Result<BTreeMap<u32, u32>, Consumed> {
    let first = pieces.first().map_or(0, |piece| piece.at);
    let mut before = BTreeMap::from([(first, entry)]);
    // A backward branch may bring more undefined flags to what was visited: repeat until nothing is added.
    while pass(pieces, &mut before)? {}
    Ok(before)
}

/// Makes one pass over the code in address order; returns whether a backward branch added anything.
fn pass(pieces: &[Piece<'_>], before: &mut BTreeMap<u32, u32>) -> Result<bool, Consumed> {
    let mut grew_behind = false;
    for instruction in pieces.iter().flat_map(Piece::instructions) {
        let ip = instruction.ip32();
        let Some(&here) = before.get(&ip) else {
            // Nothing falls through or jumps to this address: it lies in a body that is never executed.
            continue;
        };
        if instruction.is_invalid() {
            break;
        }
        let Effect {
            read,
            defined,
            undefined,
        } = effect(&instruction);
        if read & here != 0 {
            return Err(Consumed(ip));
        }
        let after = here & !defined | undefined;
        let mut flow_to = |target: u32| {
            let entry = before.entry(target).or_insert(0);
            if target <= ip && *entry | after != *entry {
                grew_behind = true;
            }
            *entry |= after;
        };
        let direct = instruction.op_count() > 0
            && matches!(
                instruction.op0_kind(),
                OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
            );
        if direct {
            flow_to(instruction.near_branch_target() as u32);
        }
        // Far and indirect transfers go to the next unit: through the body, as far as flags are concerned.
        if !direct || instruction.flow_control() != FlowControl::UnconditionalBranch {
            flow_to(instruction.next_ip32());
        }
    }
    Ok(grew_behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undefined(bytes: &[u8]) -> Result<BTreeMap<u32, u32>, Consumed> {
        let piece = Piece {
            at: 0,
            bits: 32,
            bytes,
        };
        super::undefined(&[piece], 0)
    }

    #[test]
    fn guessed_flags_are_reported_until_they_are_defined() {
        // and eax, ecx; daa; shl dx, cl; cmp eax, ecx
        let flags = undefined(&[0x21, 0xc8, 0x27, 0x66, 0xd3, 0xe2, 0x39, 0xc8]).unwrap();
        assert_eq!(flags[&2], 0);
        assert_eq!(flags[&3], OF);
        assert_eq!(flags[&6], OF);
        assert_eq!(flags[&8], 0);
    }

    #[test]
    fn consuming_a_guessed_flag_is_an_error() {
        // aaa; lahf
        assert_eq!(undefined(&[0x37, 0x9f]), Err(Consumed(1)));
        // mul ecx; jz +0
        assert!(undefined(&[0xf7, 0xe1, 0x74, 0x00]).is_ok());
        // aam; jc +0
        assert_eq!(undefined(&[0xd4, 0x0a, 0x72, 0x00]), Err(Consumed(2)));
    }

    #[test]
    fn both_ways_of_a_branch_count() {
        // jo over; daa; over: nop
        let flags = undefined(&[0x70, 0x01, 0x27, 0x90]).unwrap();
        assert_eq!(flags[&3], OF);
    }
}
