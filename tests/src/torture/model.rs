//! [`Model`]: paging as the SDM has it, Vol. 3A, chapter 4, written without a look at the engines' walker.
//!
//! Every access walks; nothing is cached. Where the manual leaves the outcome to the processor, [`super::generate`] does not ask.

use super::format::{A, D, G, Mode, P, PS, U, W, XD};
use super::layout::END;

/// Bits of an error code (SDM Vol. 3A, 4.7 Page-Fault Exceptions).
const ERROR_P: u16 = 1;
const ERROR_W: u16 = 2;
const ERROR_U: u16 = 4;
const ERROR_RSVD: u16 = 8;
const ERROR_I: u16 = 16;

/// The most levels of paging structures in memory.
const LEVELS: usize = 4;

/// How memory is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A read of data.
    Read,
    /// A write, or a read that a write follows.
    Write,
    /// A fetch of an instruction.
    Fetch,
}

/// An entry that a walk has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its physical address.
    pub address: u32,
    /// Its value.
    pub value: u64,
}

/// The walk for a linear address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The entries, the top one's first. There is none if a pointer register is not present.
    entries: [Option<Entry>; LEVELS],
    /// The translation.
    pub result: Result<Page, Obstacle>,
}

/// A page that a walk has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Physical address that the linear address leads to.
    pub physical: u32,
    /// The rights that all levels give: W, U and, if it may not be executed, XD.
    rights: u64,
    /// Whether it is global.
    pub global: bool,
}

/// A reason why a walk finds no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// P is 0.
    Absent,
    /// Reserved bits are set.
    Reserved,
}

impl Walk {
    /// The entries, the top one's first.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.entries.into_iter().flatten()
    }

    /// The entry that the walk ended with: if it has found a page, the one that maps it.
    pub fn leaf(&self) -> Option<Entry> {
        self.entries().last()
    }

    /// The entries that lead to those below them.
    pub fn uppers(&self) -> impl Iterator<Item = Entry> {
        self.entries()
            .take(self.entries().count().saturating_sub(1))
    }
}

/// Memory and the registers that bear on paging.
#[derive(Debug)]
pub struct Model {
    memory: Vec<u8>,
    /// The paging mode.
    pub mode: Mode,
    /// CR0.WP.
    pub write_protect: bool,
    /// CR4.PGE.
    pub global: bool,
    /// EFER.NXE.
    pub execute_disable: bool,
    cr3: u32,
    pointers: [u64; 4],
}

impl Model {
    /// Creates a machine whose memory is all zeros.
    pub fn new(mode: Mode) -> Self {
        Self {
            memory: vec![0; END as usize],
            mode,
            write_protect: false,
            global: false,
            execute_disable: false,
            cr3: 0,
            pointers: [0; 4],
        }
    }

    /// Reads `N` bytes.
    pub fn bytes<const N: usize>(&self, address: u32) -> [u8; N] {
        let at = address as usize;
        self.memory[at..at + N].try_into().expect("N bytes")
    }

    /// Reads a doubleword.
    pub fn word(&self, address: u32) -> u32 {
        u32::from_le_bytes(self.bytes(address))
    }

    /// Writes bytes.
    pub fn write(&mut self, address: u32, bytes: &[u8]) {
        let at = address as usize;
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Reads an entry of the present format.
    pub fn entry(&self, address: u32) -> Entry {
        let value = match self.mode {
            Mode::TwoLevel => self.word(address).into(),
            Mode::Pae | Mode::FourLevel => u64::from_le_bytes(self.bytes(address)),
        };
        Entry { address, value }
    }

    /// Stores an entry of the present format.
    pub fn set_entry(&mut self, address: u32, value: u64) {
        let size = self.mode.entry() as usize;
        self.write(address, &value.to_le_bytes()[..size]);
    }

    /// Loads CR3, and the pointer registers from memory (SDM Vol. 3A, 4.4.1 PDPTE Registers).
    pub fn load_cr3(&mut self, value: u32) {
        self.cr3 = value;
        if self.mode == Mode::Pae {
            self.pointers = [0, 8, 16, 24].map(|offset| self.entry(value + offset).value);
        }
    }

    /// CR3.
    pub fn cr3(&self) -> u32 {
        self.cr3
    }

    /// Walks for a linear address.
    pub fn walk(&self, linear: u64) -> Walk {
        let mut walk = Walk {
            entries: [None; LEVELS],
            result: Err(Obstacle::Absent),
        };
        if let Some(top) = self.top(linear) {
            walk.result = self.look_up(linear, top, &mut walk.entries);
        }
        walk
    }

    /// The topmost structure that translates a linear address.
    fn top(&self, linear: u64) -> Option<u32> {
        match self.mode {
            Mode::TwoLevel | Mode::FourLevel => Some(self.cr3),
            Mode::Pae => {
                let pointer = self.pointers[(linear >> 30) as usize];
                (pointer & P != 0).then_some(pointer as u32 & !0xfff)
            }
        }
    }

    /// The page that `top` leads to, and the `entries` on the way.
    fn look_up(
        &self,
        linear: u64,
        top: u32,
        entries: &mut [Option<Entry>; LEVELS],
    ) -> Result<Page, Obstacle> {
        let mode = self.mode;
        let mut structure = top;
        let (mut all, mut any) = (u64::MAX, 0);
        for (level, place) in (1..=mode.levels()).rev().zip(entries) {
            let entry = self.entry(structure + mode.index(level, linear) * mode.entry());
            *place = Some(entry);
            self.usable(entry.value, level)?;
            (all, any) = (all & entry.value, any | entry.value);
            if level == 1 || entry.value & PS != 0 {
                let offset = mode.bytes(level) as u32 - 1;
                return Ok(Page {
                    physical: entry.value as u32 & !offset | linear as u32 & offset,
                    rights: all & (W | U) | any & XD,
                    global: self.global && entry.value & G != 0,
                });
            }
            structure = entry.value as u32 & !0xfff;
        }
        unreachable!("page tables lead to no structures")
    }

    /// Fails unless an entry of `level` is present and has no reserved bit set.
    fn usable(&self, value: u64, level: u32) -> Result<(), Obstacle> {
        if value & P == 0 {
            return Err(Obstacle::Absent);
        }
        let mut reserved = self.mode.reserved();
        if self.mode != Mode::TwoLevel && !self.execute_disable {
            reserved |= XD;
        }
        if level > 1 && value & PS != 0 {
            reserved |= self.mode.large_reserved(level);
        }
        match value & reserved {
            0 => Ok(()),
            _ => Err(Obstacle::Reserved),
        }
    }

    /// Checks an access at CPL 3 (`user`) or 0 that lies in one page: its physical address, or the error code.
    pub fn check(&self, linear: u64, access: Access, user: bool) -> Result<u32, u16> {
        let mut error = 0;
        if access == Access::Write {
            error |= ERROR_W;
        }
        if user {
            error |= ERROR_U;
        }
        if access == Access::Fetch && self.mode != Mode::TwoLevel && self.execute_disable {
            error |= ERROR_I;
        }
        let page = match self.walk(linear).result {
            Ok(page) => page,
            Err(Obstacle::Absent) => return Err(error),
            Err(Obstacle::Reserved) => return Err(error | ERROR_P | ERROR_RSVD),
        };
        let has = |right| page.rights & right != 0;
        let allowed = match access {
            Access::Fetch if has(XD) => false,
            _ if user && !has(U) => false,
            Access::Write => has(W) || !user && !self.write_protect,
            Access::Read | Access::Fetch => true,
        };
        if allowed {
            Ok(page.physical)
        } else {
            Err(error | ERROR_P)
        }
    }

    /// Sets A, and D where it is due, for an access that has happened (SDM Vol. 3A, 4.8 Accessed and Dirty Flags).
    pub fn mark(&mut self, linear: u64, access: Access) {
        let walk = self.walk(linear);
        for entry in walk.entries() {
            self.set_bits(entry.address, A);
        }
        if let (Access::Write, Some(leaf)) = (access, walk.leaf()) {
            self.set_bits(leaf.address, D);
        }
    }

    /// Sets bits among the low 32 of an entry.
    pub fn set_bits(&mut self, address: u32, bits: u64) {
        let value = self.word(address) | bits as u32;
        self.write(address, &value.to_le_bytes());
    }
}
