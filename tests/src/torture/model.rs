//! [`Model`]: paging as the SDM has it, Vol. 3A, chapter 4, written without a look at the engines' walker.
//!
//! Every access walks; nothing is cached. Where the manual leaves the outcome to the processor, [`super::generate`] does not ask.

use super::layout::END;

/// P, R/W, U/S, A, D, PS and G of an entry, and XD of PAE.
pub const P: u64 = 1;
/// Writable.
pub const W: u64 = 1 << 1;
/// For users.
pub const U: u64 = 1 << 2;
/// Accessed.
pub const A: u64 = 1 << 5;
/// Dirty.
pub const D: u64 = 1 << 6;
/// A directory's entry that maps a large page.
pub const PS: u64 = 1 << 7;
/// Global.
pub const G: u64 = 1 << 8;
/// Not for execution.
pub const XD: u64 = 1 << 63;

/// Bits of an error code (SDM Vol. 3A, 4.7 Page-Fault Exceptions).
const ERROR_P: u16 = 1;
const ERROR_W: u16 = 2;
const ERROR_U: u16 = 4;
const ERROR_RSVD: u16 = 8;
const ERROR_I: u16 = 16;

/// A paging mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 32-bit paging with CR4.PSE set.
    TwoLevel,
    /// PAE paging.
    Pae,
}

impl Mode {
    /// Bytes of an entry.
    pub fn entry(self) -> u32 {
        match self {
            Self::TwoLevel => 4,
            Self::Pae => 8,
        }
    }

    /// Entries of a structure.
    pub fn entries(self) -> u32 {
        super::layout::PAGE / self.entry()
    }

    /// Bytes that a directory's entry maps.
    pub fn large(self) -> u32 {
        self.entries() * super::layout::PAGE
    }

    /// The reserved bits of a directory's entry that maps a large page, above its address's lowest bit that can be 1. In 2-level
    /// paging, bits 20:13 are address bits of PSE-36, of which bit 20 is beyond those of any processor model here.
    pub fn large_reserved(self) -> u64 {
        match self {
            Self::TwoLevel => 1 << 21,
            Self::Pae => 0xff << 13,
        }
    }
}

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
    /// The directory's entry, unless the pointer register is not present.
    pub directory: Option<Entry>,
    /// The page table's, if there is a page table.
    pub table: Option<Entry>,
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
    /// The entries, the directory's first.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.directory.into_iter().chain(self.table)
    }

    /// The entry that maps the page.
    pub fn leaf(&self) -> Option<Entry> {
        self.table.or(self.directory)
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
    pub fn new() -> Self {
        Self {
            memory: vec![0; END as usize],
            mode: Mode::TwoLevel,
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
            Mode::Pae => u64::from_le_bytes(self.bytes(address)),
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
    pub fn walk(&self, linear: u32) -> Walk {
        let mut walk = Walk {
            directory: None,
            table: None,
            result: Err(Obstacle::Absent),
        };
        let (size, large) = (self.mode.entry(), self.mode.large());
        let directory = match self.mode {
            Mode::TwoLevel => self.cr3,
            Mode::Pae => {
                let pointer = self.pointers[(linear >> 30) as usize];
                if pointer & P == 0 {
                    return walk;
                }
                pointer as u32 & !0xfff
            }
        };
        let index = linear / large % self.mode.entries();
        let upper = self.entry(directory + index * size);
        walk.directory = Some(upper);
        walk.result = self.look_up(linear, upper, &mut walk.table);
        walk
    }

    /// The page that the directory's entry `upper` leads to.
    fn look_up(
        &self,
        linear: u32,
        upper: Entry,
        table: &mut Option<Entry>,
    ) -> Result<Page, Obstacle> {
        self.usable(upper.value)?;
        let large = self.mode.large();
        if upper.value & PS != 0 {
            if upper.value & self.mode.large_reserved() != 0 {
                return Err(Obstacle::Reserved);
            }
            let base = upper.value as u32 & !(large - 1);
            return Ok(self.page(base + linear % large, upper.value, upper.value));
        }
        let index = linear % large / super::layout::PAGE;
        let lower = self.entry((upper.value as u32 & !0xfff) + index * self.mode.entry());
        *table = Some(lower);
        self.usable(lower.value)?;
        let physical = lower.value as u32 & !0xfff | linear & 0xfff;
        Ok(self.page(physical, upper.value, lower.value))
    }

    fn page(&self, physical: u32, upper: u64, lower: u64) -> Page {
        Page {
            physical,
            rights: upper & lower & (W | U) | (upper | lower) & XD,
            global: self.global && lower & G != 0,
        }
    }

    /// Fails unless a present entry has no reserved bit set that it has at every level.
    fn usable(&self, value: u64) -> Result<(), Obstacle> {
        if value & P == 0 {
            return Err(Obstacle::Absent);
        }
        // Bits 62:52 are reserved whatever MAXPHYADDR is; the scripts set no bits between.
        let mut reserved = 0;
        if self.mode == Mode::Pae {
            reserved |= 0x7ff << 52;
            if !self.execute_disable {
                reserved |= XD;
            }
        }
        match value & reserved {
            0 => Ok(()),
            _ => Err(Obstacle::Reserved),
        }
    }

    /// Checks an access at CPL 3 (`user`) or 0 that lies in one page: its physical address, or the error code.
    pub fn check(&self, linear: u32, access: Access, user: bool) -> Result<u32, u16> {
        let mut error = 0;
        if access == Access::Write {
            error |= ERROR_W;
        }
        if user {
            error |= ERROR_U;
        }
        if access == Access::Fetch && self.mode == Mode::Pae && self.execute_disable {
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
    pub fn mark(&mut self, linear: u32, access: Access) {
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
