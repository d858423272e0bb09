//! [`Part`]: the own slots of one set, or the shared slots. All slots are written here.

use std::ops::Range;
use std::ptr::NonNull;
use std::slice;

use crate::addr::{LinearWidth, PAGE_SIZE};
use crate::paging::{Access, Privilege};
use crate::shadow::LazyShadow;
use crate::tlb::space_set::SpaceSet;
use crate::tlb::view::{SlotId, View, ViewSet};

/// log2 of the slots of a *region*, which fill one host page of a table.
pub(super) const REGION_SHIFT: u32 = (PAGE_SIZE / size_of::<u64>()).trailing_zeros();

/// Regions of a [`Chunk`]: those of all 32-bit linear addresses.
const REGIONS: usize = LinearWidth::Bits32.slots() as usize >> REGION_SHIFT;

/// Regions in a word of a bit map.
const WORD: usize = u64::BITS as usize;

/// The host pages of successive regions that are in use.
struct Chunk {
    /// The views that may have filled slots, by region.
    touched: [ViewSet; REGIONS],
    /// A bit for each region with such views.
    summary: [u64; REGIONS / WORD],
    /// The views whose host pages take memory, by region.
    held: [ViewSet; REGIONS],
}

impl Chunk {
    fn new() -> Box<Self> {
        Box::new(Self {
            touched: [ViewSet::default(); REGIONS],
            summary: [0; REGIONS / WORD],
            held: [ViewSet::default(); REGIONS],
        })
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
}

/// The host pages of a part that are in use.
#[derive(Default)]
pub(super) struct Residency {
    /// The regions in order, as far as any was used.
    chunks: Vec<Option<Box<Chunk>>>,
    /// The number of regions in which slots may be filled.
    regions: usize,
    /// Bytes of the pages that take memory.
    bytes: usize,
}

impl Residency {
    /// Host memory that the part takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether no slot is filled, as far as is known without a look at each.
    pub(super) fn is_untouched(&self) -> bool {
        self.regions == 0
    }

    /// The views of a region that may have filled slots.
    fn touched(&self, region: usize) -> ViewSet {
        match self.chunks.get(region / REGIONS) {
            Some(Some(chunk)) => chunk.touched[region % REGIONS],
            _ => ViewSet::default(),
        }
    }

    /// Records that the memory of the part, which is empty, was given back to the host.
    pub(super) fn released(&mut self) {
        debug_assert!(self.is_untouched());
        *self = Self::default();
    }

    fn touch(&mut self, slot: SlotId) {
        let region = region(slot.index);
        let (chunk, region) = (region / REGIONS, region % REGIONS);
        if chunk >= self.chunks.len() {
            self.chunks.resize_with(chunk + 1, || None);
        }
        let chunk = self.chunks[chunk].get_or_insert_with(Chunk::new);
        self.regions += usize::from(chunk.touched[region].is_empty());
        chunk.touched[region].insert(slot.view);
        chunk.summary[region / WORD] |= 1 << (region % WORD);
        if !chunk.held[region].contains(slot.view) {
            chunk.held[region].insert(slot.view);
            self.bytes += PAGE_SIZE;
        }
    }

    /// The first region from `region` on in which slots may be filled.
    fn next_touched(&self, region: usize) -> Option<usize> {
        let (first, mut from) = (region / REGIONS, region % REGIONS);
        for (number, chunk) in self.chunks.iter().enumerate().skip(first) {
            let touched = chunk.as_ref().and_then(|chunk| chunk.next_touched(from));
            if let Some(region) = touched {
                return Some(number * REGIONS + region);
            }
            from = 0;
        }
        None
    }

    /// Records that the slots of `views` in a region are empty.
    fn emptied(&mut self, region: usize, views: ViewSet) {
        let Some(Some(chunk)) = self.chunks.get_mut(region / REGIONS) else {
            return;
        };
        let region = region % REGIONS;
        if chunk.touched[region].is_empty() {
            return;
        }
        chunk.touched[region].remove(views);
        if chunk.touched[region].is_empty() {
            chunk.summary[region / WORD] &= !(1 << (region % WORD));
            self.regions -= 1;
        }
    }
}

fn region(index: u32) -> usize {
    index as usize >> REGION_SHIFT
}

/// The slots of a part, for changes.
pub(crate) struct Part<'a> {
    /// Start of a set of tables; the slots `all` are writable in every view.
    pub(super) base: NonNull<u64>,
    /// The width of linear addresses, by which views have their places.
    pub(super) width: LinearWidth,
    /// Slots of the part: whole regions.
    pub(super) all: Range<u32>,
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
        let index = slot.index;
        let before = std::mem::replace(&mut self.slots(slot.view, index..index + 1)[0], value);
        if before != 0 && before != value {
            self.mark_stale(slot.view, index..index + 1);
        }
        self.residency.touch(slot);
    }

    /// A slot; 0 if it is not in the part.
    pub(super) fn get(&mut self, SlotId { view, index }: SlotId) -> u64 {
        let may_hold = self.residency.touched(region(index)).contains(view);
        if self.all.contains(&index) && may_hold {
            self.slots(view, index..index + 1)[0]
        } else {
            0
        }
    }

    /// Empties a slot. A fetch slot takes the code slot with it.
    pub(crate) fn clear_slot(&mut self, SlotId { view, index }: SlotId) {
        self.clear(ViewSet::only(view), index..index + 1);
    }

    /// Empties everything.
    pub(crate) fn clear_all(&mut self) {
        self.clear_views(ViewSet::ALL);
    }

    /// Empties all slots of `views`.
    pub(crate) fn clear_views(&mut self, views: ViewSet) {
        self.clear(views, self.all.clone());
    }

    /// Empties the slots `range` of `views`, as far as they are in the part.
    pub(crate) fn clear(&mut self, views: ViewSet, range: Range<u32>) {
        let views = views.with_code();
        let range = range.start.max(self.all.start)..range.end.min(self.all.end);
        if range.len() == 1 {
            return self.clear_in(region(range.start), views, range);
        }
        let mut from = region(range.start);
        while let Some(region) = self.residency.next_touched(from) {
            let first = (region as u32) << REGION_SHIFT;
            let whole = first..first + (1 << REGION_SHIFT);
            if whole.start >= range.end {
                break;
            }
            let here = whole.start.max(range.start)..whole.end.min(range.end);
            self.clear_in(region, views, here.clone());
            if here == whole {
                self.residency.emptied(region, views);
            }
            from = region + 1;
        }
    }

    /// Empties the slots `range` of `views`, which are in the region.
    #[inline]
    fn clear_in(&mut self, region: usize, views: ViewSet, range: Range<u32>) {
        for view in self.residency.touched(region).and(views).iter() {
            self.empty(view, range.clone());
        }
    }

    fn empty(&mut self, view: View, range: Range<u32>) {
        let slots = self.slots(view, range.clone());
        // Many at a time, without a branch for each.
        let filled = |slots: &[u64]| slots.iter().fold(0, |all, slot| all | slot) != 0;
        if !slots.chunks(64).any(filled) {
            return;
        }
        slots.fill(0);
        self.mark_stale(view, range);
        *self.drops += 1;
        if view.is_fetch() {
            self.fetch_epochs[view.privilege() as usize] += 1;
            *self.shared_epoch += u64::from(self.all.start != 0);
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

    /// The user's read and write slots at each place that has a read slot, in ascending order.
    pub(super) fn user_slots(&mut self) -> Vec<(u32, [u64; 2])> {
        self.filled([Access::Read, Access::Write].map(|access| View::of(access, Privilege::User)))
    }

    /// The slots in `views` at each place that has one in the first of them, in ascending order.
    pub(super) fn filled<const N: usize>(&mut self, views: [View; N]) -> Vec<(u32, [u64; N])> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(region) = self.residency.next_touched(from) {
            let first = (region as u32) << REGION_SHIFT;
            if self.residency.touched(region).contains(views[0]) {
                for index in first..first + (1 << REGION_SHIFT) {
                    let slots = views.map(|view| self.slots(view, index..index + 1)[0]);
                    found.extend((slots[0] != 0).then_some((index, slots)));
                }
            }
            from = region + 1;
        }
        found
    }

    fn slots(&mut self, view: View, range: Range<u32>) -> &mut [u64] {
        assert!(self.all.start <= range.start && range.end <= self.all.end);
        let first = view.offset(self.width) / size_of::<u64>() + range.start as usize;
        // SAFETY: the slots of the part are writable at `base` and any bytes are u64. Tables are read and written through
        // raw pointers but for this borrow, which holds `self` meanwhile.
        unsafe { slice::from_raw_parts_mut(self.base.add(first).as_ptr(), range.len()) }
    }
}
