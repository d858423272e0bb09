//! [`Resources`]: the I/O ports, guest-physical addresses and interrupt lines of a device.

use std::ops::RangeInclusive;

use irq::{AlwaysEdgeTriggered, Irq};
use sbe::Width;
use thiserror::Error;

/// The resources of a device: its name, the regions in which it answers, and the interrupt lines that it drives.
///
/// Regions and lines are numbered from 0 in the order in which they are added here, ports and memory together. A device
/// is told the region of each access ([`super::IoAccess::region`]) and names a line by its number
/// ([`super::DeviceContext::set_line`]).
///
/// ```
/// use vmm::{Irq, Resources};
///
/// let resources = Resources::new("sensor")
///     .ports(0x300..=0x303)
///     .mmio(0x1_0000_0000..=0x1_0000_0fff)
///     .level_line(Irq::new(11).unwrap());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    pub(crate) name: String,
    pub(crate) regions: Vec<IoRegion>,
    pub(crate) lines: Vec<(Irq, Trigger)>,
}

/// A range in which a device answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IoRegion {
    /// I/O ports.
    Ports(RangeInclusive<u16>, PortWidth),
    /// Guest-physical addresses that are not memory. A device sees the processor's bus cycles, which are naturally aligned
    /// and 1, 2, 4 or 8 bytes wide.
    Mmio(RangeInclusive<u64>),
}

/// The accesses to I/O ports that a device answers, by their width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortWidth {
    /// Accesses of one byte. A wider access is one access to each of the ports that it covers, as on ISA.
    Bytes,
    /// Accesses of any width, undivided. One that crosses the end of the range is split into bytes.
    Any,
    /// Accesses of one width. Another device can answer other widths at the same ports.
    Only(Width),
}

/// The trigger of an interrupt line: what requests an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The rising edge. An edge triggered line has one driver.
    Edge,
    /// The high level. A level triggered line can have several drivers; it is high while any of them drives it high.
    Level,
}

/// The error of attaching a device, or of mapping one of its regions.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AttachError {
    /// The name is another device's.
    #[error("there is a device {0:?} already")]
    NameInUse(String),
    /// The range of ports is empty.
    #[error("no ports: {:#06x} to {:#06x}", .0.start(), .0.end())]
    NoPorts(RangeInclusive<u16>),
    /// Another region answers in part of the range.
    #[error("ports {:#06x} to {:#06x} are {device}'s", .ports.start(), .ports.end())]
    PortsInUse {
        /// The range of the other region.
        ports: RangeInclusive<u16>,
        /// The name of the device that has it.
        device: String,
    },
    /// The range of addresses is empty.
    #[error("no addresses: {:#x} to {:#x}", .0.start(), .0.end())]
    NoAddresses(RangeInclusive<u64>),
    /// Another region answers in part of the range.
    #[error("addresses {:#x} to {:#x} are {device}'s", .addresses.start(), .addresses.end())]
    AddressesInUse {
        /// The range of the other region.
        addresses: RangeInclusive<u64>,
        /// The name of the device that has it.
        device: String,
    },
    /// The line has a driver already, and they are not both level triggered.
    #[error("IRQ {} is driven by {device}; only level triggered lines are shared", .irq.number())]
    LineInUse {
        /// The line.
        irq: Irq,
        /// The name of the device that drives it.
        device: String,
    },
    /// The line cannot be level triggered.
    #[error(transparent)]
    AlwaysEdgeTriggered(#[from] AlwaysEdgeTriggered),
}

impl Resources {
    /// Creates the resources of a device called `name`, without regions or lines. Names are unique on a board, and identify
    /// the devices in saved states.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            regions: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// Adds a range of I/O ports with registers one byte wide.
    #[must_use]
    pub fn ports(self, ports: RangeInclusive<u16>) -> Self {
        self.region(IoRegion::Ports(ports, PortWidth::Bytes))
    }

    /// Adds a range of guest-physical addresses.
    #[must_use]
    pub fn mmio(self, addresses: RangeInclusive<u64>) -> Self {
        self.region(IoRegion::Mmio(addresses))
    }

    /// Adds a region.
    #[must_use]
    pub fn region(mut self, region: IoRegion) -> Self {
        self.regions.push(region);
        self
    }

    /// Adds an edge triggered interrupt line, which no other device may drive.
    #[must_use]
    pub fn edge_line(self, irq: Irq) -> Self {
        self.line(irq, Trigger::Edge)
    }

    /// Adds a level triggered interrupt line, which devices can share. Attaching the device presets the edge/level control
    /// register, as a PC's firmware does.
    #[must_use]
    pub fn level_line(self, irq: Irq) -> Self {
        self.line(irq, Trigger::Level)
    }

    fn line(mut self, irq: Irq, trigger: Trigger) -> Self {
        self.lines.push((irq, trigger));
        self
    }
}
