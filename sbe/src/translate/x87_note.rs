//! [`X87Note`]: the note that emitted code leaves of an x87 instruction, from which the last-instruction pointers are made; and
//! [`DeferredNote`], one that emitted code has not stored yet.

use super::asm::Mem;
use crate::cpu::fpu::FOP_MASK;
use crate::cpu::segment::SegReg;
use mmu::{PAGE_SHIFT, PAGE_SIZE, Privilege};

/// Width of FOP in bits.
const FOP_BITS: u32 = FOP_MASK.count_ones();
/// Position of FOP in a note.
const FOP_SHIFT: u32 = PAGE_SHIFT;
/// Position of the bit that says that user code executed the instruction.
const USER_SHIFT: u32 = FOP_SHIFT + FOP_BITS;

/// An x87 instruction, as far as it is known when it is translated. As a number:
///
/// ```text
///   31        24  23   22      12 11            0
///   zeros        user  FOP        offset in the page
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X87Note {
    /// Offset of the instruction in its page.
    pub offset: u32,
    /// Value of FOP after the instruction.
    pub fop: u16,
    /// The privilege at which the instruction executes.
    pub privilege: Privilege,
}

impl X87Note {
    /// The number that is no note.
    pub const NONE: u32 = u32::MAX;

    /// The note as a number.
    pub fn to_bits(self) -> u32 {
        let user = u32::from(self.privilege == Privilege::User);
        user << USER_SHIFT | u32::from(self.fop & FOP_MASK) << FOP_SHIFT | self.offset
    }

    /// The note that `bits` is, if it is one.
    pub fn from_bits(bits: u32) -> Option<Self> {
        let privilege = match bits >> USER_SHIFT & 1 {
            0 => Privilege::Supervisor,
            _ => Privilege::User,
        };
        (bits != Self::NONE).then_some(Self {
            offset: bits & (PAGE_SIZE as u32 - 1),
            fop: (bits >> FOP_SHIFT) as u16 & FOP_MASK,
            privilege,
        })
    }
}

/// The note of an x87 instruction that has executed, and of the latest memory operand if that is not stored either.
#[derive(Clone, Copy, Debug)]
pub struct DeferredNote {
    /// The note of the instruction.
    pub note: X87Note,
    /// The operand, if there is one to be stored: all registers in its address are still the same.
    pub operand: Option<NotedOperand>,
}

/// The memory operand of an x87 instruction.
#[derive(Clone, Copy, Debug)]
pub struct NotedOperand {
    /// The effective address.
    pub address: Mem,
    /// The segment.
    pub segment: SegReg,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_survives_as_a_number() {
        for privilege in [Privilege::Supervisor, Privilege::User] {
            for (offset, fop) in [(0, 0), (0xfff, 0x7ff), (0x123, 0x5c1)] {
                let note = X87Note {
                    offset,
                    fop,
                    privilege,
                };
                assert_eq!(X87Note::from_bits(note.to_bits()), Some(note));
            }
        }
        assert_eq!(X87Note::from_bits(X87Note::NONE), None);
    }
}
