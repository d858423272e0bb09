//! [`Reach`]: how far direct branches of a page of 64-bit code may lead, so that their targets are canonical.

use mmu::{LinearPage, PAGE_SHIFT};

/// The bits of an address of the lower half.
const HALF_BITS: u32 = 47;

/// The offsets from the start of a page at which addresses are canonical, wherever the page is known to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    first: i32,
    last: i32,
}

impl Reach {
    /// All offsets: those of a page that is far from the end of its half.
    pub const ALL: Self = Self {
        first: i32::MIN,
        last: i32::MAX,
    };

    /// The reach of a page that executes at `page`.
    pub fn of(page: LinearPage) -> Self {
        let start = (page.get() << PAGE_SHIFT).cast_signed();
        let half = 1 << HALF_BITS;
        let cut = |offset: i64| offset.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        match start < 0 {
            true => Self {
                first: cut(-half - start),
                ..Self::ALL
            },
            false => Self {
                last: cut(half - 1 - start),
                ..Self::ALL
            },
        }
    }

    /// The offsets that are in both.
    pub fn and(self, other: Self) -> Self {
        Self {
            first: self.first.max(other.first),
            last: self.last.min(other.last),
        }
    }

    /// Whether the address at `offset` is canonical.
    pub fn contains(self, offset: i32) -> bool {
        (self.first..=self.last).contains(&offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mmu::LinearAddr;

    #[test]
    fn a_reach_ends_with_its_half() {
        let half: u64 = 1 << HALF_BITS;
        for (page, inside, outside) in [
            (half - 0x1000, 0xfff, Some(0x1000)),
            (half - 0x3000, 0x2fff, Some(0x3000)),
            (half.wrapping_neg(), 0, Some(-1)),
            (half.wrapping_neg() + 0x2000, -0x2000, Some(-0x2001)),
            (half - 0x1_0000_0000, i32::MAX, None),
            // The last address is followed by the first.
            (0, i32::MIN, None),
            (0u64.wrapping_sub(0x1000), i32::MAX, None),
        ] {
            let reach = Reach::of(LinearAddr::new(page).page());
            assert!(reach.contains(inside), "{page:#x}");
            assert!(
                outside.is_none_or(|outside| !reach.contains(outside)),
                "{page:#x}"
            );
        }
    }
}
