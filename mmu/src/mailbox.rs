//! [`Mailbox`]: the notes that the memory leaves for one processor.
//!
//! Whoever stores leaves a note on its own thread. The processor takes the notes between two instructions
//! ([`crate::Mmu::snoop`]), as it alone may touch its TLB and its translations.

use std::collections::BTreeSet;
use std::mem;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::addr::Frame;
use crate::memory::{Attribute, Party, Store, Subscriber};

/// Most stores kept for each purpose, between two looks.
pub(crate) const CAPACITY: usize = 1024;

/// The notes for one processor.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    /// Whether there are notes.
    news: AtomicBool,
    /// Counts the stores to frames marked Code.
    code_epoch: AtomicU64,
    /// Whether all stores of devices are wanted.
    wants_device_stores: AtomicBool,
    notes: Mutex<Notes>,
}

/// The events since the processor last looked.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Stores to tracked paging structures.
    pub(crate) tables: Vec<Store>,
    /// All stores of devices, if they are wanted.
    pub(crate) stores: Vec<Store>,
    /// Whether to drop everything derived from page tables: the map has changed, or there were more stores than are kept.
    pub(crate) flush: bool,
    /// Whether to drop all write slots.
    pub(crate) write_protect: bool,
    /// Frames that lost the mark Code to a store. They are taken separately.
    code: BTreeSet<Frame>,
}

impl Mailbox {
    /// Whether there are notes.
    #[inline(always)]
    pub(crate) fn has_news(&self) -> bool {
        self.news.load(Ordering::Acquire)
    }

    /// Takes all notes but those about code.
    pub(crate) fn take(&self) -> Notes {
        let mut notes = self.notes.lock();
        self.news.store(false, Ordering::Relaxed);
        let code = mem::take(&mut notes.code);
        let taken = mem::take(&mut *notes);
        notes.code = code;
        taken
    }

    /// The number of stores to frames marked Code, by anybody.
    #[inline(always)]
    pub(crate) fn code_epoch(&self) -> u64 {
        self.code_epoch.load(Ordering::Relaxed)
    }

    /// The frames that lost the mark Code since the last call, each once.
    pub(crate) fn take_code(&self) -> BTreeSet<Frame> {
        mem::take(&mut self.notes.lock().code)
    }

    /// Notes a store to a frame that was marked Code.
    pub(crate) fn note_code(&self, frame: Frame) {
        self.notes.lock().code.insert(frame);
        self.code_epoch.fetch_add(1, Ordering::Release);
    }

    /// Sets whether all stores of devices are wanted.
    pub(crate) fn want_device_stores(&self, wanted: bool) {
        self.wants_device_stores.store(wanted, Ordering::Relaxed);
    }

    fn note(&self, change: impl FnOnce(&mut Notes)) {
        let mut notes = self.notes.lock();
        change(&mut notes);
        self.news.store(true, Ordering::Release);
    }
}

impl Subscriber for Mailbox {
    fn stored(&self, store: &Store) {
        if store.attributes.has(Attribute::Code) {
            self.note_code(store.frame);
        }
        let is_table = store.attributes.is_tracked();
        let wanted = store.by == Party::Device && self.wants_device_stores.load(Ordering::Relaxed);
        if !is_table && !wanted {
            return;
        }
        self.note(|notes| {
            if is_table && notes.tables.len() == CAPACITY {
                notes.flush = true;
            } else if is_table {
                notes.tables.push(store.clone());
            }
            if wanted && notes.stores.len() < CAPACITY {
                notes.stores.push(store.clone());
            }
        });
    }

    fn remapped(&self, _: Range<Frame>) {
        self.note(|notes| notes.flush = true);
    }

    fn write_protect(&self) {
        self.note(|notes| notes.write_protect = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;
    use crate::memory::Tracking;
    use std::sync::{Arc, Weak};

    #[test]
    fn notes_are_bounded_and_taken_once() {
        let memory = Memory::new(1 << 20).unwrap();
        let mailbox = Arc::new(Mailbox::default());
        let weak: Weak<dyn Subscriber> = Arc::<Mailbox>::downgrade(&mailbox);
        memory.subscribe(weak);
        memory.track(Frame::new(3), Tracking::WriteTracked);
        for _ in 0..CAPACITY {
            memory.store(Frame::new(3).base(), 1u32).unwrap();
        }
        let notes = mailbox.take();
        assert_eq!((notes.tables.len(), notes.flush), (CAPACITY, false));
        assert!(!mailbox.has_news());
        for _ in 0..2 * CAPACITY {
            memory.store(Frame::new(3).base(), 1u32).unwrap();
        }
        let notes = mailbox.take();
        assert_eq!((notes.tables.len(), notes.flush), (CAPACITY, true));
        memory.mark_scanned(Frame::new(4));
        memory.store(Frame::new(4).base(), 1u32).unwrap();
        memory.store(Frame::new(4).base(), 1u32).unwrap();
        assert_eq!(mailbox.code_epoch(), 1);
        assert_eq!(mailbox.take_code(), BTreeSet::from([Frame::new(4)]));
        assert!(mailbox.take_code().is_empty());
    }
}
