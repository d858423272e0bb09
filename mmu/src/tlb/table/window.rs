//! [`Window`]: what programs of one address space may access, on the host's own MMU.
//!
//! ```text
//!   base ─► ┌──────── 4 GiB ────────┐
//!           │ page 0                │ a host page for each linear page: of the guest's RAM, or inaccessible
//!           │ ...                   │
//!           ├───────────────────────┤
//!           │ guard                 │ for operands that begin at the last linear address
//! ```
//!
//! A page is mapped only while the user's read slot for it is filled, to the same frame, and writable only while the write
//! slot is. So a window is a cache of the tables, as these are one of the guest's page tables. It takes up whole linear
//! pages below [`OWN_PAGES`] only.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr::NonNull;

use bitvec::vec::BitVec;
use nix::libc::{c_void, off_t};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::OWN_PAGES;
use crate::addr::{Frame, LinearPage, PAGE_SHIFT, PAGE_SIZE};

/// Host addresses of a window: those of all linear addresses, and a page of guard.
const LENGTH: NonZeroUsize =
    NonZeroUsize::new((LinearPage::COUNT + 1) * PAGE_SIZE).expect("there are pages");

/// Pages mapped at most: past that, all are unmapped. The host has a limit on the mappings of a process (65,530 unless
/// configured otherwise), of which isolated pages take one each.
const MOST_PAGES: usize = 16 << 10;
/// The same of all windows together: two mappings for each, the page and what lies behind it, have to leave others some.
pub(super) const MOST_IN_ALL: usize = 24 << 10;

/// How addresses are reserved.
const RESERVED: MapFlags = MapFlags::MAP_PRIVATE.union(MapFlags::MAP_NORESERVE);

/// Successive linear pages that lie in successive frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) page: u32,
    pub(super) frame: Frame,
    pub(super) pages: u32,
    pub(super) writable: bool,
}

/// Host addresses that stand for the linear addresses of a space.
pub(super) struct Window {
    base: NonNull<c_void>,
    /// Pages that are mapped, and those that are writable.
    mapped: BitVec,
    writable: BitVec,
    /// How many are mapped.
    count: usize,
}

// SAFETY: the value owns its mapping, and a pointer to it is not tied to a thread.
unsafe impl Send for Window {}

impl Window {
    /// A window with nothing mapped.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice affects no existing memory.
        let base = unsafe { mmap_anonymous(None, LENGTH, ProtFlags::PROT_NONE, RESERVED) }?;
        let none = BitVec::repeat(false, OWN_PAGES as usize);
        Ok(Self {
            base,
            mapped: none.clone(),
            writable: none,
            count: 0,
        })
    }

    /// Host address of linear address 0.
    pub(super) fn base(&self) -> u64 {
        self.base.as_ptr().expose_provenance() as u64
    }

    /// How many pages are mapped.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Whether an access to the page is possible.
    pub(super) fn allows(&self, page: LinearPage, writes: bool) -> bool {
        let page = page.get() as usize;
        let bits = if writes { &self.writable } else { &self.mapped };
        bits.get(page).is_some_and(|bit| *bit)
    }

    /// Maps pages below [`OWN_PAGES`] to frames of `ram`.
    ///
    /// # Errors
    /// What the host says when it refuses; the pages are inaccessible then.
    pub(super) fn map(&mut self, ram: &File, extent: Extent) -> io::Result<()> {
        let pages = extent.page as usize..(extent.page + extent.pages) as usize;
        if self.count + pages.len() > MOST_PAGES {
            self.unmap(0..OWN_PAGES);
        }
        let Some(length) = NonZeroUsize::new(pages.len() * PAGE_SIZE) else {
            return Ok(());
        };
        assert!(pages.end <= OWN_PAGES as usize);
        let mut protection = ProtFlags::PROT_READ;
        protection.set(ProtFlags::PROT_WRITE, extent.writable);
        // SAFETY: the range is part of the mapping this value owns, and no reference to it exists.
        let mapped = unsafe {
            mmap(
                self.address(extent.page),
                length,
                protection,
                MapFlags::MAP_SHARED | MapFlags::MAP_FIXED | MapFlags::MAP_POPULATE,
                ram,
                (extent.frame.get() << PAGE_SHIFT) as off_t,
            )
        };
        if let Err(error) = mapped {
            self.withdraw(pages);
            return Err(error.into());
        }
        self.count += pages.len() - self.mapped[pages.clone()].count_ones();
        self.mapped[pages.clone()].fill(true);
        self.writable[pages].fill(extent.writable);
        Ok(())
    }

    /// Makes those of `pages` inaccessible that are mapped, and perhaps some between them. Returns whether any were.
    pub(super) fn unmap(&mut self, pages: Range<u32>) -> bool {
        let pages = pages.start as usize..(pages.end.min(OWN_PAGES)) as usize;
        if self.count == 0 || pages.is_empty() {
            return false;
        }
        let bits = &self.mapped[pages.clone()];
        let (Some(first), Some(last)) = (bits.first_one(), bits.last_one()) else {
            return false;
        };
        self.withdraw(pages.start + first..pages.start + last + 1);
        true
    }

    /// Makes `pages` inaccessible; all, where the host refuses to cut a mapping in two.
    fn withdraw(&mut self, pages: Range<usize>) {
        if self.reserve(pages.clone()).is_ok() {
            return self.forget(pages);
        }
        self.reserve(0..LinearPage::COUNT)
            .expect("the host replaces a whole mapping by another");
        self.forget(0..OWN_PAGES as usize);
    }

    /// Replaces what is mapped there by inaccessible addresses.
    fn reserve(&mut self, pages: Range<usize>) -> nix::Result<()> {
        let Some(length) = NonZeroUsize::new(pages.len() * PAGE_SIZE) else {
            return Ok(());
        };
        assert!(pages.end <= LinearPage::COUNT);
        let address = self.address(pages.start as u32);
        let flags = RESERVED | MapFlags::MAP_FIXED;
        // SAFETY: the range is part of the mapping this value owns, and no reference to it exists.
        unsafe { mmap_anonymous(address, length, ProtFlags::PROT_NONE, flags) }?;
        Ok(())
    }

    fn forget(&mut self, pages: Range<usize>) {
        self.count -= self.mapped[pages.clone()].count_ones();
        self.mapped[pages.clone()].fill(false);
        self.writable[pages].fill(false);
    }

    /// Host address of a page.
    fn address(&self, page: u32) -> Option<NonZeroUsize> {
        self.base.addr().checked_add((page as usize) << PAGE_SHIFT)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and only emitted code of the translator, which asks for the
        // base before it is entered, uses its addresses.
        let _unmapped = unsafe { munmap(self.base, LENGTH.get()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memfd;

    /// Whether a byte of the page can be read and written, as the host's kernel says.
    fn access(window: &Window, page: u32) -> (bool, bool) {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let address = window.address(page).unwrap().get();
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

    #[test]
    fn pages_are_accessible_while_they_are_mapped() {
        let ram = memfd::create(c"ram", 16 << PAGE_SHIFT).unwrap();
        let mut window = Window::new().unwrap();
        window.map(&ram, extent(100, 2, 3, true)).unwrap();
        window.map(&ram, extent(200, 1, 1, false)).unwrap();
        assert_eq!(access(&window, 99), (false, false));
        assert_eq!(access(&window, 101), (true, true));
        assert_eq!(access(&window, 200), (true, false));
        assert!(window.allows(LinearPage::truncated(102), true));
        assert!(!window.allows(LinearPage::truncated(200), true));
        assert!(window.unmap(101..102));
        assert!(!window.unmap(101..102));
        assert_eq!(access(&window, 101), (false, false));
        assert_eq!(access(&window, 102), (true, true));
        assert!(window.unmap(0..u32::MAX));
        assert_eq!(access(&window, 102), (false, false));
        assert_eq!(access(&window, 200), (false, false));
        assert_eq!(window.count, 0);
    }

    #[test]
    fn the_number_of_mappings_is_bounded() {
        let ram = memfd::create(c"ram", 1 << PAGE_SHIFT).unwrap();
        let mut window = Window::new().unwrap();
        for page in 0..MOST_PAGES as u32 + 1 {
            window.map(&ram, extent(2 * page, 0, 1, true)).unwrap();
        }
        assert_eq!(window.count, 1);
        assert!(window.allows(LinearPage::truncated(2 * MOST_PAGES as u32), true));
        assert_eq!(access(&window, 0), (false, false));
    }

    /// Mappings of the host in the window.
    fn mappings(window: &Window) -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let inside = window.base.addr().get()..window.base.addr().get() + LENGTH.get();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        let starts = maps
            .lines()
            .map(|line| number(line.split('-').next().unwrap()));
        starts.filter(|start| inside.contains(start)).count()
    }

    #[test]
    fn pages_that_are_unmapped_take_no_mappings() {
        let ram = memfd::create(c"ram", 1 << PAGE_SHIFT).unwrap();
        let mut window = Window::new().unwrap();
        let before = mappings(&window);
        for page in (0..2000).step_by(2) {
            window.map(&ram, extent(page, 0, 1, true)).unwrap();
            window.unmap(page..page + 1);
        }
        assert_eq!(window.count, 0);
        assert!(mappings(&window) <= before + 2, "{}", mappings(&window));
    }
}
