//! [`Origin`]: the indirect branch that led to an address, for targets that are not canonical.

use mmu::{PAGE_SHIFT, PAGE_SIZE};

/// An indirect jump or a return, as far as it is known when it is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Offset of the instruction in its page.
    pub offset: u32,
    /// The bytes that it has taken from the stack: a word and those that RET names, 2^16 + 8 at most.
    pub popped: u32,
}

impl Origin {
    /// The number for an address to which no indirect branch has led.
    pub const NONE: u32 = u32::MAX;

    /// The origin as a number.
    pub fn to_bits(self) -> u32 {
        self.popped << PAGE_SHIFT | self.offset
    }

    /// The origin that a number stands for, unless that is [`Self::NONE`].
    pub fn from_bits(bits: u32) -> Option<Self> {
        (bits != Self::NONE).then_some(Self {
            offset: bits & (PAGE_SIZE as u32 - 1),
            popped: bits >> PAGE_SHIFT,
        })
    }
}
