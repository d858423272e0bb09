//! [`CodePage`]: one guest-physical page of code, what of it was scanned, and what was made from it.

use bitvec::{BitArr, array::BitArray};
use hashbrown::HashMap;
use mmu::{PAGE_SIZE, Timestamp};

/// Where an entry leads.
#[derive(Clone, Copy, Debug)]
pub enum Entry {
    /// Code at this arena offset.
    Code(u32),
    /// The emulator.
    Emulate,
}

/// A page of code as it was when it was scanned.
pub struct CodePage {
    /// When the page had last been written, as far as the translations are known to hold.
    pub written: Timestamp,
    /// The page's bytes then.
    bytes: Box<[u8; PAGE_SIZE]>,
    /// The prescan map: bytes that translations were made from.
    scanned: BitArr!(for PAGE_SIZE),
    entries: HashMap<u16, Entry>,
}

impl CodePage {
    /// A page of which nothing is scanned yet.
    pub fn new(written: Timestamp, bytes: [u8; PAGE_SIZE]) -> Self {
        Self {
            written,
            bytes: Box::new(bytes),
            scanned: BitArray::ZERO,
            entries: HashMap::new(),
        }
    }

    /// The bytes as scanned.
    pub fn bytes(&self) -> &[u8; PAGE_SIZE] {
        &self.bytes
    }

    /// Where the entry at `offset` leads, if it was translated.
    pub fn entry(&self, offset: u32) -> Option<Entry> {
        self.entries.get(&(offset as u16)).copied()
    }

    /// Adds what was made from the bytes `offset..end`.
    pub fn add(&mut self, offset: u32, end: u32, entry: Entry) {
        self.scanned[offset as usize..end as usize].fill(true);
        self.entries.insert(offset as u16, entry);
    }

    /// The page was written: whether its translations still hold, because only data beside the code has changed.
    /// If so the page's bytes are now `bytes`, as of `written`.
    pub fn revalidate(&mut self, written: Timestamp, bytes: &[u8; PAGE_SIZE]) -> bool {
        let changed = (0..PAGE_SIZE).filter(|&at| self.bytes[at] != bytes[at]);
        let holds = !changed.into_iter().any(|at| self.scanned[at]);
        if holds {
            self.bytes.copy_from_slice(bytes);
            self.written = written;
        }
        holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_beside_code_may_change_and_code_may_not() {
        let mut bytes = [0x90; PAGE_SIZE];
        let mut page = CodePage::new(Timestamp::default(), bytes);
        page.add(16, 20, Entry::Emulate);
        bytes[15] = 1;
        bytes[20] = 1;
        assert!(page.revalidate(Timestamp::default(), &bytes));
        bytes[19] = 1;
        assert!(!page.revalidate(Timestamp::default(), &bytes));
    }
}
