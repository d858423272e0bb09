//! The page-directory-pointer-table registers of PAE paging (SDM Vol. 3A, 4.4.1 PDPTE Registers).
//!
//! They are loaded from memory by MOV to CR3 and the like, not by the walk: later stores to the table in memory have no effect
//! until the next load.

use super::control::PagingModel;
use super::entry::ReservedBits;
use crate::addr::{GuestPhys, LinearAddr};
use crate::memory::Memory;

const PRESENT: u64 = 1;
/// Bits 2:1 and 8:5, and bits 63:MAXPHYADDR too.
const RESERVED: u64 = 0x6 | 0x1e0;
/// CR3 bits 31:5 locate the table, which is 32-byte aligned.
const CR3_ADDRESS: u32 = !0x1f;
const COUNT: usize = 4;
const ENTRY_BYTES: u64 = 8;
/// Each register translates 1 GiB.
const REGION_SHIFT: u32 = 30;

/// The four registers: addresses of page directories, where present.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pdptes([Option<GuestPhys>; COUNT]);

impl Pdptes {
    /// Reads the table that `cr3` points to. A table outside RAM reads as all ones, which sets reserved bits.
    pub(super) fn load(
        memory: &Memory,
        cr3: u32,
        model: &PagingModel,
    ) -> Result<Self, ReservedBits> {
        let table = GuestPhys::new((cr3 & CR3_ADDRESS).into());
        let mut entries = [u64::MAX; COUNT];
        for (entry, index) in entries.iter_mut().zip(0..) {
            if let Ok(raw) = memory.load(table.with_offset(index * ENTRY_BYTES)) {
                *entry = raw;
            }
        }
        Self::decode(entries, model)
    }

    /// The registers as entries of a table, as [`Self::decode`] takes them.
    pub(crate) fn encode(&self) -> [u64; COUNT] {
        self.0
            .map(|directory| directory.map_or(0, |directory| directory.get() | PRESENT))
    }

    /// Takes the registers from entries of a table.
    pub(crate) fn decode(entries: [u64; COUNT], model: &PagingModel) -> Result<Self, ReservedBits> {
        let mut registers = [None; COUNT];
        for (register, raw) in registers.iter_mut().zip(entries) {
            *register = decode(raw, model)?;
        }
        Ok(Self(registers))
    }

    /// The page directory for `addr`.
    pub(super) fn directory(&self, addr: LinearAddr) -> Option<GuestPhys> {
        self.0[addr.get() as u32 as usize >> REGION_SHIFT]
    }
}

/// The page directory that an entry names, if it is present.
fn decode(raw: u64, model: &PagingModel) -> Result<Option<GuestPhys>, ReservedBits> {
    match raw {
        absent if absent & PRESENT == 0 => Ok(None),
        reserved if reserved & (RESERVED | u64::MAX << model.max_phys_addr) != 0 => {
            Err(ReservedBits)
        }
        present => Ok(Some(GuestPhys::new(present & model.frame_bits()))),
    }
}
