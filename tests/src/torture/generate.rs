//! The random steps of a script.

use super::code::{CODE, CROSSING_CODE, JMP, code};
use super::format::{Mode, P, PAGE, PS, U, W, Width};
use super::layout::{
    DIRECT, IDENTITY_DIRECTORY, LOW_POINTERS, Level, POINTER_TABLES, SPACES, TIB, TOPS, pool,
};
use super::record::Operation;
use super::writer::Writer;

/// Steps from one paging mode to the next.
const EPOCH: u32 = 5_000;
/// The pages that are usually used, and the steps for which they are.
const HOT_PAGES: usize = 6;
const HOT_STEPS: u32 = 100;
/// Pages of a visit of all pages, of which there may be more.
const VISITED: usize = 40;
/// Of the spaces, those that are usually used.
const HOT_SPACES: usize = 3;
/// Offsets in a frame at which there is data only.
const DATA: std::ops::Range<u32> = 0x40..PAGE - 0x40;

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
    /// What the script may contain.
    pub dialect: Dialect,
    memory: u32,
    /// The number of the present address space.
    pub space: usize,
    hot: Vec<u64>,
}

impl Generator {
    /// Creates a generator of a script for a machine with `memory` bytes of RAM.
    pub fn new(seed: u64, width: Width, dialect: Dialect, memory: u32) -> Self {
        Self {
            writer: Writer::new(seed, width),
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
            self.begin_epoch(step / EPOCH);
        }
        if step.is_multiple_of(HOT_STEPS) {
            self.choose_hot();
        }
        // What flushes everything is rare, so that much is cached when something changes.
        match self.writer.rng.u32(..1000) {
            0..490 => self.access(),
            490..760 => self.edit(1),
            760..810 => self.edit_upper(),
            810..840 => self.store_to_frame(),
            840..850 => self.writer.toggle_write_protect(),
            850..852 => self.writer.toggle_global(),
            852..870 => {
                let page = self.any_page();
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

    /// The present paging mode.
    pub fn mode(&self) -> Mode {
        self.writer.model.mode
    }

    fn root(&self, space: usize) -> u32 {
        match self.mode() {
            Mode::TwoLevel | Mode::FourLevel => TOPS[space],
            Mode::Pae => POINTER_TABLES[space],
        }
    }

    /// Chooses pages, and beside some of them others that share their slots.
    fn choose_hot(&mut self) {
        self.hot.clear();
        while self.hot.len() < HOT_PAGES {
            let page = self.any_page();
            self.hot.push(page);
            let pages = self.writer.pages.iter();
            let siblings: Vec<_> = pages
                .copied()
                .filter(|&other| other != page && other % TIB == page % TIB)
                .collect();
            if !siblings.is_empty() && self.writer.rng.bool() {
                self.hot.push(self.writer.one_of(&siblings));
                self.writer.count("choice of pages that share a slot");
            }
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

    /// Builds new tables for the next paging mode, and goes there.
    fn begin_epoch(&mut self, number: u32) {
        let writer = &mut self.writer;
        writer.leave_spaces();
        let modes = writer.width.modes();
        let mode = modes[number as usize % modes.len()];
        writer.model.mode = mode;
        writer.model.execute_disable = !writer.once_in(3);
        writer.model.global = writer.rng.bool();
        for level in 1..=mode.levels() {
            for &structure in Level::of(mode, level).structures {
                writer.fill(structure, 0, 0, mode.entries() as u16);
            }
        }
        let identity: &[u32] = match mode {
            Mode::TwoLevel => &TOPS,
            Mode::Pae | Mode::FourLevel => &[IDENTITY_DIRECTORY],
        };
        let large = mode.bytes(2) as u32;
        let first = (PS | U | W | P) as u32;
        for &directory in identity {
            writer.fill(directory, first, large, self.memory.div_ceil(large) as u16);
        }
        for level in 1..=mode.levels() {
            self.fill_level(level);
        }
        self.fill_tops();
        self.space = 0;
        self.writer.enter_space(self.root(0));
    }

    fn fill_level(&mut self, level: u32) {
        let mode = self.mode();
        let structures = Level::of(mode, level);
        for &structure in structures.structures {
            for entry in structures.entries(mode, structure) {
                let value = self.entry(level, entry);
                self.writer.edit(entry, value);
            }
        }
    }

    /// Lets the topmost structures lead to the first GiB, and fills pointer tables of PAE paging.
    fn fill_tops(&mut self) {
        let identity = u64::from(IDENTITY_DIRECTORY) | P;
        match self.mode() {
            Mode::TwoLevel => {}
            Mode::Pae => {
                for table in POINTER_TABLES {
                    self.writer.edit(table, identity);
                    for index in 1..4 {
                        let value = self.pointer();
                        self.writer.edit(table + 8 * index, value);
                    }
                }
            }
            mode @ Mode::FourLevel => {
                for table in LOW_POINTERS {
                    self.writer.edit(table, identity | W | U);
                }
                let direct = mode.index(4, DIRECT) * mode.entry();
                for (map, pointers) in TOPS.iter().zip(LOW_POINTERS.iter().cycle()) {
                    let pointers = u64::from(*pointers) | W | P;
                    self.writer.edit(*map, pointers | U);
                    self.writer.edit(map + direct, pointers);
                }
            }
        }
    }

    // --- Steps --------------------------------------------------------------------------------------------------------

    /// Usually one of a few spaces.
    pub fn some_space(&mut self) -> usize {
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
        let offset = self.writer.rng.u32(DATA) & !3;
        let word = self.writer.rng.u32(..);
        self.writer.store(frame + offset, word);
    }

    fn data_offset(&mut self) -> u64 {
        self.writer.rng.u32(DATA).into()
    }

    fn any_page(&mut self) -> u64 {
        self.writer.pages[self.writer.rng.usize(..self.writer.pages.len())]
    }

    /// Usually one of a few pages.
    pub fn page(&mut self) -> u64 {
        match self.writer.once_in(4) {
            true => self.any_page(),
            false => self.writer.one_of(&self.hot),
        }
    }

    /// Whether the page behind is one that is used, too.
    fn has_next(&self, page: u64) -> bool {
        let next = page.wrapping_add(PAGE.into());
        self.writer.pages.contains(&next)
    }

    /// The kind of a random access.
    fn kind(&mut self) -> Operation {
        use Operation::{
            Fetch, Modify32, Modify64, Push32, Push64, Read8, Read16, Read32, Read64, Write8,
            Write16, Write32, Write64,
        };
        let kinds: &[_] = match self.writer.width {
            Width::Narrow => &[
                Read8, Read16, Read32, Read32, Write8, Write16, Write32, Write32, Fetch, Fetch,
                Modify32, Push32,
            ],
            Width::Wide => &[
                Read8, Read16, Read32, Read64, Read64, Write8, Write16, Write32, Write64, Write64,
                Fetch, Fetch, Fetch, Modify32, Modify64, Push64,
            ],
        };
        match (self.dialect, self.writer.one_of(kinds)) {
            (Dialect::Qemu, Modify32) => Write32,
            (Dialect::Qemu, Modify64) => Write64,
            (_, kind) => kind,
        }
    }

    /// A random access. What it writes is data, or the value that code loads.
    fn access(&mut self) {
        use Operation::{Fetch, Modify32, Modify64, Push64, Read32, Read64, Write32, Write64};
        let page = self.page();
        let mut crosses = self.writer.once_in(4) && self.has_next(page);
        let mut operand = self.writer.rng.u64(..);
        let kind = self.kind();
        // The jump behind the value that the code on the next page loads stays as it is.
        match kind {
            Modify64 => crosses = false,
            Write64 | Push64 if crosses => {
                let jump = u64::from(u16::from_le_bytes(JMP));
                operand = operand & !(0xffff << 32) | jump << 32;
            }
            _ => {}
        }
        let last = u64::from(PAGE) - 1;
        let offset = match (kind, crosses) {
            (Fetch, true) => CROSSING_CODE.into(),
            (Fetch, false) => CODE.into(),
            (Read32 | Read64, true) => last - self.writer.rng.u64(..kind.size() - 1),
            (_, true) => last,
            (Write32, false) if operand.is_multiple_of(4) => u64::from(CODE) + 1,
            (_, false) => self.data_offset(),
        };
        if kind == Modify32 {
            operand &= u64::from(u32::MAX);
        }
        let offset = if kind.is_push() {
            offset + kind.size()
        } else {
            offset
        };
        self.writer.access(kind, page + offset, operand);
    }

    /// Copies data, or the end of one page and the start of the next to the same place of others, code and all.
    fn copy(&mut self) {
        let [from, to] = [self.page(), self.page()];
        let both = [from, to].map(|page| self.has_next(page));
        let count = self.writer.rng.u8(1..17);
        if both == [true; 2] && self.writer.rng.bool() {
            let offset = u64::from(PAGE - 4 * self.writer.rng.u32(1..9));
            return self.writer.copy(from + offset, to + offset, count.max(10));
        }
        let offsets =
            [(); 2].map(|()| u64::from(self.writer.rng.u32(DATA.start..DATA.end - 64) & !3));
        self.writer.copy(from + offsets[0], to + offsets[1], count);
    }

    /// Reads all pages, or many if there are many.
    fn visit_all(&mut self) {
        let pages = self.writer.pages.clone();
        for page in self.writer.rng.choose_multiple(pages, VISITED) {
            let offset = self.data_offset();
            self.writer.access(Operation::Read32, page + offset, 0);
        }
    }
}
