//! [`Layout`]: the parts of guest RAM that are taken, and the search for room between them.

use std::ops::Range;

use super::ram::{HIGH_START, LOW_END, Ram};

/// A record of what lies where in guest RAM. Ranges are guest-physical.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    ram: Ram,
    taken: Vec<Range<u64>>,
}

/// Start of the room for what a loader leaves in low memory: behind the interrupt table and the BIOS data area.
const LOW_START: u64 = 0x1000;

/// Returns whether two ranges share bytes.
pub(super) fn overlap(first: &Range<u64>, second: &Range<u64>) -> bool {
    first.start < second.end && second.start < first.end
}

impl Layout {
    /// Returns the layout of `ram`, of which `taken` is taken.
    pub(super) fn new(ram: &Ram, taken: &[Range<u64>]) -> Self {
        Self {
            ram: ram.clone(),
            taken: taken.to_vec(),
        }
    }

    /// Returns where the machine has RAM.
    pub(super) fn ram(&self) -> &Ram {
        &self.ram
    }

    /// Returns a range that is taken and shares bytes with `range`.
    pub(super) fn in_the_way(&self, range: &Range<u64>) -> Option<&Range<u64>> {
        let mut taken = self.taken.iter();
        taken.find(|other| overlap(other, range))
    }

    /// Records that `range` is taken.
    pub(super) fn take(&mut self, range: Range<u64>) {
        self.taken.push(range);
    }

    /// Takes the lowest `len` bytes that are free within `range`, at a multiple of `align`, and returns their address.
    pub(super) fn take_lowest(&mut self, len: u64, align: u64, range: Range<u64>) -> Option<u64> {
        let mut start = range.start.checked_next_multiple_of(align)?;
        while let Some(other) = self.in_the_way(&(start..start + len)) {
            start = other.end.next_multiple_of(align);
        }
        (start + len <= range.end).then(|| self.taken.push(start..start + len))?;
        Some(start)
    }

    /// Takes the highest `len` bytes that are free within `range`, at a multiple of `align`, and returns their address.
    pub(super) fn take_highest(&mut self, len: u64, align: u64, range: Range<u64>) -> Option<u64> {
        let below = |end: u64| Some(end.checked_sub(len)? / align * align);
        let mut start = below(range.end)?;
        while let Some(other) = self.in_the_way(&(start..start + len)) {
            start = below(other.start)?;
        }
        (start >= range.start).then(|| self.taken.push(start..start + len))?;
        Some(start)
    }

    /// Takes `len` bytes at `preferred`, or else, if these are taken, the lowest free ones of low memory or of all memory below
    /// 4 GiB, at a multiple of `align`. Returns their address.
    pub(super) fn take_near(&mut self, preferred: u32, len: u64, align: u64) -> Option<u32> {
        let preferred = u64::from(preferred);
        let rooms = [
            preferred..preferred + len,
            LOW_START..LOW_END,
            HIGH_START..self.ram.low_end(),
        ];
        let mut rooms = rooms.into_iter().filter(|room| room.start < room.end);
        let start = rooms.find_map(|room| self.take_lowest(len, align, room))?;
        // That part of RAM ends at 4 GiB.
        Some(start as u32)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RAM_END: u64 = 2 << 20;

    fn layout(taken: &[Range<u64>]) -> Layout {
        Layout::new(&Ram::below(RAM_END), taken)
    }

    #[test]
    fn what_is_preferred_moves_out_of_the_way() {
        for (taken, expected) in [
            (0..0, 0x1_0000),
            (0x1_0fff..0x1_1000, 0x1000),
            (0..0x8_0008, 0x8_0010),
            (0..0xa_0000, 0x10_0000),
            (0..0x1f_f000, 0x1f_f000),
        ] {
            let mut layout = layout(&[]);
            layout.take(taken.clone());
            assert_eq!(
                layout.take_near(0x1_0000, 0x1000, 16),
                Some(expected),
                "{taken:?}"
            );
        }
        let mut full = layout(&[]);
        full.take(0..0x1f_f001);
        assert_eq!(full.take_near(0x1_0000, 0x1000, 16), None);
    }

    #[test]
    fn a_range_that_begins_at_the_last_address_has_no_room() {
        let mut layout = layout(&[]);
        let start = u64::MAX;
        let range = start..RAM_END;
        assert_eq!(layout.take_lowest(1, 0x1000, range.clone()), None);
        assert_eq!(layout.take_highest(1, 0x1000, range), None);
    }

    #[test]
    fn pages_stay_pages() {
        let mut layout = layout(&[]);
        layout.take(0x1_2000..0x1_2001);
        assert_eq!(layout.take_near(0x1_2000, 0x2000, 0x1000), Some(0x1000));
    }

    proptest! {
        #[test]
        fn what_is_taken_lies_within_and_overlaps_nothing(
            taken in proptest::collection::vec((0..5000u64, 0..700u64), 0..12),
            len in 1..900u64,
            align in prop_oneof![Just(1u64), Just(16), Just(256)],
            start in 0..3000u64,
            room in 0..3000u64,
        ) {
            let taken: Vec<_> = taken.into_iter().map(|(start, len)| start..start + len).collect();
            let range = start..start + room;
            let layout = layout(&taken);
            let fits = |at: u64| at >= range.start && at + len <= range.end && at.is_multiple_of(align)
                && layout.in_the_way(&(at..at + len)).is_none();
            let lowest = range.clone().find(|&at| fits(at));
            let highest = range.clone().rev().find(|&at| fits(at));
            prop_assert_eq!(layout.clone().take_lowest(len, align, range.clone()), lowest);
            prop_assert_eq!(layout.clone().take_highest(len, align, range.clone()), highest);
        }
    }
}
