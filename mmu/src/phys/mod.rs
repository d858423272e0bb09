//! Guest-physical memory: RAM in one memfd, mapped once, and the map of what is RAM, ROM and device.
//!
//! ```text
//!   0        0xA0000    0xC0000   0x100000                    size()
//!   ├── RAM ────┼─ device ──┼── ROM ──┼── RAM ──────────────────┼── device ...
//! ```
//!
//! The mapping is contiguous from guest-physical 0 (the bytes behind the device hole are not used), so a host address
//! is base + guest-physical address. The memfd stays reachable: windows on it can be mapped elsewhere.
//!
//! Every store that goes through this module, from the guest or from the host, is recorded: the frame's `written`
//! timestamp advances, and if code was scanned there, [`PhysMemory::code_epoch`] does too.

mod frames;
mod region;

use std::fmt;
use std::fs::File;
use std::iter;
use std::ops::Range;
use std::sync::Arc;

use nix::libc;
use thiserror::Error;
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion, VolatileMemory,
    VolatileSlice,
};

use crate::addr::{Frame, GuestPhys, PAGE_SIZE};
use crate::memfd;
use crate::scalar::Scalar;
use frames::Frames;
pub use frames::{Attribute, Timestamp};
pub use region::RegionKind;

/// Least guest RAM: everything below the first megabyte exists (1 MiB).
pub const MIN_RAM: u64 = 1 << 20;

/// Most guest RAM: the rest of the 32-bit space is for devices (3.5 GiB).
pub const MAX_RAM: u64 = 0xe000_0000;

/// Why guest memory could not be created.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The size is out of range or not a multiple of the page size.
    #[error(
        "guest memory of {bytes} bytes: must be a multiple of 4096 between {MIN_RAM} (1 MiB) and {MAX_RAM} (3.5 GiB)"
    )]
    Size {
        /// The size asked for, in bytes.
        bytes: u64,
    },
    /// The memfd could not be created, sized or sealed.
    #[error("cannot create the memory file of {bytes} bytes: {source}")]
    File {
        /// The size asked for, in bytes.
        bytes: u64,
        /// The host's error.
        source: std::io::Error,
    },
    /// The memfd could not be mapped.
    #[error("cannot map {bytes} bytes of guest memory: {source}")]
    Map {
        /// The size asked for, in bytes.
        bytes: u64,
        /// The error of the mapping.
        source: MmapRegionError,
    },
    /// The TLB tables could not be reserved.
    #[error("cannot reserve {bytes} bytes of address space for the TLB tables: {source}")]
    Tables {
        /// The size of all tables, in bytes.
        bytes: usize,
        /// The host's error.
        source: std::io::Error,
    },
}

/// A guest-physical range is not, or not wholly, RAM or ROM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{len} bytes at guest-physical {addr} are not memory")]
pub struct NotRam {
    /// First byte of the range.
    pub addr: GuestPhys,
    /// Length of the range in bytes.
    pub len: usize,
}

/// Guest RAM and what is known about each of its frames.
pub struct PhysMemory {
    ram: GuestMemoryMmap,
    mapping: Arc<MmapRegion>,
    file: FileOffset,
    size: u64,
    frames: Frames,
    code_epoch: u64,
}

impl PhysMemory {
    /// Creates `bytes` of zeroed RAM, between [`MIN_RAM`] and [`MAX_RAM`] and a multiple of the page size. No host
    /// memory is used until it is touched.
    pub fn new(bytes: u64) -> Result<Self, MemoryError> {
        if !(MIN_RAM..=MAX_RAM).contains(&bytes) || !bytes.is_multiple_of(PAGE_SIZE as u64) {
            return Err(MemoryError::Size { bytes });
        }
        let file = memfd::create(c"guest-ram", bytes)
            .map_err(|source| MemoryError::File { bytes, source })?;
        let file = FileOffset::new(file, 0);
        let mapping = MmapRegionBuilder::new(bytes as usize)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
            .with_file_offset(file.clone())
            .build()
            .map_err(|source| MemoryError::Map { bytes, source })?;
        let mapping = Arc::new(mapping);
        let region = GuestRegionMmap::with_arc(Arc::clone(&mapping), GuestAddress(0))
            .expect("a region that starts at 0 and ends below 4 GiB does not overflow");
        let ram =
            GuestMemoryMmap::from_regions(vec![region]).expect("a single region does not overlap");
        let frames = Frames::new(bytes / PAGE_SIZE as u64);
        Ok(Self {
            ram,
            mapping,
            file,
            size: bytes,
            frames,
            code_epoch: 0,
        })
    }

    /// The RAM as `vm-memory` sees it, for loaders. Stores made through it are not seen by the TLB and the code cache:
    /// follow them with [`PhysMemory::mark_written`].
    pub fn ram(&self) -> &GuestMemoryMmap {
        &self.ram
    }

    /// The memfd behind the RAM; guest-physical address = file offset.
    pub fn file(&self) -> &File {
        self.file.file()
    }

    /// Bytes of RAM, the holes in the first megabyte included.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What answers at `addr`.
    #[inline]
    pub fn region(&self, addr: GuestPhys) -> RegionKind {
        RegionKind::of(addr, self.size)
    }

    /// Reads RAM or ROM as the host.
    pub fn read(&self, addr: GuestPhys, out: &mut [u8]) -> Result<(), NotRam> {
        self.slice(addr, out.len())?.copy_to(out);
        Ok(())
    }

    /// Writes RAM or ROM as the host: a loader, a device, a debugger.
    pub fn write(&mut self, addr: GuestPhys, data: &[u8]) -> Result<(), NotRam> {
        self.slice(addr, data.len())?.copy_from(data);
        self.mark_written(addr, data.len() as u64);
        Ok(())
    }

    /// Reads a value from RAM or ROM.
    pub fn load<T: Scalar>(&self, addr: GuestPhys) -> Result<T, NotRam> {
        let not_ram = NotRam {
            addr,
            len: size_of::<T>(),
        };
        self.check(addr, size_of::<T>())?;
        let value = self
            .mapping
            .get_ref::<T>(addr.get() as usize)
            .map_err(|_| not_ram)?;
        Ok(value.load())
    }

    /// Stores a value as a guest does: ROM ignores it.
    pub fn store<T: Scalar>(&mut self, addr: GuestPhys, value: T) -> Result<(), NotRam> {
        self.store_bytes(addr, value.as_slice())
    }

    /// Stores bytes as a guest does: ROM ignores them. If any byte is not memory, none is stored.
    pub fn store_bytes(&mut self, mut addr: GuestPhys, mut data: &[u8]) -> Result<(), NotRam> {
        self.check(addr, data.len())?;
        while !data.is_empty() {
            let (piece, rest) = data.split_at(data.len().min(PAGE_SIZE - addr.offset() as usize));
            if self.region(addr) == RegionKind::Ram {
                self.write(addr, piece)?;
            }
            addr = addr.frame().next().base();
            data = rest;
        }
        Ok(())
    }

    /// Records that `len` bytes from `addr` were written by other means than this type's methods.
    pub fn mark_written(&mut self, addr: GuestPhys, len: u64) {
        for (frame, _) in self.pieces(addr, len) {
            if self.frames.written(frame) {
                self.code_epoch += 1;
            }
        }
    }

    /// The frames of RAM that hold some of `len` bytes from `addr`, each with the offsets of those in it.
    pub(crate) fn pieces(
        &self,
        addr: GuestPhys,
        len: u64,
    ) -> impl Iterator<Item = (Frame, Range<u32>)> + use<> {
        let end = addr.get().saturating_add(len).min(self.size);
        let mut next = addr.get();
        iter::from_fn(move || {
            let addr = GuestPhys::new(next);
            let room = PAGE_SIZE as u64 - u64::from(addr.offset());
            let len = end.checked_sub(next)?.min(room) as u32;
            next += u64::from(len);
            (len > 0).then(|| (addr.frame(), addr.offset()..addr.offset() + len))
        })
    }

    /// Whether `frame` has the attribute. Frames without RAM have none.
    #[inline]
    pub fn has(&self, frame: Frame, attribute: Attribute) -> bool {
        self.frames.has(frame, attribute)
    }

    /// When `frame` was last seen written. Exact for frames marked [`Attribute::Code`]; stores to other frames are
    /// recorded when they take the slow path, at least the first after all their write slots were dropped.
    pub fn written(&self, frame: Frame) -> Timestamp {
        self.frames.stamps(frame).written
    }

    /// When `frame` was last scanned for code.
    pub fn scanned(&self, frame: Frame) -> Timestamp {
        self.frames.stamps(frame).scanned
    }

    /// When code of `frame` was last executed, as far as [`PhysMemory::mark_executed`] was told: engines tell when they look the page up.
    pub fn executed(&self, frame: Frame) -> Timestamp {
        self.frames.stamps(frame).executed
    }

    /// Whether `frame` was written after it was scanned: what was made from the scan is void.
    pub fn stale(&self, frame: Frame) -> bool {
        let stamps = self.frames.stamps(frame);
        stamps.written > stamps.scanned
    }

    /// Records that code made from `frame` executes now.
    pub fn mark_executed(&mut self, frame: Frame) {
        self.frames.executed(frame);
    }

    /// Increases whenever a store, from guest or host, hits a frame marked [`Attribute::Code`].
    #[inline]
    pub fn code_epoch(&self) -> u64 {
        self.code_epoch
    }

    /// The frames whose stores advanced [`PhysMemory::code_epoch`] since the last call, each once.
    pub(crate) fn take_code_writes(&mut self) -> Vec<Frame> {
        self.frames.take_code_writes()
    }

    /// The 4096 bytes of `frame`; a frame without memory reads as all ones, like an empty bus.
    pub fn code_bytes(&self, frame: Frame) -> [u8; PAGE_SIZE] {
        let mut bytes = [0xff; PAGE_SIZE];
        if self.region(frame.base()) != RegionKind::Device
            && let Ok(slice) = self.slice(frame.base(), PAGE_SIZE)
        {
            slice.copy_to(&mut bytes);
        }
        bytes
    }

    pub(crate) fn frames_mut(&mut self) -> &mut Frames {
        &mut self.frames
    }

    pub(crate) fn mapping(&self) -> &Arc<MmapRegion> {
        &self.mapping
    }

    fn slice(&self, addr: GuestPhys, len: usize) -> Result<VolatileSlice<'_>, NotRam> {
        self.check(addr, len)?;
        self.mapping
            .get_slice(addr.get() as usize, len)
            .map_err(|_| NotRam { addr, len })
    }

    fn check(&self, addr: GuestPhys, len: usize) -> Result<(), NotRam> {
        if region::is_memory(addr, len as u64, self.size) {
            Ok(())
        } else {
            Err(NotRam { addr, len })
        }
    }
}

impl fmt::Debug for PhysMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PhysMemory")
            .field("size", &self.size)
            .field("code_epoch", &self.code_epoch)
            .finish_non_exhaustive()
    }
}
