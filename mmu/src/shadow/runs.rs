//! [`Runs`]: what a window shows, as runs of pages that take one mapping of the host each.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Extent;
use crate::addr::Frame;

/// The pages that are shown, in runs that are as long as they can be: the host merges mappings that continue each other in the
/// file with the same protection.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// The runs by their first page.
    runs: BTreeMap<u32, Extent>,
    /// The runs that begin where another ends.
    adjacent: usize,
}

impl Runs {
    /// The mappings of the host that the runs add to one that is inaccessible: themselves, and what is between and behind them.
    pub(super) fn mappings(&self) -> usize {
        2 * self.runs.len() - self.adjacent
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether all pages of an extent are shown, for writes if the extent is writable.
    pub(super) fn shows(&self, extent: &Extent) -> bool {
        let pages = extent.range();
        let mut next = pages.start;
        while next < pages.end {
            match self.first_in(next..pages.end) {
                Some(run) if run.page <= next && run.writable >= extent.writable => {
                    next = run.range().end;
                }
                _ => return false,
            }
        }
        true
    }

    /// The part of `pages` from the first that is shown to the last.
    pub(super) fn shown_part(&self, pages: &Range<u32>) -> Option<Range<u32>> {
        let first = self.first_in(pages.clone())?;
        let (_, last) = self.runs.range(..pages.end).next_back()?;
        Some(first.page.max(pages.start)..last.range().end.min(pages.end))
    }

    /// Adds an extent, which replaces what was shown at its pages.
    pub(super) fn insert(&mut self, extent: Extent) {
        let Range { start, end } = extent.range();
        self.remove(start..end);
        let mut run = extent;
        let before = self.ending_at(start);
        if let Some(before) = before.filter(|before| before.is_continued_by(&run)) {
            self.take(before.page);
            run = before.joined(&run);
        }
        let after = self.runs.get(&end).copied();
        if let Some(after) = after.filter(|after| run.is_continued_by(after)) {
            self.take(after.page);
            run = run.joined(&after);
        }
        self.put(run);
    }

    /// Removes pages.
    pub(super) fn remove(&mut self, pages: Range<u32>) {
        while let Some(run) = self.first_in(pages.clone()) {
            self.take(run.page);
            let (start, end) = (run.page, run.range().end);
            for rest in [start..pages.start.max(start), pages.end.min(end)..end] {
                if !rest.is_empty() {
                    self.put(run.part(rest));
                }
            }
        }
    }

    /// The first run with pages in `pages`.
    fn first_in(&self, pages: Range<u32>) -> Option<Extent> {
        let before = self.runs.range(..=pages.start).next_back();
        let (_, run) = before
            .filter(|(_, run)| run.range().end > pages.start)
            .or_else(|| self.runs.range(pages.clone()).next())?;
        (!pages.is_empty()).then_some(*run)
    }

    fn ending_at(&self, page: u32) -> Option<Extent> {
        let (_, run) = self.runs.range(..page).next_back()?;
        (run.range().end == page).then_some(*run)
    }

    fn put(&mut self, run: Extent) {
        self.adjacent += self.neighbours(&run);
        self.runs.insert(run.page, run);
    }

    /// Takes out the run that begins at `page`, which there is.
    fn take(&mut self, page: u32) {
        if let Some(run) = self.runs.remove(&page) {
            self.adjacent -= self.neighbours(&run);
        }
    }

    /// The number of runs that end where `run` begins, or begin where it ends.
    fn neighbours(&self, run: &Extent) -> usize {
        let before = self.ending_at(run.page).is_some();
        let after = self.runs.contains_key(&run.range().end);
        usize::from(before) + usize::from(after)
    }
}

impl Extent {
    /// Whether `next`, which begins where this ends, continues it in the file with the same rights.
    fn is_continued_by(&self, next: &Self) -> bool {
        self.frame.get() + u64::from(self.pages) == next.frame.get()
            && self.writable == next.writable
    }

    /// This extent and `next`, by which it is continued.
    fn joined(self, next: &Self) -> Self {
        Self {
            pages: self.pages + next.pages,
            ..self
        }
    }

    /// The part at `pages`, which are within it.
    fn part(self, pages: Range<u32>) -> Self {
        let skipped = u64::from(pages.start - self.page);
        Self {
            page: pages.start,
            frame: Frame::new(self.frame.get() + skipped),
            pages: pages.end - pages.start,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pages of the model.
    const PAGES: u32 = 48;

    /// What each page shows: frame and whether it is writable.
    type Model = [Option<(u64, bool)>; PAGES as usize];

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Extent),
        Remove(Range<u32>),
    }

    fn ranges() -> impl Strategy<Value = Range<u32>> {
        (0..PAGES, 1..12u32).prop_map(|(start, pages)| start..(start + pages).min(PAGES))
    }

    fn steps() -> impl Strategy<Value = Step> {
        // Few distances, so that extents often continue each other.
        let insert = (ranges(), 0..2u64, any::<bool>()).prop_map(|(pages, distance, writable)| {
            Step::Insert(Extent {
                page: pages.start,
                frame: Frame::new(u64::from(pages.start) + 100 * distance),
                pages: pages.end - pages.start,
                writable,
            })
        });
        prop_oneof![3 => insert, 2 => ranges().prop_map(Step::Remove)]
    }

    fn follow(model: &mut Model, step: &Step) {
        match step {
            Step::Insert(extent) => {
                for (nth, page) in extent.range().enumerate() {
                    let frame = extent.frame.get() + nth as u64;
                    model[page as usize] = Some((frame, extent.writable));
                }
            }
            Step::Remove(pages) => model[pages.start as usize..pages.end as usize].fill(None),
        }
    }

    /// The mappings beyond the first of pages that are followed by inaccessible ones.
    fn mappings(model: &Model) -> usize {
        let continues = |page: &Option<(u64, bool)>, next: &Option<(u64, bool)>| match (page, next)
        {
            (Some((frame, writable)), Some(next)) => (frame + 1, *writable) == *next,
            (None, None) => true,
            _ => false,
        };
        let pages = [&[None], &model[..], &[None]].concat();
        pages
            .windows(2)
            .filter(|two| !continues(&two[0], &two[1]))
            .count()
    }

    proptest! {
        #[test]
        fn runs_hold_what_pages_show(steps in prop::collection::vec(steps(), 0..60), probe in ranges()) {
            let (mut runs, mut model): (Runs, Model) = (Runs::default(), [None; PAGES as usize]);
            for step in &steps {
                follow(&mut model, step);
                match step {
                    Step::Insert(extent) => runs.insert(*extent),
                    Step::Remove(pages) => runs.remove(pages.clone()),
                }
            }
            prop_assert_eq!(runs.mappings(), mappings(&model));
            prop_assert_eq!(runs.is_empty(), model.iter().all(Option::is_none));
            for (first, run) in &runs.runs {
                prop_assert_eq!(*first, run.page);
                for (nth, page) in run.range().enumerate() {
                    let frame = run.frame.get() + nth as u64;
                    prop_assert_eq!(model[page as usize], Some((frame, run.writable)));
                }
            }
            let shown: u32 = runs.runs.values().map(|run| run.pages).sum();
            prop_assert_eq!(shown as usize, model.iter().flatten().count());
            let within = &model[probe.start as usize..probe.end as usize];
            let first = within.iter().position(Option::is_some);
            let last = within.iter().rposition(Option::is_some);
            let part = first.zip(last).map(|(first, last)| {
                probe.start + first as u32..probe.start + last as u32 + 1
            });
            prop_assert_eq!(runs.shown_part(&probe), part);
            for writable in [false, true] {
                let extent = Extent { page: probe.start, frame: Frame::new(0), pages: probe.end - probe.start, writable };
                let shows = within.iter().all(|page| page.is_some_and(|(_, may)| may >= writable));
                prop_assert_eq!(runs.shows(&extent), shows);
            }
        }
    }
}
