//! [`Origin`]: the indirect branch that led to an address, for targets that are not canonical.

use mmu::{PAGE_SHIFT, PAGE_SIZE};

/// An indirect jump or a return, as far as it is known when it is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Offset of the instruction in its page.
    pub offset: u32,
    /// The bytes that it has taken from the stack, below 2^20.
    pub popped: u32,
}

impl Origin {
    /// The origin as a number.
    pub fn to_bits(self) -> u32 {
        self.popped << PAGE_SHIFT | self.offset
    }

    /// The origin that a number stands for.
    pub fn from_bits(bits: u32) -> Self {
        Self {
            offset: bits & (PAGE_SIZE as u32 - 1),
            popped: bits >> PAGE_SHIFT,
        }
    }
}
