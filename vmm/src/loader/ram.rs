//! [`Ram`]: where the machine has RAM.

use std::{fmt, ops::Range};

use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

/// The guest-physical addresses that are RAM: from 0 on, but for the hole between video memory and 1 MiB, and from 4 GiB on, above
/// the addresses of devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ram {
    low_end: u64,
    high: Range<u64>,
}

/// End of the low memory that a kernel may use; the extended BIOS data area would follow.
pub(super) const LOW_END: u64 = 0x9_fc00;
/// Start of the video memory, up to which RAM reaches.
const VIDEO_START: u64 = 0xa_0000;
/// Start of the memory above the adapters and ROMs: 1 MiB.
pub(super) const HIGH_START: u64 = 0x10_0000;
/// Start of the high part.
const FOUR_GIB: u64 = 1 << 32;

impl Ram {
    /// Returns RAM that ends at `end`, below 4 GiB.
    pub(super) fn below(end: u64) -> Self {
        Self {
            low_end: end.min(FOUR_GIB),
            high: FOUR_GIB..FOUR_GIB,
        }
    }

    /// Returns where `memory` has its regions.
    pub(super) fn of(memory: &impl GuestMemoryBackend) -> Self {
        let mut ram = Self::below(0);
        for region in memory.iter() {
            let start = region.start_addr().raw_value();
            let end = start.saturating_add(region.len());
            match start < FOUR_GIB {
                true => ram.low_end = ram.low_end.max(end.min(FOUR_GIB)),
                false => ram.high.end = ram.high.end.max(end),
            }
        }
        ram
    }

    /// Returns the first address behind the part below 4 GiB.
    pub(super) fn low_end(&self) -> u64 {
        self.low_end
    }

    /// Returns the part from 4 GiB on, which may be empty.
    pub(super) fn high(&self) -> Range<u64> {
        self.high.clone()
    }

    /// Returns whether all of `range` is RAM.
    pub(super) fn holds(&self, range: &Range<u64>) -> bool {
        let parts = [
            0..self.end_of_video(),
            HIGH_START..self.low_end,
            self.high(),
        ];
        let mut parts = parts.iter();
        parts.any(|part| part.start <= range.start && range.end <= part.end)
    }

    fn end_of_video(&self) -> u64 {
        self.low_end.min(VIDEO_START)
    }
}

impl fmt::Display for Ram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0 to {:#x}", self.end_of_video())?;
        for part in [HIGH_START..self.low_end, self.high()] {
            if !part.is_empty() {
                write!(f, " and {:#x} to {:#x}", part.start, part.end)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::*;

    #[test]
    fn all_parts_are_named() {
        for (ram_end, expected) in [
            (0xa_0000, "0 to 0xa0000"),
            (0x10_0000, "0 to 0xa0000"),
            (0x20_0000, "0 to 0xa0000 and 0x100000 to 0x200000"),
        ] {
            assert_eq!(Ram::below(ram_end).to_string(), expected);
        }
    }

    #[test]
    fn ram_has_holes() {
        let regions = [(0, 0xa_0000), (0x10_0000, 0x10_0000), (FOUR_GIB, 0x3000)];
        let regions = regions.map(|(start, len)| (GuestAddress(start), len));
        let ram = Ram::of(&GuestMemoryMmap::<()>::from_ranges(&regions).unwrap());
        assert_eq!(
            ram.to_string(),
            "0 to 0xa0000 and 0x100000 to 0x200000 and 0x100000000 to 0x100003000"
        );
        for (range, expected) in [
            (0..0xa_0000, true),
            (0x10_0000..0x20_0000, true),
            (0x9_ffff..0xa_0001, false),
            (0xf_ffff..0x10_0001, false),
            (0x1f_ffff..0x20_0001, false),
            (FOUR_GIB..FOUR_GIB + 0x3000, true),
            (FOUR_GIB - 1..FOUR_GIB + 1, false),
            (FOUR_GIB + 0x2fff..FOUR_GIB + 0x3001, false),
        ] {
            assert_eq!(ram.holds(&range), expected, "{range:?}");
        }
    }

    #[test]
    fn without_more_above_nothing_from_4_gib_on_is_ram() {
        assert!(!Ram::below(FOUR_GIB).holds(&(FOUR_GIB..FOUR_GIB + 1)));
        assert_eq!(Ram::below(1 << 40), Ram::below(FOUR_GIB));
    }
}
