//! The decode cache: direct-mapped by guest-physical address and code size.
//!
//! An entry is valid while the page has not been written since the entry was made: the page's `written` timestamp is part
//! of the key, so a store to code invalidates without touching the cache.

use super::decoded::Decoded;
use crate::decode::decoder::CodeSize;

/// Number of entries, of at most one cache line each.
const ENTRIES: usize = 1 << 16;

/// Identifies the code at one guest-physical address as it was at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Guest-physical address, with [`Key::of_size`] on top.
    pub address: u64,
    /// Timestamp of the latest store to the page.
    pub written: u64,
}

impl Key {
    /// The flag in `address` of code in a segment whose default size is 32 bits.
    const CODE32: u64 = 1 << 63;
    /// The flag in `address` of code in 64-bit mode.
    const CODE64: u64 = 1 << 62;
    /// The key of no code.
    const NONE: Self = Self {
        address: u64::MAX,
        written: 0,
    };

    /// The flag of code of this size.
    pub fn of_size(size: CodeSize) -> u64 {
        match size {
            CodeSize::Bits16 => 0,
            CodeSize::Bits32 => Self::CODE32,
            CodeSize::Bits64 => Self::CODE64,
        }
    }

    fn slot(self) -> usize {
        // Pages that are a multiple of the cache's size apart are common (kernel text, user text): fold them.
        let address = self.address ^ self.address >> 16;
        address as usize % ENTRIES
    }
}

#[derive(Clone, Copy)]
struct Entry {
    key: Key,
    decoded: Decoded,
}

const _: () = assert!(size_of::<Entry>() <= 64);

/// The decoded instructions of one processor.
pub struct Cache {
    entries: Box<[Entry; ENTRIES]>,
}

impl Cache {
    /// An empty cache.
    pub fn new() -> Self {
        let empty = Entry {
            key: Key::NONE,
            decoded: Decoded::UNDEFINED,
        };
        let Ok(entries) = vec![empty; ENTRIES].into_boxed_slice().try_into() else {
            unreachable!("the slice has ENTRIES elements")
        };
        Self { entries }
    }

    /// The instruction `key` names, if it is there.
    #[inline(always)]
    pub fn get(&self, key: Key) -> Option<&Decoded> {
        let entry = &self.entries[key.slot()];
        (entry.key == key).then_some(&entry.decoded)
    }

    /// Adds an instruction, replacing whatever shared its slot.
    pub fn insert(&mut self, key: Key, decoded: Decoded) {
        self.entries[key.slot()] = Entry { key, decoded };
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        for entry in self.entries.iter_mut() {
            entry.key = Key::NONE;
        }
    }
}
