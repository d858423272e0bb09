//! [`Part`]: the own slots of one set, or the shared slots. All slots are written here.

use std::ops::Range;
use std::ptr::NonNull;
use std::slice;

use super::VIEW_SLOTS;
use crate::addr::{LinearPage, PAGE_SIZE};
use crate::paging::{Access, Privilege};
use crate::shadow::LazyShadow;
use crate::tlb::space_set::SpaceSet;
use crate::tlb::view::{SlotId, View, ViewSet};

/// log2 of the linear pages of a *region*, whose slots fill one host page of a table.
pub(super) const REGION_SHIFT: u32 = (PAGE_SIZE / size_of::<u64>()).trailing_zeros();

const REGIONS: usize = LinearPage::COUNT >> REGION_SHIFT;

/// Regions in a word of a bit map.
const WORD: usize = u64::BITS as usize;

/// The host pages of a part that are in use.
pub(super) struct Residency {
    /// The views that may have filled slots, by region.
    touched: [ViewSet; REGIONS],
    /// A bit for each region with such views.
    summary: [u64; REGIONS / WORD],
    /// The views whose host pages take memory, by region.
    held: [ViewSet; REGIONS],
    /// Bytes of those pages.
    bytes: usize,
}

impl Residency {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            touched: [ViewSet::default(); REGIONS],
            summary: [0; REGIONS / WORD],
            held: [ViewSet::default(); REGIONS],
            bytes: 0,
        })
    }

    /// Host memory that the part takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether no slot is filled, as far as is known without a look at each.
    pub(super) fn is_untouched(&self) -> bool {
        self.summary.iter().all(|regions| *regions == 0)
    }

    /// Whether the slot may be filled.
    fn may_hold(&self, slot: SlotId) -> bool {
        self.touched[region(slot.page)].contains(slot.view)
    }

    /// Records that the memory of the part was given back to the host.
    pub(super) fn released(&mut self) {
        self.held = [ViewSet::default(); REGIONS];
        self.bytes = 0;
    }

    fn touch(&mut self, slot: SlotId) {
        let region = region(slot.page);
        self.touched[region].insert(slot.view);
        self.summary[region / WORD] |= 1 << (region % WORD);
        if !self.held[region].contains(slot.view) {
            self.held[region].insert(slot.view);
            self.bytes += PAGE_SIZE;
        }
    }

    /// The first region from `region` on in which slots may be filled.
    fn next_touched(&self, region: usize) -> Option<usize> {
        let mut word = region / WORD;
        let mut bits = *self.summary.get(word)? & (u64::MAX << (region % WORD));
        while bits == 0 {
            word += 1;
            bits = *self.summary.get(word)?;
        }
        Some(word * WORD + bits.trailing_zeros() as usize)
    }

    /// Records that the slots of `views` in a region are empty.
    fn emptied(&mut self, region: usize, views: ViewSet) {
        self.touched[region].remove(views);
        if self.touched[region].is_empty() {
            self.summary[region / WORD] &= !(1 << (region % WORD));
        }
    }
}

fn region(page: LinearPage) -> usize {
    page.get() as usize >> REGION_SHIFT
}

/// The slots of a part, for changes.
pub(crate) struct Part<'a> {
    /// Start of a set of tables; the slots of `pages` are writable in every view.
    pub(super) base: NonNull<u64>,
    /// Linear pages of the part: whole regions.
    pub(super) pages: Range<u32>,
    pub(super) residency: &'a mut Residency,
    /// Counts of emptied fetch slots, by privilege.
    pub(super) fetch_epochs: &'a mut [u64; 2],
    /// Count of emptied fetch slots that all spaces share.
    pub(super) shared_epoch: &'a mut u64,
    /// The sets with windows in which fetch slots of programs were emptied.
    pub(super) windowed_losses: &'a mut SpaceSet,
    /// The part's set; none for the shared part.
    pub(super) spaces: SpaceSet,
    /// Count of the times that slots of any view were emptied.
    pub(super) drops: &'a mut u64,
    /// The window on the part.
    pub(super) window: Option<&'a mut LazyShadow>,
}

impl Part<'_> {
    /// Sets a slot of the part.
    pub(super) fn set(&mut self, slot: SlotId, value: u64) {
        let page = slot.page.get();
        let before = std::mem::replace(&mut self.slots(slot.view, page..page + 1)[0], value);
        if before != 0 && before != value {
            self.mark_stale(slot.view, page..page + 1);
        }
        self.residency.touch(slot);
    }

    /// A slot; 0 if it is not in the part.
    pub(super) fn get(&mut self, slot: SlotId) -> u64 {
        let page = slot.page.get();
        if self.pages.contains(&page) && self.residency.may_hold(slot) {
            self.slots(slot.view, page..page + 1)[0]
        } else {
            0
        }
    }

    /// Empties a slot. A fetch slot takes the code slot with it.
    pub(crate) fn clear_slot(&mut self, slot: SlotId) {
        let page = slot.page.get();
        self.clear(ViewSet::only(slot.view), page..page + 1);
    }

    /// Empties everything.
    pub(crate) fn clear_all(&mut self) {
        self.clear(ViewSet::ALL, self.pages.clone());
    }

    /// Empties the slots of `views` for the linear pages `pages`, as far as they are in the part.
    pub(crate) fn clear(&mut self, views: ViewSet, pages: Range<u32>) {
        let views = views.with_code();
        let pages = pages.start.max(self.pages.start)..pages.end.min(self.pages.end);
        if pages.len() == 1 {
            return self.clear_in(pages.start as usize >> REGION_SHIFT, views, pages);
        }
        let mut from = pages.start as usize >> REGION_SHIFT;
        while let Some(region) = self.residency.next_touched(from) {
            let first = (region as u32) << REGION_SHIFT;
            let whole = first..first + (1 << REGION_SHIFT);
            if whole.start >= pages.end {
                break;
            }
            let here = whole.start.max(pages.start)..whole.end.min(pages.end);
            self.clear_in(region, views, here.clone());
            if here == whole {
                self.residency.emptied(region, views);
            }
            from = region + 1;
        }
    }

    /// Empties the slots of `views` for `pages`, which are in the region.
    #[inline]
    fn clear_in(&mut self, region: usize, views: ViewSet, pages: Range<u32>) {
        for view in self.residency.touched[region].and(views).iter() {
            self.empty(view, pages.clone());
        }
    }

    fn empty(&mut self, view: View, pages: Range<u32>) {
        let slots = self.slots(view, pages.clone());
        // Many at a time, without a branch for each.
        let filled = |slots: &[u64]| slots.iter().fold(0, |all, slot| all | slot) != 0;
        if !slots.chunks(64).any(filled) {
            return;
        }
        slots.fill(0);
        self.mark_stale(view, pages);
        *self.drops += 1;
        if view.is_fetch() {
            self.fetch_epochs[view.privilege() as usize] += 1;
            *self.shared_epoch += u64::from(self.pages.start != 0);
            if self.window.is_some() && view.privilege() == Privilege::User {
                self.windowed_losses.add(self.spaces);
            }
        }
    }

    /// Tells the window of pages whose slots in `view` have changed.
    fn mark_stale(&mut self, view: View, pages: Range<u32>) {
        if let Some(window) = self.window.as_deref_mut().filter(|_| view.is_windowed()) {
            window.mark_stale(pages);
        }
    }

    /// The user's read and write slots of each page that has a read slot, in ascending order.
    pub(super) fn user_slots(&mut self) -> Vec<(u32, [u64; 2])> {
        self.filled([Access::Read, Access::Write].map(|access| View::of(access, Privilege::User)))
    }

    /// The slots in `views` of each page that has one in the first of them, in ascending order.
    pub(super) fn filled<const N: usize>(&mut self, views: [View; N]) -> Vec<(u32, [u64; N])> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(region) = self.residency.next_touched(from) {
            let first = (region as u32) << REGION_SHIFT;
            if self.residency.touched[region].contains(views[0]) {
                for page in first..first + (1 << REGION_SHIFT) {
                    let slots = views.map(|view| self.slots(view, page..page + 1)[0]);
                    found.extend((slots[0] != 0).then_some((page, slots)));
                }
            }
            from = region + 1;
        }
        found
    }

    fn slots(&mut self, view: View, pages: Range<u32>) -> &mut [u64] {
        assert!(self.pages.start <= pages.start && pages.end <= self.pages.end);
        let first = view.index() * VIEW_SLOTS + pages.start as usize;
        // SAFETY: the slots of the part are writable at `base` and any bytes are u64. Tables are read and written through
        // raw pointers but for this borrow, which holds `self` meanwhile.
        unsafe { slice::from_raw_parts_mut(self.base.add(first).as_ptr(), pages.len()) }
    }
}
