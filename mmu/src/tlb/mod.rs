//! The software TLB: what has been translated, kept until the guest flushes it.
//!
//! Six flat tables, one a [`View`] (supervisor or user × read, write or fetch), indexed by linear page number. A slot
//! answers at once whether this kind of access to that page may go straight to host memory, and where. What a slot
//! promises:
//!
//! * read and fetch slots: the page is RAM or ROM, readable (fetchable) at that privilege, A is set;
//! * write slots: the page is RAM, writable at that privilege, D is set, and the frame is not marked Code.
//!
//! | file      | what it holds                                                              |
//! |-----------|----------------------------------------------------------------------------|
//! | `table`   | the tables and the raw access through them: all `unsafe` code of the crate |
//! | `filled`  | lists of filled slots, which make a flush cheap                             |
//! | `writers` | where each frame is entered writable, so that marking it Code can undo that |

mod filled;
mod table;
mod writers;

use std::fmt;
use std::sync::Arc;

use nix::errno::Errno;
use vm_memory::MmapRegion;

use crate::addr::{Frame, LinearAddr, LinearPage};
use crate::paging::{Access, PageSize, Privilege};
use crate::scalar::Scalar;
use filled::{Filled, Scope};
pub(crate) use table::TABLES_BYTES;
pub use table::{SLOT_PRESENT, View};
use table::{SlotId, Table};
use writers::{Writer, Writers};

/// Host memory that the tables may hold across a flush, in bytes. A guest that has used many parts of its address space
/// would otherwise keep all of the tables resident.
const RESIDENT_LIMIT: usize = 8 << 20;

/// log2 of the granule in which large pages are remembered: 4 MiB, the largest page.
const GRANULE_SHIFT: u32 = 22 - crate::addr::PAGE_SHIFT;
const GRANULES: usize = LinearPage::COUNT >> GRANULE_SHIFT;

/// A page to enter: what the walk found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    pub(crate) page: LinearPage,
    pub(crate) frame: Frame,
    pub(crate) page_size: PageSize,
    pub(crate) global: bool,
}

/// Translations of one processor.
pub(crate) struct Tlb {
    table: Table,
    filled: Filled,
    writers: Writers,
    /// 4 MiB granules in which 4 KiB slots were filled from a larger page: a bit each.
    large: [u64; GRANULES / 64],
}

impl Tlb {
    /// An empty TLB for the RAM in `mapping`.
    pub(crate) fn new(mapping: Arc<MmapRegion>) -> Result<Self, Errno> {
        let writers = Writers::new(mapping.size());
        let table = Table::new(mapping)?;
        Ok(Self {
            table,
            filled: Filled::default(),
            writers,
            large: [0; GRANULES / 64],
        })
    }

    /// Loads a value if `view` holds the page and the value does not cross it.
    #[inline(always)]
    pub(crate) fn load<T: Scalar>(&self, view: View, addr: LinearAddr) -> Option<T> {
        self.table.load(view, addr)
    }

    /// Stores a value if `view` holds the page and the value does not cross it. Returns whether it did.
    #[inline(always)]
    pub(crate) fn store<T: Scalar>(&mut self, view: View, addr: LinearAddr, value: T) -> bool {
        self.table.store(view, addr, value)
    }

    /// Stores a value repeatedly; see [`Table::fill`].
    pub(crate) fn fill_range<T: Scalar>(
        &mut self,
        view: View,
        addr: LinearAddr,
        value: T,
        count: usize,
    ) -> bool {
        self.table.fill(view, addr, value, count)
    }

    /// Copies bytes; see [`Table::copy`].
    pub(crate) fn copy(
        &mut self,
        to: (View, LinearAddr),
        from: (View, LinearAddr),
        len: usize,
    ) -> bool {
        self.table.copy(to, from, len)
    }

    /// The frame that `view` holds for the page.
    #[inline(always)]
    pub(crate) fn frame(&self, view: View, page: LinearPage) -> Option<Frame> {
        self.table.frame(view, page)
    }

    /// Increases whenever a slot of the fetch view of `privilege` is emptied.
    pub(crate) fn fetch_epoch(&self, privilege: Privilege) -> u64 {
        self.table.fetch_epoch(privilege)
    }

    /// Host address of the table of `view`.
    pub(crate) fn table_base(&self, view: View) -> *const u64 {
        self.table.base(view)
    }

    /// Enters a page after an access to it was allowed and its A and D bits set. A frame of RAM or ROM only; for
    /// `Access::Write`, only RAM that is not marked Code. Writable pages are readable, so a write fills the read view too.
    pub(crate) fn fill(&mut self, fill: Fill, access: Access, privilege: Privilege) {
        if fill.page_size > PageSize::KIB_4 {
            let granule = granule(fill.page);
            self.large[granule / 64] |= 1 << (granule % 64);
        }
        self.enter(fill, View::of(access, privilege));
        if access == Access::Write {
            self.enter(fill, View::of(Access::Read, privilege));
            self.note_writer(fill);
        }
    }

    /// Drops everything.
    pub(crate) fn flush_all(&mut self) {
        if self.must_clear(&[Scope::NonGlobal, Scope::Global]) {
            return self.clear();
        }
        for scope in [Scope::NonGlobal, Scope::Global] {
            self.filled.drain(scope, |slot| self.table.clear_slot(slot));
        }
        self.large.fill(0);
    }

    /// Drops at least everything that is not global.
    pub(crate) fn flush_non_global(&mut self) {
        if self.must_clear(&[Scope::NonGlobal]) {
            return self.clear();
        }
        self.filled
            .drain(Scope::NonGlobal, |slot| self.table.clear_slot(slot));
    }

    /// Drops the page of any size that holds `addr`, global or not. Where a large page was entered in pieces, that is
    /// everything (SDM Vol. 3A, 4.10.4.3 Optional Invalidation: more may be dropped than was asked for).
    pub(crate) fn drop_page(&mut self, addr: LinearAddr) {
        let granule = granule(addr.page());
        if self.large[granule / 64] & (1 << (granule % 64)) != 0 {
            return self.flush_all();
        }
        for view in View::ALL {
            self.table.clear_slot(SlotId::new(view, addr.page()));
        }
    }

    /// Drops every write slot of `frame`.
    pub(crate) fn drop_writers(&mut self, frame: Frame) {
        match self.writers.take(frame) {
            Writer::None => {}
            Writer::One(page) => {
                for privilege in [Privilege::Supervisor, Privilege::User] {
                    self.table
                        .clear_slot(SlotId::new(View::of(Access::Write, privilege), page));
                }
            }
            Writer::Many => self.drop_all_writers(),
        }
    }

    fn drop_all_writers(&mut self) {
        if self.must_clear(&[Scope::NonGlobal, Scope::Global]) {
            return self.clear();
        }
        for slot in self
            .filled
            .iter()
            .filter(|slot| slot.view().access() == Access::Write)
        {
            self.table.clear_slot(slot);
        }
    }

    fn enter(&mut self, fill: Fill, view: View) {
        let slot = SlotId::new(view, fill.page);
        if self.table.set_slot(slot, fill.frame) {
            self.filled.push(
                if fill.global {
                    Scope::Global
                } else {
                    Scope::NonGlobal
                },
                slot,
            );
        }
    }

    /// Remembers where the frame is writable. A page remembered earlier that no longer maps the frame is forgotten.
    fn note_writer(&mut self, fill: Fill) {
        let writer = match self.writers.get(fill.frame) {
            Writer::One(page) if page != fill.page && self.is_writer(page, fill.frame) => {
                Writer::Many
            }
            Writer::Many => Writer::Many,
            Writer::None | Writer::One(_) => Writer::One(fill.page),
        };
        self.writers.set(fill.frame, writer);
    }

    fn is_writer(&self, page: LinearPage, frame: Frame) -> bool {
        [Privilege::Supervisor, Privilege::User]
            .into_iter()
            .any(|privilege| {
                self.table.frame(View::of(Access::Write, privilege), page) == Some(frame)
            })
    }

    /// Whether the lists of `scopes` do not suffice to empty their slots, or the tables hold too much memory.
    fn must_clear(&self, scopes: &[Scope]) -> bool {
        scopes.iter().any(|&scope| self.filled.overflowed(scope))
            || self.table.resident() > RESIDENT_LIMIT
    }

    fn clear(&mut self) {
        self.table.clear();
        self.filled = Filled::default();
        self.large.fill(0);
    }
}

impl fmt::Debug for Tlb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tlb")
            .field("resident", &self.table.resident())
            .finish_non_exhaustive()
    }
}

fn granule(page: LinearPage) -> usize {
    page.get() as usize >> GRANULE_SHIFT
}

#[cfg(test)]
mod tests {
    use vm_memory::MmapRegion;

    use super::*;

    /// One slot in every host page of every table: the most memory that a guest can make them take.
    #[test]
    fn a_flush_bounds_the_memory_of_the_tables() {
        let ram = Arc::new(MmapRegion::new(1 << 20).unwrap());
        for flush in [Tlb::flush_all, Tlb::flush_non_global] {
            let mut tlb = Tlb::new(Arc::clone(&ram)).unwrap();
            for number in (0..LinearPage::COUNT as u32).step_by(512) {
                let (page, frame) = (LinearPage::truncated(number), Frame::new(0));
                for privilege in [Privilege::Supervisor, Privilege::User] {
                    let fill = Fill {
                        page,
                        frame,
                        page_size: PageSize::KIB_4,
                        global: true,
                    };
                    tlb.fill(fill, Access::Write, privilege);
                    tlb.fill(fill, Access::Fetch, privilege);
                }
            }
            let slots = View::ALL.len() * LinearPage::COUNT;
            assert_eq!(tlb.table.resident(), slots * size_of::<u64>());
            flush(&mut tlb);
            assert_eq!(tlb.table.resident(), 0);
        }
    }
}
