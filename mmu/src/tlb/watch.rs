//! Which frames hold paging-structure entries that own slots were made from, and which slots those are.
//!
//! Stores to such a frame are all seen, because it has no write slots. So the slots that come from an entry can be emptied
//! when it changes.

use std::ops::Range;

use smallvec::SmallVec;

use super::spaces::{Life, Spaces};
use super::table::PartId;
use super::table::Tables;
use super::view::ViewSet;
use crate::addr::{Frame, LinearPage, PAGE_SHIFT};
use crate::paging::Step;

/// Uses remembered for a frame. At least two, as one walk can use a frame twice.
const MAX_USES: usize = 16;

/// Stores to a frame that no walk has used in between, until it is not watched any more: whoever writes so much is not
/// editing a page table in use but copying, clearing or reusing one.
const STORES: u32 = 8;

/// A paging structure as a space uses it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Use {
    life: Life,
    /// First linear page that the structure maps.
    base: u32,
    /// log2 of the linear pages that an entry maps.
    shift: u32,
    /// log2 of the bytes of an entry.
    entry_shift: u32,
}

impl Use {
    /// The structure that holds the entry `step` of a walk for `page`.
    fn new(life: Life, step: &Step, page: LinearPage) -> Self {
        let Step {
            entry,
            entry_shift,
            shift,
        } = *step;
        let index = entry.offset() >> entry_shift;
        let first = (page.get() >> shift).wrapping_sub(index);
        Self {
            life,
            base: first << shift,
            shift,
            entry_shift,
        }
    }

    /// The linear pages that the entries at `bytes` of the frame map.
    fn pages(&self, bytes: &Range<u32>) -> Range<u32> {
        let first = bytes.start >> self.entry_shift;
        let end = ((bytes.end - 1) >> self.entry_shift) + 1;
        self.base + (first << self.shift)..self.base + (end << self.shift)
    }

    /// Empties the own slots that come from the entries at `bytes` of the frame.
    fn drop_slots(&self, bytes: &Range<u32>, tables: &mut Tables) {
        let part = PartId::Own(self.life.space);
        tables.part(part).clear(ViewSet::ALL, self.pages(bytes));
    }
}

/// All bytes of a frame.
const WHOLE: Range<u32> = 0..1 << PAGE_SHIFT;

struct Watched {
    frame: Frame,
    /// Stores since a walk last used the frame.
    stores: u32,
    /// The least recent first.
    uses: SmallVec<[Use; 2]>,
}

/// What to do about a store to a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Watching {
    /// The frame stays watched.
    On,
    /// It is not watched any more.
    Ended,
}

/// The watched frames.
pub(super) struct Watch {
    watched: Vec<Watched>,
    /// For each frame of RAM, 1 + its index in `watched`, or 0. Zero-backed.
    places: Vec<u32>,
}

impl Watch {
    pub(super) fn new(ram_bytes: usize) -> Self {
        Self {
            watched: Vec::new(),
            places: vec![0; ram_bytes >> PAGE_SHIFT],
        }
    }

    /// Whether stores to the frame have to be reported.
    pub(super) fn contains(&self, frame: Frame) -> bool {
        self.place(frame).is_some()
    }

    fn place(&self, frame: Frame) -> Option<usize> {
        let place = *self.places.get(frame.get() as usize)?;
        (place as usize).checked_sub(1)
    }

    /// Remembers that the walk of `page` in the space of `life` used the entry `step`, which is in RAM. The frame is watched
    /// from now on.
    pub(super) fn note(
        &mut self,
        life: Life,
        step: &Step,
        page: LinearPage,
        spaces: &Spaces,
        tables: &mut Tables,
    ) {
        let watched = self.entry(step.entry.frame());
        watched.stores = 0;
        let this = Use::new(life, step, page);
        let uses = &mut watched.uses;
        if uses.last() == Some(&this) {
            return;
        }
        uses.retain(|earlier| *earlier != this && spaces.is_live(earlier.life));
        if uses.len() == MAX_USES {
            uses.remove(0).drop_slots(&WHOLE, tables);
        }
        uses.push(this);
    }

    fn entry(&mut self, frame: Frame) -> &mut Watched {
        let place = self.place(frame).unwrap_or_else(|| {
            self.watched.push(Watched {
                frame,
                stores: 0,
                uses: SmallVec::new(),
            });
            self.places[frame.get() as usize] = self.watched.len() as u32;
            self.watched.len() - 1
        });
        &mut self.watched[place]
    }

    /// Takes notice of a store to `bytes` of a frame: empties the slots that come from the entries there.
    pub(super) fn stored(
        &mut self,
        frame: Frame,
        bytes: &Range<u32>,
        spaces: &Spaces,
        tables: &mut Tables,
    ) -> Watching {
        let Some(place) = self.place(frame) else {
            return Watching::Ended;
        };
        let watched = &mut self.watched[place];
        watched.stores += 1;
        watched.uses.retain(|this| spaces.is_live(this.life));
        let ends = watched.stores > STORES || watched.uses.is_empty();
        let bytes = if ends { &WHOLE } else { bytes };
        for this in &watched.uses {
            this.drop_slots(bytes, tables);
        }
        if ends {
            self.remove(place);
            Watching::Ended
        } else {
            Watching::On
        }
    }

    fn remove(&mut self, place: usize) {
        let removed = self.watched.swap_remove(place);
        self.places[removed.frame.get() as usize] = 0;
        if let Some(moved) = self.watched.get(place) {
            self.places[moved.frame.get() as usize] = place as u32 + 1;
        }
    }

    /// Stops watching all frames, and says which were: their own slots have been emptied.
    pub(super) fn end_all(&mut self) -> impl Iterator<Item = Frame> + '_ {
        let places = &mut self.places;
        self.watched.drain(..).map(|watched| {
            places[watched.frame.get() as usize] = 0;
            watched.frame
        })
    }
}
