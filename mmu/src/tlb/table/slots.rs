//! [`Slots`]: the host memory of one set of tables.
//!
//! ```text
//!   base ─► ┌───────── 6 MiB ───────┐
//!           │ View 0: own slots     │ private; index = linear address >> 12
//!           ├───────── 2 MiB ───────┤
//!           │ View 0: shared slots  │ of the memory file, the same in all sets
//!           ├─────── 120 MiB ───────┤
//!           │ always empty          │ index of a misaligned address: see View::STRIDE
//!           ├───────────────────────┤
//!           │ View 1 ...            │
//! ```
//!
//! All of it is reserved address space, which takes memory where slots were filled.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use super::{OWN_PAGES, VIEW_SLOTS};
use crate::addr::LinearPage;
use crate::mapping::{Mapping, Protection};
use crate::tlb::view::View;

/// Address space of one set of tables, in bytes.
pub(crate) const SET_BYTES: usize = View::ALL.len() * View::STRIDE;

/// Bytes of the own slots of one view.
const OWN_BYTES: usize = OWN_PAGES as usize * size_of::<u64>();

/// Bytes of the shared slots of one view.
const SHARED_BYTES: usize = LinearPage::COUNT * size_of::<u64>() - OWN_BYTES;

/// Length of the memory file that holds the shared slots of all views.
pub(super) const SHARED_FILE_BYTES: usize = View::ALL.len() * SHARED_BYTES;

/// The slots of one set of tables: `SET_BYTES` readable bytes, of which the own and shared slots of each view are writable.
#[derive(Debug)]
pub(super) struct Slots(Mapping);

impl Slots {
    /// Maps tables whose own slots are empty and whose shared slots are those of `shared`, `SHARED_FILE_BYTES` long.
    pub(super) fn new(shared: &File) -> io::Result<Self> {
        let mut mapping = Mapping::anonymous(SET_BYTES, Protection::Read)?;
        mapping.avoid_huge_pages();
        for view in View::ALL {
            let own = own(view);
            mapping.protect(own.clone(), Protection::ReadWrite)?;
            let at = own.end..own.end + SHARED_BYTES;
            let offset = (view.index() * SHARED_BYTES) as u64;
            mapping.map_file(at, shared, offset, Protection::ReadWrite, false)?;
        }
        Ok(Self(mapping))
    }

    /// The first slot of the first view.
    #[inline]
    pub(super) fn base(&self) -> NonNull<u64> {
        self.0.start().cast()
    }

    /// Gives the memory of the own slots back to the host, which empties them. Returns whether the host accepted it.
    pub(super) fn discard_own(&mut self) -> bool {
        View::ALL
            .into_iter()
            .all(|view| self.0.discard(own(view)).is_ok())
    }
}

/// The bytes of the own slots of `view`.
fn own(view: View) -> Range<usize> {
    let start = view.index() * VIEW_SLOTS * size_of::<u64>();
    start..start + OWN_BYTES
}
