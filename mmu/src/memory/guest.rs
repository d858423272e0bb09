//! [`GuestRam`]: the RAM as a `vm_memory::GuestMemory`, for the crates built on that (virtio queues, loaders).
//!
//! They write through a `VolatileSlice`, which then reports the write to its bitmap. Here the bitmap is a [`StoreHook`], which
//! records a device's store. Writes through raw pointers (`get_host_address`, `ptr_guard_mut`) are not reported; whoever makes
//! them calls [`Memory::mark_written`] or the bitmap's `mark_dirty`.

use std::fmt;
use std::sync::Arc;

use nix::libc;
use vm_memory::bitmap::{Bitmap, BitmapSlice, WithBitmapSlice};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestRegionCollection, GuestRegionMmap};

use super::{Attribute, Memory, RegionKind};
use crate::addr::GuestPhys;

/// The regions of RAM as they were when [`Memory::guest_ram`] was called, as a `vm_memory::GuestMemory`.
pub type GuestRam = GuestRegionCollection<GuestRegionMmap<StoreHook>>;

/// A `vm-memory` bitmap that records stores from a guest-physical address on, and keeps the memory mapped.
#[derive(Clone)]
pub struct StoreHook {
    memory: Arc<Memory>,
    start: u64,
}

impl Memory {
    /// The RAM for `vm-memory`, without ROM, which devices cannot write. It does not follow later changes of the map.
    pub fn guest_ram(self: &Arc<Self>) -> GuestRam {
        let regions = self.regions().into_iter();
        let ram = regions.filter(|region| region.kind == RegionKind::Ram);
        let regions = ram.map(|region| {
            let hook = StoreHook {
                memory: Arc::clone(self),
                start: region.start,
            };
            let len = (region.end - region.start) as usize;
            let file = FileOffset::from_arc(Arc::clone(&self.file), region.start);
            let start = self.host_base().wrapping_add(region.start as usize);
            // SAFETY: the region lies in the mapping of `self`, which is readable and writable, and which the hook, a part of the
            // MmapRegion, keeps alive.
            let mapped = unsafe {
                MmapRegionBuilder::new_with_bitmap(len, hook).with_raw_mmap_pointer(start)
            };
            let mapped = mapped
                .with_file_offset(file)
                .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
                .with_mmap_flags(libc::MAP_SHARED)
                .build()
                .expect("regions begin at pages");
            GuestRegionMmap::new(mapped, GuestAddress(region.start))
                .expect("regions end below the last address")
        });
        // Regions are in order and do not overlap; if there are none, there is no RAM.
        GuestRam::from_regions(regions.collect()).unwrap_or_default()
    }
}

impl<'a> WithBitmapSlice<'a> for StoreHook {
    type S = Self;
}

impl BitmapSlice for StoreHook {}

impl Bitmap for StoreHook {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.memory
            .mark_written(GuestPhys::new(self.start + offset as u64), len as u64);
    }

    fn dirty_at(&self, offset: usize) -> bool {
        let addr = GuestPhys::new(self.start + offset as u64);
        self.memory.has(addr.frame(), Attribute::Dirty)
    }

    fn slice_at(&self, offset: usize) -> Self {
        Self {
            memory: Arc::clone(&self.memory),
            start: self.start + offset as u64,
        }
    }
}

impl fmt::Debug for StoreHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreHook")
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}
