//! [`WriteTracking`]: the frames whose paging-structure entries own slots were made from, and which slots those are.
//!
//! ```text
//!               first walk                    first store
//!   (untracked) ──────────► write-tracked ────────────────────► unsync: a copy of the entries is kept
//!                                 ▲                                │
//!                                 └── unchanged for some flushes ──┘
//! ```
//!
//! A *write-tracked* frame has no write slots, so every store to it is seen, and a changed entry empties the slots that come
//! from it. A page table, though, is written often and in bulk, and a processor need not follow before the guest flushes
//! (SDM Vol. 3A, 4.10.4 "Invalidation of TLBs and Paging-Structure Caches"). So its first store makes it *unsync*: from then
//! on the processor's own stores go unseen, and each flush compares the entries with those that the slots were made from.
//! Stores of others are still reported, because they may reach the copy before they are known.

use std::ops::Range;

use smallvec::SmallVec;

use super::space_set::SpaceSet;
use super::spaces::{Generation, Spaces};
use super::table::PartId;
use super::table::Tables;
use super::view::ViewSet;
use crate::addr::{Frame, LinearPage, PAGE_SHIFT, PAGE_SIZE};
use crate::memory::Tracking;
use crate::paging::{ACCESSED, DIRTY, PRESENT, SOFTWARE, Step, WRITABLE};

/// Most uses remembered for a frame. At least two, as one walk can use a frame twice.
const MAX_USES: usize = 16;

/// Stores to a directory without a walk in between, after which it is no longer tracked: the guest is then not editing a paging
/// structure in use but copying, clearing or reusing one.
const MAX_STORES: u32 = 8;

/// Successive flushes that must find an unsync page table unchanged before it is write-tracked again.
const SETTLED_FLUSHES: u32 = 2;

/// Most page tables that are unsync at a time.
const MAX_UNSYNC: usize = 256;

/// The bytes of a frame.
pub(crate) type FrameBytes = [u8; PAGE_SIZE];

/// A paging structure as an address space uses it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct StructureUse {
    generation: Generation,
    /// First linear page that the structure maps.
    base: u64,
    /// log2 of the linear pages that an entry maps.
    shift: u32,
    /// log2 of the bytes of an entry.
    entry_shift: u32,
}

impl StructureUse {
    /// Describes the structure that holds the entry `step` of a walk for `page`.
    fn new(generation: Generation, step: &Step, page: LinearPage) -> Self {
        let Step {
            entry,
            entry_shift,
            shift,
            ..
        } = *step;
        let index = entry.offset() >> entry_shift;
        let first = (page.get() >> shift).wrapping_sub(index.into());
        Self {
            generation,
            base: first << shift,
            shift,
            entry_shift,
        }
    }

    /// Whether the structure is a page table: its entries map pages, of the smallest size.
    fn is_page_table(&self) -> bool {
        self.shift == 0
    }

    /// The linear pages that the entries at `bytes` of the frame map.
    fn pages(&self, bytes: &Range<u32>) -> Range<u64> {
        let first = u64::from(bytes.start >> self.entry_shift);
        let end = u64::from((bytes.end - 1) >> self.entry_shift) + 1;
        self.base + (first << self.shift)..self.base + (end << self.shift)
    }

    /// Empties the own slots of `views` that come from the entries at `bytes` of the frame.
    fn drop_slots(&self, views: ViewSet, bytes: &Range<u32>, tables: &mut Tables) {
        let width = tables.width();
        let mut part = tables.part(PartId::Own(self.generation.space));
        width.each_range(&self.pages(bytes), |range| part.clear(views, range));
    }
}

/// Entries of a frame that have changed, and the slots that have to follow.
struct Difference {
    bytes: Range<u32>,
    views: ViewSet,
}

impl Difference {
    /// Compares the entry at `bytes` of a page table.
    fn of_entry(bytes: Range<u32>, before: u64, now: u64) -> Option<Self> {
        let usable = PRESENT | ACCESSED;
        let for_writes = WRITABLE | DIRTY | SOFTWARE;
        let views = match before ^ now {
            0 => return None,
            // As fork leaves it.
            changed if changed & !for_writes == 0 && now & usable == usable => ViewSet::WRITE,
            _ => ViewSet::ALL,
        };
        Some(Self { bytes, views })
    }
}

/// All bytes of a frame.
const WHOLE: Range<u32> = 0..1 << PAGE_SHIFT;

/// A frame that holds paging-structure entries in use.
struct TrackedFrame {
    frame: Frame,
    /// Stores since a walk last used the frame.
    stores: u32,
    /// The uses of the frame, the least recent first.
    uses: SmallVec<[StructureUse; 2]>,
    /// The entries that the slots were made from, if the frame is unsync.
    copy: Option<Box<FrameBytes>>,
    /// Flushes since it was last found changed.
    unchanged: u32,
}

impl TrackedFrame {
    /// Empties the slots that come from the entries at `bytes` of the frame.
    fn drop_slots(&self, bytes: &Range<u32>, tables: &mut Tables) {
        for this in &self.uses {
            this.drop_slots(ViewSet::ALL, bytes, tables);
        }
    }

    /// Updates the copy before a slot is made from the entry at `bytes`, whose value is `now`. Empties the slots that were made
    /// from another value.
    fn refresh(&mut self, bytes: Range<u32>, now: u64, tables: &mut Tables) {
        let Some(copy) = &mut self.copy else { return };
        let entry = &mut copy[bytes.start as usize..bytes.end as usize];
        let before = entry_of(entry);
        store_entry(entry, now);
        // The walker itself sets A and D bits.
        if before | now & (ACCESSED | DIRTY) != now {
            self.drop_slots(&bytes, tables);
        }
    }

    /// The entries that differ, in few ranges: entries between them that were not present are included, as no slot comes from
    /// them.
    fn differences(&self, before: &FrameBytes, now: &FrameBytes) -> SmallVec<[Difference; 8]> {
        let mut differences: SmallVec<[Difference; 8]> = SmallVec::new();
        let Some(size) = self.uses.first().map(|this| 1 << this.entry_shift) else {
            return differences;
        };
        let mut joins = false;
        for (index, (old, new)) in before.chunks(size).zip(now.chunks(size)).enumerate() {
            let bytes = (index * size) as u32..((index + 1) * size) as u32;
            let before = entry_of(old);
            let difference = Difference::of_entry(bytes, before, entry_of(new));
            if let Some(difference) = difference {
                match differences.last_mut() {
                    Some(last) if joins && last.views == difference.views => {
                        last.bytes.end = difference.bytes.end;
                    }
                    _ => differences.push(difference),
                }
                joins = true;
            } else if before & PRESENT != 0 {
                joins = false;
            }
        }
        differences
    }

    /// Empties the slots that come from entries that differ in `now`, and copies it. Returns whether any entry differs.
    fn sync(&mut self, now: &FrameBytes, tables: &mut Tables) -> bool {
        let Some(mut copy) = self.copy.take() else {
            return false;
        };
        let changed = *copy != *now;
        if changed {
            for Difference { bytes, views } in self.differences(&copy, now) {
                for this in &self.uses {
                    this.drop_slots(views, &bytes, tables);
                }
            }
            *copy = *now;
        }
        self.copy = Some(copy);
        changed
    }
}

/// The value of an entry, of 4 or 8 bytes.
fn entry_of(bytes: &[u8]) -> u64 {
    match *bytes {
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]).into(),
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => unreachable!("entries have 4 or 8 bytes"),
    }
}

/// Replaces an entry, of 4 or 8 bytes.
fn store_entry(bytes: &mut [u8], value: u64) {
    match bytes.as_mut_array() {
        Some(bytes) => *bytes = (value as u32).to_le_bytes(),
        None => bytes.copy_from_slice(&value.to_le_bytes()),
    }
}

/// The tracked frames.
pub(super) struct WriteTracking {
    tracked: Vec<TrackedFrame>,
    /// The place of each frame of RAM: 1 + its index in `tracked`, or 0. Takes host memory where it is not 0.
    places: Vec<u32>,
    /// The unsync frames, the least recent first.
    unsync: Vec<Unsync>,
}

/// An unsync frame. A flush looks no further at those of other spaces.
struct Unsync {
    frame: Frame,
    /// The spaces that use it, and those of ended generations that did.
    spaces: SpaceSet,
}

impl WriteTracking {
    pub(super) fn new(frames: usize) -> Self {
        Self {
            tracked: Vec::new(),
            places: vec![0; frames],
            unsync: Vec::new(),
        }
    }

    /// Whether the frame is write-tracked.
    pub(super) fn is_write_tracked(&self, frame: Frame) -> bool {
        self.place(frame)
            .is_some_and(|place| self.tracked[place].copy.is_none())
    }

    /// Whether any slot may have been made from an entry that has changed since.
    pub(super) fn has_unsync(&self) -> bool {
        !self.unsync.is_empty()
    }

    fn place(&self, frame: Frame) -> Option<usize> {
        let place = *self.places.get(frame.get() as usize)?;
        (place as usize).checked_sub(1)
    }

    /// Remembers that a walk for `page` in the space of `generation` used the entry `step`, which is in RAM and has this value.
    /// Returns how its frame is tracked from now on.
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
        let tracked = self.entry(step.entry.frame());
        tracked.stores = 0;
        let start = step.entry.offset();
        tracked.refresh(start..start + (1 << step.entry_shift), value, tables);
        let is_latest = tracked.uses.last() == Some(&this);
        if !is_latest {
            tracked
                .uses
                .retain(|earlier| *earlier != this && spaces.is_live(earlier.generation));
            if tracked.uses.len() == MAX_USES {
                let oldest = tracked.uses.remove(0);
                oldest.drop_slots(ViewSet::ALL, &WHOLE, tables);
            }
            tracked.uses.push(this);
        }
        if tracked.copy.is_some() && this.is_page_table() {
            if !is_latest {
                self.add_space(step.entry.frame(), generation.space);
            }
            return Tracking::Unsync;
        }
        // A frame that also serves as a directory cannot be unsync.
        if tracked.copy.take().is_some() {
            tracked.drop_slots(&WHOLE, tables);
            let frame = tracked.frame;
            self.unsync.retain(|unsync| unsync.frame != frame);
        }
        Tracking::WriteTracked
    }

    /// Records that the space of this index uses an unsync frame.
    fn add_space(&mut self, frame: Frame, space: u8) {
        if let Some(unsync) = self.unsync.iter_mut().find(|unsync| unsync.frame == frame) {
            unsync.spaces.add(SpaceSet::only(space));
        }
    }

    fn entry(&mut self, frame: Frame) -> &mut TrackedFrame {
        let place = self.place(frame).unwrap_or_else(|| {
            self.tracked.push(TrackedFrame {
                frame,
                stores: 0,
                uses: SmallVec::new(),
                copy: None,
                unchanged: 0,
            });
            self.places[frame.get() as usize] = self.tracked.len() as u32;
            self.tracked.len() - 1
        });
        &mut self.tracked[place]
    }

    /// Follows a store to `bytes` of a tracked frame, which holds `now`: empties the slots that come from the entries there.
    /// Returns how the frame is tracked from now on.
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
        let tracked = &mut self.tracked[place];
        tracked.uses.retain(|this| spaces.is_live(this.generation));
        tracked.drop_slots(bytes, tables);
        tracked.stores += 1;
        if tracked.uses.is_empty() {
            self.remove(place);
            self.unsync.retain(|unsync| unsync.frame != frame);
            Tracking::Untracked
        } else if tracked.copy.is_some() {
            // Somebody else's store. The copy may hold its bytes already, although slots come from earlier ones.
            Tracking::Unsync
        } else if tracked.uses.iter().all(StructureUse::is_page_table) {
            tracked.copy = Some(Box::new(now()));
            tracked.unchanged = 0;
            let mut spaces = SpaceSet::default();
            for this in &tracked.uses {
                spaces.add(SpaceSet::only(this.generation.space));
            }
            self.make_unsync(Unsync { frame, spaces }, tables);
            Tracking::Unsync
        } else if tracked.stores > MAX_STORES {
            tracked.drop_slots(&WHOLE, tables);
            self.remove(place);
            Tracking::Untracked
        } else {
            Tracking::WriteTracked
        }
    }

    fn make_unsync(&mut self, unsync: Unsync, tables: &mut Tables) {
        if self.unsync.len() == MAX_UNSYNC {
            let oldest = self.unsync.remove(0);
            if let Some(place) = self.place(oldest.frame) {
                self.tracked[place].drop_slots(&WHOLE, tables);
                self.remove(place);
            }
        }
        self.unsync.push(unsync);
    }

    /// Follows a flush of `space` by the guest: empties the slots that come from entries of unsync frames that have changed.
    /// `bytes` gives the contents of a frame. Returns the frames that are to be write-tracked again.
    pub(super) fn sync(
        &mut self,
        space: u8,
        bytes: impl Fn(Frame) -> FrameBytes,
        spaces: &Spaces,
        tables: &mut Tables,
    ) -> SmallVec<[Frame; 4]> {
        let mut again = SmallVec::new();
        let mut unsync = std::mem::take(&mut self.unsync);
        unsync.retain(
            |Unsync {
                 frame,
                 spaces: users,
             }| {
                if !users.intersects(SpaceSet::only(space)) {
                    return true;
                }
                let Some(place) = self.place(*frame) else {
                    return false;
                };
                let tracked = &mut self.tracked[place];
                let is_in = |this: &StructureUse| {
                    this.generation.space == space && spaces.is_live(this.generation)
                };
                if !tracked.uses.iter().any(is_in) {
                    let is_used = tracked
                        .uses
                        .iter()
                        .any(|this| spaces.is_live(this.generation));
                    if !is_used {
                        self.remove(place);
                    }
                    return is_used;
                }
                let changed = tracked.sync(&bytes(*frame), tables);
                tracked.unchanged = if changed { 0 } else { tracked.unchanged + 1 };
                let settled = tracked.unchanged == SETTLED_FLUSHES;
                if settled {
                    tracked.copy = None;
                    again.push(*frame);
                }
                !settled
            },
        );
        self.unsync = unsync;
        again
    }

    fn remove(&mut self, place: usize) {
        let removed = self.tracked.swap_remove(place);
        self.places[removed.frame.get() as usize] = 0;
        if let Some(moved) = self.tracked.get(place) {
            self.places[moved.frame.get() as usize] = place as u32 + 1;
        }
    }

    /// Forgets all frames, whose own slots have been emptied, and returns them.
    pub(super) fn end_all(&mut self) -> impl Iterator<Item = Frame> + '_ {
        self.unsync.clear();
        let places = &mut self.places;
        self.tracked.drain(..).map(|tracked| {
            places[tracked.frame.get() as usize] = 0;
            tracked.frame
        })
    }
}
