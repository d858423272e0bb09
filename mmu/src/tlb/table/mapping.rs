//! The host memory of one set of tables.
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
//! All of it is reserved address space that takes memory where slots were filled.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::libc::{c_void, off_t};
use nix::sys::mman::{
    MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap,
};

use super::{OWN_PAGES, VIEW_SLOTS};
use crate::addr::LinearPage;
use crate::tlb::view::View;

/// Address space of one set of tables, in bytes.
pub(crate) const SET_BYTES: usize = View::ALL.len() * View::STRIDE;

/// The same as a length to map.
const LENGTH: NonZeroUsize = NonZeroUsize::new(SET_BYTES).expect("there are views");

/// Bytes of the own slots of one view.
const OWN_BYTES: usize = OWN_PAGES as usize * size_of::<u64>();

/// Bytes of the shared slots of one view.
const SHARED_BYTES: NonZeroUsize =
    NonZeroUsize::new(LinearPage::COUNT * size_of::<u64>() - OWN_BYTES).expect("some are shared");

/// Bytes of the memory file that holds the shared slots of all views.
pub(super) const SHARED_FILE_BYTES: usize = View::ALL.len() * SHARED_BYTES.get();

/// Empty tables, mapped.
pub(super) struct Mapping {
    /// Start of `SET_BYTES` readable bytes; own and shared slots of each view are writable too.
    slots: NonNull<u64>,
}

// SAFETY: the value owns its mapping, and a pointer to it is not tied to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps tables whose own slots are empty and whose shared slots are those of `shared`, `SHARED_FILE_BYTES` long.
    pub(super) fn new(shared: &File) -> io::Result<Self> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice affects no existing memory.
        let slots = unsafe {
            mmap_anonymous(
                None,
                LENGTH,
                ProtFlags::PROT_READ,
                MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE,
            )
        }?;
        let mapping = Self {
            slots: slots.cast(),
        };
        // A huge page would cost 2 MiB for the first slot of a region. Hosts without huge pages refuse, harmlessly.
        // SAFETY: the range is the mapping just made; the advice does not change its contents.
        let _no_huge_pages = unsafe { madvise(slots, SET_BYTES, MmapAdvise::MADV_NOHUGEPAGE) };
        for view in View::ALL {
            mapping.map_view(view, shared)?;
        }
        Ok(mapping)
    }

    fn map_view(&self, view: View, shared: &File) -> io::Result<()> {
        let writable = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the range is part of the mapping this value owns.
        unsafe { mprotect(self.own(view), OWN_BYTES, writable) }?;
        let start = self.own(view).addr().checked_add(OWN_BYTES);
        // SAFETY: as before, and no reference to the range exists.
        unsafe {
            mmap(
                start,
                SHARED_BYTES,
                writable,
                MapFlags::MAP_SHARED | MapFlags::MAP_FIXED,
                shared,
                (view.index() * SHARED_BYTES.get()) as off_t,
            )
        }?;
        Ok(())
    }

    /// The first slot of the first view.
    #[inline]
    pub(super) fn base(&self) -> NonNull<u64> {
        self.slots
    }

    /// Gives the memory of the own slots back, which empties them. Returns whether the host did.
    pub(super) fn discard_own(&mut self) -> bool {
        View::ALL.into_iter().all(|view| {
            // SAFETY: the range is private anonymous memory that this value owns; it becomes zero.
            unsafe { madvise(self.own(view), OWN_BYTES, MmapAdvise::MADV_DONTNEED) }.is_ok()
        })
    }

    /// Where the own slots of `view` start.
    fn own(&self, view: View) -> NonNull<c_void> {
        // SAFETY: the index is below SET_BYTES / 8, the length of the mapping at `slots`.
        unsafe { self.slots.add(view.index() * VIEW_SLOTS) }.cast()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and no reference to it outlives the value.
        let _unmapped = unsafe { munmap(self.slots.cast::<c_void>(), SET_BYTES) };
    }
}
