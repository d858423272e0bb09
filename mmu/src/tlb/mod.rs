//! [`Tlb`]: the software TLB, which keeps translations for as long as the guest cannot tell.
//!
//! The TLB consists of flat tables, one for each [`View`] (supervisor or user × read, write, fetch or code), indexed by linear
//! page number, or by some bits of it where there are more pages than slots (`index`). A slot tells at once whether this kind of
//! access to that page may go straight to host memory, and where. A filled slot promises:
//!
//! * read and fetch slots: the page is RAM or ROM, readable (fetchable) at that privilege, A is set;
//! * write slots: the page is RAM, writable at that privilege, D is set, and the frame is neither marked Code nor write-tracked;
//! * code slots: a value of the translator's about the page, kept while the fetch slot is filled.
//!
//! There is a set of tables for each of the guest's most recent address spaces. Its slots are of two parts:
//!
//! * *own* slots, those of programs' pages (`LinearWidth::own_slots`), are kept in agreement with the guest's page tables
//!   (`tracking`): a store to an entry empties the slots that come from it, at once or at the guest's next flush. So INVLPG and
//!   MOV to CR3 have little to do, and a space finds its slots again when the guest returns to it. (A translation may be dropped
//!   at any time: SDM Vol. 3A, 4.10.4.3 Optional Invalidation.)
//! * *shared* slots, those of the others, are the same in all sets and behave like the processor's TLB: they are emptied when the
//!   guest flushes.
//!
//! | file         | what it holds                                                     |
//! |--------------|-------------------------------------------------------------------|
//! | `table`      | the tables and the raw accesses through them                      |
//! | `view`       | which table serves which access                                   |
//! | `index`      | which slot of a table is a page's                                 |
//! | `spaces`     | which address spaces have tables                                  |
//! | `space_set`  | a set of them                                                     |
//! | `tracking`   | which frames own slots come from, and what a store to one empties |
//! | `rmap`       | reverse map from a frame to the write slots that lead to it       |
//! | `non_global` | a list of filled shared slots, which makes a flush cheap          |

mod index;
mod non_global;
mod rmap;
mod space_set;
mod spaces;
mod table;
#[cfg(test)]
mod tests;
mod tracking;
mod view;

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::addr::{Frame, LinearAddr, LinearPage, LinearWidth, PAGE_SHIFT};
use crate::memory::{Memory, Tracking};
use crate::paging::{Access, PageSize, Privilege, Step};
pub use index::INDEX_BITS;
use non_global::NonGlobal;
use rmap::ReverseMap;
pub use space_set::SpaceSet;
pub use spaces::SpaceId;
pub(crate) use spaces::SpaceKey;
use spaces::Spaces;
use table::PartId;
pub use table::{Order, SLOT_PRESENT, Tables};
pub(crate) use tracking::FrameBytes;
use tracking::WriteTracking;
pub use view::View;
pub(crate) use view::set_bytes;
use view::{SlotId, ViewSet};

/// Host memory that all tables together may hold after a flush, in bytes. A guest that has used many parts of its address
/// spaces would otherwise keep all of the tables resident.
const RESIDENT_LIMIT: usize = 32 << 20;

/// log2 of the slots of a granule in which large pages are remembered, of the size of the largest page: 4 MiB, or 1 GiB.
const fn granule_shift(width: LinearWidth) -> u32 {
    let page = match width {
        LinearWidth::Bits32 => PageSize::MIB_4,
        LinearWidth::Bits48 => PageSize::GIB_1,
    };
    (page.bytes() >> PAGE_SHIFT).trailing_zeros()
}

/// A translation to enter, as the walk found it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TlbEntry {
    pub(crate) page: LinearPage,
    pub(crate) frame: Frame,
    pub(crate) page_size: PageSize,
    pub(crate) global: bool,
}

/// The translations of one processor. Reads of the tables, and accesses through them, are methods of [`Tables`].
pub struct Tlb {
    tables: Tables,
    spaces: Spaces,
    tracking: WriteTracking,
    rmap: ReverseMap,
    non_global: NonGlobal,
    /// Counts the spaces with slots that had to make room.
    displaced: u64,
    /// A bit for each granule in which shared slots were filled from a large page.
    large: Box<[u64]>,
}

impl Tlb {
    /// Creates an empty TLB for linear addresses of `width` and `memory`, in the space of `key`.
    pub(crate) fn new(memory: Arc<Memory>, width: LinearWidth, key: SpaceKey) -> io::Result<Self> {
        let frames = memory.frame_count() as usize;
        let granules = width.slots() as usize >> granule_shift(width);
        Ok(Self {
            tables: Tables::new(memory, width)?,
            spaces: Spaces::new(width, key),
            tracking: WriteTracking::new(frames),
            rmap: ReverseMap::new(frames),
            non_global: NonGlobal::default(),
            displaced: 0,
            large: vec![0; granules / 64].into(),
        })
    }

    /// The frame from which programs in `space` fetch the page, if that is cached and the space still exists and has a window.
    pub fn fetched_in(&self, space: SpaceId, page: LinearPage) -> Option<Frame> {
        if !self.spaces.is_present(space) || !self.is_own(page) {
            return None;
        }
        self.tables.fetched_in(space.index() as u8, page)
    }

    /// Empties the code slots for programs in `space`, if it still exists.
    pub fn forget_user_code(&mut self, space: SpaceId) {
        if self.spaces.is_present(space) {
            self.tables.forget_user_code(space.index() as u8);
        }
    }

    /// The name of the present address space. It ends no later than the space's window.
    pub fn space(&self) -> SpaceId {
        self.spaces.current().id()
    }

    /// A count that increases whenever an address space loses its cached translations, and its window, to make room for others:
    /// the guest has more of them in use than are kept.
    pub fn displaced(&self) -> u64 {
        self.displaced
    }

    /// Makes the space of `key` the current one, without a change to shared slots.
    pub(crate) fn enter(&mut self, key: SpaceKey) {
        if self.spaces.is_current(key) {
            return;
        }
        let space = self.spaces.find(key).unwrap_or_else(|| self.admit(key));
        self.spaces.enter(space);
        self.tables.switch(space);
    }

    /// Whether all address spaces share the slots of the page.
    pub fn is_shared(&self, page: LinearPage) -> bool {
        !self.is_own(page)
    }

    /// Whether the slots of the page are the current space's own, which may be filled only after [`Self::note_step`] for all
    /// entries of the walk.
    pub(crate) fn is_own(&self, page: LinearPage) -> bool {
        self.tables.width().is_own(page)
    }

    /// Tracks an entry in RAM, which has this value, before own slots of `page` in the current space are filled from it. Returns
    /// how stores to its frame are followed from now on.
    pub(crate) fn note_step(&mut self, page: LinearPage, step: &Step, value: u64) -> Tracking {
        let frame = step.entry.frame();
        let was_tracked = self.tracking.is_write_tracked(frame);
        let generation = self.spaces.current();
        let tracking = self.tracking.note(
            generation,
            step,
            value,
            page,
            &self.spaces,
            &mut self.tables,
        );
        if tracking == Tracking::WriteTracked && !was_tracked {
            self.drop_write_slots(frame);
        }
        tracking
    }

    /// Follows a store to `bytes` of a tracked frame, which holds `now`: drops the own slots that come from the entries there.
    /// Returns how further stores are followed.
    pub(crate) fn stored(
        &mut self,
        frame: Frame,
        bytes: &Range<u32>,
        now: impl FnOnce() -> FrameBytes,
    ) -> Tracking {
        self.tracking
            .stored(frame, bytes, now, &self.spaces, &mut self.tables)
    }

    /// Drops the current space's own slots that come from changed entries of unsync page tables; `bytes` gives the contents of a
    /// frame. The frames returned are write-tracked from now on.
    pub(crate) fn sync(&mut self, bytes: impl Fn(Frame) -> FrameBytes) -> SmallVec<[Frame; 4]> {
        let space = self.spaces.current().space;
        let again = self
            .tracking
            .sync(space, bytes, &self.spaces, &mut self.tables);
        for frame in &again {
            self.drop_write_slots(*frame);
        }
        again
    }

    /// Fills the slot of a page for `access` alone, after an access to it was allowed and its A and D bits were set. The frame is
    /// RAM or ROM; for `Access::Write`, RAM that is neither marked Code nor write-tracked.
    pub(crate) fn fill(&mut self, fill: TlbEntry, access: Access, privilege: Privilege) {
        let TlbEntry {
            page,
            frame,
            page_size,
            global,
        } = fill;
        if !self.tables.set_frame(page, frame, access, privilege) {
            return;
        }
        let (part, index) = (self.tables.part_of(page), self.tables.index(page));
        if access == Access::Write {
            self.rmap.note(frame, part, index, &mut self.tables);
        }
        if part != PartId::Shared {
            return;
        }
        if page_size > PageSize::KIB_4 {
            let granule = self.granule(index);
            self.large[granule / 64] |= 1 << (granule % 64);
        }
        if !global {
            let view = View::of(access, privilege);
            self.non_global.push(SlotId { view, index });
        }
    }

    /// Keeps `value`, which is not 0, in the code slot of the page for as long as its fetch slot for `privilege` is filled.
    /// Returns `false`, and keeps nothing, if that is empty now.
    pub fn set_code(&mut self, page: LinearPage, privilege: Privilege, value: u64) -> bool {
        debug_assert_ne!(value, 0);
        let fetched = self.slot(View::of(Access::Fetch, privilege), page) != 0;
        if fetched {
            self.tables.set_code(page, privilege, value);
        }
        fetched
    }

    /// Empties all code slots, in all address spaces.
    pub fn clear_code(&mut self) {
        for id in self.tables.parts() {
            self.tables.part(id).clear_views(ViewSet::CODE);
        }
    }

    /// Drops everything. `untracked` is told which frames were tracked.
    pub(crate) fn flush_all(&mut self, untracked: impl FnMut(Frame)) {
        for space in self.spaces.oldest_first() {
            self.empty_space(space);
        }
        self.flush_shared();
        self.tracking.end_all().for_each(untracked);
        self.trim();
    }

    /// Drops at least all shared slots that are not global. See [`Self::sync`] for own slots.
    pub(crate) fn flush_non_global(&mut self) {
        if self.non_global.overflowed() {
            self.flush_shared();
        } else {
            self.non_global.drain(&mut self.tables.part(PartId::Shared));
        }
        self.trim();
    }

    /// Drops the slots of the page of any size that holds `addr`, global or not; own slots only where they may disagree with the
    /// page tables. Where a large page was entered in pieces, all shared slots of its granule go (SDM Vol. 3A, 4.10.4.3 Optional
    /// Invalidation: more may be dropped than was asked for).
    pub(crate) fn drop_page(&mut self, addr: LinearAddr) {
        let page = addr.page();
        let index = self.tables.index(page);
        if self.is_own(page) {
            if self.tracking.has_unsync() {
                let own = self.tables.part_of(page);
                self.tables.part(own).clear(ViewSet::ALL, index..index + 1);
            }
            return;
        }
        let granule = self.granule(index);
        let large = &mut self.large[granule / 64];
        let slots = match *large & 1 << (granule % 64) {
            0 => index..index + 1,
            bit => {
                *large &= !bit;
                let shift = granule_shift(self.tables.width());
                (granule << shift) as u32..((granule + 1) << shift) as u32
            }
        };
        self.tables.part(PartId::Shared).clear(ViewSet::ALL, slots);
    }

    /// Drops the write slots of all spaces. `opened` is told the frames to which they led.
    pub(crate) fn drop_all_write_slots(&mut self, mut opened: impl FnMut(Frame)) {
        for id in self.tables.parts() {
            self.tables
                .frames_written(id)
                .into_iter()
                .for_each(&mut opened);
            self.tables.part(id).clear_views(ViewSet::WRITE);
        }
    }

    /// Drops every write slot of `frame`.
    pub(crate) fn drop_write_slots(&mut self, frame: Frame) {
        self.rmap.drop_slots(frame, &mut self.tables);
    }

    /// Admits a space for `key`, with empty tables: those of a space without slots, as an ended process leaves it, which take
    /// memory already; else new ones, or those of the least recently used space.
    fn admit(&mut self, key: SpaceKey) -> u8 {
        let vacant = self
            .spaces
            .latest_other(|space| self.tables.is_vacant(space));
        if vacant.is_none() && !self.spaces.is_full() && self.tables.grow().is_ok() {
            return self.spaces.push(key);
        }
        let space = vacant.unwrap_or_else(|| self.spaces.oldest());
        self.displace(space);
        self.spaces.rename(space, key);
        space
    }

    /// Empties a space to make room for others.
    fn displace(&mut self, space: u8) {
        self.displaced += u64::from(!self.tables.is_vacant(space));
        self.empty_space(space);
    }

    fn empty_space(&mut self, space: u8) {
        self.tables.drop_window(space);
        self.tables.part(PartId::Own(space)).clear_all();
        self.spaces.end(space);
    }

    fn flush_shared(&mut self) {
        self.tables.part(PartId::Shared).clear_all();
        self.non_global.reset();
        self.large.fill(0);
    }

    fn granule(&self, index: u32) -> usize {
        (index >> granule_shift(self.tables.width())) as usize
    }

    /// Gives memory back to the host, that of spaces without slots and then of the least recently used ones first, until the tables
    /// hold no more than [`RESIDENT_LIMIT`].
    fn trim(&mut self) {
        if self.tables.resident() <= RESIDENT_LIMIT {
            return;
        }
        let mut order = self.spaces.oldest_first();
        order.sort_by_key(|&space| !self.tables.is_vacant(space));
        for space in order {
            self.displace(space);
            self.tables.release(PartId::Own(space));
            if self.tables.resident() <= RESIDENT_LIMIT {
                return;
            }
        }
        self.flush_shared();
        self.tables.release(PartId::Shared);
    }
}

impl Deref for Tlb {
    type Target = Tables;

    #[inline(always)]
    fn deref(&self) -> &Tables {
        &self.tables
    }
}

impl DerefMut for Tlb {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Tables {
        &mut self.tables
    }
}

impl fmt::Debug for Tlb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tlb")
            .field("resident", &self.tables.resident())
            .finish_non_exhaustive()
    }
}
