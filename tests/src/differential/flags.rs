//! The status flags that are undefined at each place of a sequence.
//!
//! The manual leaves flags undefined after many instructions. They are masked when states are compared, and no generated
//! instruction may consume them: [`undefined`] follows them through a sequence, branches included, and says where they
//! are undefined, or that one is consumed. The facts are iced-x86's; `effect` adds what depends on operands.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register, RflagsBits,
};
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

/// Width in bits of a shift's or rotate's destination.
fn shift_width(instruction: &Instruction) -> u8 {
    match instruction.op0_kind() {
        OpKind::Register => instruction.op0_register().size() as u8 * 8,
        _ => instruction.memory_size().size() as u8 * 8,
    }
}

/// The count of a shift or rotate, masked; `None` if it is in CL.
pub fn shift_count(instruction: &Instruction) -> Option<u8> {
    let last = instruction.op_count() - 1;
    match instruction.op_kind(last) {
        OpKind::Register if instruction.op_register(last) == Register::CL => None,
        _ => Some(instruction.immediate8() & COUNT_MASK),
    }
}

/// The effect of a shift or rotate (SDM Vol. 2B, "SAL/SAR/SHL/SHR", "RCL/RCR/ROL/ROR", "SHLD", "SHRD"): a count of zero leaves
/// all flags, OF is defined for a count of one, CF of SHL and SHR for counts below the width.
fn shift_effect(instruction: &Instruction, read: u32, touched: u32) -> Effect {
    let width = shift_width(instruction);
    let loses_carry = |count: u8| match instruction.mnemonic() {
        Mnemonic::Shl | Mnemonic::Sal | Mnemonic::Shr => count >= width,
        _ => false,
    };
    let af = AF & touched;
    match shift_count(instruction) {
        None => {
            let cf = if loses_carry(COUNT_MASK) { CF } else { 0 };
            Effect {
                read,
                defined: 0,
                undefined: OF | af | cf,
            }
        }
        Some(0) => Effect {
            read,
            defined: 0,
            undefined: 0,
        },
        Some(count) => {
            let of = if count == 1 { 0 } else { OF };
            let cf = if loses_carry(count) { CF } else { 0 };
            let undefined = of | af | cf;
            Effect {
                read,
                defined: touched & !undefined,
                undefined,
            }
        }
    }
}

fn effect(instruction: &Instruction) -> Effect {
    let read = eflags(instruction.rflags_read());
    let undefined = eflags(instruction.rflags_undefined());
    let defined = eflags(
        instruction.rflags_written() | instruction.rflags_cleared() | instruction.rflags_set(),
    ) & !undefined;
    match instruction.mnemonic() {
        Mnemonic::Shl
        | Mnemonic::Sal
        | Mnemonic::Shr
        | Mnemonic::Sar
        | Mnemonic::Shld
        | Mnemonic::Shrd => shift_effect(instruction, read, STATUS),
        Mnemonic::Rol | Mnemonic::Ror => shift_effect(instruction, read, CF | OF),
        // A count of 9, 17 or 33 turns CF right round: it is read even so.
        Mnemonic::Rcl | Mnemonic::Rcr => shift_effect(instruction, CF, CF | OF),
        // With a count of zero a repeated comparison compares nothing.
        _ if instruction.has_rep_prefix() || instruction.has_repne_prefix() => Effect {
            read,
            defined: 0,
            undefined,
        },
        _ => Effect {
            read,
            defined,
            undefined,
        },
    }
}

/// Follows undefined flags through `code`, which lies at `at` and is entered with `entry` undefined.
///
/// The result gives, for each instruction address, the flags undefined before it; the address after the last
/// instruction is included.
///
/// # Errors
/// [`Consumed`] names the first instruction that reads an undefined flag.
pub fn undefined(code: &[u8], at: u32, entry: u32) -> Result<BTreeMap<u32, u32>, Consumed> {
    let mut before = BTreeMap::from([(at, entry)]);
    // A backward branch may bring more undefined flags to what was visited: repeat until nothing is added.
    while pass(code, at, &mut before)? {}
    Ok(before)
}

/// Makes one pass over the code in address order; returns whether a backward branch added anything.
fn pass(code: &[u8], at: u32, before: &mut BTreeMap<u32, u32>) -> Result<bool, Consumed> {
    let mut grew_behind = false;
    let mut decoder = Decoder::with_ip(32, code, u64::from(at), DecoderOptions::NONE);
    while decoder.can_decode() {
        let instruction = decoder.decode();
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
        let direct = instruction.op_count() > 0 && instruction.op0_kind() == OpKind::NearBranch32;
        if direct {
            flow_to(instruction.near_branch32());
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

    #[test]
    fn flags_left_undefined_are_reported_until_they_are_defined() {
        // and eax, ecx; shl dx, cl; cmp eax, ecx
        let flags = undefined(&[0x21, 0xc8, 0x66, 0xd3, 0xe2, 0x39, 0xc8], 0x100, 0).unwrap();
        assert_eq!(flags[&0x102], AF);
        assert_eq!(flags[&0x105], AF | OF | CF);
        assert_eq!(flags[&0x107], 0);
    }

    #[test]
    fn consuming_an_undefined_flag_is_an_error() {
        // and eax, ecx; lahf
        assert_eq!(
            undefined(&[0x21, 0xc8, 0x9f], 0x100, 0),
            Err(Consumed(0x102))
        );
        // mul ecx; jz +0
        assert_eq!(
            undefined(&[0xf7, 0xe1, 0x74, 0x00], 0x100, 0),
            Err(Consumed(0x102))
        );
    }

    #[test]
    fn both_ways_of_a_branch_count() {
        // jo over; and eax, ecx; over: nop
        let flags = undefined(&[0x70, 0x02, 0x21, 0xc8, 0x90], 0x100, 0).unwrap();
        assert_eq!(flags[&0x104], AF);
    }
}
