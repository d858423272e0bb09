//! The modes in which cases run, with the width of code and the number of registers. What depends on them in memory is in the
//! module `layout`.

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
}
