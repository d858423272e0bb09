//! Which slot of a table is a page's, by the width of linear addresses.
//!
//! ```text
//!   32 bits:  every page has a slot of its own      index = linear address >> 12
//!
//!   48 bits:  63 .. 48  47  46  45  44 .. 40  39 ........ 12  11 .. 0
//!                        │       │            │            │
//!             index:    29      28           27 .......... 0              (PEXT by INDEX_BITS)
//! ```
//!
//! With 48 bits, pages share a slot whose addresses differ in other bits than those of [`INDEX_BITS`], thus by a multiple of
//! 1 TiB, and so do addresses that are not canonical with one that is. A slot is the distance to the host's page, and RAM is
//! smaller than 1 TiB. So the slot of one page leads from another outside the mapping of RAM, by which [`Tables`](super::Tables)
//! tells them apart, and to an address that faults (`layout`). The choice of bits affects speed only: they are all those that
//! Linux chooses by chance for its programs and itself (12 to 39), one that tells positions of programs from those of libraries
//! (45), and one that tells programs from the kernel (47).

use std::ops::Range;

use smallvec::SmallVec;

use crate::addr::{LinearAddr, LinearPage, LinearWidth, PAGE_SHIFT};
use crate::layout::TERABYTE;
use crate::shadow::SHADOW_PAGES;

/// The bits of a 48-bit linear address that choose the slot, in the order of PEXT.
pub const INDEX_BITS: u64 = bits(39, 12) | 1 << 45 | OWN_BIT;

/// The bit of a 48-bit linear address that is clear where slots are a space's own.
const OWN_BIT: u64 = 1 << 47;

/// Bits `low..=high` set.
const fn bits(high: u32, low: u32) -> u64 {
    (u64::MAX >> (63 - high)) & (u64::MAX << low)
}

/// Some successive bits of a page number, and where in the index they go.
#[derive(Clone, Copy)]
struct Field {
    /// Places by which they are lower in the index.
    shift: u32,
    /// The bits of the index.
    mask: u64,
}

/// The fields of [`INDEX_BITS`].
const FIELDS: [Field; 3] = {
    let mut fields = [Field { shift: 0, mask: 0 }; 3];
    let mut rest = INDEX_BITS >> PAGE_SHIFT;
    let (mut taken, mut index, mut count) = (0, 0, 0);
    while rest != 0 {
        let skipped = rest.trailing_zeros();
        taken += skipped;
        rest >>= skipped;
        let len = rest.trailing_ones();
        fields[count] = Field {
            shift: taken - index,
            mask: bits(index + len - 1, index),
        };
        taken += len;
        index += len;
        rest >>= len;
        count += 1;
    }
    assert!(count == fields.len(), "a field for each run of bits");
    fields
};

/// Pages of a run whose slots are successive: those of the first field, aligned.
const RUN: u64 = FIELDS[0].mask + 1;
const _: () = assert!(FIELDS[0].shift == 0);

/// Bytes of linear addresses by a multiple of which pages with a common slot differ.
pub(super) const ALIAS_BYTES: u64 = RUN << PAGE_SHIFT;
const _: () = assert!(ALIAS_BYTES == TERABYTE as u64);

impl LinearWidth {
    /// The slots of a table.
    pub(super) const fn slots(self) -> u32 {
        match self {
            Self::Bits32 => 1 << (32 - PAGE_SHIFT),
            Self::Bits48 => 1 << INDEX_BITS.count_ones(),
        }
    }

    /// The first slots of a table that each set has for itself: those of pages that a shadow can map, or those of programs.
    pub(super) const fn own_slots(self) -> u32 {
        match self {
            Self::Bits32 => SHADOW_PAGES,
            Self::Bits48 => self.slots() / 2,
        }
    }

    /// The slot of a page.
    #[inline(always)]
    pub(crate) const fn index(self, page: LinearPage) -> u32 {
        match self {
            Self::Bits32 => page.get() as u32 & (self.slots() - 1),
            Self::Bits48 => {
                let [low, middle, high] = FIELDS;
                (page.get() & low.mask
                    | page.get() >> middle.shift & middle.mask
                    | page.get() >> high.shift & high.mask) as u32
            }
        }
    }

    /// Whether the slots of a page are a set's own.
    #[inline]
    pub(crate) const fn is_own(self, page: LinearPage) -> bool {
        self.index(page) < self.own_slots()
    }

    /// Calls `each` with the slots of pages, all of which have numbers below 2^36, as a walk's entries map them.
    #[inline]
    pub(super) fn each_range(self, pages: &Range<u64>, mut each: impl FnMut(Range<u32>)) {
        if self == Self::Bits32 {
            let slots = u64::from(self.slots());
            return each(pages.start.min(slots) as u32..pages.end.min(slots) as u32);
        }
        let mut done: SmallVec<[Range<u32>; 4]> = SmallVec::new();
        let mut next = pages.start;
        while next < pages.end {
            let end = (next | (RUN - 1)) + 1;
            let start = self.index(LinearPage::new(next));
            let range = start..start + (end.min(pages.end) - next) as u32;
            if !done.contains(&range) {
                each(range.clone());
                done.push(range);
            }
            next = end;
        }
    }

    /// The bits 39:0 of the addresses of all pages that have this slot.
    #[inline]
    pub(super) const fn low_address(self, index: u32) -> u64 {
        (index as u64) << PAGE_SHIFT & (ALIAS_BYTES - 1)
    }

    /// The part of `addr` to which slots are added.
    #[inline(always)]
    pub(super) const fn linear(self, addr: LinearAddr) -> u64 {
        match self {
            Self::Bits32 => addr.get() as u32 as u64,
            Self::Bits48 => addr.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// PEXT, bit by bit (SDM Vol. 2B, PEXT).
    fn pext(value: u64, mask: u64) -> u64 {
        let set = (0..64).filter(|bit| mask >> bit & 1 != 0);
        set.enumerate()
            .fold(0, |sum, (to, from)| sum | (value >> from & 1) << to)
    }

    fn page(number: u64) -> LinearPage {
        LinearPage::new(number)
    }

    fn ranges(width: LinearWidth, pages: Range<u64>) -> Vec<Range<u32>> {
        let mut ranges = Vec::new();
        width.each_range(&pages, |range| ranges.push(range));
        ranges
    }

    proptest! {
        #[test]
        fn the_index_is_what_pext_gives(addr: u64) {
            let page = LinearAddr::new(addr).page();
            let index = LinearWidth::Bits48.index(page);
            prop_assert_eq!(u64::from(index), pext(addr, INDEX_BITS));
            prop_assert_eq!(LinearWidth::Bits48.is_own(page), addr >> 47 & 1 == 0);
            prop_assert_eq!(LinearWidth::Bits48.low_address(index), addr & 0xff_ffff_f000);
            prop_assert_eq!(u64::from(LinearWidth::Bits32.index(page)), addr >> 12 & 0xf_ffff);
        }

        #[test]
        fn ranges_hold_the_slots_of_all_their_pages(
            start in 0..1u64 << 36, shift in 0..28u32, count in 1..600u64, within in 0..u64::MAX,
        ) {
            let start = start >> shift << shift;
            let end = (start + (count << shift)).min(1 << 36);
            prop_assume!(start < end);
            let inside = page(start + within % (end - start));
            for width in [LinearWidth::Bits32, LinearWidth::Bits48] {
                let ranges = ranges(width, start..end);
                let all = 0..width.slots();
                prop_assert!(ranges.iter().all(|range| range.end <= all.end));
                if width == LinearWidth::Bits48 || inside.get() < all.end.into() {
                    let index = width.index(inside);
                    prop_assert!(ranges.iter().any(|range| range.contains(&index)));
                }
            }
            if end - start <= RUN {
                let ranges = ranges(LinearWidth::Bits48, start..end);
                prop_assert_eq!(ranges.iter().map(|range| range.len() as u64).sum::<u64>(), end - start);
            }
        }
    }
}
