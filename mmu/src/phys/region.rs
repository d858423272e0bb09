//! The guest-physical map of a PC: which addresses are RAM, ROM and device.

use crate::addr::GuestPhys;

/// The legacy video memory: belongs to the bus (ISA memory map, 0xA0000..=0xBFFFF).
const VIDEO: u64 = 0xa_0000;

/// Option ROMs and the system BIOS, up to the first megabyte.
const ROM: u64 = 0xc_0000;

/// Where RAM resumes.
const HIGH: u64 = 0x10_0000;

/// What answers at a guest-physical address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegionKind {
    /// Reads and writes go to RAM.
    Ram,
    /// Reads go to RAM, guest stores are ignored. The host may write it.
    Rom,
    /// Not memory: the access goes to the bus.
    Device,
}

impl RegionKind {
    /// The kind at `addr` with `ram_size` bytes of RAM (at least 1 MiB).
    #[inline]
    pub(super) fn of(addr: GuestPhys, ram_size: u64) -> Self {
        match addr.get() {
            VIDEO..ROM => Self::Device,
            ROM..HIGH => Self::Rom,
            addr if addr < ram_size => Self::Ram,
            _ => Self::Device,
        }
    }
}

/// Whether all `len` bytes from `addr` are RAM or ROM.
pub(super) fn is_memory(addr: GuestPhys, len: u64, ram_size: u64) -> bool {
    let start = addr.get();
    let Some(end) = start.checked_add(len) else {
        return false;
    };
    end <= VIDEO || (start >= ROM && end <= ram_size)
}
