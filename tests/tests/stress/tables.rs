//! Page tables of either width, written into a program's memory.

use std::collections::BTreeMap;

use super::contents::{Contents, PAGE};
use super::width::Width;

/// Bits of entries: present, writable, the user's, and global (SDM Vol. 3A, 4.3 "32-Bit Paging", 4.5 "4-Level Paging").
pub const PRESENT: u32 = 1 << 0;
/// R/W.
pub const WRITABLE: u32 = 1 << 1;
/// U/S.
pub const FOR_USER: u32 = 1 << 2;
/// G.
pub const GLOBAL: u32 = 1 << 8;
/// An entry that forbids nothing.
pub const ALL: u32 = PRESENT | WRITABLE | FOR_USER;

/// Bytes that programs map one to one.
pub const IDENTITY: u32 = 4 << 20;

impl Width {
    /// Levels of page tables.
    fn levels(self) -> u32 {
        match self {
            Self::Narrow => 2,
            Self::Wide => 4,
        }
    }

    /// Bits of the index into a table.
    fn index_bits(self) -> u32 {
        (PAGE / self.bytes()).trailing_zeros()
    }

    /// The part of a linear address that chooses entries down to those of `level`, of which 0 is the last.
    fn prefix(self, linear: u64, level: u32) -> u64 {
        let top = mmu::PAGE_SHIFT + self.levels() * self.index_bits();
        (linear & ((1 << top) - 1)) >> (mmu::PAGE_SHIFT + level * self.index_bits())
    }
}

/// The page tables of an address space, in successive frames.
pub struct Tables {
    width: Width,
    root: u32,
    /// The frame of the next table.
    next: u32,
    /// The tables but for the root, by the level of the entry that leads there, and its prefix.
    frames: BTreeMap<(u32, u64), u32>,
}

impl Tables {
    /// Creates tables in the frames from `root` on.
    pub fn new(width: Width, root: u32) -> Self {
        Self {
            width,
            root,
            next: root + PAGE,
            frames: BTreeMap::new(),
        }
    }

    /// Physical address behind the last table.
    pub fn end(&self) -> u32 {
        self.next
    }

    /// Physical address of the entry of `level` for `linear`. The tables that lead there are made if there are none.
    fn entry(&mut self, contents: &mut Contents, linear: u64, level: u32) -> u32 {
        let mut table = self.root;
        for above in (level + 1..self.width.levels()).rev() {
            let slot = self.slot_in(table, linear, above);
            let key = (above, self.width.prefix(linear, above));
            table = *self.frames.entry(key).or_insert_with(|| {
                let frame = self.next;
                self.next += PAGE;
                contents.place(slot, self.width.addresses(&[(frame | ALL).into()]));
                frame
            });
        }
        self.slot_in(table, linear, level)
    }

    fn slot_in(&self, table: u32, linear: u64, level: u32) -> u32 {
        let index = self.width.prefix(linear, level) as u32 % (PAGE / self.width.bytes());
        table + index * self.width.bytes()
    }

    /// Physical address of the entry that maps the page of `linear`.
    pub fn slot(&mut self, contents: &mut Contents, linear: u64) -> u32 {
        self.entry(contents, linear, 0)
    }

    /// Makes `entry` that of the page of `linear`.
    pub fn map(&mut self, contents: &mut Contents, linear: u64, entry: u32) {
        let slot = self.slot(contents, linear);
        contents.place(slot, self.width.addresses(&[entry.into()]));
    }

    /// Maps the first [`IDENTITY`] bytes at `base`, by what `entry` makes of a page's physical address. Returns the physical
    /// address of the first of the entries, which follow one another.
    pub fn map_all(
        &mut self,
        contents: &mut Contents,
        base: u64,
        entry: impl Fn(u32) -> u32,
    ) -> u32 {
        let first = self.slot(contents, base);
        for page in (0..IDENTITY).step_by(PAGE as usize) {
            let slot = self.slot(contents, base + u64::from(page));
            assert_eq!(slot, first + page / PAGE * self.width.bytes());
            contents.place(slot, self.width.addresses(&[entry(page).into()]));
        }
        first
    }

    /// Makes the last table that `linear` is mapped by that of `other`.
    pub fn share(&mut self, contents: &mut Contents, other: &mut Self, linear: u64) {
        let shared = other.slot(contents, linear) & !(PAGE - 1);
        let slot = self.entry(contents, linear, 1);
        contents.place(slot, self.width.addresses(&[(shared | ALL).into()]));
        let key = (1, self.width.prefix(linear, 1));
        self.frames.insert(key, shared);
    }
}
