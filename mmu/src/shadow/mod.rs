//! [`Shadow`]: an address space of the guest, realized on the host's own MMU.
//!
//! A shadow is a cache of the TLB's tables, as these are one of the guest's page tables: a page is shown only while the user's
//! read slot for it is filled, to the same frame, and writable only while the write slot is. Whoever empties a slot removes the
//! page from the shadow.

mod window;

use std::fmt;
use std::io;
use std::ops::Range;

use crate::addr::{Frame, LinearPage, PAGE_SHIFT};
pub(crate) use window::{MOST_IN_ALL, Window};

/// Linear pages that a shadow can show: those below 0xc0000000, where Linux has programs. The choice decides speed only.
pub(crate) const SHADOW_PAGES: u32 = 0xc000_0000 >> PAGE_SHIFT;

/// Successive linear pages that lie in successive frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) page: u32,
    pub(crate) frame: Frame,
    pub(crate) pages: u32,
    pub(crate) writable: bool,
}

/// Host addresses that stand for the linear addresses of one address space.
pub(crate) trait Shadow: Send + fmt::Debug {
    /// Host address of linear address 0. That of linear address `n` is `n` further, for all 4 GiB; all that is not mapped
    /// faults, and so does the page behind the last.
    fn base(&self) -> u64;

    /// Shows pages below [`SHADOW_PAGES`].
    ///
    /// # Errors
    /// The host's, where it refuses; the pages are inaccessible then.
    fn map(&mut self, extent: Extent) -> io::Result<()>;

    /// Makes those of `pages` inaccessible that are shown, and perhaps some between them. Returns whether any were.
    fn unmap(&mut self, pages: Range<u32>) -> bool;

    /// Whether an access to the page is possible.
    fn allows(&self, page: LinearPage, writes: bool) -> bool;

    /// How many pages are shown.
    fn count(&self) -> usize;
}
