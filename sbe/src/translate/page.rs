//! [`CodePage`]: one guest-physical page of code, what of it was scanned, and what was made from it.

use super::direct::{Direct, Home};
use super::entries::TableId;
use super::fragment::{Link, TAIL_BYTES, Tail};
use super::listing::Listing;
use crate::decode::decoder::MAX_LENGTH;
use bitvec::{BitArr, array::BitArray};
use mmu::{PAGE_SIZE, Timestamp};
use smallvec::SmallVec;

/// Where an entry leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Code at this arena offset.
    Code(u32),
    /// The emulator.
    Emulate,
    /// The emulator this time: the instruction goes on in a page that was not fetched yet.
    EmulateOnce,
}

/// A page of code as it was when it was scanned.
pub struct CodePage {
    /// When the page had last been written, as far as the translations are known to hold.
    pub written: Timestamp,
    /// The table through which emitted code finds the entries.
    pub table: TableId,
    /// What followed it in linear memory when an instruction across its end was translated.
    pub tail: Option<Tail>,
    /// When it was looked up last.
    pub executed: Timestamp,
    /// Its entries are hidden until it has been looked at again.
    pub hidden: bool,
    /// Its translations do not hold any more, whatever its bytes are.
    pub void: bool,
    /// The page's bytes then.
    bytes: Box<[u8; PAGE_SIZE]>,
    /// The prescan map: bytes that translations were made from.
    scanned: BitArr!(for PAGE_SIZE),
    /// The entries by offset, in the order they were made.
    entries: Vec<(u16, Entry)>,
    /// Variants without groups: offset in the page, arena offset.
    pub plain: Vec<(u16, u32)>,
    /// Branches of other pages that lead here.
    pub incoming: Vec<Link>,
    /// Branches that lead to other pages without a guard, in mode `Windowed`.
    pub outgoing: Vec<Direct>,
    /// Where it may be executing, in that mode.
    pub homes: SmallVec<[Home; 2]>,
    /// What was emitted for it, where dumps are wanted.
    pub listings: Vec<Listing>,
}

impl CodePage {
    /// A page of which nothing is scanned yet.
    pub fn new(table: TableId, written: Timestamp, bytes: [u8; PAGE_SIZE]) -> Self {
        Self {
            written,
            table,
            tail: None,
            executed: Timestamp::default(),
            hidden: false,
            void: false,
            bytes: Box::new(bytes),
            scanned: BitArray::ZERO,
            entries: Vec::new(),
            plain: Vec::new(),
            incoming: Vec::new(),
            outgoing: Vec::new(),
            homes: SmallVec::new(),
            listings: Vec::new(),
        }
    }

    /// The same page with another table and nothing scanned.
    pub fn rescanned(&self, table: TableId) -> Self {
        Self {
            tail: self.tail.clone(),
            executed: self.executed,
            ..Self::new(table, self.written, *self.bytes)
        }
    }

    /// The bytes as scanned.
    pub fn bytes(&self) -> &[u8; PAGE_SIZE] {
        &self.bytes
    }

    /// The bytes from `offset` on that an instruction there can have, as far as they are known.
    pub fn bytes_from(&self, offset: u32) -> Vec<u8> {
        let tail = self.tail.as_ref().map(|tail| tail.bytes);
        let bytes = self.bytes[offset as usize..].iter().copied();
        let bytes = bytes.chain(tail.into_iter().flatten());
        bytes.take(MAX_LENGTH).collect()
    }

    /// All entries: offsets and where they lead.
    pub fn entries(&self) -> &[(u16, Entry)] {
        &self.entries
    }

    /// Something was made from the bytes `offset..end`.
    pub fn scan(&mut self, offset: u32, end: u32) {
        self.scanned[offset as usize..end as usize].fill(true);
    }

    /// Whether anything was made from the byte at `offset`.
    pub fn is_scanned(&self, offset: u16) -> bool {
        self.scanned[usize::from(offset)]
    }

    /// How many bytes something was made from.
    pub fn scanned_bytes(&self) -> usize {
        self.scanned.count_ones()
    }

    /// Adds an entry.
    pub fn add(&mut self, offset: u32, entry: Entry) {
        self.entries.push((offset as u16, entry));
    }

    /// The page or its tail was written: whether its translations still hold, because only data beside the code has changed.
    /// If so the page's bytes are now `bytes`, as of `written`. `tail` is what the tail's frame begins with now.
    pub fn revalidate(
        &mut self,
        written: Timestamp,
        bytes: &[u8; PAGE_SIZE],
        tail: Option<[u8; TAIL_BYTES]>,
    ) -> bool {
        let mut changed = (0..PAGE_SIZE).filter(|&at| self.bytes[at] != bytes[at]);
        let same_tail = self.tail.as_ref().map(|tail| tail.bytes) == tail;
        let holds = !self.void && same_tail && !changed.any(|at| self.scanned[at]);
        if holds {
            self.bytes.copy_from_slice(bytes);
            self.written = written;
            self.hidden = false;
        }
        holds
    }
}

#[cfg(test)]
mod tests {
    use super::super::entries::EntryTables;
    use super::*;

    #[test]
    fn data_beside_code_may_change_and_code_may_not() {
        let mut tables = EntryTables::new().expect("address space");
        let table = tables.allocate().expect("a table");
        let mut bytes = [0x90; PAGE_SIZE];
        let mut page = CodePage::new(table, Timestamp::default(), bytes);
        page.scan(16, 20);
        page.add(16, Entry::Emulate);
        bytes[15] = 1;
        bytes[20] = 1;
        assert!(page.revalidate(Timestamp::default(), &bytes, None));
        bytes[19] = 1;
        assert!(!page.revalidate(Timestamp::default(), &bytes, None));
    }
}
