//! [`Widths`]: the widths of linear addresses and of code, which decide what checked code may do.

use super::registers::{GUEST, GUEST_32, R13, R14, R15, RSP};
use super::value::{Low, Value, Values, WORD};
use crate::decode::decoder::CodeSize;
use crate::translate::context::PAGE_BIAS;
use mmu::{LinearWidth, PAGE_SHIFT};

/// The low bits of a page's address as R13 or the context holds it.
pub const PAGE_LOW: Low = Low::of(PAGE_BIAS as u64);
const _: () = assert!(PAGE_LOW.bits as u32 == PAGE_SHIFT);

/// The widths by which code is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths {
    /// The width of the linear addresses that the tables are indexed by.
    pub tables: LinearWidth,
    /// The size of the guest's code.
    pub code: CodeSize,
}

impl Widths {
    /// Whether tables are indexed by 48-bit addresses.
    pub fn has_wide_tables(self) -> bool {
        self.tables == LinearWidth::Bits48
    }

    /// Whether the guest's code is 64-bit code.
    pub fn is_64(self) -> bool {
        self.code == CodeSize::Bits64
    }

    /// The largest number in a register of the guest's.
    fn most(self) -> u64 {
        match self.is_64() {
            true => u64::MAX,
            false => WORD,
        }
    }

    /// A new value that a register of the guest's can have, of which only low bits are known.
    pub fn unknown(self, values: &mut Values, low: Low) -> Value {
        values.unknown(self.most(), low)
    }

    /// Whether a register of the guest's can have `value`: in 32-bit code those of 64 bits are zero-extended.
    pub fn fits(self, values: &Values, value: Value) -> bool {
        values.most(value) <= self.most()
    }

    /// The registers that hold the guest's.
    pub fn guest(self) -> &'static [usize] {
        match self.is_64() {
            true => &GUEST,
            false => &GUEST[..GUEST_32],
        }
    }

    /// Whether register `number` is left alone, or written by those instructions only that are known to keep its meaning.
    pub fn pins(self, number: usize) -> bool {
        matches!(number, RSP | R13 | R14 | R15) && !self.guest().contains(&number)
    }

    /// Whether `value` is a page's address as R13 or the context holds it.
    pub fn is_page(self, values: &Values, value: Value) -> bool {
        self.fits(values, value) && values.low(value) == PAGE_LOW
    }
}
