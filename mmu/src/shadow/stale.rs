//! [`StalePages`]: pages whose slots were emptied or changed, and which a shadow may still show.

use std::ops::Range;

/// Most ranges kept; one more makes half of them join their neighbours.
const MOST_RANGES: usize = 256;

/// Ranges of linear pages, in ascending order, with pages in between that are not stale.
#[derive(Debug, Default)]
pub(super) struct StalePages {
    ranges: Vec<Range<u32>>,
}

impl StalePages {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges. They hold all pages that were added since [`Self::clear`], and few others, if they became too many.
    pub(super) fn ranges(&self) -> &[Range<u32>] {
        &self.ranges
    }

    /// Adds `pages`, of which there is at least one.
    pub(super) fn add(&mut self, pages: Range<u32>) {
        let first = self.ranges.partition_point(|range| range.end < pages.start);
        let end = self
            .ranges
            .partition_point(|range| range.start <= pages.end);
        let mut union = pages;
        if let [head, ..] = &self.ranges[first..end] {
            union.start = union.start.min(head.start);
            union.end = union.end.max(self.ranges[end - 1].end);
        }
        self.ranges.splice(first..end, [union]);
        if self.ranges.len() > MOST_RANGES {
            self.join();
        }
    }

    pub(super) fn clear(&mut self) {
        self.ranges.clear();
    }

    /// Joins the ranges with the smallest gaps between them, at least half of all.
    fn join(&mut self) {
        let gap = |range: &Range<u32>, next: &Range<u32>| next.start - range.end;
        let mut gaps: Vec<u32> = self
            .ranges
            .windows(2)
            .map(|two| gap(&two[0], &two[1]))
            .collect();
        let middle = gaps.len() / 2;
        let (_, &mut most, _) = gaps.select_nth_unstable(middle);
        self.ranges.dedup_by(|next, range| {
            let joins = gap(range, next) <= most;
            if joins {
                range.end = next.end;
            }
            joins
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The runs of successive pages.
    fn runs(pages: &BTreeSet<u32>) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        for &page in pages {
            match runs.last_mut() {
                Some(run) if run.end == page => run.end += 1,
                _ => runs.push(page..page + 1),
            }
        }
        runs
    }

    fn additions(space: u32) -> impl Strategy<Value = Vec<Range<u32>>> {
        let one = (0..space, 1u32..8).prop_map(|(start, len)| start..start + len);
        prop::collection::vec(one, 0..1000)
    }

    fn add_all(additions: &[Range<u32>]) -> (StalePages, BTreeSet<u32>) {
        let mut stale = StalePages::default();
        additions.iter().for_each(|pages| stale.add(pages.clone()));
        (stale, additions.iter().cloned().flatten().collect())
    }

    proptest! {
        #[test]
        fn few_ranges_hold_exactly_what_was_added(additions in additions(500)) {
            let (stale, model) = add_all(&additions);
            prop_assert!(stale.ranges.len() <= MOST_RANGES);
            prop_assert_eq!(stale.ranges(), runs(&model));
        }

        #[test]
        fn many_ranges_hold_all_that_was_added(additions in additions(1 << 20)) {
            let (stale, model) = add_all(&additions);
            prop_assert!(stale.ranges.len() <= MOST_RANGES);
            prop_assert!(stale.ranges.is_sorted_by(|range, next| range.end < next.start));
            let holds = |page: &u32| stale.ranges.iter().any(|range| range.contains(page));
            prop_assert!(model.iter().all(holds));
        }
    }

    #[test]
    fn ranges_beyond_the_limit_join_their_nearest_neighbours() {
        let mut stale = StalePages::default();
        for number in 0..=MOST_RANGES as u32 {
            let start = 1000 * number + if number % 4 == 1 { 500 } else { 0 };
            stale.add(start..start + 1);
        }
        assert_eq!(stale.ranges[0], 0..1, "the widest gap stays");
        assert!(stale.ranges.len() <= MOST_RANGES / 2 + 1);
        stale.clear();
        assert!(stale.is_empty());
    }
}
