//! [`EntryTables`]: for each code page a table of the code at each of its offsets, which emitted code reads.
//!
//! A table has 4096 words of 32 bits: arena offsets, 0 where no code is known. All tables lie in one sparse mapping.

use mmu::{Mapping, PAGE_SIZE, Protection};
use std::io;
use std::ptr;

/// The number of words of a table.
const WORDS: usize = PAGE_SIZE;
/// The most tables.
const TABLES: usize = 1 << 15;
/// The size of all tables in bytes.
const BYTES: usize = TABLES * WORDS * size_of::<u32>();

const _: () = assert!(BYTES < 1 << 32);

/// The name of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableId(u32);

/// All entry tables of one processor.
pub struct EntryTables {
    words: Mapping,
    used: u32,
}

impl EntryTables {
    /// Reserves address space for all tables; none is in use.
    ///
    /// # Errors
    /// The host's, where it grants no address space.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            words: Mapping::anonymous(BYTES, Protection::ReadWrite)?,
            used: 0,
        })
    }

    /// The host address of the area of tables, which is smaller than 4 GiB.
    pub fn start(&self) -> u64 {
        self.words.start().as_ptr().expose_provenance() as u64
    }

    /// Whether all tables are in use.
    pub fn is_full(&self) -> bool {
        self.used as usize == TABLES
    }

    /// Allocates a table of zeros; `None` when all are in use.
    pub fn allocate(&mut self) -> Option<TableId> {
        if self.is_full() {
            return None;
        }
        self.used += 1;
        Some(TableId(self.used - 1))
    }

    /// The host address of the table's first word.
    pub fn address_of(&self, table: TableId) -> u64 {
        self.word(table, 0).expose_provenance() as u64
    }

    /// Sets the word for `offset` of the page.
    pub fn set(&mut self, table: TableId, offset: u32, entry: u32) {
        // SAFETY: `word` points into the mapping, which only this value writes.
        unsafe { self.word(table, offset).write(entry) }
    }

    /// The word for `offset` of the page.
    pub fn get(&self, table: TableId, offset: u32) -> u32 {
        // SAFETY: `word` points into the mapping, which only this value writes.
        unsafe { self.word(table, offset).read() }
    }

    /// Zeroes a table.
    pub fn reset(&mut self, table: TableId) {
        // SAFETY: a table has `WORDS` words; see `set`.
        unsafe { ptr::write_bytes(self.word(table, 0), 0, WORDS) }
    }

    /// Zeroes all tables and gives them back.
    pub fn clear(&mut self) {
        for number in 0..self.used {
            self.reset(TableId(number));
        }
        // The pages are zero already, if the host refuses.
        let _refused = self.words.discard(0..BYTES);
        self.used = 0;
    }

    fn word(&self, table: TableId, offset: u32) -> *mut u32 {
        let index = table.0 as usize % TABLES * WORDS + offset as usize % WORDS;
        self.words
            .start()
            .cast::<u32>()
            .as_ptr()
            .wrapping_add(index)
    }
}
