//! Random entries of paging structures, and the steps that change them.

use super::format::{A, D, G, Mode, P, PAGE, PS, U, W, XD};
use super::generate::{Dialect, Generator};
use super::layout::{
    LARGE, Level, POINTER_TABLES, POOL, SHARED_DIRECTORIES, TOPS, is_fixed, maps_pool_by_gib, pool,
};

const PWT: u64 = 1 << 3;
const PCD: u64 = 1 << 4;
/// Bits for software, and more of them in 4-level paging, where bits 62:59 are ignored, too, without CR4.PKE.
const AVAILABLE: u64 = 7 << 9;
const MORE_AVAILABLE: u64 = 0x7ff << 52;
/// A bit that is reserved in PAE paging whatever MAXPHYADDR is, and one in 4-level paging.
const PAE_RESERVED: u64 = 1 << 52;
const FOUR_LEVEL_RESERVED: u64 = 1 << 51;

impl Generator {
    /// Bits that entries of all levels have.
    fn rights(&mut self, level: u32) -> u64 {
        let mode = self.mode();
        let writer = &mut self.writer;
        let mut bits = 0;
        // What is above directories concerns many pages.
        let seldom = if level > 2 { 3 } else { 1 };
        for (bit, rarely) in [(P, 10), (W, 6), (U, 8)] {
            if !writer.once_in(rarely * seldom) {
                bits |= bit;
            }
        }
        for (bit, often) in [(A, 2), (PWT, 8), (PCD, 8)] {
            if writer.once_in(often) {
                bits |= bit;
            }
        }
        bits |= writer.rng.u64(..) & AVAILABLE;
        let reserved = match mode {
            Mode::TwoLevel => return bits,
            Mode::Pae => PAE_RESERVED,
            Mode::FourLevel => {
                bits |= writer.rng.u64(..) & MORE_AVAILABLE;
                FOUR_LEVEL_RESERVED
            }
        };
        let executes = writer.model.execute_disable;
        if executes && writer.once_in(7 * seldom) || self.may_reserve() {
            bits |= XD;
        }
        if self.may_reserve() {
            bits |= reserved;
        }
        bits
    }

    fn may_reserve(&mut self) -> bool {
        self.dialect == Dialect::Whole && self.writer.once_in(40)
    }

    /// Bits of an entry that maps a page.
    fn page_rights(&mut self, level: u32) -> u64 {
        let mut bits = self.rights(level);
        for (bit, often) in [(D, 2), (G, 5)] {
            if self.writer.once_in(often) {
                bits |= bit;
            }
        }
        bits
    }

    /// A new value for the entry of `level` at `address`.
    pub fn entry(&mut self, level: u32, address: u32) -> u64 {
        let mode = self.mode();
        if level == 1 {
            let frame = self.writer.one_of(&pool());
            return u64::from(frame) | self.page_rights(level);
        }
        if let Some(base) = self.large_page(level, address) {
            let reserved = self.reserved(level) & (1 << 21 | 1 << 13);
            return u64::from(base) | reserved | PS | self.page_rights(level);
        }
        let structure = self.writer.one_of(Level::of(mode, level - 1).targets);
        let reserved = match mode.maps(level) {
            true => 0,
            false => self.reserved(level),
        };
        u64::from(structure) | reserved | self.rights(level)
    }

    /// The base of a large page for the entry of `level` at `address`, if it is to be one.
    fn large_page(&mut self, level: u32, address: u32) -> Option<u32> {
        let mode = self.mode();
        let wanted = mode.maps(level) && self.writer.once_in(5);
        let large = mode.bytes(level) as u32;
        match level {
            2 if wanted => Some(POOL + large * self.writer.rng.u32(..2 * LARGE / large)),
            3 if wanted && maps_pool_by_gib(address % PAGE / mode.entry()) => Some(0),
            _ => None,
        }
    }

    /// The bits that PS makes reserved, if they are to be set.
    fn reserved(&mut self, level: u32) -> u64 {
        match self.may_reserve() {
            true => self.mode().large_reserved(level),
            false => 0,
        }
    }

    pub fn pointer(&mut self) -> u64 {
        let directory = self.writer.one_of(&SHARED_DIRECTORIES);
        let present = if self.writer.once_in(8) { 0 } else { P };
        u64::from(directory) | present
    }

    /// Changes an entry of `level`, usually one that a page in use is translated by.
    pub fn edit(&mut self, level: u32) {
        let mode = self.mode();
        let page = self.page();
        let walk = self.writer.model.walk(page);
        let used = walk.entries().nth((mode.levels() - level) as usize);
        let used = used.filter(|entry| !is_fixed(mode, entry.address));
        let address = match used {
            Some(entry) if !self.writer.once_in(3) => entry.address,
            _ => self.any_entry(level),
        };
        let new = self.entry(level, address);
        let value = self.changed(level, address, new);
        self.writer.edit(address, value);
        self.writer.count(match level {
            1 => "edit of a page table",
            2 => "edit of a directory",
            3 => "edit of a pointer",
            _ => "edit of a page map",
        });
        if value & (P | PS) == P | PS && level > 1 {
            self.writer.count(format!("large page of level {level}"));
        }
    }

    /// An entry of `level`; if that is the topmost, of some space.
    fn any_entry(&mut self, level: u32) -> u32 {
        let mode = self.mode();
        let structures = Level::of(mode, level);
        let structure = match (mode, level) {
            (Mode::TwoLevel, 2) | (Mode::FourLevel, 4) => TOPS[self.some_space()],
            _ => self.writer.one_of(structures.structures),
        };
        self.writer.one_of(&structures.entries(mode, structure))
    }

    /// Changes an entry above page tables.
    pub fn edit_upper(&mut self) {
        let level = match self.mode() {
            Mode::TwoLevel | Mode::Pae => 2,
            Mode::FourLevel => self.writer.one_of(&[2, 2, 3, 4]),
        };
        self.edit(level);
    }

    /// A whole new value for the entry, or the old one with other rights.
    fn changed(&mut self, level: u32, address: u32, new: u64) -> u64 {
        let old = self.writer.model.entry(address).value;
        match self.writer.rng.u32(..8) {
            // What is above directories is seldom not present, as it concerns many pages.
            0 if level <= 2 => old ^ P,
            1 => old ^ W,
            2 => old ^ U,
            3 => old & !(A | D),
            _ => new,
        }
    }

    /// Changes a pointer of PAE paging. It counts from the next load of CR3 on.
    pub fn edit_pointer(&mut self) {
        if self.mode() != Mode::Pae {
            return self.edit_upper();
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
}
