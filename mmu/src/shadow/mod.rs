//! [`Shadow`]: a guest address space realized on the host's own MMU, as shadow page tables do.
//!
//! A shadow caches the TLB's tables, as these cache the guest's page tables: when code uses it, a page is accessible only while
//! the user's read slot for it is filled, to the same frame, and writable only while the write slot is. Slots are emptied first,
//! and pages hidden afterwards, at the latest before code next uses the shadow ([`LazyShadow`]).
//!
//! | file     | what it holds                                    |
//! |----------|--------------------------------------------------|
//! | `window` | a shadow of pieces of the RAM's memfd            |
//! | `wide`   | a shadow of 48-bit addresses, of several windows |
//! | `kmod`   | a shadow that the host's kernel module fills     |
//! | `lazy`   | a shadow that hides pages late and in batches    |
//! | `stale`  | the pages to hide                                |
//! | `runs`   | the pages that a window shows                    |

mod kmod;
mod lazy;
mod runs;
mod stale;
mod wide;
mod window;

use std::fmt;
use std::io;
use std::ops::Range;

use crate::addr::{Frame, LinearAddr, LinearPage, LinearWidth, PAGE_SHIFT};
pub use kmod::{Kmod, KmodError, KmodStats};
pub(crate) use kmod::{KmodWindow, SLOT_PRESENT, UserTables};
pub(crate) use lazy::LazyShadow;
pub use wide::REACH;
pub(crate) use wide::WideWindow;
pub(crate) use window::{MOST_MAPPINGS_IN_ALL, Window};

/// Linear pages that a shadow can map: those below 0xc0000000, where Linux has programs. The choice affects speed only.
pub(crate) const SHADOW_PAGES: u32 = 0xc000_0000 >> PAGE_SHIFT;

/// Bytes of host addresses of a shadow: all linear addresses and a guard page.
const SHADOW_BYTES: usize = (LINEAR_PAGES as usize + 1) << PAGE_SHIFT;

/// Pages of the 32-bit linear address space.
pub(crate) const LINEAR_PAGES: u32 = 1 << (LinearWidth::Bits32.bits() - PAGE_SHIFT);

/// Held by each test that takes much of what the host allows of mappings.
#[cfg(test)]
pub(crate) static MANY_MAPPINGS: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// Successive linear pages that lie in successive frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The place of the first page's slots in the tables, which is its number where linear addresses have 32 bits.
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
    /// The base of GS in emitted code: the host address of linear address 0, from which that of linear address `n` is `n` higher, for
    /// all 4 GiB; addresses that are not shown fault, and so does the page after the last. With 48-bit linear addresses, the host
    /// address of the directory ([`WideWindow`]).
    fn base(&self) -> u64;

    /// Host address that stands for a linear address, if there is one.
    fn host(&self, linear: LinearAddr) -> Option<u64> {
        let is_low = linear.get() >> LinearWidth::Bits32.bits() == 0;
        is_low.then(|| self.base() + linear.get())
    }

    /// The linear address that a host address stands for.
    fn linear(&self, host: u64) -> Option<LinearAddr> {
        let linear = host.wrapping_sub(self.base());
        (linear >> LinearWidth::Bits32.bits() == 0).then_some(LinearAddr::new(linear))
    }

    /// Gives a page of a program host addresses that stand for its linear ones, if it has none and that is possible. Returns whether
    /// it has some.
    fn admit(&mut self, _page: LinearPage) -> bool {
        true
    }

    /// Whether pages are not admitted, for the sake of others that are not shown.
    fn is_crowded(&self) -> bool {
        false
    }

    /// Makes pages that have host addresses accessible, writable if the extent is; their slots say the same now, and have not
    /// changed since the pages were last hidden. They lie in the same 4 GiB. Returns the number of host calls that it took.
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
