//! Following the stores of others, as a processor's caches do by snooping.

use super::Mmu;
use crate::mailbox::CAPACITY;
use crate::memory::{Memory, Store, Tracking};
use crate::tlb::Tlb;

impl Mmu {
    /// Follows the stores and map changes that others (devices, debuggers, loaders) have made since the last call: drops the
    /// translations made from what they replaced. To be called between two instructions: before the first of a run, after each
    /// access to a device, and whenever translated code has exited.
    ///
    /// A guest that knows of a store because of what a device did, or that executes a serializing instruction, relies on this
    /// (SDM Vol. 3A, 8.1.3 Handling Self- and Cross-Modifying Code).
    #[inline(always)]
    pub fn snoop(&mut self) {
        if self.has_news() {
            self.follow_others();
        }
    }

    /// Whether there is anything for [`Self::snoop`] to follow.
    #[inline(always)]
    pub fn has_news(&self) -> bool {
        self.mailbox.has_news()
    }

    /// Ends a run of the processor, which accesses nothing until [`Self::wake`].
    pub fn rest(&mut self) {
        self.snoop();
        self.resting = true;
    }

    /// Begins a run of the processor, as [`Self::snoop`] does.
    pub fn wake(&mut self) {
        self.snoop();
        self.resting = false;
    }

    /// The stores that devices have made and [`Self::snoop`] has followed since the last call, while pages are kept out. Not more
    /// than about a thousand are kept.
    pub fn take_stores(&mut self) -> Vec<Store> {
        std::mem::take(&mut self.stores)
    }

    #[cold]
    fn follow_others(&mut self) {
        let notes = self.mailbox.take();
        for store in &notes.tables {
            follow(&mut self.tlb, &self.memory, store);
        }
        if notes.write_protect {
            let (memory, resting) = (&self.memory, self.resting);
            self.tlb.drop_all_write_slots(|frame| {
                // The processor may have stored there since the epoch began.
                if !resting {
                    memory.mark_write_open(frame);
                }
            });
        }
        if notes.flush {
            self.flush_all();
        }
        // Those of before the last page was let in again are nobody's.
        if !self.kept_out.is_empty() {
            let room = CAPACITY.saturating_sub(self.stores.len());
            self.stores.extend(notes.stores.into_iter().take(room));
        }
    }
}

/// Drops the slots that come from entries which a store has changed.
pub(super) fn follow(tlb: &mut Tlb, memory: &Memory, store: &Store) {
    let frame = store.frame;
    if !memory.attributes(frame).is_tracked() {
        return;
    }
    let tracking = tlb.stored(frame, &store.bytes, || memory.page(frame));
    if tracking != Tracking::WriteTracked {
        memory.track(frame, tracking);
    }
}
