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

use smallvec::SmallVec;

use super::runs::Runs;
use super::{Extent, LINEAR_PAGES, SHADOW_BYTES, Shadow};
use crate::addr::PAGE_SHIFT;
use crate::mapping::{Mapping, Protection};
use crate::memory::Memory;

/// Most mappings of the host in a window; beyond that, all pages are unmapped. The host has a limit on the mappings of a process
/// (65,530 unless configured otherwise), of which an isolated page takes two, its own and that of the gap after it.
pub(super) const MOST_MAPPINGS: usize = 32 << 10;
/// Most mappings of all windows together. Some must be left for others.
pub(crate) const MOST_MAPPINGS_IN_ALL: usize = 48 << 10;

/// Most mappings that an extent adds: its own, and the other half of what it splits.
pub(super) const MOST_MORE: usize = 2;

/// Most pages between two ranges that are searched for mapped ones.
const MOST_GAP: u32 = 512;

/// Pieces of guest memory, mapped at the host addresses that stand for a space's linear addresses.
#[derive(Debug)]
pub(crate) struct Window {
    memory: Arc<Memory>,
    mapping: Mapping,
    /// The offset of page 0 in the mapping, in bytes.
    origin: usize,
    /// The pages that are mapped.
    runs: Runs,
}

impl Window {
    /// Creates a window on `memory` with nothing mapped.
    ///
    /// # Errors
    /// The host's error if it grants no address space.
    pub(crate) fn new(memory: Arc<Memory>) -> io::Result<Self> {
        let mapping = Mapping::anonymous(SHADOW_BYTES, Protection::None)?;
        Ok(Self::over(mapping, 0, memory))
    }

    /// Creates a window in a mapping, all inaccessible, with room for its pages from the byte `origin` on.
    pub(super) fn over(mapping: Mapping, origin: usize, memory: Arc<Memory>) -> Self {
        Self {
            memory,
            mapping,
            origin,
            runs: Runs::default(),
        }
    }

    /// Makes `pages` inaccessible, or all pages if the host refuses to split a mapping. Returns the number of host calls.
    fn withdraw(&mut self, pages: Range<u32>) -> u64 {
        if self.reserve(&pages).is_ok() {
            self.runs.remove(pages);
            return 1;
        }
        self.reserve(&(0..LINEAR_PAGES))
            .expect("the host replaces a whole mapping by another");
        self.runs = Runs::default();
        2
    }

    /// Whether nothing is mapped between two ranges, which are near each other.
    fn is_gap(&self, pages: Range<u32>) -> bool {
        pages.end - pages.start <= MOST_GAP && self.runs.shown_part(&pages).is_none()
    }

    /// Replaces the mappings of `pages` by inaccessible addresses.
    fn reserve(&mut self, pages: &Range<u32>) -> io::Result<()> {
        self.mapping
            .map_anonymous(self.bytes(pages), Protection::None)
    }

    /// The offsets of linear pages in the mapping, in bytes.
    fn bytes(&self, pages: &Range<u32>) -> Range<usize> {
        let offset = |page: u32| self.origin + ((page as usize) << PAGE_SHIFT);
        offset(pages.start)..offset(pages.end)
    }
}

impl Shadow for Window {
    fn base(&self) -> u64 {
        (self.mapping.start().as_ptr().expose_provenance() + self.origin) as u64
    }

    fn show(&mut self, extent: Extent) -> io::Result<u64> {
        if self.runs.shows(&extent) {
            return Ok(0);
        }
        let mut calls = 1;
        if self.runs.mappings() + MOST_MORE > MOST_MAPPINGS {
            let all = 0..LINEAR_PAGES;
            calls += self.hide(&[all]);
        }
        let protection = match extent.writable {
            true => Protection::ReadWrite,
            false => Protection::Read,
        };
        let memory = Arc::clone(&self.memory);
        let (pages, offset) = (extent.range(), extent.frame.base().get());
        let bytes = self.bytes(&pages);
        let mapped = self
            .mapping
            .map_file(bytes, memory.file(), offset, protection, true);
        if let Err(error) = mapped {
            self.withdraw(pages);
            return Err(error);
        }
        self.runs.insert(extent);
        Ok(calls)
    }

    fn hide(&mut self, pages: &[Range<u32>]) -> u64 {
        let mut runs: SmallVec<[Range<u32>; 4]> = SmallVec::new();
        if self.runs.is_empty() {
            return 0;
        }
        let parts = pages.iter().filter_map(|pages| self.runs.shown_part(pages));
        for part in parts {
            match runs.last_mut() {
                Some(run) if self.is_gap(run.end..part.start) => run.end = part.end,
                _ => runs.push(part),
            }
        }
        runs.into_iter().map(|run| self.withdraw(run)).sum()
    }

    fn count(&self) -> usize {
        self.runs.mappings()
    }

    fn shows_slots(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::MANY_MAPPINGS;
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
        assert_eq!(window.count(), 0);
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
        assert_eq!(window.count(), 2);
        show(&mut window);
        assert_eq!(window.hide(&[one(100), one(120), 990..1010]), 3);
        let shown = [100, 110, 120, 1000].map(|page| access(&window, page).0);
        assert_eq!(shown, [false, true, false, false]);
    }

    #[test]
    fn the_number_of_mappings_is_bounded() {
        let mut window = window();
        const MOST: u32 = MOST_MAPPINGS as u32 / 2;
        let _many = MANY_MAPPINGS.lock();
        for page in 0..MOST {
            window.show(extent(2 * page, 0, 1, true)).unwrap();
        }
        assert_eq!(window.count(), MOST_MAPPINGS);
        window.show(extent(2 * MOST, 0, 1, true)).unwrap();
        assert_eq!(window.count(), 2);
        assert_eq!(access(&window, 2 * MOST), (true, true));
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
        assert_eq!(window.count(), 0);
        assert!(mappings(&window) <= before + 2, "{}", mappings(&window));
    }
}
