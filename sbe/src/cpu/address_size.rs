//! [`AddressSize`]: the number of bits of an address.

use super::regs::{ESP, Registers};

/// The number of bits of an offset, beyond which it wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressSize {
    /// 16 bits.
    Bits16,
    /// 32 bits.
    Bits32,
    /// 64 bits.
    Bits64,
}

impl AddressSize {
    /// Cuts `offset` to this size.
    #[inline(always)]
    pub fn wrap(self, offset: u64) -> u64 {
        match self {
            Self::Bits16 => u64::from(offset as u16),
            Self::Bits32 => u64::from(offset as u32),
            Self::Bits64 => offset,
        }
    }

    /// Sets the stack pointer of this size: SP, and with it the low part of ESP, or ESP, or RSP.
    #[inline(always)]
    pub fn set_pointer(self, regs: &mut Registers, value: u64) {
        match self {
            Self::Bits16 => regs.set16(ESP, value as u16),
            Self::Bits32 => regs.set(ESP, value as u32),
            Self::Bits64 => regs.set64(ESP, value),
        }
    }
}
