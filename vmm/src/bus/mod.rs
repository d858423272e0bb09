//! The bus: devices, the I/O ports and guest-physical addresses at which they answer, and their interrupt lines.
//!
//! ```text
//!   processor ── port, width ──────┐                                ┌─► Device::read, write
//!             ── address, bytes ───┴─► AddressMap ─► device, region ┘         │
//!                                                                       DeviceContext
//!   8259A ◄─── OR of the drivers ◄──────────────── Wires ◄────────── set_line ┘
//! ```
//!
//! Devices are attached and detached at any time, and may map and unmap regions of their own while they are called. Two
//! regions never answer the same access: adding the second is an error that names the first. Where nobody answers, reads
//! give ones and writes are dropped.

mod address_map;
mod context;
mod device;
mod lines;
mod range_map;
mod resources;
mod state;

use std::{fmt, ops::RangeInclusive, os::fd::BorrowedFd, sync::Arc};

use irq::{Chipset, Irq};
use mmu::Memory;
use sbe::Width;

use crate::clock::Clock;
use address_map::{AddressMap, CHIPSET, Found, Target};
use lines::{LineDriver, Wires};

pub use context::{DeviceContext, Stop};
pub use device::{Device, DeviceStateError, IoAccess, decode_state, encode_state};
pub use resources::{AttachError, IoRegion, PortWidth, Resources, Trigger};
pub use state::{BusStateError, DeviceState};

/// A bus: the devices, and the maps by which they are reached.
pub struct SystemBus {
    /// The devices by number. A number is free again when its device is detached.
    devices: Vec<Option<Attached>>,
    map: AddressMap,
    wires: Wires,
}

/// An attached device.
struct Attached {
    name: String,
    device: Box<dyn Device>,
    lines: Vec<LineDriver>,
}

/// The parts of the board that the bus and its devices may use during a call.
pub(crate) struct Environment<'a> {
    pub clock: &'a Clock,
    /// The time of the call, once it is known.
    pub now: Option<u64>,
    pub memory: &'a Arc<Memory>,
    pub chipset: &'a mut Chipset,
    pub stop: &'a mut Option<Stop>,
}

/// The I/O ports of the interrupt controllers and the timer, see [`irq::Port`].
const CHIPSET_PORTS: [RangeInclusive<u16>; 5] = [
    0x20..=0x21,
    0x40..=0x43,
    0x61..=0x61,
    0xa0..=0xa1,
    0x4d0..=0x4d1,
];

impl Environment<'_> {
    fn now(&mut self) -> u64 {
        *self.now.get_or_insert_with(|| self.clock.now())
    }
}

impl SystemBus {
    /// Creates a bus without devices.
    pub(crate) fn new(memory: &Memory) -> Self {
        let mut map = AddressMap::default();
        for ports in CHIPSET_PORTS {
            let region = IoRegion::Ports(ports, PortWidth::Bytes);
            map.insert(&region, Target::Chipset, memory)
                .expect("the chipset's ports are distinct");
        }
        Self {
            devices: Vec::new(),
            map,
            wires: Wires::default(),
        }
    }

    /// Attaches a device. On an error nothing changes.
    pub(crate) fn attach(
        &mut self,
        resources: &Resources,
        device: Box<dyn Device>,
        memory: &Memory,
        chipset: &mut Chipset,
    ) -> Result<(), AttachError> {
        if resources.name == CHIPSET || self.find(&resources.name).is_some() {
            return Err(AttachError::NameInUse(resources.name.clone()));
        }
        let free = self.devices.iter().position(Option::is_none);
        let number = free.unwrap_or(self.devices.len());
        if number == self.devices.len() {
            self.devices.push(None);
        }
        self.map.set_name(number, &resources.name);
        self.devices[number] = Some(Attached {
            name: resources.name.clone(),
            device,
            lines: Vec::new(),
        });
        let before = chipset.clone();
        let attached = self.give(number, resources, memory, chipset);
        if attached.is_err() {
            self.remove(number, chipset);
            // Lines that it had for a moment are triggered as the guest has said.
            *chipset = before;
        }
        attached
    }

    /// Detaches the device called `name`, if there is one. Its lines fall.
    pub(crate) fn detach(&mut self, name: &str, chipset: &mut Chipset) -> Option<Box<dyn Device>> {
        let number = self.find(name)?;
        self.remove(number, chipset)
    }

    /// The names of all devices.
    pub(crate) fn device_names(&self) -> impl Iterator<Item = &str> {
        self.attached().map(|attached| attached.name.as_str())
    }

    /// Whether the chipset or a device answers at `port`.
    pub(crate) fn is_connected(&self, port: u16) -> bool {
        self.connected_ports().any(|ports| ports.contains(&port))
    }

    /// The I/O ports at which the chipset or a device answers.
    pub(crate) fn connected_ports(&self) -> impl Iterator<Item = RangeInclusive<u16>> {
        self.map.connected_ports()
    }

    /// Brings all devices up to the present.
    pub(crate) fn advance(&mut self, environment: &mut Environment<'_>) {
        environment.now();
        for number in 0..self.devices.len() {
            self.call(number, environment, |device, context| {
                device.advance(context)
            });
        }
    }

    /// The earliest of the devices' deadlines.
    pub(crate) fn next_deadline(&self, now: u64) -> Option<u64> {
        self.attached()
            .filter_map(|attached| attached.device.next_deadline(now))
            .min()
    }

    /// The devices' wake-up descriptors.
    pub(crate) fn wakeups(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.attached()
            .filter_map(|attached| attached.device.wakeup())
    }

    /// Reads the I/O ports that an access of `width` at `port` covers.
    pub(crate) fn port_read(
        &mut self,
        port: u16,
        width: Width,
        environment: &mut Environment<'_>,
    ) -> u32 {
        if let Some(found) = self.map.port(port, width) {
            return self.read(found, width.bytes() as u8, port, environment) as u32;
        }
        let mut bytes = [u8::MAX; size_of::<u32>()];
        for (byte, port) in bytes.iter_mut().zip(split(port, width)) {
            if let Some(found) = self.map.byte(port) {
                *byte = self.read(found, 1, port, environment) as u8;
            }
        }
        u32::from_le_bytes(bytes)
    }

    /// Writes the I/O ports that an access of `width` at `port` covers.
    pub(crate) fn port_write(
        &mut self,
        port: u16,
        width: Width,
        value: u32,
        environment: &mut Environment<'_>,
    ) {
        if let Some(found) = self.map.port(port, width) {
            let bytes = width.bytes() as u8;
            return self.write(found, bytes, low(value.into(), bytes), port, environment);
        }
        for (byte, port) in value.to_le_bytes().into_iter().zip(split(port, width)) {
            if let Some(found) = self.map.byte(port) {
                self.write(found, 1, byte.into(), port, environment);
            }
        }
    }

    /// Reads `bytes` bytes at a guest-physical address. Returns `None` if nobody answers at any of them.
    pub(crate) fn mmio_read(
        &mut self,
        address: u64,
        bytes: u8,
        environment: &mut Environment<'_>,
    ) -> Option<u64> {
        if let Some(found) = self.map.mmio(address, bytes) {
            return Some(self.read(found, bytes, 0, environment));
        }
        let half = halved(bytes)?;
        let next = address.wrapping_add(half.into());
        let halves = [address, next].map(|address| self.mmio_read(address, half, environment));
        if halves == [None, None] {
            return None;
        }
        let [first, second] = halves.map(|value| value.unwrap_or(u64::MAX));
        Some(low(first, half) | second << (8 * half))
    }

    /// Writes `bytes` bytes at a guest-physical address. Returns whether somebody answers at one of them.
    pub(crate) fn mmio_write(
        &mut self,
        address: u64,
        bytes: u8,
        value: u64,
        environment: &mut Environment<'_>,
    ) -> bool {
        if let Some(found) = self.map.mmio(address, bytes) {
            self.write(found, bytes, low(value, bytes), 0, environment);
            return true;
        }
        let Some(half) = halved(bytes) else {
            return false;
        };
        let next = address.wrapping_add(half.into());
        let first = self.mmio_write(address, half, value, environment);
        let second = self.mmio_write(next, half, value >> (8 * half), environment);
        first || second
    }

    fn read(
        &mut self,
        (target, offset): Found,
        bytes: u8,
        port: u16,
        environment: &mut Environment<'_>,
    ) -> u64 {
        let Target::Device { device, region } = target else {
            self.advance_all(environment);
            let read = irq::Port::decode(port).map(|port| environment.chipset.read(port));
            return read.unwrap_or(u8::MAX).into();
        };
        let access = IoAccess {
            region,
            offset,
            bytes,
        };
        self.call(device, environment, |device, context| {
            device.read(access, context)
        })
        .unwrap_or(u64::MAX)
    }

    fn write(
        &mut self,
        (target, offset): Found,
        bytes: u8,
        value: u64,
        port: u16,
        environment: &mut Environment<'_>,
    ) {
        let Target::Device { device, region } = target else {
            self.advance_all(environment);
            if let Some(port) = irq::Port::decode(port) {
                environment.chipset.write(port, value as u8);
            }
            return;
        };
        let access = IoAccess {
            region,
            offset,
            bytes,
        };
        self.call(device, environment, |device, context| {
            device.write(access, value, context);
        });
    }

    /// Brings the chipset and all devices up to the present.
    fn advance_all(&mut self, environment: &mut Environment<'_>) {
        let now = environment.now();
        environment.chipset.advance(now);
        self.advance(environment);
    }

    /// Calls the device with this number, if there is one.
    #[inline]
    fn call<R>(
        &mut self,
        number: usize,
        environment: &mut Environment<'_>,
        call: impl FnOnce(&mut dyn Device, &mut DeviceContext<'_>) -> R,
    ) -> Option<R> {
        let attached = self.devices.get_mut(number)?.as_mut()?;
        let mut context = DeviceContext {
            clock: environment.clock,
            now: environment.now,
            memory: environment.memory,
            chipset: environment.chipset,
            stop: environment.stop,
            map: &mut self.map,
            wires: &mut self.wires,
            lines: &mut attached.lines,
            device: number,
        };
        Some(call(&mut *attached.device, &mut context))
    }

    /// Gives a device its regions and lines. On an error it has some of them.
    fn give(
        &mut self,
        number: usize,
        resources: &Resources,
        memory: &Memory,
        chipset: &mut Chipset,
    ) -> Result<(), AttachError> {
        for (region, range) in resources.regions.iter().enumerate() {
            let target = Target::Device {
                device: number,
                region,
            };
            self.map.insert(range, target, memory)?;
        }
        for &(irq, trigger) in &resources.lines {
            let present = self.driver_of(irq).to_owned();
            let driver = self.wires.connect(irq, trigger, chipset, &present)?;
            if let Some(attached) = &mut self.devices[number] {
                attached.lines.push(driver);
            }
        }
        Ok(())
    }

    /// The name of a device that drives the line, or else of the chipset.
    fn driver_of(&self, irq: Irq) -> &str {
        self.attached()
            .find(|attached| attached.lines.iter().any(|line| line.irq() == irq))
            .map_or(CHIPSET, |attached| &attached.name)
    }

    fn remove(&mut self, number: usize, chipset: &mut Chipset) -> Option<Box<dyn Device>> {
        let Attached { device, lines, .. } = self.devices[number].take()?;
        self.map
            .remove(|target| matches!(target, Target::Device { device, .. } if device == number));
        for line in lines {
            self.wires.disconnect(line, chipset);
        }
        Some(device)
    }

    fn find(&self, name: &str) -> Option<usize> {
        let is_it = |attached: &Attached| attached.name == name;
        self.devices
            .iter()
            .position(|device| device.as_ref().is_some_and(is_it))
    }

    fn attached(&self) -> impl Iterator<Item = &Attached> {
        self.devices.iter().flatten()
    }
}

impl fmt::Debug for SystemBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.device_names()).finish()
    }
}

/// The ports that an access of more than a byte covers, lowest first. Port numbers wrap.
fn split(port: u16, width: Width) -> impl Iterator<Item = u16> {
    let bytes = match width {
        Width::Byte => 0,
        Width::Word => 2,
        Width::Dword => 4,
    };
    (0..bytes).map(move |offset| port.wrapping_add(offset))
}

/// Half the width of an access that can be split.
fn halved(bytes: u8) -> Option<u8> {
    (bytes > 1).then_some(bytes / 2)
}

/// Keeps the low `bytes` bytes of `value`, 1 to 8 of them.
fn low(value: u64, bytes: u8) -> u64 {
    value & u64::MAX >> (64 - 8 * u32::from(bytes))
}
