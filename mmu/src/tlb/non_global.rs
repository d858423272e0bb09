//! [`NonGlobal`]: the list of filled shared slots that are not global, which MOV to CR3 empties instead of whole tables.
//!
//! The list is bounded; once it has overflowed, a flush empties all shared slots. A slot may be listed twice, or be empty by
//! now, as emptying it again does no harm.

use super::table::Part;
use super::view::SlotId;

/// Most slots listed. Emptying this many one by one costs about as much as emptying whole tables.
const CAPACITY: usize = 8192;

/// The non-global slots filled since they were last flushed.
#[derive(Default)]
pub(super) struct NonGlobal {
    slots: Vec<SlotId>,
    overflowed: bool,
}

impl NonGlobal {
    /// Lists a slot that has just been set.
    pub(super) fn push(&mut self, slot: SlotId) {
        if self.slots.len() < CAPACITY {
            self.slots.push(slot);
        } else {
            self.overflowed = true;
        }
    }

    /// Whether any slot was set that is not listed.
    pub(super) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Empties the listed slots.
    pub(super) fn drain(&mut self, part: &mut Part<'_>) {
        for slot in self.slots.drain(..) {
            part.clear_slot(slot);
        }
    }

    /// Clears the list, as all slots have been emptied.
    pub(super) fn reset(&mut self) {
        self.slots.clear();
        self.overflowed = false;
    }
}
