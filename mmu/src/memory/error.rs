//! [`MemoryError`] and [`NotRam`]: why there is no guest memory, or none at an address.

use std::io;

use thiserror::Error;

use super::map::ABOVE;
use super::{MAX_RAM, MIN_RAM, MOST_BYTES, MapError};
use crate::addr::GuestPhys;

/// The reason why guest memory could not be created.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The size is out of range or not a multiple of the page size.
    #[error(
        "guest memory of {bytes} bytes: must be a multiple of 4096 between {MIN_RAM} (1 MiB) and {MAX_RAM} (32 GiB)"
    )]
    Size {
        /// The size asked for, in bytes.
        bytes: u64,
    },
    /// The memfd could not be created, sized or sealed.
    #[error("cannot create the memory file: {0}")]
    File(io::Error),
    /// The file to restore guest memory from is not one that [`Memory::file`](super::Memory::file) gives.
    #[error("the memory file is no sealed memfd of {ABOVE} to {MOST_BYTES} bytes in whole pages")]
    Foreign,
    /// The map of a saved memory is invalid.
    #[error("memory map: {0}")]
    Map(MapError),
    /// The host granted no address space.
    #[error("cannot map guest memory: {0}")]
    AddressSpace(io::Error),
    /// For processors with 48-bit linear addresses, there is no place at which the same addresses are free in each terabyte of
    /// the process.
    #[error(
        "cannot map guest memory for a 64-bit processor: nowhere in this process are the same {bytes} bytes of addresses free in \
         each of its 128 TiB; it has too many machines or other mappings"
    )]
    Crowded {
        /// Bytes of guest memory.
        bytes: usize,
    },
    /// The memory was made for processors with 32-bit linear addresses, and this one has 48-bit ones.
    #[error("this guest memory was made for 32-bit processors, not for a 64-bit one")]
    Narrow,
    /// The TLB tables could not be reserved.
    #[error("cannot reserve {bytes} bytes of address space for the TLB tables: {reason}")]
    Tables {
        /// The size of all tables, in bytes.
        bytes: usize,
        /// The host's error.
        reason: io::Error,
    },
}

impl From<MapError> for MemoryError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

/// The error of an access to a guest-physical range that is not wholly RAM or ROM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{len} bytes at guest-physical {addr} are not memory")]
pub struct NotRam {
    /// First byte of the range.
    pub addr: GuestPhys,
    /// Length of the range in bytes.
    pub len: usize,
}
