//! The random steps of a script.

use super::access::{CODE, CROSSING_CODE, code};
use super::layout::{
    DIRECTORIES, IDENTITY_DIRECTORY, LARGE, PAGE, PAGE_TABLES, PIECES, POINTER_TABLES, POOL,
    SHARED_DIRECTORIES, SPACES, pages, pool, table_indexes,
};
use super::model::{A, D, G, Mode, P, PS, U, W, XD};
use super::record::Operation;
use super::writer::Writer;

/// Steps from one paging mode to the next.
const EPOCH: u32 = 5_000;
/// The pages that are usually used, and the steps for which they are.
const HOT_PAGES: usize = 6;
const HOT_STEPS: u32 = 100;
/// Of the spaces, those that are usually used.
const HOT_SPACES: usize = 3;
/// Offsets in a frame at which there is data only.
const DATA: std::ops::Range<u32> = 0x40..PAGE - 0x40;
const PWT: u64 = 1 << 3;
const PCD: u64 = 1 << 4;
/// Bits for software.
const AVAILABLE: u64 = 7 << 9;
/// A bit that is reserved in PAE paging whatever MAXPHYADDR is.
const RESERVED: u64 = 1 << 52;

/// What a script may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Everything.
    Whole,
    /// What QEMU's translator does by the manual. It reports a read of a read-modify-write, and no P with a reserved bit
    /// (`guest-kernels/tests/qemu_deviations`).
    Qemu,
}

/// Random steps, added to a script.
pub struct Generator {
    /// The script.
    pub writer: Writer,
    dialect: Dialect,
    memory: u32,
    space: usize,
    hot: Vec<u32>,
}

impl Generator {
    /// Creates a generator of a script for a machine with `memory` bytes of RAM.
    pub fn new(seed: u64, dialect: Dialect, memory: u32) -> Self {
        Self {
            writer: Writer::new(seed),
            dialect,
            memory,
            space: 0,
            hot: Vec::new(),
        }
    }

    /// Adds a step.
    pub fn step(&mut self, step: u32) {
        if step == 0 {
            self.place_frames();
        }
        if step.is_multiple_of(EPOCH) {
            self.begin_epoch();
        }
        if step.is_multiple_of(HOT_STEPS) {
            self.hot = (0..HOT_PAGES)
                .map(|_| self.writer.one_of(&pages()))
                .collect();
        }
        // What flushes everything is rare, so that much is cached when something changes.
        match self.writer.rng.u32(..1000) {
            0..490 => self.access(),
            490..760 => self.edit_table(),
            760..810 => self.edit_directory(),
            810..840 => self.store_to_frame(),
            840..850 => self.writer.toggle_write_protect(),
            850..852 => self.writer.toggle_global(),
            852..870 => {
                let page = self.writer.one_of(&pages());
                self.writer.invalidate(page);
            }
            870..876 => self.writer.load_cr3(self.writer.model.cr3()),
            876..899 => self.switch_space(),
            899 => self.visit_spaces(),
            900..940 => self.writer.go_to(!self.writer.user),
            940..980 => self.copy(),
            980..990 => self.visit_all(),
            _ => self.edit_pointer(),
        }
    }

    fn pae(&self) -> bool {
        self.writer.model.mode == Mode::Pae
    }

    fn root(&self, space: usize) -> u32 {
        match self.writer.model.mode {
            Mode::TwoLevel => DIRECTORIES[space],
            Mode::Pae => POINTER_TABLES[space],
        }
    }

    // --- Beginnings ---------------------------------------------------------------------------------------------------

    /// Gives each frame its code, of which one piece continues on the next page, whatever that is.
    fn place_frames(&mut self) {
        for frame in pool() {
            let [inside, across] = [code(frame | 1), code(frame | 2)];
            let parts = [
                (CODE, &inside[..]),
                (CROSSING_CODE, &across[..2]),
                (0, &across[2..]),
            ];
            for (offset, bytes) in parts {
                self.store_bytes(frame + offset, bytes);
            }
        }
    }

    fn store_bytes(&mut self, address: u32, bytes: &[u8]) {
        self.writer.model.write(address, bytes);
        let last = address + bytes.len() as u32 - 1;
        for word in (address & !3..=last & !3).step_by(4) {
            let value = self.writer.model.word(word);
            self.writer.store(word, value);
        }
    }

    /// Builds new tables for the other paging mode, and goes there.
    fn begin_epoch(&mut self) {
        let writer = &mut self.writer;
        writer.paging_off();
        writer.model.mode = match writer.model.mode {
            Mode::TwoLevel => Mode::Pae,
            Mode::Pae => Mode::TwoLevel,
        };
        writer.model.execute_disable = !writer.once_in(3);
        writer.model.global = writer.rng.bool();
        let entries = writer.model.mode.entries();
        let (structures, identity): (Vec<u32>, &[u32]) = match writer.model.mode {
            Mode::TwoLevel => ([&PAGE_TABLES[..], &DIRECTORIES].concat(), &DIRECTORIES),
            Mode::Pae => (
                [&PAGE_TABLES[..], &SHARED_DIRECTORIES].concat(),
                &[IDENTITY_DIRECTORY],
            ),
        };
        for structure in structures {
            writer.fill(structure, 0, 0, entries as u16);
        }
        let large = writer.model.mode.large();
        let first = (PS | U | W | P) as u32;
        for &directory in identity {
            writer.fill(directory, first, large, self.memory.div_ceil(large) as u16);
        }
        self.fill_tables();
        self.space = 0;
        self.writer.paging_on(self.root(0));
    }

    fn fill_tables(&mut self) {
        let mode = self.writer.model.mode;
        for table in PAGE_TABLES {
            for index in table_indexes(mode.entries()) {
                let value = self.table_entry();
                self.writer.edit(table + index * mode.entry(), value);
            }
        }
        let directories: &[u32] = match mode {
            Mode::TwoLevel => &DIRECTORIES,
            Mode::Pae => &SHARED_DIRECTORIES,
        };
        for &directory in directories {
            for index in self.directory_indexes() {
                let value = self.directory_entry();
                self.writer.edit(directory + index * mode.entry(), value);
            }
        }
        if mode == Mode::Pae {
            for table in POINTER_TABLES {
                let first = u64::from(IDENTITY_DIRECTORY) | P;
                self.writer.edit(table, first);
                for index in 1..4 {
                    let value = self.pointer();
                    self.writer.edit(table + 8 * index, value);
                }
            }
        }
    }

    fn directory_indexes(&self) -> Vec<u32> {
        let mode = self.writer.model.mode;
        let mut indexes: Vec<_> = PIECES
            .iter()
            .flat_map(|base| [*base, base + LARGE / 2])
            .map(|base| base / mode.large() % mode.entries())
            .collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes
    }

    // --- Entries ------------------------------------------------------------------------------------------------------

    /// Bits that entries of all levels have.
    fn rights(&mut self) -> u64 {
        let writer = &mut self.writer;
        let mut bits = 0;
        for (bit, rarely) in [(P, 10), (W, 6), (U, 8)] {
            if !writer.once_in(rarely) {
                bits |= bit;
            }
        }
        for (bit, often) in [(A, 2), (PWT, 8), (PCD, 8)] {
            if writer.once_in(often) {
                bits |= bit;
            }
        }
        bits |= writer.rng.u64(..) & AVAILABLE;
        if self.pae() {
            let executes = self.writer.model.execute_disable;
            if executes && self.writer.once_in(7) || self.may_reserve() {
                bits |= XD;
            }
            if self.may_reserve() {
                bits |= RESERVED;
            }
        }
        bits
    }

    fn may_reserve(&mut self) -> bool {
        self.dialect == Dialect::Whole && self.writer.once_in(40)
    }

    /// Bits of an entry that maps a page.
    fn page_rights(&mut self) -> u64 {
        let mut bits = self.rights();
        for (bit, often) in [(D, 2), (G, 5)] {
            if self.writer.once_in(often) {
                bits |= bit;
            }
        }
        bits
    }

    fn table_entry(&mut self) -> u64 {
        let frame = self.writer.one_of(&pool());
        u64::from(frame) | self.page_rights()
    }

    fn directory_entry(&mut self) -> u64 {
        if !self.writer.once_in(5) {
            let table = self.writer.one_of(&PAGE_TABLES);
            return u64::from(table) | self.rights();
        }
        let large = self.writer.model.mode.large();
        let base = POOL + large * self.writer.rng.u32(..2 * LARGE / large);
        let reserved = match self.may_reserve() {
            true => self.writer.model.mode.large_reserved() & (1 << 21 | 1 << 13),
            false => 0,
        };
        u64::from(base) | reserved | PS | self.page_rights()
    }

    fn pointer(&mut self) -> u64 {
        let directory = self.writer.one_of(&SHARED_DIRECTORIES);
        let present = if self.writer.once_in(8) { 0 } else { P };
        u64::from(directory) | present
    }

    // --- Steps --------------------------------------------------------------------------------------------------------

    fn edit_table(&mut self) {
        let mode = self.writer.model.mode;
        let index = self.writer.one_of(&table_indexes(mode.entries()));
        let any = self.writer.one_of(&PAGE_TABLES) + index * mode.entry();
        let page = self.page();
        let address = match self.writer.model.walk(page).table {
            Some(entry) if !self.writer.once_in(3) => entry.address,
            _ => any,
        };
        let new = self.table_entry();
        let value = self.changed(address, new);
        self.writer.edit(address, value);
        self.writer.count("edit of a page table");
    }

    /// A whole new value for the entry, or the old one with other rights.
    fn changed(&mut self, address: u32, new: u64) -> u64 {
        let old = self.writer.model.entry(address).value;
        match self.writer.rng.u32(..8) {
            0 => old ^ P,
            1 => old ^ W,
            2 => old ^ U,
            3 => old & !(A | D),
            _ => new,
        }
    }

    fn edit_directory(&mut self) {
        let directory = match self.writer.model.mode {
            Mode::TwoLevel => DIRECTORIES[self.some_space()],
            Mode::Pae => self.writer.one_of(&SHARED_DIRECTORIES),
        };
        let index = self.writer.one_of(&self.directory_indexes());
        let address = directory + index * self.writer.model.mode.entry();
        let new = self.directory_entry();
        let value = self.changed(address, new);
        self.writer.edit(address, value);
        self.writer.count("edit of a directory");
    }

    /// Changes a pointer of PAE paging. It counts from the next load of CR3 on.
    fn edit_pointer(&mut self) {
        if !self.pae() {
            return self.edit_directory();
        }
        let space = self.some_space();
        let address = POINTER_TABLES[space] + 8 * self.writer.rng.u32(1..4);
        let value = self.pointer();
        self.writer.edit(address, value);
        if space == self.space {
            self.writer.load_cr3(POINTER_TABLES[space]);
        }
        self.writer.count("edit of a pointer");
    }

    /// Usually one of a few spaces.
    fn some_space(&mut self) -> usize {
        match self.writer.rng.u32(..10) {
            0 => self.writer.rng.usize(..SPACES),
            1..5 => self.space,
            _ => self.writer.rng.usize(..HOT_SPACES),
        }
    }

    fn switch_space(&mut self) {
        self.space = self.some_space();
        self.writer.load_cr3(self.root(self.space));
        self.writer.count("switch of the space");
    }

    /// Reads a page in each space, more than the translator keeps tables for.
    fn visit_spaces(&mut self) {
        for space in 0..SPACES {
            self.space = space;
            self.writer.load_cr3(self.root(space));
            let (page, offset) = (self.page(), self.data_offset());
            self.writer.access(Operation::Read32, page + offset, 0);
        }
        self.writer.count("visit of all spaces");
    }

    /// Stores by the frame's own address what pages may show.
    fn store_to_frame(&mut self) {
        let frame = self.writer.one_of(&pool());
        let offset = self.data_offset() & !3;
        let word = self.writer.rng.u32(..);
        self.writer.store(frame + offset, word);
    }

    fn data_offset(&mut self) -> u32 {
        self.writer.rng.u32(DATA)
    }

    /// Usually one of a few pages.
    fn page(&mut self) -> u32 {
        match self.writer.once_in(4) {
            true => self.writer.one_of(&pages()),
            false => self.writer.one_of(&self.hot),
        }
    }

    /// A random access. What it writes is data, or the value that code loads.
    fn access(&mut self) {
        use Operation::{Fetch, Modify32, Push32, Read8, Read16, Read32, Write8, Write16, Write32};
        let page = self.page();
        let crosses = self.writer.once_in(4) && pages().contains(&(page + PAGE));
        let operand = self.writer.rng.u32(..);
        let kinds = [
            Read8, Read16, Read32, Read32, Write8, Write16, Write32, Write32, Fetch, Fetch,
            Modify32, Push32,
        ];
        let mut kind = self.writer.one_of(&kinds);
        if self.dialect == Dialect::Qemu && kind == Modify32 {
            kind = Write32;
        }
        let offset = match (kind, crosses) {
            (Fetch, true) => CROSSING_CODE,
            (Fetch, false) => CODE,
            (Read32, true) => PAGE - 1 - self.writer.rng.u32(..3),
            (_, true) => PAGE - 1,
            (Write32, false) if operand.is_multiple_of(4) => CODE + 1,
            (_, false) => self.data_offset(),
        };
        let offset = if kind == Push32 { offset + 4 } else { offset };
        self.writer.access(kind, page + offset, operand);
    }

    /// Copies data, or the end of one page and the start of the next to the same place of others, code and all.
    fn copy(&mut self) {
        let [from, to] = [self.page(), self.page()];
        let both = [from, to].map(|page| pages().contains(&(page + PAGE)));
        let count = self.writer.rng.u8(1..17);
        if both == [true; 2] && self.writer.rng.bool() {
            let offset = PAGE - 4 * self.writer.rng.u32(1..9);
            return self.writer.copy(from + offset, to + offset, count.max(10));
        }
        let offsets = [(); 2].map(|()| self.writer.rng.u32(DATA.start..DATA.end - 64) & !3);
        self.writer.copy(from + offsets[0], to + offsets[1], count);
    }

    /// Reads all pages.
    fn visit_all(&mut self) {
        for page in pages() {
            let offset = self.data_offset();
            self.writer.access(Operation::Read32, page + offset, 0);
        }
    }
}
