//! [`ReverseMap`]: for each frame, the linear pages whose write slots point at it.
//!
//! A frame has room for few; one more displaces the oldest, whose write slots are then emptied. A page may be listed although
//! its slots are empty or point elsewhere by now, but no write slot is unlisted.

use super::table::{PartId, Tables};
use super::view::{SlotId, ViewSet};
use crate::addr::{Frame, LinearPage};

/// Most pages listed for a frame.
const COUNT: usize = 4;

/// A linear page of a part of the tables, as a word that is not 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct WritablePage(u32);

impl WritablePage {
    const PART_SHIFT: u32 = 20;
    const SHARED: u32 = 1 << 29;
    const PRESENT: u32 = 1 << 31;

    fn new(part: PartId, page: LinearPage) -> Self {
        let part = match part {
            PartId::Own(set) => u32::from(set) << Self::PART_SHIFT,
            PartId::Shared => Self::SHARED,
        };
        Self(Self::PRESENT | part | page.get())
    }

    fn of_word(word: u32) -> Option<Self> {
        (word != 0).then_some(Self(word))
    }

    fn part(self) -> PartId {
        if self.0 & Self::SHARED != 0 {
            PartId::Shared
        } else {
            PartId::Own((self.0 >> Self::PART_SHIFT) as u8)
        }
    }

    fn page(self) -> LinearPage {
        LinearPage::truncated(self.0)
    }

    /// Whether a write slot of the page points at `frame`.
    fn is_live(self, frame: Frame, tables: &mut Tables) -> bool {
        let page = self.page();
        ViewSet::WRITE
            .iter()
            .any(|view| tables.frame_in(self.part(), SlotId { view, page }) == Some(frame))
    }

    /// Empties the write slots of the page.
    fn drop_slots(self, tables: &mut Tables) {
        let page = self.page().get();
        tables
            .part(self.part())
            .clear(ViewSet::WRITE, page..page + 1);
    }
}

/// The pages that map each frame writable, the oldest first: 16 bytes a frame, which take host memory where there are any.
pub(super) struct ReverseMap(Vec<[u32; COUNT]>);

impl ReverseMap {
    pub(super) fn new(frames: usize) -> Self {
        Self(vec![[0; COUNT]; frames])
    }

    /// Lists `page` of `part`, a write slot of which points at `frame`.
    pub(super) fn note(
        &mut self,
        frame: Frame,
        part: PartId,
        page: LinearPage,
        tables: &mut Tables,
    ) {
        let writer = WritablePage::new(part, page);
        let Some(words) = self.0.get_mut(frame.get() as usize) else {
            return;
        };
        if words.contains(&writer.0) {
            return;
        }
        let unused = |word: &u32| {
            WritablePage::of_word(*word).is_none_or(|writer| !writer.is_live(frame, tables))
        };
        let place = words.iter().position(unused).unwrap_or_else(|| {
            WritablePage(words[0]).drop_slots(tables);
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
            .filter_map(|word| WritablePage::of_word(std::mem::take(word)))
        {
            if writer.is_live(frame, tables) {
                writer.drop_slots(tables);
            }
        }
    }
}
