//! Bit layouts of paging-structure entries.
//!
//! ```text
//!              63 62 .. 36 35 ............ 12 11..9  8  7  6  5  4 3  2   1  0
//!   PAE PTE    XD  resv.     frame                   G PAT D  A      U/S R/W P
//!   PAE PDE    XD  resv.     frame, or 2 MiB page:   G PS  D  A      U/S R/W P
//!                            bits 20:13 reserved
//!   32-bit PTE              31 .. 12 frame           G PAT D  A      U/S R/W P
//!   32-bit PDE              31 .. 12 frame, or 4 MiB page: 31:22 address, 21:17 reserved,
//!                                    16:13 address bits 35:32 (PSE-36), 12 PAT
//! ```

use super::MAX_PHYS_ADDR;
use super::control::Paging;
use super::entry::{Entry, Permissions, ReservedBits};
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
    fn decode(raw: u64, level: u32, paging: &Paging) -> Result<Entry, ReservedBits>;
}

/// 32-bit paging (SDM Vol. 3A, 4.3 32-Bit Paging).
pub(super) struct TwoLevel;

impl TwoLevel {
    const TABLE: u64 = bits(31, PAGE_SHIFT);
    const LARGE_LOW: u64 = bits(31, 22);
    /// PSE-36: the bits of a large-page entry that hold address bits MAXPHYADDR-1:32.
    const LARGE_HIGH: u64 = bits(MAX_PHYS_ADDR - 20, 13);
    const LARGE_HIGH_SHIFT: u32 = 32 - 13;
    const LARGE_RESERVED: u64 = bits(21, MAX_PHYS_ADDR - 19);
}

impl Format for TwoLevel {
    const LEVELS: u32 = 2;
    const INDEX_BITS: u32 = 10;
    const ENTRY_SHIFT: u32 = 2;

    fn load(memory: &Memory, addr: GuestPhys) -> u64 {
        memory.load::<u32>(addr).unwrap_or(u32::MAX).into()
    }

    fn decode(raw: u64, level: u32, paging: &Paging) -> Result<Entry, ReservedBits> {
        if raw & PRESENT == 0 {
            return Ok(Entry::Absent);
        }
        if level == 1 {
            return Ok(mapped(raw, raw & Self::TABLE));
        }
        if raw & PAGE_SIZE_BIT == 0 || !paging.pse {
            return Ok(table(raw, raw & Self::TABLE));
        }
        if raw & Self::LARGE_RESERVED != 0 {
            return Err(ReservedBits);
        }
        Ok(mapped(
            raw,
            (raw & Self::LARGE_LOW) | (raw & Self::LARGE_HIGH) << Self::LARGE_HIGH_SHIFT,
        ))
    }
}

/// PAE paging below the pointer registers (SDM Vol. 3A, 4.4.2 Linear-Address Translation with PAE Paging).
pub(super) struct Pae;

impl Pae {
    const TABLE: u64 = bits(MAX_PHYS_ADDR - 1, PAGE_SHIFT);
    const LARGE: u64 = bits(MAX_PHYS_ADDR - 1, 21);
    const RESERVED: u64 = bits(62, MAX_PHYS_ADDR);
    const LARGE_RESERVED: u64 = bits(20, 13);
}

impl Format for Pae {
    const LEVELS: u32 = 2;
    const INDEX_BITS: u32 = 9;
    const ENTRY_SHIFT: u32 = 3;

    fn load(memory: &Memory, addr: GuestPhys) -> u64 {
        memory.load::<u64>(addr).unwrap_or(u64::MAX)
    }

    fn decode(raw: u64, level: u32, paging: &Paging) -> Result<Entry, ReservedBits> {
        if raw & PRESENT == 0 {
            return Ok(Entry::Absent);
        }
        let execute_disable = if paging.nxe { 0 } else { EXECUTE_DISABLE };
        let large = level > 1 && raw & PAGE_SIZE_BIT != 0;
        let large_reserved = if large { Self::LARGE_RESERVED } else { 0 };
        if raw & (Self::RESERVED | execute_disable | large_reserved) != 0 {
            return Err(ReservedBits);
        }
        Ok(match (level, large) {
            (_, true) => mapped(raw, raw & Self::LARGE),
            (1, _) => mapped(raw, raw & Self::TABLE),
            _ => table(raw, raw & Self::TABLE),
        })
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
