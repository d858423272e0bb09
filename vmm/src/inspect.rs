//! Looking into a machine that stands still, and changing what is in its memory.
//!
//! Linear addresses go through the guest's page tables as they are now, whatever the processor's privilege. No A or D bit is
//! set. Reading has no effect on the guest; what is written takes effect at once, in code too. Changed page tables are the
//! guest's own affair: it may use the translations of before until it flushes them, as on hardware.

use mmu::{GuestPhys, LinearAddr, NoTranslation, NotRam, PAGE_SIZE};
use sbe::cpu::Cpu;
use thiserror::Error;

use crate::vm::Vm;

/// Why memory was neither read nor written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AccessError {
    /// The page tables map nothing there.
    #[error("linear address {:08x} is not mapped{}", .address.get(), because(.reason))]
    NotMapped {
        /// The first such address.
        address: LinearAddr,
        /// What is wrong with the entries.
        reason: NoTranslation,
    },
    /// Neither RAM nor ROM is there. The addresses of devices are not read, since that may have effects.
    #[error(transparent)]
    NotMemory(#[from] NotRam),
    /// The range ends beyond the last linear address, FFFF_FFFFh.
    #[error("{len} bytes at linear address {:08x} do not end below 4 GiB", .address.get())]
    TooLong {
        /// First byte of the range.
        address: LinearAddr,
        /// Bytes of the range.
        len: usize,
    },
}

fn because(reason: &NoTranslation) -> &'static str {
    match reason {
        NoTranslation::NotPresent => "",
        NoTranslation::Reserved => ": an entry sets reserved bits",
    }
}

/// Some bytes of an access, in one page.
struct Piece {
    addr: GuestPhys,
    /// Where they lie in the access.
    start: usize,
    len: usize,
}

impl Vm {
    /// The processor's registers. EIP is the next instruction's.
    pub fn registers(&self) -> &Cpu {
        &self.vcpu().cpu
    }

    /// Reads memory by linear address.
    ///
    /// # Errors
    /// If a byte of it cannot be read. `out` is then unchanged.
    pub fn read_memory(&self, address: LinearAddr, out: &mut [u8]) -> Result<(), AccessError> {
        for Piece { addr, start, len } in self.pieces(address, out.len())? {
            self.read_physical(addr, &mut out[start..start + len])?;
        }
        Ok(())
    }

    /// Writes memory by linear address, read-only pages and ROM too.
    ///
    /// # Errors
    /// If a byte of it cannot be written. Memory is then unchanged.
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
    /// If the page tables map nothing there.
    pub fn translate(&self, address: LinearAddr) -> Result<GuestPhys, AccessError> {
        let found = self.vcpu().mmu.walk(address);
        found
            .map(|translation| translation.phys)
            .map_err(|reason| AccessError::NotMapped { address, reason })
    }

    /// Where `len` bytes at a linear address are, all of them memory.
    fn pieces(&self, address: LinearAddr, len: usize) -> Result<Vec<Piece>, AccessError> {
        let end = address.get().checked_add(len as u64);
        if end.is_none_or(|end| end > 1 << 32) {
            return Err(AccessError::TooLong { address, len });
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
