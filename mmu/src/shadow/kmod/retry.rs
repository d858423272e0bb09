//! [`Retries`]: what becomes of faults at pages whose slots are filled, so that none comes for ever.
//!
//! The module shows a page whose slot is filled by itself. If the access faults all the same, its slot was not resident, which is
//! mended by a look at it, or the machine may not hold another page, which is mended by letting go of all. Where neither helps,
//! the module cannot show the page. It has helped if the module has shown more pages since than an instruction accesses, since
//! then others have executed: programs that use more pages than may be held come to the same pages again and again.

use crate::shadow::Extent;

/// Extents that are remembered: more than the accesses of an instruction, so that those of one that makes no progress come again.
const REMEMBERED: usize = 8;

/// What to do before the access is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing more than to look at the slots.
    Touch,
    /// Let go of all pages that are held.
    Release,
    /// The access must not be tried again.
    GiveUp,
}

/// What slots around the latest faults of a window say, which have been filled since.
#[derive(Debug, Default)]
pub(super) struct Retries {
    latest: [Option<Extent>; REMEMBERED],
    /// The place of the next.
    next: usize,
    /// The pages that the module had shown when pages were last let go because of the latest.
    released: Option<u64>,
}

impl Retries {
    /// Returns what to do about a fault in an extent that slots describe now. `served` counts the pages that the module has shown.
    pub(super) fn remedy(&mut self, extent: Extent, served: impl FnOnce() -> u64) -> Remedy {
        if !self.latest.contains(&Some(extent)) {
            self.latest[self.next] = Some(extent);
            self.next = (self.next + 1) % REMEMBERED;
            self.released = None;
            return Remedy::Touch;
        }
        let now = served();
        let before = self.released.replace(now);
        if before.is_none_or(|before| now.saturating_sub(before) > REMEMBERED as u64) {
            return Remedy::Release;
        }
        *self = Self::default();
        Remedy::GiveUp
    }

    /// Forgets the faults: pages have been hidden since, which may be the reason for the next.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::addr::Frame;

    /// The extent of one page.
    fn extent(page: u32) -> Extent {
        Extent {
            page,
            frame: Frame::new(0),
            pages: 1,
            writable: false,
        }
    }

    /// A module that holds a limited number of pages, without a page table.
    struct Module {
        limit: usize,
        held: BTreeSet<u32>,
        /// Pages whose slots are not resident.
        absent: BTreeSet<u32>,
        /// Whether a look at a slot makes it resident.
        stays: bool,
        /// The faults that made a page accessible.
        served: u64,
    }

    impl Module {
        fn new(limit: usize) -> Self {
            Self {
                limit,
                held: BTreeSet::new(),
                absent: BTreeSet::new(),
                stays: true,
                served: 0,
            }
        }

        /// Whether an access to the page succeeds.
        fn access(&mut self, page: u32) -> bool {
            let fits = self.held.contains(&page) || self.held.len() < self.limit;
            let shown = fits && !self.absent.contains(&page);
            if shown && self.held.insert(page) {
                self.served += 1;
            }
            shown
        }

        /// Runs an instruction that accesses `pages` in order, from the first again after each fault. Returns the remedies;
        /// the last is `GiveUp` if it is left to the emulator.
        fn instruction(&mut self, retries: &mut Retries, pages: &[u32]) -> Vec<Remedy> {
            let mut remedies = Vec::new();
            while let Some(&page) = pages.iter().find(|page| !self.access(**page)) {
                let remedy = retries.remedy(extent(page), || self.served);
                remedies.push(remedy);
                match remedy {
                    Remedy::Touch if self.stays => drop(self.absent.remove(&page)),
                    Remedy::Touch => {}
                    Remedy::Release => self.held.clear(),
                    Remedy::GiveUp => break,
                }
                assert!(remedies.len() < 100, "{pages:?}: {remedies:?}");
            }
            remedies
        }
    }

    #[test]
    fn slots_that_are_not_resident_are_touched() {
        let mut module = Module::new(10);
        module.absent.extend([1, 2]);
        let mut retries = Retries::default();
        assert_eq!(
            module.instruction(&mut retries, &[1, 2]),
            [Remedy::Touch, Remedy::Touch]
        );
        assert_eq!(module.instruction(&mut retries, &[1, 2]), []);
    }

    #[test]
    fn pages_are_let_go_at_the_limit() {
        let mut module = Module::new(3);
        let mut retries = Retries::default();
        for page in 0..100 {
            let remedies = module.instruction(&mut retries, &[page]);
            match page % 3 {
                0 if page > 0 => assert_eq!(remedies, [Remedy::Touch, Remedy::Release]),
                _ => assert_eq!(remedies, []),
            }
        }
    }

    #[test]
    fn more_pages_than_may_be_held_are_shown_in_turn() {
        for limit in [10, 16, 100] {
            for count in limit as u32 + 1..3 * limit as u32 {
                let (mut module, mut retries) = (Module::new(limit), Retries::default());
                for turn in 0..100 * count {
                    let remedies = module.instruction(&mut retries, &[turn % count]);
                    let gives_up = remedies.contains(&Remedy::GiveUp);
                    assert!(!gives_up, "page {turn} of {count}, {limit} at a time");
                }
            }
        }
    }

    #[test]
    fn what_helps_nothing_is_given_up() {
        for (limit, absent) in [(0, false), (10, true)] {
            let mut module = Module::new(limit);
            module.stays = false;
            module.absent.extend(absent.then_some(7));
            let mut retries = Retries::default();
            let all = [Remedy::Touch, Remedy::Release, Remedy::GiveUp];
            assert_eq!(module.instruction(&mut retries, &[7]), all);
            assert_eq!(module.instruction(&mut retries, &[7]), all);
        }
    }

    #[test]
    fn an_instruction_of_more_pages_than_may_be_held_is_given_up() {
        for limit in 0..6 {
            for count in 1..REMEMBERED as u32 {
                let mut module = Module::new(limit);
                let pages: Vec<u32> = (0..count).collect();
                let remedies = module.instruction(&mut Retries::default(), &pages);
                let gives_up = remedies.last() == Some(&Remedy::GiveUp);
                assert_eq!(gives_up, count as usize > limit, "{pages:?}: {remedies:?}");
            }
        }
    }

    #[test]
    fn a_page_that_was_hidden_may_fault_again() {
        let mut retries = Retries::default();
        for _ in 0..5 {
            assert_eq!(retries.remedy(extent(3), || 0), Remedy::Touch);
            retries.forget();
        }
    }

    #[test]
    fn an_extent_that_has_grown_is_another() {
        let mut retries = Retries::default();
        for pages in 1..=16 {
            let grown = Extent { pages, ..extent(3) };
            assert_eq!(retries.remedy(grown, || 0), Remedy::Touch);
        }
    }
}
