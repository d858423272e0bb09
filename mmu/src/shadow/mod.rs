//! [`Shadow`]: a guest address space realized on the host's own MMU, as shadow page tables do.
//!
//! A shadow caches the TLB's tables, as these cache the guest's page tables: when code uses it, a page is accessible only while
//! the user's read slot for it is filled, to the same frame, and writable only while the write slot is. Slots are emptied first,
//! and pages hidden afterwards, at the latest before code next uses the shadow ([`LazyShadow`]).
//!
//! | file     | what it holds                                    |
//! |----------|--------------------------------------------------|
//! | `window` | a shadow of pieces of the RAM's memfd            |
//! | `kmod`   | a shadow that the host's kernel module fills     |
//! | `lazy`   | a shadow that hides pages late and in batches    |
//! | `stale`  | the pages to hide                                |
//! | `runs`   | the pages that a window shows                    |

mod kmod;
mod lazy;
mod runs;
mod stale;
mod window;

use std::fmt;
use std::io;
use std::ops::Range;

use crate::addr::{Frame, LinearWidth, PAGE_SHIFT};
pub use kmod::{Kmod, KmodError, KmodStats};
pub(crate) use kmod::{KmodWindow, SLOT_PRESENT, UserTables};
pub(crate) use lazy::LazyShadow;
pub(crate) use window::{MOST_MAPPINGS_IN_ALL, Window};

/// Linear pages that a shadow can map: those below 0xc0000000, where Linux has programs. The choice affects speed only.
pub(crate) const SHADOW_PAGES: u32 = 0xc000_0000 >> PAGE_SHIFT;

/// Bytes of host addresses of a shadow: all linear addresses and a guard page.
const SHADOW_BYTES: usize = (LINEAR_PAGES as usize + 1) << PAGE_SHIFT;

/// Pages of the 32-bit linear address space.
const LINEAR_PAGES: u32 = 1 << (LinearWidth::Bits32.bits() - PAGE_SHIFT);

/// Held by each test that takes much of what the host allows of mappings.
#[cfg(test)]
pub(crate) static MANY_MAPPINGS: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// Successive linear pages that lie in successive frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) page: u32,
    pub(crate) frame: Frame,
    pub(crate) pages: u32,
    pub(crate) writable: bool,
}

impl Extent {
    /// Its linear pages.
    pub(crate) fn range(&self) -> Range<u32> {
        self.page..self.page + self.pages
    }
}

/// Host addresses that stand for the linear addresses of one address space.
pub(crate) trait Shadow: Send + fmt::Debug {
    /// Host address of linear address 0; that of linear address `n` is `n` higher, for all 4 GiB. Addresses that are not shown
    /// fault, and so does the page after the last.
    fn base(&self) -> u64;

    /// Makes pages below [`SHADOW_PAGES`] accessible, writable if the extent is; their slots say the same now, and have not
    /// changed since the pages were last hidden. Returns the number of host calls that it took.
    ///
    /// # Errors
    /// The host's error; the pages are then inaccessible.
    fn show(&mut self, extent: Extent) -> io::Result<u64>;

    /// Makes `pages`, which are in ascending order, inaccessible, and others too if that is easier. Returns the number of host
    /// calls that it took.
    fn hide(&mut self, pages: &[Range<u32>]) -> u64;

    /// The number of the host's mappings that it takes more than one that shows nothing.
    fn count(&self) -> usize;

    /// Whether a page is shown as soon as its slots are filled.
    fn shows_slots(&self) -> bool;
}
