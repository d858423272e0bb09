//! Bit layouts of paging-structure entries. M is MAXPHYADDR, [`PagingModel::max_phys_addr`].
//!
//! ```text
//!                 63 62 .. 52 51 .. M M-1 ........... 12 11..9  8  7  6  5  4 3  2   1  0
//!   PTE           XD ignored  resv.   frame                    G PAT D  A      U/S R/W P
//!   PDE, PDPTE    XD ignored  resv.   frame, or 2 MiB or 1 GiB G PS  D  A      U/S R/W P
//!                                     page: bits up to its size
//!                                     but 12 (PAT) reserved
//!   PML4E         XD ignored  resv.   frame                      0      A      U/S R/W P
//!   32-bit PTE                       31 .. 12 frame            G PAT D  A      U/S R/W P
//!   32-bit PDE                       31 .. 12 frame, or 4 MiB page: 31:22 address, 21:M-19 reserved,
//!                                             M-20:13 address bits M-1:32 (PSE-36), 12 PAT
//! ```
//!
//! Entries of PAE paging are those of 4-level paging, but for bits 62:52, which are reserved.

use super::control::PagingModel;
use super::entry::{Entry, Permissions, ReservedBits};
use super::registers::Registers;
use crate::addr::{GuestPhys, PAGE_SHIFT};
use crate::memory::Memory;

pub(crate) const PRESENT: u64 = 1 << 0;
pub(crate) const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// A: set by the walker in every entry it uses.
pub(crate) const ACCESSED: u64 = 1 << 5;
/// D: set by the walker in the entry that maps a written page.
pub(crate) const DIRTY: u64 = 1 << 6;
const PAGE_SIZE_BIT: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
/// Bits that the processor ignores.
pub(crate) const SOFTWARE: u64 = 0b111 << 9;
const EXECUTE_DISABLE: u64 = 1 << 63;

/// Bits `low..=high` set.
const fn bits(high: u32, low: u32) -> u64 {
    (u64::MAX >> (63 - high)) & (u64::MAX << low)
}

/// A paging-structure format: its levels, the width of entries, and the meaning of their bits. Levels count down to 1, the page
/// table.
pub(super) trait Format {
    /// The number of levels held in memory.
    const LEVELS: u32;
    /// Bits of the linear address that index a structure.
    const INDEX_BITS: u32;
    /// log2 of the bytes of an entry.
    const ENTRY_SHIFT: u32;

    /// Reads the entry at `addr`, which is all ones outside RAM and ROM, like an empty bus.
    fn load(memory: &Memory, addr: GuestPhys) -> u64;

    /// Decodes an entry of `level`.
    fn decode(raw: u64, level: u32, registers: &Registers) -> Result<Entry, ReservedBits>;
}

/// 32-bit paging (SDM Vol. 3A, 4.3 32-Bit Paging).
pub(super) struct TwoLevel;

impl TwoLevel {
    const TABLE: u64 = bits(31, PAGE_SHIFT);
    const LARGE_LOW: u64 = bits(31, 22);
    const LARGE_HIGH_SHIFT: u32 = 32 - 13;
    /// Most bits of an address that a large page can have.
    const MOST_ADDR: u32 = 40;

    /// The address of a large page, unless reserved bits are set.
    fn large(raw: u64, model: &PagingModel) -> Result<u64, ReservedBits> {
        let width = model.max_phys_addr.min(Self::MOST_ADDR);
        if raw & bits(21, width - 19) != 0 {
            return Err(ReservedBits);
        }
        let high = (raw & bits(width - 20, 13)) << Self::LARGE_HIGH_SHIFT;
        Ok(raw & Self::LARGE_LOW | high)
    }
}

impl Format for TwoLevel {
    const LEVELS: u32 = 2;
    const INDEX_BITS: u32 = 10;
    const ENTRY_SHIFT: u32 = 2;

    fn load(memory: &Memory, addr: GuestPhys) -> u64 {
        memory.load::<u32>(addr).unwrap_or(u32::MAX).into()
    }

    fn decode(raw: u64, level: u32, registers: &Registers) -> Result<Entry, ReservedBits> {
        if raw & PRESENT == 0 {
            Ok(Entry::Absent)
        } else if level == 1 {
            Ok(mapped(raw, raw & Self::TABLE))
        } else if raw & PAGE_SIZE_BIT == 0 || !registers.paging.pse {
            Ok(table(raw, raw & Self::TABLE))
        } else {
            Ok(mapped(raw, Self::large(raw, &registers.model)?))
        }
    }
}

/// The fields of an entry of 8 bytes.
struct Wide {
    /// Whether the entry maps a page.
    maps: bool,
    /// log2 of the bytes that it maps.
    shift: u32,
    /// The bits that are reserved at its level.
    reserved: u64,
}

impl Wide {
    /// Describes an entry of `level`; `large` says whether PS lets it map a page.
    fn new(raw: u64, level: u32, index_bits: u32, large: bool) -> Self {
        let shift = PAGE_SHIFT + (level - 1) * index_bits;
        let has_page_size = level > 1 && raw & PAGE_SIZE_BIT != 0;
        let reserved = match (has_page_size, large) {
            (false, _) => 0,
            (true, false) => PAGE_SIZE_BIT,
            (true, true) => bits(shift - 1, 13),
        };
        Self {
            maps: level == 1 || has_page_size,
            shift,
            reserved,
        }
    }

    fn decode(self, raw: u64, reserved: u64, registers: &Registers) -> Result<Entry, ReservedBits> {
        if raw & PRESENT == 0 {
            return Ok(Entry::Absent);
        }
        let execute_disable = if registers.paging.nxe {
            0
        } else {
            EXECUTE_DISABLE
        };
        if raw & (reserved | self.reserved | execute_disable) != 0 {
            return Err(ReservedBits);
        }
        let frame = raw & registers.model.frame_bits();
        Ok(if self.maps {
            mapped(raw, frame & u64::MAX << self.shift)
        } else {
            table(raw, frame)
        })
    }
}

/// PAE paging below the pointer registers (SDM Vol. 3A, 4.4.2 Linear-Address Translation with PAE Paging).
pub(super) struct Pae;

impl Format for Pae {
    const LEVELS: u32 = 2;
    const INDEX_BITS: u32 = 9;
    const ENTRY_SHIFT: u32 = 3;

    fn load(memory: &Memory, addr: GuestPhys) -> u64 {
        memory.load::<u64>(addr).unwrap_or(u64::MAX)
    }

    fn decode(raw: u64, level: u32, registers: &Registers) -> Result<Entry, ReservedBits> {
        let reserved = bits(62, registers.model.max_phys_addr);
        Wide::new(raw, level, Self::INDEX_BITS, true).decode(raw, reserved, registers)
    }
}

/// 4-level paging (SDM Vol. 3A, 4.5 4-Level Paging and 5-Level Paging).
pub(super) struct FourLevel;

impl FourLevel {
    /// Bits 62:52 are ignored.
    const LAST_RESERVED: u32 = 51;
}

impl Format for FourLevel {
    const LEVELS: u32 = 4;
    const INDEX_BITS: u32 = 9;
    const ENTRY_SHIFT: u32 = 3;

    fn load(memory: &Memory, addr: GuestPhys) -> u64 {
        memory.load::<u64>(addr).unwrap_or(u64::MAX)
    }

    fn decode(raw: u64, level: u32, registers: &Registers) -> Result<Entry, ReservedBits> {
        let model = &registers.model;
        let reserved = bits(Self::LAST_RESERVED, model.max_phys_addr);
        let large = level == 2 || level == 3 && model.gib_pages;
        Wide::new(raw, level, Self::INDEX_BITS, large).decode(raw, reserved, registers)
    }
}

fn table(raw: u64, base: u64) -> Entry {
    Entry::Table {
        base: GuestPhys::new(base),
        permissions: permissions(raw),
    }
}

fn mapped(raw: u64, base: u64) -> Entry {
    Entry::Mapped {
        base: GuestPhys::new(base),
        permissions: permissions(raw),
        global: raw & GLOBAL != 0,
        dirty: raw & DIRTY != 0,
    }
}

fn permissions(raw: u64) -> Permissions {
    Permissions {
        writable: raw & WRITABLE != 0,
        user: raw & USER != 0,
        executable: raw & EXECUTE_DISABLE == 0,
    }
}
