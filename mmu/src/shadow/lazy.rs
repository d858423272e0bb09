//! [`LazyShadow`]: a shadow that hides pages in batches, some time after their slots were emptied.
//!
//! ```text
//!   a slot is emptied ──► mark_stale ──► ... ──► settle, before code next uses the shadow
//! ```
//!
//! Only translated code uses a shadow. While it does not execute, pages may be shown that have no slots any more; they are
//! *stale*. What empties many slots, a fork or a flush, then takes few host calls; a shadow that nobody uses again takes none.

use std::io;
use std::ops::Range;

use super::stale::StalePages;
use super::{Extent, Shadow};
use crate::addr::{LinearAddr, LinearPage};

/// A shadow and its stale pages.
#[derive(Debug)]
pub(crate) struct LazyShadow {
    shadow: Box<dyn Shadow>,
    /// See [`Shadow::base`], which stays the same.
    base: u64,
    stale: StalePages,
    /// Some page was not admitted.
    has_refused: bool,
}

impl LazyShadow {
    /// Takes over a shadow that shows nothing.
    pub(crate) fn new(shadow: Box<dyn Shadow>) -> Self {
        Self {
            base: shadow.base(),
            shadow,
            stale: StalePages::default(),
            has_refused: false,
        }
    }

    /// See [`Shadow::base`].
    #[inline]
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// See [`Shadow::host`].
    pub(crate) fn host(&self, linear: LinearAddr) -> Option<u64> {
        self.shadow.host(linear)
    }

    /// See [`Shadow::linear`].
    pub(crate) fn linear(&self, host: u64) -> Option<LinearAddr> {
        self.shadow.linear(host)
    }

    /// See [`Shadow::admit`].
    #[inline]
    pub(crate) fn admit(&mut self, page: LinearPage) {
        self.has_refused |= !self.shadow.admit(page);
    }

    /// See [`Shadow::is_crowded`].
    pub(crate) fn is_crowded(&self) -> bool {
        self.has_refused && self.shadow.is_crowded()
    }

    /// See [`Shadow::count`].
    pub(crate) fn count(&self) -> usize {
        self.shadow.count()
    }

    /// See [`Shadow::shows_slots`].
    pub(crate) fn shows_slots(&self) -> bool {
        self.shadow.shows_slots()
    }

    /// Notes pages, at least one, whose slots were emptied or changed.
    pub(crate) fn mark_stale(&mut self, pages: Range<u32>) {
        self.stale.add(pages);
    }

    /// Whether no page is stale.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        self.stale.is_empty()
    }

    /// Hides the stale pages. Returns the number of host calls that it took.
    pub(crate) fn settle(&mut self) -> u64 {
        if self.is_settled() {
            return 0;
        }
        let calls = self.shadow.hide(self.stale.ranges());
        self.stale.clear();
        calls
    }

    /// Shows pages, see [`Shadow::show`]. Nothing may be stale.
    ///
    /// # Errors
    /// The host's error; the pages are then inaccessible.
    pub(crate) fn show(&mut self, extent: Extent) -> io::Result<u64> {
        assert!(self.is_settled(), "stale pages are hidden first");
        self.shadow.show(extent)
    }

    /// Hides everything. Returns the number of host calls that it took.
    pub(crate) fn hide_all(&mut self) -> u64 {
        self.stale.clear();
        let all = 0..u32::MAX;
        self.shadow.hide(&[all])
    }
}
