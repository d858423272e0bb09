//! The memory map of a PC as firmware would report it, and the addresses that it is made of.

use std::ops::Range;

/// End of the low memory that a kernel may use; the extended BIOS data area would follow.
pub(super) const LOW_END: u32 = 0x9_fc00;
/// Start of the video memory, up to which RAM reaches.
pub(super) const VIDEO_START: u32 = 0xa_0000;
/// Start of the ROMs.
const ROM_START: u32 = 0xf_0000;
/// Start of the memory above the adapters and ROMs: 1 MiB.
pub(super) const HIGH_START: u32 = 0x10_0000;

/// The type of a range; the numbers are those of INT 0x15, EAX=0xe820, and of Multiboot's `mmap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RangeType {
    Ram = 1,
    Reserved = 2,
}

/// Returns the ranges, in ascending order, of a machine whose RAM ends at `ram_end`. Video memory, between low memory and the
/// ROMs, is in none.
pub(super) fn memory_map(ram_end: u32) -> impl Iterator<Item = (Range<u32>, RangeType)> {
    let ranges = [
        (0..LOW_END, RangeType::Ram),
        (ROM_START..HIGH_START, RangeType::Reserved),
        (HIGH_START..ram_end, RangeType::Ram),
    ];
    ranges.into_iter().filter(|(range, _)| !range.is_empty())
}
