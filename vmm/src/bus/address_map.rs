//! [`AddressMap`]: who answers at which I/O port and at which guest-physical address.
//!
//! ```text
//!   access to port p ──► ranges that answer its width ──► undivided
//!                          │ nobody, and wider than a byte
//!                          └► ranges of bytes ──► one access to each port
//! ```

use std::ops::RangeInclusive;

use mmu::{Memory, RegionKind};
use sbe::Width;

use super::{
    range_map::RangeMap,
    resources::{AttachError, IoRegion, PortWidth},
};

/// A map of the ranges at which the chipset and the devices answer.
#[derive(Debug, Default)]
pub struct AddressMap {
    /// Port ranges that take accesses of one, two and four bytes undivided.
    undivided: [RangeMap<Target>; 3],
    /// Port ranges that take the single bytes of a wider access.
    bytes: RangeMap<Target>,
    mmio: RangeMap<Target>,
    /// The devices' names, by number.
    names: Vec<String>,
}

/// The party that answers in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The interrupt controllers and the timer.
    Chipset,
    /// A device, in one of its regions.
    Device {
        /// The device's number on the bus.
        device: usize,
        /// The region's number.
        region: usize,
    },
}

/// The chipset's name among those of devices.
pub const CHIPSET: &str = "chipset";
const MEMORY: &str = "memory";

/// The party that answers an access, and the offset of the access in the range.
pub type Found = (Target, u64);

impl AddressMap {
    /// Sets the name of the device with this number.
    pub fn set_name(&mut self, device: usize, name: &str) {
        if device >= self.names.len() {
            self.names.resize(device + 1, String::new());
        }
        self.names[device] = name.into();
    }

    /// Adds a region.
    ///
    /// # Errors
    /// If the region is empty or another one, or memory, answers the same accesses.
    pub fn insert(
        &mut self,
        region: &IoRegion,
        target: Target,
        memory: &Memory,
    ) -> Result<(), AttachError> {
        match region {
            IoRegion::Ports(ports, _) if ports.is_empty() => {
                Err(AttachError::NoPorts(ports.clone()))
            }
            IoRegion::Ports(ports, width) => self.insert_ports(ports, *width, target),
            IoRegion::Mmio(addresses) if addresses.is_empty() => {
                Err(AttachError::NoAddresses(addresses.clone()))
            }
            IoRegion::Mmio(addresses) => self.insert_mmio(addresses, target, memory),
        }
    }

    /// Removes the regions of the targets that `removed` accepts.
    pub fn remove(&mut self, removed: impl Fn(Target) -> bool) {
        let maps = self.undivided.iter_mut();
        for map in maps.chain([&mut self.bytes, &mut self.mmio]) {
            map.retain(|target| !removed(*target));
        }
    }

    /// Finds the party that takes an access of `width` at `port` undivided.
    #[inline]
    pub fn port(&self, port: u16, width: Width) -> Option<Found> {
        let last = u64::from(port) + u64::from(width.bytes()) - 1;
        find(&self.undivided[index(width)], port.into(), last)
    }

    /// Finds the party that takes the byte at `port` of a wider access.
    pub fn byte(&self, port: u16) -> Option<Found> {
        find(&self.bytes, port.into(), port.into())
    }

    /// Finds the party that takes an access of `bytes` bytes at a guest-physical address.
    pub fn mmio(&self, address: u64, bytes: u8) -> Option<Found> {
        let last = address.checked_add(u64::from(bytes) - 1)?;
        find(&self.mmio, address, last)
    }

    /// The ports at which accesses of some width are answered.
    pub fn connected_ports(&self) -> impl Iterator<Item = RangeInclusive<u16>> {
        let ranges = self.undivided.iter().flat_map(RangeMap::iter);
        // Ranges of ports are made of ports.
        ranges.map(|(range, _)| *range.start() as u16..=*range.end() as u16)
    }

    fn insert_ports(
        &mut self,
        ports: &RangeInclusive<u16>,
        width: PortWidth,
        target: Target,
    ) -> Result<(), AttachError> {
        let range = u64::from(*ports.start())..=u64::from(*ports.end());
        let in_the_way = self
            .answering(width)
            .find_map(|map| map.overlapping(&range).cloned());
        if let Some((other, whose)) = in_the_way {
            return Err(AttachError::PortsInUse {
                ports: *other.start() as u16..=*other.end() as u16,
                device: self.name(whose),
            });
        }
        for map in self.answering(width) {
            map.insert(range.clone(), target);
        }
        Ok(())
    }

    fn insert_mmio(
        &mut self,
        addresses: &RangeInclusive<u64>,
        target: Target,
        memory: &Memory,
    ) -> Result<(), AttachError> {
        let (start, end) = (*addresses.start(), *addresses.end());
        let in_memory = memory.regions().into_iter().find(|region| {
            region.kind != RegionKind::Device && region.start <= end && start < region.end
        });
        let in_memory = in_memory.map(|region| (region.start..=region.end - 1, MEMORY.into()));
        let in_the_way = in_memory.or_else(|| {
            let (other, whose) = self.mmio.overlapping(addresses)?;
            Some((other.clone(), self.name(*whose)))
        });
        match in_the_way {
            Some((addresses, device)) => Err(AttachError::AddressesInUse { addresses, device }),
            None => {
                self.mmio.insert(addresses.clone(), target);
                Ok(())
            }
        }
    }

    fn name(&self, target: Target) -> String {
        match target {
            Target::Chipset => CHIPSET.into(),
            Target::Device { device, .. } => self.names.get(device).cloned().unwrap_or_default(),
        }
    }

    /// The maps of the accesses that a range with this width answers.
    fn answering(&mut self, width: PortWidth) -> impl Iterator<Item = &mut RangeMap<Target>> {
        let Self {
            undivided: [byte, word, dword],
            bytes,
            ..
        } = self;
        let maps = match width {
            PortWidth::Bytes => [Some(byte), None, None, Some(bytes)],
            PortWidth::Any => [Some(byte), Some(word), Some(dword), Some(bytes)],
            PortWidth::Only(Width::Byte) => [Some(byte), None, None, None],
            PortWidth::Only(Width::Word) => [None, Some(word), None, None],
            PortWidth::Only(Width::Dword) => [None, None, Some(dword), None],
        };
        maps.into_iter().flatten()
    }
}

fn index(width: Width) -> usize {
    match width {
        Width::Byte => 0,
        Width::Word => 1,
        Width::Dword => 2,
    }
}

/// Finds the range that holds all of `first` to `last`.
#[inline]
fn find(map: &RangeMap<Target>, first: u64, last: u64) -> Option<Found> {
    let (range, target) = map.find(first)?;
    (last <= *range.end()).then(|| (*target, first - range.start()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const WIDTHS: [Width; 3] = [Width::Byte, Width::Word, Width::Dword];

    fn device(device: usize) -> Target {
        Target::Device { device, region: 0 }
    }

    /// A map with these ports of device 0.
    fn with(ports: RangeInclusive<u16>, width: PortWidth) -> (AddressMap, Arc<Memory>) {
        let memory = Memory::new(1 << 20).unwrap();
        let mut map = AddressMap::default();
        map.set_name(0, "first");
        map.insert(&IoRegion::Ports(ports, width), device(0), &memory)
            .unwrap();
        (map, memory)
    }

    #[test]
    fn a_range_answers_accesses_of_its_width() {
        for (width, undivided, in_bytes) in [
            (PortWidth::Bytes, vec![Width::Byte], true),
            (PortWidth::Any, WIDTHS.to_vec(), true),
            (PortWidth::Only(Width::Byte), vec![Width::Byte], false),
            (PortWidth::Only(Width::Word), vec![Width::Word], false),
            (PortWidth::Only(Width::Dword), vec![Width::Dword], false),
        ] {
            let (map, _) = with(0x100..=0x107, width);
            for access in WIDTHS {
                let found = undivided.contains(&access).then_some((device(0), 4));
                assert_eq!(map.port(0x104, access), found, "{width:?}, {access:?}");
            }
            let found = in_bytes.then_some((device(0), 7));
            assert_eq!(map.byte(0x107), found, "{width:?}");
            assert_eq!(map.port(0x106, Width::Dword), None, "crosses the end");
            assert_eq!(map.port(0xff, Width::Word), None, "crosses the beginning");
        }
    }

    #[test]
    fn ranges_conflict_if_they_answer_the_same_accesses() {
        let only = PortWidth::Only;
        let widths = [
            PortWidth::Bytes,
            PortWidth::Any,
            only(Width::Byte),
            only(Width::Word),
            only(Width::Dword),
        ];
        let compatible = |one, other| {
            matches!(
                (one, other),
                (PortWidth::Bytes | PortWidth::Only(Width::Byte), PortWidth::Only(width))
                    if width != Width::Byte
            ) || matches!(
                (one, other),
                (PortWidth::Only(one), PortWidth::Only(other)) if one != other
            )
        };
        for (one, other) in widths
            .into_iter()
            .flat_map(|one| widths.map(|other| (one, other)))
        {
            let (mut map, memory) = with(0xcf9..=0xcf9, one);
            let result = map.insert(&IoRegion::Ports(0xcf8..=0xcfb, other), device(1), &memory);
            let expected = if compatible(one, other) || compatible(other, one) {
                Ok(())
            } else {
                Err(AttachError::PortsInUse {
                    ports: 0xcf9..=0xcf9,
                    device: "first".into(),
                })
            };
            assert_eq!(result, expected, "{one:?}, {other:?}");
            map.remove(|target| target == device(0));
            assert!(map.connected_ports().all(|ports| ports == (0xcf8..=0xcfb)));
        }
    }

    #[test]
    fn empty_ranges_are_errors() {
        let (mut map, memory) = with(0x100..=0x100, PortWidth::Bytes);
        #[expect(clippy::reversed_empty_ranges, reason = "what is to be refused")]
        let (ports, addresses) = (0x301..=0x300, 0xffff_ffff..=0);
        assert_eq!(
            map.insert(
                &IoRegion::Ports(ports.clone(), PortWidth::Any),
                device(1),
                &memory
            ),
            Err(AttachError::NoPorts(ports))
        );
        assert_eq!(
            map.insert(&IoRegion::Mmio(addresses.clone()), device(1), &memory),
            Err(AttachError::NoAddresses(addresses))
        );
    }
}
