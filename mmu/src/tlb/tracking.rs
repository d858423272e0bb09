//! Which frames hold paging-structure entries that own slots were made from, and which slots those are.
//!
//! ```text
//!              first walk                  first store
//!   (unknown) ────────────► watched ────────────────────► behind: a copy of what the slots were made from
//!                              ▲                             │
//!                              └── unchanged for some flushes ┘
//! ```
//!
//! Stores to a *watched* frame are all seen, because it has no write slots: the slots that come from an entry are emptied when
//! it changes. A page table, though, is written much and in bulk, and a processor need not notice before the guest flushes
//! (SDM Vol. 3A, 4.10.4 "Invalidation of TLBs and Paging-Structure Caches"). So with the first store it falls *behind*: stores
//! go unseen from then on, and at each flush its entries are compared with those that the slots were made from.

use std::ops::Range;

use smallvec::SmallVec;

use super::spaces::{Generation, Spaces};
use super::table::PartId;
use super::table::Tables;
use super::view::ViewSet;
use crate::addr::{Frame, LinearPage, PAGE_SHIFT, PAGE_SIZE};
use crate::memory::Tracking;
use crate::paging::{ACCESSED, DIRTY, PRESENT, Step};

/// Uses remembered for a frame. At least two, as one walk can use a frame twice.
const MAX_USES: usize = 16;

/// Stores to a directory that no walk has used in between, until it is not watched any more: whoever writes so much is not
/// editing a paging structure in use but copying, clearing or reusing one.
const MAX_STORES: u32 = 8;

/// Flushes that find a page table unchanged, until it is watched again.
const SETTLED_FLUSHES: u32 = 2;

/// Page tables that are behind at most.
const MAX_UNSYNC: usize = 256;

/// The bytes of a frame.
pub(crate) type FrameBytes = [u8; PAGE_SIZE];

/// A paging structure as a space uses it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct StructureUse {
    generation: Generation,
    /// First linear page that the structure maps.
    base: u32,
    /// log2 of the linear pages that an entry maps.
    shift: u32,
    /// log2 of the bytes of an entry.
    entry_shift: u32,
}

impl StructureUse {
    /// The structure that holds the entry `step` of a walk for `page`.
    fn new(generation: Generation, step: &Step, page: LinearPage) -> Self {
        let Step {
            entry,
            entry_shift,
            shift,
            ..
        } = *step;
        let index = entry.offset() >> entry_shift;
        let first = (page.get() >> shift).wrapping_sub(index);
        Self {
            generation,
            base: first << shift,
            shift,
            entry_shift,
        }
    }

    /// Whether it is a page table: its entries map pages, of the smallest size.
    fn is_page_table(&self) -> bool {
        self.shift == 0
    }

    /// The linear pages that the entries at `bytes` of the frame map.
    fn pages(&self, bytes: &Range<u32>) -> Range<u32> {
        let first = bytes.start >> self.entry_shift;
        let end = ((bytes.end - 1) >> self.entry_shift) + 1;
        self.base + (first << self.shift)..self.base + (end << self.shift)
    }

    /// Empties the own slots that come from the entries at `bytes` of the frame.
    fn drop_slots(&self, bytes: &Range<u32>, tables: &mut Tables) {
        let part = PartId::Own(self.generation.space);
        tables.part(part).clear(ViewSet::ALL, self.pages(bytes));
    }
}

/// All bytes of a frame.
const WHOLE: Range<u32> = 0..1 << PAGE_SHIFT;

struct TrackedFrame {
    frame: Frame,
    /// Stores since a walk last used the frame.
    stores: u32,
    /// The least recent first.
    uses: SmallVec<[StructureUse; 2]>,
    /// What the slots were made from, if stores go unseen.
    copy: Option<Box<FrameBytes>>,
    /// Flushes since it was found changed.
    unchanged: u32,
}

impl TrackedFrame {
    /// Empties the slots that come from the entries at `bytes` of the frame.
    fn drop_slots(&self, bytes: &Range<u32>, tables: &mut Tables) {
        for this in &self.uses {
            this.drop_slots(bytes, tables);
        }
    }

    /// A slot is about to be made from the entry at `bytes`, which is `now`. Others may come from an earlier value.
    fn refresh(&mut self, bytes: Range<u32>, now: u64, tables: &mut Tables) {
        let Some(copy) = &mut self.copy else { return };
        let entry = &mut copy[bytes.start as usize..bytes.end as usize];
        let mut before = [0; size_of::<u64>()];
        before[..entry.len()].copy_from_slice(entry);
        let before = u64::from_le_bytes(before);
        entry.copy_from_slice(&now.to_le_bytes()[..entry.len()]);
        // The walker itself sets A and D bits.
        if before | now & (ACCESSED | DIRTY) != now {
            self.drop_slots(&bytes, tables);
        }
    }

    /// The bytes of entries that differ: as few ranges as can be, since what is not present makes no slots.
    fn differences(&self, before: &FrameBytes, now: &FrameBytes) -> SmallVec<[Range<u32>; 8]> {
        let size = self
            .uses
            .first()
            .map_or(PAGE_SIZE, |this| 1 << this.entry_shift);
        let mut ranges: SmallVec<[Range<u32>; 8]> = SmallVec::new();
        let mut joins = false;
        for (index, (old, new)) in before.chunks(size).zip(now.chunks(size)).enumerate() {
            if old != new {
                let (start, end) = ((index * size) as u32, ((index + 1) * size) as u32);
                match ranges.last_mut() {
                    Some(last) if joins => last.end = end,
                    _ => ranges.push(start..end),
                }
                joins = true;
            } else if u64::from(old[0]) & PRESENT != 0 {
                joins = false;
            }
        }
        ranges
    }

    /// Empties the slots that come from entries of which `now` has others. Returns whether there are any.
    fn sync(&mut self, now: &FrameBytes, tables: &mut Tables) -> bool {
        let Some(mut copy) = self.copy.take() else {
            return false;
        };
        let changed = *copy != *now;
        if changed {
            for bytes in self.differences(&copy, now) {
                self.drop_slots(&bytes, tables);
            }
            *copy = *now;
        }
        self.copy = Some(copy);
        changed
    }
}

/// The watched frames, and those that are behind.
pub(super) struct WriteTracking {
    watched: Vec<TrackedFrame>,
    /// For each frame of RAM, 1 + its index in `watched`, or 0. Zero-backed.
    places: Vec<u32>,
    /// Those that are behind, the least recent first.
    unsync: Vec<Frame>,
}

impl WriteTracking {
    pub(super) fn new(frames: usize) -> Self {
        Self {
            watched: Vec::new(),
            places: vec![0; frames],
            unsync: Vec::new(),
        }
    }

    /// Whether all stores to the frame are reported.
    pub(super) fn is_write_tracked(&self, frame: Frame) -> bool {
        self.place(frame)
            .is_some_and(|place| self.watched[place].copy.is_none())
    }

    /// Whether slots may have been made from entries that are others now.
    pub(super) fn has_unsync(&self) -> bool {
        !self.unsync.is_empty()
    }

    fn place(&self, frame: Frame) -> Option<usize> {
        let place = *self.places.get(frame.get() as usize)?;
        (place as usize).checked_sub(1)
    }

    /// Remembers that the walk of `page` in the space of `life` used the entry `step`, which is in RAM and has this value. Says
    /// what becomes of stores to its frame from now on.
    pub(super) fn note(
        &mut self,
        generation: Generation,
        step: &Step,
        value: u64,
        page: LinearPage,
        spaces: &Spaces,
        tables: &mut Tables,
    ) -> Tracking {
        let this = StructureUse::new(generation, step, page);
        let watched = self.entry(step.entry.frame());
        watched.stores = 0;
        let start = step.entry.offset();
        watched.refresh(start..start + (1 << step.entry_shift), value, tables);
        if watched.uses.last() != Some(&this) {
            watched
                .uses
                .retain(|earlier| *earlier != this && spaces.is_live(earlier.generation));
            if watched.uses.len() == MAX_USES {
                watched.uses.remove(0).drop_slots(&WHOLE, tables);
            }
            watched.uses.push(this);
        }
        if watched.copy.is_some() && this.is_page_table() {
            return Tracking::Unsync;
        }
        // What is a directory, too, cannot be behind.
        if watched.copy.take().is_some() {
            watched.drop_slots(&WHOLE, tables);
            let frame = watched.frame;
            self.unsync.retain(|behind| *behind != frame);
        }
        Tracking::WriteTracked
    }

    fn entry(&mut self, frame: Frame) -> &mut TrackedFrame {
        let place = self.place(frame).unwrap_or_else(|| {
            self.watched.push(TrackedFrame {
                frame,
                stores: 0,
                uses: SmallVec::new(),
                copy: None,
                unchanged: 0,
            });
            self.places[frame.get() as usize] = self.watched.len() as u32;
            self.watched.len() - 1
        });
        &mut self.watched[place]
    }

    /// Takes notice of a store to `bytes` of a watched frame, which holds `now`: empties the slots that come from the entries
    /// there. Says what becomes of further stores.
    pub(super) fn stored(
        &mut self,
        frame: Frame,
        bytes: &Range<u32>,
        now: impl FnOnce() -> FrameBytes,
        spaces: &Spaces,
        tables: &mut Tables,
    ) -> Tracking {
        let Some(place) = self.place(frame) else {
            return Tracking::Untracked;
        };
        let watched = &mut self.watched[place];
        watched.uses.retain(|this| spaces.is_live(this.generation));
        watched.drop_slots(bytes, tables);
        watched.stores += 1;
        if watched.uses.is_empty() {
            self.remove(place);
            self.unsync.retain(|behind| *behind != frame);
            Tracking::Untracked
        } else if watched.copy.is_some() {
            // Somebody else's store. The copy may have the bytes already, though slots come from those before.
            Tracking::Unsync
        } else if watched.uses.iter().all(StructureUse::is_page_table) {
            watched.copy = Some(Box::new(now()));
            watched.unchanged = 0;
            self.make_unsync(frame, tables);
            Tracking::Unsync
        } else if watched.stores > MAX_STORES {
            watched.drop_slots(&WHOLE, tables);
            self.remove(place);
            Tracking::Untracked
        } else {
            Tracking::WriteTracked
        }
    }

    fn make_unsync(&mut self, frame: Frame, tables: &mut Tables) {
        if self.unsync.len() == MAX_UNSYNC {
            let oldest = self.unsync.remove(0);
            if let Some(place) = self.place(oldest) {
                self.watched[place].drop_slots(&WHOLE, tables);
                self.remove(place);
            }
        }
        self.unsync.push(frame);
    }

    /// The guest flushes the translations of `space`: empties the slots that come from entries that have changed. `bytes` gives
    /// what a frame holds now. Returns the frames that are to be watched again.
    pub(super) fn sync(
        &mut self,
        space: u8,
        bytes: impl Fn(Frame) -> FrameBytes,
        spaces: &Spaces,
        tables: &mut Tables,
    ) -> SmallVec<[Frame; 4]> {
        let mut again = SmallVec::new();
        let mut behind = std::mem::take(&mut self.unsync);
        behind.retain(|frame| {
            let Some(place) = self.place(*frame) else {
                return false;
            };
            let watched = &mut self.watched[place];
            let is_in = |this: &StructureUse| {
                this.generation.space == space && spaces.is_live(this.generation)
            };
            if !watched.uses.iter().any(is_in) {
                let is_used = watched
                    .uses
                    .iter()
                    .any(|this| spaces.is_live(this.generation));
                if !is_used {
                    self.remove(place);
                }
                return is_used;
            }
            let changed = watched.sync(&bytes(*frame), tables);
            watched.unchanged = if changed { 0 } else { watched.unchanged + 1 };
            let settled = watched.unchanged == SETTLED_FLUSHES;
            if settled {
                watched.copy = None;
                again.push(*frame);
            }
            !settled
        });
        self.unsync = behind;
        again
    }

    fn remove(&mut self, place: usize) {
        let removed = self.watched.swap_remove(place);
        self.places[removed.frame.get() as usize] = 0;
        if let Some(moved) = self.watched.get(place) {
            self.places[moved.frame.get() as usize] = place as u32 + 1;
        }
    }

    /// Forgets all frames, and says which they were: their own slots have been emptied.
    pub(super) fn end_all(&mut self) -> impl Iterator<Item = Frame> + '_ {
        self.unsync.clear();
        let places = &mut self.places;
        self.watched.drain(..).map(|watched| {
            places[watched.frame.get() as usize] = 0;
            watched.frame
        })
    }
}
