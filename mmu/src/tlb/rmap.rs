//! [`ReverseMap`]: for each frame, the write slots that point at it.
//!
//! A frame has room for few; one more displaces the oldest, which is then emptied. A slot may be listed although it is empty or
//! points elsewhere by now, but no write slot is unlisted.

use super::table::{PartId, Tables};
use super::view::{SlotId, ViewSet};
use crate::addr::Frame;

/// Most slots listed for a frame.
const COUNT: usize = 4;

/// A place for write slots in a part of the tables, as a word that is not 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct WritableSlot(u64);

impl WritableSlot {
    const PART_SHIFT: u32 = 32;
    const SHARED: u64 = 1 << 62;
    const PRESENT: u64 = 1 << 63;

    fn new(part: PartId, index: u32) -> Self {
        let part = match part {
            PartId::Own(set) => u64::from(set) << Self::PART_SHIFT,
            PartId::Shared => Self::SHARED,
        };
        Self(Self::PRESENT | part | u64::from(index))
    }

    fn of_word(word: u64) -> Option<Self> {
        (word != 0).then_some(Self(word))
    }

    fn part(self) -> PartId {
        if self.0 & Self::SHARED != 0 {
            PartId::Shared
        } else {
            PartId::Own((self.0 >> Self::PART_SHIFT) as u8)
        }
    }

    fn index(self) -> u32 {
        self.0 as u32
    }

    /// Whether a write slot there points at `frame`.
    fn is_live(self, frame: Frame, tables: &mut Tables) -> bool {
        let index = self.index();
        ViewSet::WRITE
            .iter()
            .any(|view| tables.frame_in(self.part(), SlotId { view, index }) == Some(frame))
    }

    /// Empties the write slots there.
    fn drop_slots(self, tables: &mut Tables) {
        let index = self.index();
        tables
            .part(self.part())
            .clear(ViewSet::WRITE, index..index + 1);
    }
}

/// The write slots that point at each frame, the oldest first: 32 bytes a frame, which take host memory where there are any.
pub(super) struct ReverseMap(Vec<[u64; COUNT]>);

impl ReverseMap {
    pub(super) fn new(frames: usize) -> Self {
        Self(vec![[0; COUNT]; frames])
    }

    /// Lists the place `index` of `part`, a write slot of which points at `frame`.
    pub(super) fn note(&mut self, frame: Frame, part: PartId, index: u32, tables: &mut Tables) {
        let writer = WritableSlot::new(part, index);
        let Some(words) = self.0.get_mut(frame.get() as usize) else {
            return;
        };
        if words.contains(&writer.0) {
            return;
        }
        let unused = |word: &u64| {
            WritableSlot::of_word(*word).is_none_or(|writer| !writer.is_live(frame, tables))
        };
        let place = words.iter().position(unused).unwrap_or_else(|| {
            WritableSlot(words[0]).drop_slots(tables);
            0
        });
        words[place..].rotate_left(1);
        words[COUNT - 1] = writer.0;
    }

    /// Empties every write slot that points at `frame`.
    pub(super) fn drop_slots(&mut self, frame: Frame, tables: &mut Tables) {
        let Some(words) = self.0.get_mut(frame.get() as usize) else {
            return;
        };
        for writer in words
            .iter_mut()
            .filter_map(|word| WritableSlot::of_word(std::mem::take(word)))
        {
            if writer.is_live(frame, tables) {
                writer.drop_slots(tables);
            }
        }
    }
}
