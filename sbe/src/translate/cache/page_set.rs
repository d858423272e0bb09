//! [`PageSet`]: the code pages, with the tables through which emitted code finds their entries.

use super::entries::EntryTables;
use super::page::{CodePage, Destination};
use crate::translate::emit::Link;
use crate::translate::fragment::TAIL_BYTES;
use crate::translate::listing::Variant;
use crate::translate::mode::PageKey;
use hashbrown::HashMap;
use mmu::{Frame, LinearAddr, PAGE_SIZE, Timestamp};
use std::io;

/// log2 of the bytes of an entry table's words: what the page's address is scaled by in code slots.
const ENTRY_SHIFT: u32 = 2;

/// All code pages of one processor.
pub struct PageSet {
    pages: HashMap<PageKey, CodePage>,
    /// The pages with instructions that end in the next page, by that one's frame.
    crossed_from: HashMap<Frame, Vec<PageKey>>,
    tables: EntryTables,
    /// The word of entry tables for instructions that the emulator executes: the arena offset of a trampoline.
    emulate: u32,
}

impl PageSet {
    /// Creates an empty set; `emulate` is the word for entries that the emulator executes.
    ///
    /// # Errors
    /// The host's, where it grants no address space for tables.
    pub fn new(emulate: u32) -> io::Result<Self> {
        Ok(Self {
            pages: HashMap::new(),
            crossed_from: HashMap::new(),
            tables: EntryTables::new()?,
            emulate,
        })
    }

    /// The host address of the area of entry tables.
    pub fn tables(&self) -> u64 {
        self.tables.start()
    }

    /// The page of `key`.
    pub fn get(&self, key: PageKey) -> Option<&CodePage> {
        self.pages.get(&key)
    }

    /// The page of `key`, to be changed.
    pub fn get_mut(&mut self, key: PageKey) -> Option<&mut CodePage> {
        self.pages.get_mut(&key)
    }

    /// All pages, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (PageKey, &CodePage)> {
        self.pages.iter().map(|(&key, page)| (key, page))
    }

    /// Whether there is no table for another page.
    pub fn is_full(&self) -> bool {
        self.tables.is_full()
    }

    /// Adds a page of which nothing is scanned. Returns whether there was a table for it.
    pub fn insert(&mut self, key: PageKey, written: Timestamp, bytes: [u8; PAGE_SIZE]) -> bool {
        let table = self.tables.allocate();
        let page = table.map(|table| CodePage::new(table, written, bytes));
        page.map(|page| self.pages.insert(key, page)).is_some()
    }

    /// Adds a page that was removed, with nothing scanned. Returns whether there was a table for it.
    pub fn insert_again(&mut self, key: PageKey, page: &CodePage) -> bool {
        let Some(table) = self.tables.allocate() else {
            return false;
        };
        if let Some(tail) = page.tail() {
            self.note_crossing(key, tail.frame);
        }
        self.pages.insert(key, page.rescanned(table));
        true
    }

    /// Compares the page of `key`, which was written, with what was scanned: see [`CodePage::revalidate`]. Returns whether its
    /// translations hold; if not, its entries are empty now.
    pub fn revalidate(
        &mut self,
        key: PageKey,
        written: Timestamp,
        bytes: &[u8; PAGE_SIZE],
        tail: Option<[u8; TAIL_BYTES]>,
    ) -> bool {
        let Some(page) = self.pages.get_mut(&key) else {
            return false;
        };
        self.tables.reset(page.table());
        let holds = page.revalidate(written, bytes, tail);
        if holds {
            for &(offset, destination) in page.entries() {
                let word = word(destination, self.emulate);
                self.tables.set(page.table(), offset.into(), word);
            }
        }
        holds
    }

    /// Replaces the page of `key` by one of which nothing is scanned, with the same table, to which code slots lead. Returns
    /// the branches that have to be unlinked.
    pub fn rescan(
        &mut self,
        key: PageKey,
        written: Timestamp,
        bytes: [u8; PAGE_SIZE],
    ) -> Vec<Link> {
        let Some(page) = self.pages.get_mut(&key) else {
            return Vec::new();
        };
        let incoming = page.take_incoming();
        *page = page.rewritten(written, bytes);
        incoming
    }

    /// Empties the entry table of the page of `key`, so that the page is looked up, and compared, before it executes again.
    /// Returns the branches that have to be unlinked.
    pub fn invalidate(&mut self, key: PageKey) -> Vec<Link> {
        let Some(page) = self.pages.get_mut(&key) else {
            return Vec::new();
        };
        page.set_stale();
        self.tables.reset(page.table());
        page.take_incoming()
    }

    /// The destination of the entry for `offset` of the page of `key`, if that is known.
    pub fn destination(&self, key: PageKey, offset: u32, variant: Variant) -> Option<Destination> {
        let page = self.pages.get(&key)?;
        if variant == Variant::Plain {
            return page.plain(offset).map(Destination::Code);
        }
        match self.tables.get(page.table(), offset) {
            0 => None,
            word if word == self.emulate => Some(Destination::Emulate),
            code => Some(Destination::Code(code)),
        }
    }

    /// Adds an entry made from the bytes from `offset` to `end` of the page of `key`.
    pub fn add(
        &mut self,
        key: PageKey,
        (offset, end): (u32, u32),
        variant: Variant,
        destination: Destination,
    ) {
        let Some(page) = self.pages.get_mut(&key) else {
            return;
        };
        page.scan(offset, end);
        page.add(offset, variant, destination);
        let is_plain = variant == Variant::Plain && matches!(destination, Destination::Code(_));
        if !is_plain {
            let word = word(destination, self.emulate);
            self.tables.set(page.table(), offset, word);
        }
    }

    /// The code slot through which emitted code finds the entries of the page of `key` at `linear`.
    pub fn code_slot(&self, key: PageKey, linear: LinearAddr) -> Option<u64> {
        let table = self.tables.address_of(self.pages.get(&key)?.table());
        let page = linear.get() - u64::from(linear.offset());
        // A rotation keeps all bits of the address.
        Some(table.wrapping_sub(page.rotate_left(ENTRY_SHIFT)))
    }

    /// The entry for `offset` of the page of `key`: the host address of its word, and the arena offset there.
    pub fn entry(&self, key: PageKey, offset: u32) -> Option<(u64, u32)> {
        let table = self.pages.get(&key)?.table();
        let word = self.tables.address_of(table) + (u64::from(offset) << ENTRY_SHIFT);
        Some((word, self.tables.get(table, offset)))
    }

    /// Notes that an instruction of the page of `key` ends in `frame`.
    pub fn note_crossing(&mut self, key: PageKey, frame: Frame) {
        let keys = self.crossed_from.entry(frame).or_default();
        if !keys.contains(&key) {
            keys.push(key);
        }
    }

    /// Removes and returns the pages with instructions that end in `frame`.
    pub fn take_crossings(&mut self, frame: Frame) -> Vec<PageKey> {
        self.crossed_from.remove(&frame).unwrap_or_default()
    }

    /// Removes and returns the branches to all pages from others.
    pub fn take_incoming(&mut self) -> Vec<Link> {
        let pages = self.pages.values_mut();
        pages.flat_map(CodePage::take_incoming).collect()
    }

    /// Removes and returns all pages. Their tables stay in use until [`Self::clear`].
    pub fn take_pages(&mut self) -> Vec<(PageKey, CodePage)> {
        self.pages.drain().collect()
    }

    /// Removes all pages.
    pub fn clear(&mut self) {
        self.pages.clear();
        self.crossed_from.clear();
        self.tables.clear();
    }
}

/// The word of an entry table for `destination`.
fn word(destination: Destination, emulate: u32) -> u32 {
    match destination {
        Destination::Code(code) => code,
        Destination::Emulate | Destination::EmulateOnce => emulate,
    }
}
