//! The memory map of a PC as firmware would report it.

use std::ops::Range;

use super::ram::{HIGH_START, LOW_END, Ram};

/// Start of the ROMs.
const ROM_START: u64 = 0xf_0000;

/// The type of a range; the numbers are those of INT 0x15, EAX=0xe820, and of Multiboot's `mmap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RangeType {
    Ram = 1,
    Reserved = 2,
}

/// Returns the ranges, in ascending order, of a machine with `ram`. Video memory, between low memory and the ROMs, is in none, nor
/// are the addresses of devices, between RAM's two parts.
pub(super) fn memory_map(ram: &Ram) -> impl Iterator<Item = (Range<u64>, RangeType)> {
    let ranges = [
        (0..LOW_END, RangeType::Ram),
        (ROM_START..HIGH_START, RangeType::Reserved),
        (HIGH_START..ram.low_end(), RangeType::Ram),
        (ram.high(), RangeType::Ram),
    ];
    ranges.into_iter().filter(|(range, _)| !range.is_empty())
}
