//! Lists of filled slots: a flush empties what is listed instead of whole tables.
//!
//! Global and other translations are listed apart, since most flushes spare the global ones. A list is bounded; past
//! that, the flush empties the tables wholesale. A slot may be listed twice or be empty already: emptying is idempotent.

use super::table::SlotId;

/// Entries that a list holds. Emptying so many slots one by one costs about as much as dropping whole tables and faulting
/// their pages back in.
const CAPACITY: usize = 8192;

/// Which flushes a translation survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    /// None.
    NonGlobal,
    /// A MOV to CR3 (SDM Vol. 3A, 4.10.2.4 Global Pages).
    Global,
}

#[derive(Default)]
struct List {
    slots: Vec<SlotId>,
    overflowed: bool,
}

/// The slots filled since they were last flushed.
#[derive(Default)]
pub(super) struct Filled {
    lists: [List; 2],
}

impl Filled {
    /// Lists a slot that has just been set.
    pub(super) fn push(&mut self, scope: Scope, slot: SlotId) {
        let list = &mut self.lists[scope as usize];
        if list.slots.len() < CAPACITY {
            list.slots.push(slot);
        } else {
            list.overflowed = true;
        }
    }

    /// Whether slots of `scope` were set that are not listed.
    pub(super) fn overflowed(&self, scope: Scope) -> bool {
        self.lists[scope as usize].overflowed
    }

    /// Takes all slots of `scope` off the list.
    pub(super) fn drain(&mut self, scope: Scope, visit: impl FnMut(SlotId)) {
        self.lists[scope as usize].slots.drain(..).for_each(visit);
    }

    /// All listed slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = SlotId> + '_ {
        self.lists
            .iter()
            .flat_map(|list| list.slots.iter().copied())
    }
}
