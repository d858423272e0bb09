//! [`Shadow`]: a guest address space realized on the host's own MMU, as shadow page tables do.
//!
//! A shadow caches the TLB's tables, as these cache the guest's page tables: a page is mapped only while the user's read slot for
//! it is filled, to the same frame, and writable only while the write slot is. Emptying a slot unmaps the page from the shadow.

mod window;

use std::fmt;
use std::io;
use std::ops::Range;

use crate::addr::{Frame, LinearPage, PAGE_SHIFT};
pub(crate) use window::{MOST_IN_ALL, Window};

/// Linear pages that a shadow can map: those below 0xc0000000, where Linux has programs. The choice affects speed only.
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
    /// Host address of linear address 0; that of linear address `n` is `n` higher, for all 4 GiB. Addresses that are not mapped
    /// fault, and so does the page after the last.
    fn base(&self) -> u64;

    /// Maps pages below [`SHADOW_PAGES`].
    ///
    /// # Errors
    /// The host's error; the pages are then inaccessible.
    fn map(&mut self, extent: Extent) -> io::Result<()>;

    /// Makes the mapped pages of `pages` inaccessible. Returns whether there were any.
    fn unmap(&mut self, pages: Range<u32>) -> bool;

    /// Whether the page is mapped, and writable if `writes`.
    fn allows(&self, page: LinearPage, writes: bool) -> bool;

    /// The number of mapped pages.
    fn count(&self) -> usize;
}
