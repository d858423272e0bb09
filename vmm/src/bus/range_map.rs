//! [`RangeMap`]: disjoint ranges of numbers, each with a value, found by binary search.

use std::ops::RangeInclusive;

/// A map from disjoint ranges, kept in ascending order, to values.
#[derive(Clone, Debug)]
pub struct RangeMap<T>(Vec<(RangeInclusive<u64>, T)>);

impl<T> Default for RangeMap<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> RangeMap<T> {
    /// Finds the range that holds `number`, and its value.
    #[inline]
    pub fn find(&self, number: u64) -> Option<&(RangeInclusive<u64>, T)> {
        let behind = self
            .0
            .partition_point(|(range, _)| *range.start() <= number);
        let found = self.0.get(behind.checked_sub(1)?)?;
        (number <= *found.0.end()).then_some(found)
    }

    /// Finds the first range that overlaps `range`, and its value.
    pub fn overlapping(&self, range: &RangeInclusive<u64>) -> Option<&(RangeInclusive<u64>, T)> {
        let at = self
            .0
            .partition_point(|(other, _)| other.end() < range.start());
        self.0
            .get(at)
            .filter(|(other, _)| other.start() <= range.end())
    }

    /// Adds a range, which must not be empty and must not overlap another.
    pub fn insert(&mut self, range: RangeInclusive<u64>, value: T) {
        debug_assert!(!range.is_empty() && self.overlapping(&range).is_none());
        let at = self
            .0
            .partition_point(|(other, _)| other.start() < range.start());
        self.0.insert(at, (range, value));
    }

    /// Keeps only the ranges whose values `wanted` accepts.
    pub fn retain(&mut self, mut wanted: impl FnMut(&T) -> bool) {
        self.0.retain(|(_, value)| wanted(value));
    }

    /// All ranges in ascending order, with their values.
    pub fn iter(&self) -> impl Iterator<Item = &(RangeInclusive<u64>, T)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_table(ranges in vec((0u64..64, 0u64..8), 0..20), removed in 0usize..4) {
            let mut map = RangeMap::default();
            let mut table = [None; 80];
            for (value, (start, len)) in ranges.into_iter().enumerate() {
                let range = start..=start + len;
                let taken = table[start as usize..=(start + len) as usize].iter().flatten().next();
                let overlapping = map.overlapping(&range).map(|(_, value)| *value);
                prop_assert_eq!(overlapping, taken.copied());
                if taken.is_none() {
                    map.insert(range.clone(), value);
                    table[start as usize..=(start + len) as usize].fill(Some(value));
                }
            }
            map.retain(|value| value % 4 != removed);
            for (number, value) in table.into_iter().enumerate() {
                let value = value.filter(|value| value % 4 != removed);
                prop_assert_eq!(map.find(number as u64).map(|(_, value)| *value), value);
            }
        }
    }

    #[test]
    fn the_ends_of_the_numbers_are_numbers() {
        let mut map = RangeMap::default();
        assert!(map.find(0).is_none());
        map.insert(0..=0, 'a');
        map.insert(u64::MAX..=u64::MAX, 'z');
        assert!(map.find(1).is_none());
        assert_eq!(map.find(0).unwrap().1, 'a');
        assert_eq!(map.find(u64::MAX).unwrap().1, 'z');
        assert_eq!(map.overlapping(&(1..=u64::MAX)).unwrap().1, 'z');
    }
}
