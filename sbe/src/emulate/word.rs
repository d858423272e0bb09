//! [`Word`]: the widths an integer instruction comes in, so that one generic handler serves 8, 16 and 32 bits.

use crate::cpu::regs::Registers;

/// An integer operand of 8, 16 or 32 bits.
pub trait Word: mmu::Scalar + Eq {
    /// Width in bits.
    const BITS: u32;
    /// Width in bytes.
    const BYTES: u32 = Self::BITS / 8;
    /// The most significant bit.
    const SIGN: u32 = 1 << (Self::BITS - 1);
    /// All bits of this width.
    const MASK: u32 = u32::MAX >> (32 - Self::BITS);

    /// Cuts `value` to this width.
    fn cut(value: u32) -> Self;

    /// Zero-extends.
    fn zero_extend(self) -> u32;

    /// Sign-extends.
    fn sign_extend(self) -> u32;

    /// Register number `index` of this width.
    fn register(regs: &Registers, index: u8) -> Self;

    /// Sets register number `index` of this width.
    fn set_register(self, regs: &mut Registers, index: u8);
}

impl Word for u8 {
    const BITS: u32 = 8;

    #[inline(always)]
    fn cut(value: u32) -> Self {
        value as Self
    }

    #[inline(always)]
    fn zero_extend(self) -> u32 {
        u32::from(self)
    }

    #[inline(always)]
    fn sign_extend(self) -> u32 {
        self as i8 as u32
    }

    #[inline(always)]
    fn register(regs: &Registers, index: u8) -> Self {
        regs.get8(index)
    }

    #[inline(always)]
    fn set_register(self, regs: &mut Registers, index: u8) {
        regs.set8(index, self);
    }
}

impl Word for u16 {
    const BITS: u32 = 16;

    #[inline(always)]
    fn cut(value: u32) -> Self {
        value as Self
    }

    #[inline(always)]
    fn zero_extend(self) -> u32 {
        u32::from(self)
    }

    #[inline(always)]
    fn sign_extend(self) -> u32 {
        self as i16 as u32
    }

    #[inline(always)]
    fn register(regs: &Registers, index: u8) -> Self {
        regs.get16(index)
    }

    #[inline(always)]
    fn set_register(self, regs: &mut Registers, index: u8) {
        regs.set16(index, self);
    }
}

impl Word for u32 {
    const BITS: u32 = 32;

    #[inline(always)]
    fn cut(value: u32) -> Self {
        value
    }

    #[inline(always)]
    fn zero_extend(self) -> u32 {
        self
    }

    #[inline(always)]
    fn sign_extend(self) -> u32 {
        self
    }

    #[inline(always)]
    fn register(regs: &Registers, index: u8) -> Self {
        regs.get(index)
    }

    #[inline(always)]
    fn set_register(self, regs: &mut Registers, index: u8) {
        regs.set(index, self);
    }
}
