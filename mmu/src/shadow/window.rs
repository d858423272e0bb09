//! [`Window`]: a shadow that consists of pieces of the RAM's memfd, with one `mmap` for each run of pages.
//!
//! ```text
//!   base ─► ┌──────── 4 GiB ────────┐
//!           │ page 0                │ a host page for each linear page: of the guest's RAM, or inaccessible
//!           │ ...                   │
//!           ├───────────────────────┤
//!           │ guard                 │ for operands that begin at the last linear address
//! ```

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bitvec::vec::BitVec;
use smallvec::SmallVec;

use super::{Extent, SHADOW_BYTES, SHADOW_PAGES, Shadow};
use crate::addr::{LinearPage, PAGE_SHIFT};
use crate::mapping::{Mapping, Protection};
use crate::memory::Memory;

/// Most pages mapped; beyond that, all are unmapped. The host has a limit on the mappings of a process (65,530 unless
/// configured otherwise), of which isolated pages take one each.
const MOST_PAGES: usize = 16 << 10;
/// Most pages mapped by all windows together. Each may take two mappings, its own and that of the gap after it, and some must be
/// left for others.
pub(crate) const MOST_IN_ALL: usize = 24 << 10;

/// Most pages between two ranges that are searched for mapped ones.
const MOST_GAP: usize = 512;

/// Pieces of guest memory, mapped at the host addresses that stand for a space's linear addresses.
#[derive(Debug)]
pub(crate) struct Window {
    memory: Arc<Memory>,
    mapping: Mapping,
    /// A bit for each page that is mapped, and one for each that is writable.
    mapped: BitVec,
    writable: BitVec,
    /// The number of mapped pages.
    count: usize,
}

impl Window {
    /// Creates a window on `memory` with nothing mapped.
    ///
    /// # Errors
    /// The host's error if it grants no address space.
    pub(crate) fn new(memory: Arc<Memory>) -> io::Result<Self> {
        let mapping = Mapping::anonymous(SHADOW_BYTES, Protection::None)?;
        Ok(Self::over(mapping, memory))
    }

    /// Creates a window in a mapping of [`SHADOW_BYTES`], all inaccessible.
    pub(super) fn over(mapping: Mapping, memory: Arc<Memory>) -> Self {
        let none = BitVec::repeat(false, SHADOW_PAGES as usize);
        Self {
            memory,
            mapping,
            mapped: none.clone(),
            writable: none,
            count: 0,
        }
    }

    /// Makes `pages` inaccessible, or all pages if the host refuses to split a mapping. Returns the number of host calls.
    fn withdraw(&mut self, pages: Range<usize>) -> u64 {
        if self.reserve(pages.clone()).is_ok() {
            self.forget(pages);
            return 1;
        }
        self.reserve(0..LinearPage::COUNT)
            .expect("the host replaces a whole mapping by another");
        self.forget(0..SHADOW_PAGES as usize);
        2
    }

    /// The part of `pages` from the first mapped one to the last.
    fn mapped_part(&self, pages: &Range<u32>) -> Option<Range<usize>> {
        let (start, end) = (pages.start as usize, pages.end.min(SHADOW_PAGES) as usize);
        let bits = self.mapped.get(start..end)?;
        Some(start + bits.first_one()?..start + bits.last_one()? + 1)
    }

    /// Whether nothing is mapped between two ranges, which are near each other.
    fn is_gap(&self, pages: Range<usize>) -> bool {
        pages.len() <= MOST_GAP && self.mapped[pages].not_any()
    }

    /// Whether the pages are mapped as the extent says.
    fn shows(&self, pages: Range<usize>, writable: bool) -> bool {
        self.mapped[pages.clone()].all() && (!writable || self.writable[pages].all())
    }

    /// Replaces the mappings of `pages` by inaccessible addresses.
    fn reserve(&mut self, pages: Range<usize>) -> io::Result<()> {
        self.mapping.map_anonymous(bytes(&pages), Protection::None)
    }

    fn forget(&mut self, pages: Range<usize>) {
        self.count -= self.mapped[pages.clone()].count_ones();
        self.mapped[pages.clone()].fill(false);
        self.writable[pages].fill(false);
    }
}

/// The offsets of linear pages in the window, in bytes.
fn bytes(pages: &Range<usize>) -> Range<usize> {
    pages.start << PAGE_SHIFT..pages.end << PAGE_SHIFT
}

impl Shadow for Window {
    fn base(&self) -> u64 {
        self.mapping.start().as_ptr().expose_provenance() as u64
    }

    fn show(&mut self, extent: Extent) -> io::Result<u64> {
        let pages = extent.page as usize..(extent.page + extent.pages) as usize;
        if self.shows(pages.clone(), extent.writable) {
            return Ok(0);
        }
        let mut calls = 1;
        if self.count + pages.len() > MOST_PAGES {
            let all = 0..SHADOW_PAGES;
            calls += self.hide(&[all]);
        }
        let protection = match extent.writable {
            true => Protection::ReadWrite,
            false => Protection::Read,
        };
        let memory = Arc::clone(&self.memory);
        let offset = extent.frame.base().get();
        let mapped = self
            .mapping
            .map_file(bytes(&pages), memory.file(), offset, protection, true);
        if let Err(error) = mapped {
            self.withdraw(pages);
            return Err(error);
        }
        self.count += pages.len() - self.mapped[pages.clone()].count_ones();
        self.mapped[pages.clone()].fill(true);
        self.writable[pages].fill(extent.writable);
        Ok(calls)
    }

    fn hide(&mut self, pages: &[Range<u32>]) -> u64 {
        let mut runs: SmallVec<[Range<usize>; 4]> = SmallVec::new();
        if self.count == 0 {
            return 0;
        }
        for part in pages.iter().filter_map(|pages| self.mapped_part(pages)) {
            match runs.last_mut() {
                Some(run) if self.is_gap(run.end..part.start) => run.end = part.end,
                _ => runs.push(part),
            }
        }
        runs.into_iter().map(|run| self.withdraw(run)).sum()
    }

    fn count(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Frame;

    fn window() -> Window {
        Window::new(Memory::new(1 << 20).unwrap()).unwrap()
    }

    /// Whether a byte of the page can be read and written, as the host's kernel says.
    fn access(window: &Window, page: u32) -> (bool, bool) {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let address = window.base() as usize + ((page as usize) << PAGE_SHIFT);
        let line = maps.lines().find(|line| {
            let range = line.split(' ').next().unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            (number(start)..number(end)).contains(&address)
        });
        let mode = line.unwrap().split(' ').nth(1).unwrap();
        (mode.starts_with('r'), mode[1..].starts_with('w'))
    }

    fn extent(page: u32, frame: u64, pages: u32, writable: bool) -> Extent {
        let frame = Frame::new(frame);
        Extent {
            page,
            frame,
            pages,
            writable,
        }
    }

    fn one(page: u32) -> Range<u32> {
        page..page + 1
    }

    #[test]
    fn pages_are_accessible_while_they_are_shown() {
        let mut window = window();
        assert_eq!(window.show(extent(100, 2, 3, true)).unwrap(), 1);
        assert_eq!(window.show(extent(200, 1, 1, false)).unwrap(), 1);
        assert_eq!(access(&window, 99), (false, false));
        assert_eq!(access(&window, 101), (true, true));
        assert_eq!(access(&window, 200), (true, false));
        assert_eq!(window.hide(&[one(101)]), 1);
        assert_eq!(window.hide(&[one(101)]), 0);
        assert_eq!(access(&window, 101), (false, false));
        assert_eq!(access(&window, 102), (true, true));
        let all = 0..u32::MAX;
        assert_eq!(window.hide(&[all]), 1);
        assert_eq!(access(&window, 102), (false, false));
        assert_eq!(access(&window, 200), (false, false));
        assert_eq!(window.count, 0);
    }

    #[test]
    fn pages_that_are_shown_take_no_host_call() {
        let mut window = window();
        for (writable, calls) in [(false, 1), (false, 0), (true, 1), (true, 0), (false, 0)] {
            let shown = window.show(extent(100, 2, 3, writable));
            assert_eq!(shown.unwrap(), calls);
        }
        assert_eq!(access(&window, 102), (true, true));
        assert_eq!(window.show(extent(99, 1, 4, false)).unwrap(), 1);
    }

    #[test]
    fn ranges_with_nothing_between_them_are_hidden_by_one_host_call() {
        let mut window = window();
        let show = |window: &mut Window| {
            for page in [100, 110, 120, 1000] {
                window.show(extent(page, 2, 1, true)).unwrap();
            }
        };
        show(&mut window);
        assert_eq!(window.hide(&[100..105, 107..112, 115..130]), 1);
        assert_eq!(window.count, 1);
        show(&mut window);
        assert_eq!(window.hide(&[one(100), one(120), 990..1010]), 3);
        let shown = [100, 110, 120, 1000].map(|page| access(&window, page).0);
        assert_eq!(shown, [false, true, false, false]);
    }

    #[test]
    fn the_number_of_mappings_is_bounded() {
        let mut window = window();
        for page in 0..MOST_PAGES as u32 + 1 {
            window.show(extent(2 * page, 0, 1, true)).unwrap();
        }
        assert_eq!(window.count, 1);
        assert_eq!(access(&window, 2 * MOST_PAGES as u32), (true, true));
        assert_eq!(access(&window, 0), (false, false));
    }

    /// Mappings of the host in the window.
    fn mappings(window: &Window) -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let inside = window.base() as usize..window.base() as usize + SHADOW_BYTES;
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        let starts = maps
            .lines()
            .map(|line| number(line.split('-').next().unwrap()));
        starts.filter(|start| inside.contains(start)).count()
    }

    #[test]
    fn pages_that_are_hidden_take_no_mappings() {
        let mut window = window();
        let before = mappings(&window);
        for page in (0..2000).step_by(2) {
            window.show(extent(page, 0, 1, true)).unwrap();
            window.hide(&[one(page)]);
        }
        assert_eq!(window.count, 0);
        assert!(mappings(&window) <= before + 2, "{}", mappings(&window));
    }
}
