//! [`Slots`]: the host memory of one set of tables.
//!
//! ```text
//!   base ─► ┌───── 6 MiB or 4 GiB ─────┐   (32-bit or 48-bit linear addresses)
//!           │ View 0: own slots        │ private
//!           ├───── 2 MiB or 4 GiB ─────┤
//!           │ View 0: shared slots     │ of the memory file, the same in all sets
//!           ├─── 120 MiB or 120 GiB ───┤
//!           │ always empty             │ index of a misaligned address: see View::STRIDE
//!           ├──────────────────────────┤
//!           │ View 1 ...               │
//! ```
//!
//! All of it is reserved address space, which takes memory where slots were filled.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use crate::addr::LinearWidth;
use crate::layout::{fits_tables, map_tables};
use crate::mapping::{Mapping, Protection};
use crate::tlb::view::{View, set_bytes, table_bytes};

/// Bytes of the own slots of one view.
const fn own_bytes(width: LinearWidth) -> usize {
    width.own_slots() as usize * size_of::<u64>()
}

/// Bytes of the shared slots of one view.
const fn shared_bytes(width: LinearWidth) -> usize {
    table_bytes(width) - own_bytes(width)
}

/// Length of the memory file that holds the shared slots of all views.
pub(super) const fn shared_file_bytes(width: LinearWidth) -> usize {
    View::ALL.len() * shared_bytes(width)
}

const _: () = assert!(fits_tables(set_bytes(LinearWidth::Bits48)));

/// The slots of one set of tables: `set_bytes` readable bytes, of which the own and shared slots of each view are writable.
#[derive(Debug)]
pub(super) struct Slots {
    mapping: Mapping,
    width: LinearWidth,
}

impl Slots {
    /// Maps tables whose own slots are empty and whose shared slots are those of `shared`, `shared_file_bytes` long, for
    /// a processor that has `sets` of them.
    ///
    /// # Errors
    /// The host's error if it grants no address space.
    pub(super) fn new(width: LinearWidth, shared: &File, sets: usize) -> io::Result<Self> {
        let bytes = set_bytes(width);
        let mut mapping = match width {
            LinearWidth::Bits32 => Mapping::anonymous(bytes, Protection::Read),
            LinearWidth::Bits48 => map_tables(bytes, sets),
        }?;
        mapping.avoid_huge_pages();
        let shared_bytes = shared_bytes(width);
        for view in View::ALL {
            let own = own(width, view);
            mapping.protect(own.clone(), Protection::ReadWrite)?;
            let at = own.end..own.end + shared_bytes;
            let offset = (view.index() * shared_bytes) as u64;
            mapping.map_file(at, shared, offset, Protection::ReadWrite, false)?;
        }
        Ok(Self { mapping, width })
    }

    /// The first slot of the first view.
    #[inline]
    pub(super) fn base(&self) -> NonNull<u64> {
        self.mapping.start().cast()
    }

    /// Gives the memory of the own slots back to the host, which empties them. Returns whether the host accepted it.
    pub(super) fn discard_own(&mut self) -> bool {
        View::ALL
            .into_iter()
            .all(|view| self.mapping.discard(own(self.width, view)).is_ok())
    }
}

/// The bytes of the own slots of `view`.
fn own(width: LinearWidth, view: View) -> Range<usize> {
    let start = view.offset(width);
    start..start + own_bytes(width)
}
