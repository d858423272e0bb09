//! The modes in which cases run, and what depends on them: width of code, registers, places.

use super::layout::{FLAT_CODE, FLAT_CODE_64, PLACES};

/// An operating mode of the processor (SDM Vol. 3A, 2.2 "Modes of Operation"). The real CPU runs the cases of protected mode in
/// compatibility mode, which is the same to a user program but for IRET with NT set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 32-bit and 16-bit code below a 32-bit kernel.
    Protected,
    /// 32-bit and 16-bit code below a 64-bit kernel.
    Compatibility,
    /// 64-bit code.
    Bits64,
}

impl Mode {
    /// Whether cases are 64-bit code.
    pub fn is_64(self) -> bool {
        self == Self::Bits64
    }

    /// Bits of code in the flat code segment: 32 or 64.
    pub fn bits(self) -> u32 {
        if self.is_64() { 64 } else { 32 }
    }

    /// The number of general registers: 8 or 16. There are as many XMM registers.
    pub fn registers(self) -> usize {
        if self.is_64() { 16 } else { 8 }
    }

    /// The selector of the flat code segment.
    pub fn flat_code(self) -> u16 {
        if self.is_64() {
            FLAT_CODE_64
        } else {
            FLAT_CODE
        }
    }

    /// What is added to the linear addresses of the layout: each place has an exit page, code and a sandbox.
    pub fn places(self) -> &'static [u64] {
        if self.is_64() { &PLACES } else { &PLACES[..1] }
    }
}
