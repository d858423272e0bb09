//! [`Map`]: which guest-physical addresses are RAM, ROM and device.
//!
//! ```text
//!   a PC:   0        0xa0000    0xc0000   0x100000      0xe0000000   4 GiB
//!           ├── RAM ────┼─ device ──┼── ROM ──┼── RAM ──────┼─ device ──┼── RAM ────┼── device ...
//! ```
//!
//! RAM of less than 3.5 GiB ends below 0xe0000000, and there is none above 4 GiB.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::addr::{GuestPhys, PAGE_SIZE};

/// Start of the legacy video memory, which belongs to the bus (ISA memory map, 0xa0000 to 0xbffff).
const VIDEO: u64 = 0xa_0000;

/// Start of option ROMs and the system BIOS, which reach up to the first megabyte.
const ROM: u64 = 0xc_0000;

/// Start of the RAM above the first megabyte.
const HIGH: u64 = 0x10_0000;

/// Most RAM below 4 GiB, where it ends: the rest is for devices.
pub const MAX_LOW_RAM: u64 = 0xe000_0000;

/// Start of the RAM that has no room below it.
pub(super) const ABOVE: u64 = 1 << 32;

/// The kind of memory at a guest-physical address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RegionKind {
    /// Reads and writes go to RAM.
    Ram,
    /// Reads go to memory, stores of the guest and of devices are ignored. The host may write it.
    Rom,
    /// No memory: accesses go to the bus.
    Device,
}

/// A range of guest-physical addresses of one kind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Region {
    /// The first address.
    pub start: u64,
    /// The address at which it ends, not included.
    pub end: u64,
    /// The kind of the region.
    pub kind: RegionKind,
}

/// The reason why a region was not added or removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum MapError {
    /// The range is empty, or begins or ends within a page.
    #[error("{start:#x} to {end:#x} are not whole pages")]
    Unaligned {
        /// The first address.
        start: u64,
        /// The address at which the range ends, not included.
        end: u64,
    },
    /// RAM and ROM cannot lie so high.
    #[error("{start:#x} to {end:#x}: memory ends at {limit:#x}")]
    TooHigh {
        /// The first address.
        start: u64,
        /// The address at which the range ends, not included.
        end: u64,
        /// The address at which RAM and ROM must end.
        limit: u64,
    },
    /// Another region lies there already.
    #[error("{start:#x} to {end:#x} overlap the {kind:?} region at {other:#x}")]
    Overlap {
        /// The first address.
        start: u64,
        /// The address at which the range ends, not included.
        end: u64,
        /// The first address of the region that is there.
        other: u64,
        /// The kind of the region.
        kind: RegionKind,
    },
    /// No region has exactly this range.
    #[error("there is no region from {start:#x} to {end:#x}")]
    Absent {
        /// The first address.
        start: u64,
        /// The address at which the range ends, not included.
        end: u64,
    },
}

/// The regions in ascending order. All addresses between them belong to the bus.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Map(Vec<Region>);

impl Map {
    /// The map of a PC with `ram` bytes of RAM, at least 1 MiB.
    pub(super) fn pc(ram: u64) -> Self {
        let low = ram.min(MAX_LOW_RAM);
        let regions = [
            (0, VIDEO, RegionKind::Ram),
            (ROM, HIGH, RegionKind::Rom),
            (HIGH, low, RegionKind::Ram),
            (ABOVE, ABOVE + (ram - low), RegionKind::Ram),
        ];
        let regions = regions.into_iter().filter(|(start, end, _)| start < end);
        Self(
            regions
                .map(|(start, end, kind)| Region { start, end, kind })
                .collect(),
        )
    }

    /// The address at which all regions but those of devices end.
    pub(super) fn memory_end(&self) -> u64 {
        self.end_of(|kind| kind != RegionKind::Device)
    }

    /// The address at which all regions of such kinds end; 0 if there are none.
    pub(super) fn end_of(&self, is_wanted: impl Fn(RegionKind) -> bool) -> u64 {
        let mut regions = self.0.iter().rev();
        let last = regions.find(|region| is_wanted(region.kind));
        last.map_or(0, |region| region.end)
    }

    /// The largest region of RAM.
    pub(super) fn largest_ram(&self) -> Option<&Region> {
        let ram = self
            .0
            .iter()
            .filter(|region| region.kind == RegionKind::Ram);
        ram.max_by_key(|region| region.end - region.start)
    }

    /// All regions.
    pub(super) fn regions(&self) -> &[Region] {
        &self.0
    }

    /// Adds a region, which must end at `limit` if it is RAM or ROM.
    pub(super) fn add(
        &mut self,
        range: Range<GuestPhys>,
        kind: RegionKind,
        limit: u64,
    ) -> Result<(), MapError> {
        let (start, end) = (range.start.get(), range.end.get());
        let whole = |address: u64| address.is_multiple_of(PAGE_SIZE as u64);
        if start >= end || !whole(start) || !whole(end) {
            return Err(MapError::Unaligned { start, end });
        }
        if kind != RegionKind::Device && end > limit {
            return Err(MapError::TooHigh { start, end, limit });
        }
        let place = self.0.partition_point(|region| region.end <= start);
        match self.0.get(place).filter(|region| region.start < end) {
            Some(region) => Err(MapError::Overlap {
                start,
                end,
                other: region.start,
                kind: region.kind,
            }),
            None => {
                self.0.insert(place, Region { start, end, kind });
                Ok(())
            }
        }
    }

    /// Removes the region that has exactly this range.
    pub(super) fn remove(&mut self, range: &Range<GuestPhys>) -> Result<Region, MapError> {
        let (start, end) = (range.start.get(), range.end.get());
        let is_it = |region: &Region| region.start == start && region.end == end;
        let place = self.0.iter().position(is_it);
        let place = place.ok_or(MapError::Absent { start, end })?;
        Ok(self.0.remove(place))
    }

    /// The map of the same regions in ascending order, if [`Self::add`] accepts each.
    pub(super) fn checked(self, limit: u64) -> Result<Self, MapError> {
        let mut checked = Self::default();
        for Region { start, end, kind } in self.0 {
            checked.add(GuestPhys::new(start)..GuestPhys::new(end), kind, limit)?;
        }
        Ok(checked)
    }
}
