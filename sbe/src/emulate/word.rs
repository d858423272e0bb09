//! [`Word`]: the widths an integer instruction comes in, so that one generic handler serves 8, 16, 32 and 64 bits.

use crate::cpu::regs::Registers;

/// An integer operand of 8, 16, 32 or 64 bits.
pub trait Word: mmu::Scalar + Eq {
    /// Width in bits.
    const BITS: u32;
    /// Width in bytes.
    const BYTES: u32 = Self::BITS / 8;
    /// The most significant bit.
    const SIGN: u64 = 1 << (Self::BITS - 1);
    /// All bits of this width.
    const MASK: u64 = u64::MAX >> (64 - Self::BITS);

    /// Cuts `value` to this width.
    fn cut(value: u64) -> Self;

    /// Zero-extends.
    fn zero_extend(self) -> u64;

    /// Sign-extends.
    fn sign_extend(self) -> u64;

    /// Register number `index` of this width.
    fn register(regs: &Registers, index: u8) -> Self;

    /// Sets register number `index` of this width.
    fn set_register(self, regs: &mut Registers, index: u8);
}

/// Implements [`Word`] for a type: `$signed` is the signed type of its width, `$get` and `$set` access registers.
macro_rules! word {
    ($word:ty, $signed:ty, $get:ident, $set:ident) => {
        impl Word for $word {
            const BITS: u32 = <$word>::BITS;

            #[inline(always)]
            fn cut(value: u64) -> Self {
                value as Self
            }

            #[inline(always)]
            fn zero_extend(self) -> u64 {
                self as u64
            }

            #[inline(always)]
            fn sign_extend(self) -> u64 {
                self as $signed as u64
            }

            #[inline(always)]
            fn register(regs: &Registers, index: u8) -> Self {
                regs.$get(index)
            }

            #[inline(always)]
            fn set_register(self, regs: &mut Registers, index: u8) {
                regs.$set(index, self);
            }
        }
    };
}

word!(u8, i8, get8, set8);
word!(u16, i16, get16, set16);
word!(u32, i32, get, set);
word!(u64, i64, get64, set64);
