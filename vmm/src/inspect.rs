//! Reading and writing the memory of a machine that stands still.
//!
//! Linear addresses go through the guest's page tables as they are now, whatever the processor's privilege; no A or D bit is
//! set. Reading has no effect on the guest. Writing takes effect at once, in code too; but after a write to page tables the guest
//! may use the old translations until it flushes them, as on hardware.

use mmu::{GuestPhys, LinearAddr, NoTranslation, NotRam, PAGE_SIZE};
use thiserror::Error;

use crate::{
    linear::{Linear, Width},
    vm::Vm,
};

/// The reason why memory could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AccessError {
    /// The page tables do not map part of the range.
    #[error("linear address {} is not mapped{}", Linear(*.address), because(.reason))]
    NotMapped {
        /// The first address that is not mapped.
        address: LinearAddr,
        /// The reason why the page tables do not map the address.
        reason: NoTranslation,
    },
    /// Part of the range is neither RAM nor ROM. Devices are not accessed, since even a read may have side effects.
    #[error(transparent)]
    NotMemory(#[from] NotRam),
    /// The range ends above the last linear address of a processor outside long mode, 0xffff_ffff.
    #[error("{len} bytes at linear address {} do not end below 4 GiB", Linear(*.address))]
    TooLong {
        /// The first address of the range.
        address: LinearAddr,
        /// The length of the range in bytes.
        len: usize,
    },
    /// The processor is in long mode, and part of the range has addresses that are not canonical.
    #[error("{len} bytes at linear address {} are not all at canonical addresses", Linear(*.address))]
    NotCanonical {
        /// The first address of the range.
        address: LinearAddr,
        /// The length of the range in bytes.
        len: usize,
    },
}

fn because(reason: &NoTranslation) -> &'static str {
    match reason {
        NoTranslation::NotPresent => "",
        NoTranslation::Reserved => ": an entry sets reserved bits",
        NoTranslation::NonCanonical => ": it is not canonical",
    }
}

/// The part of an access that lies in one page.
struct Piece {
    addr: GuestPhys,
    /// Offset of the part in the access.
    start: usize,
    len: usize,
}

impl Vm {
    /// Reads memory by linear address.
    ///
    /// # Errors
    /// If a byte of the range cannot be read. `out` is then unchanged.
    pub fn read_memory(&self, address: LinearAddr, out: &mut [u8]) -> Result<(), AccessError> {
        for Piece { addr, start, len } in self.pieces(address, out.len())? {
            self.read_physical(addr, &mut out[start..start + len])?;
        }
        Ok(())
    }

    /// Writes memory by linear address, read-only pages and ROM too.
    ///
    /// # Errors
    /// If a byte of the range cannot be written. Memory is then unchanged.
    pub fn write_memory(&mut self, address: LinearAddr, data: &[u8]) -> Result<(), AccessError> {
        for Piece { addr, start, len } in self.pieces(address, data.len())? {
            self.write_physical(addr, &data[start..start + len])?;
        }
        Ok(())
    }

    /// Reads memory by guest-physical address.
    ///
    /// # Errors
    /// If a byte of the range is not memory. `out` is then unchanged.
    pub fn read_physical(&self, address: GuestPhys, out: &mut [u8]) -> Result<(), AccessError> {
        Ok(self.vcpu().mmu.memory().read(address, out)?)
    }

    /// Writes memory by guest-physical address, ROM too.
    ///
    /// # Errors
    /// If a byte of the range is not memory. Memory is then unchanged.
    pub fn write_physical(&mut self, address: GuestPhys, data: &[u8]) -> Result<(), AccessError> {
        Ok(self.vcpu().mmu.memory().write(address, data)?)
    }

    /// The guest-physical address that a linear address stands for.
    ///
    /// # Errors
    /// If the page tables do not map it.
    pub fn translate(&self, address: LinearAddr) -> Result<GuestPhys, AccessError> {
        let found = self.vcpu().mmu.walk(address);
        found
            .map(|translation| translation.phys)
            .map_err(|reason| AccessError::NotMapped { address, reason })
    }

    /// Splits `len` bytes at a linear address, all of them memory, by pages.
    fn pieces(&self, address: LinearAddr, len: usize) -> Result<Vec<Piece>, AccessError> {
        let width = Width::of(&self.vcpu().cpu);
        if !width.has_range(address, len as u64) {
            return Err(match width {
                Width::Bits32 => AccessError::TooLong { address, len },
                Width::Bits64 => AccessError::NotCanonical { address, len },
            });
        }
        let mut pieces = Vec::new();
        let mut start = 0;
        while start < len {
            let address = LinearAddr::new(address.get() + start as u64);
            let room = PAGE_SIZE - address.offset() as usize;
            let piece = Piece {
                addr: self.translate(address)?,
                start,
                len: room.min(len - start),
            };
            self.read_physical(piece.addr, &mut [0; PAGE_SIZE][..piece.len])?;
            start += piece.len;
            pieces.push(piece);
        }
        Ok(pieces)
    }
}
