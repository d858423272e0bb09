//! [`PciHost`]: configuration mechanism #1 (PCI Local Bus Specification 3.0, 3.2.2.3.2 Software Generation of Configuration
//! Transactions), the host bridge, and the functions behind it.

use std::{io, ops::RangeInclusive, os::fd::BorrowedFd, sync::Arc};

use irq::{Irq, Level};
use mmu::Memory;
use sbe::Width;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    config::{BARS, ConfigSpace, Identity, SIZE},
    doorbell::Doorbell,
    function::PciFunction,
};
use crate::bus::{
    Device, DeviceContext, DeviceStateError, IoAccess, IoRegion, PortWidth, Resources,
    decode_state, encode_state,
};

/// The host bridge of PCI with the functions behind it, as a device on the bus.
///
/// ```
/// use vmm::{
///     BootSource, Kernel, StopReason, Vm, VmConfig,
///     console::pipe,
///     devices::{
///         pci::PciHost,
///         virtio::{Rng, VirtioPci},
///     },
/// };
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut pci = PciHost::new()?;
/// let rng = VirtioPci::new(Box::new(Rng::default()), pci.doorbell())?;
/// pci.add(rng)?;
/// let kernel = Kernel::flat(vec![
///     0xb8, 0x00, 0x08, 0x00, 0x80, // mov eax, 0x80000800  ; device 1, register 0
///     0x66, 0xba, 0xf8, 0x0c, // mov dx, 0xcf8
///     0xef, // out dx, eax
///     0xb2, 0xfc, // mov dl, 0xfc
///     0xec, // in al, dx  ; the low byte of the vendor ID
///     0xe6, 0xf4, // out 0xf4, al  ; ends the machine
/// ]);
/// let source = BootSource {
///     kernel: &kernel,
///     initrd: &[],
///     cmdline: "",
/// };
/// let mut vm = Vm::boot(&VmConfig::default(), &source)?;
/// vm.attach(PciHost::resources(), pci)?;
/// let (mut line, _) = pipe()?;
/// assert!(matches!(vm.run(&mut line), StopReason::DebugExit(0xf4)));
/// # Ok(())
/// # }
/// ```
pub struct PciHost {
    /// The register at 0xcf8, [`CONFIG_ADDRESS`].
    address: u32,
    slots: Vec<Slot>,
    /// The first I/O port that no BAR was given.
    next_port: u16,
    doorbell: Doorbell,
}

/// A function in its place on the bus.
struct Slot {
    function: Box<dyn PciFunction>,
    /// The ports at which each BAR answers at present.
    mapped: [Option<RangeInclusive<u16>>; BARS],
}

/// The error of adding a function where no device number or no I/O port is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no room for another PCI device")]
pub struct NoSlot;

/// The saved state of the host.
#[derive(Serialize, Deserialize)]
struct HostState {
    address: u32,
    /// The configuration registers and the state of each function.
    functions: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The host bridge itself, a function without registers of its own.
struct HostBridge(ConfigSpace);

/// The regions of [`PciHost::resources`]; a BAR's has the number [`FIRST_BAR`] + [`BARS`] × device + BAR.
const CONFIG_ADDRESS: usize = 0;
const CONFIG_DATA: usize = 1;
const FIRST_BAR: usize = 2;

/// The interrupt lines that the devices share: device n drives line n modulo 4.
const LINES: [u8; 4] = [11, 10, 9, 5];

/// The first of the I/O ports for BARs: above 0xc000 no device of a PC has a fixed place.
const FIRST_PORT: u16 = 0xc000;

/// The number of devices on a bus.
const DEVICES: usize = 32;

/// Bit 31 of the address register: accesses to the data ports are configuration transactions.
const ENABLE: u32 = 1 << 31;
/// The bits of the address register that exist: enable, bus, device, function and register.
const ADDRESS_BITS: u32 = ENABLE | 0x00ff_fffc;

/// A host bridge that is nothing but a host bridge, so that no driver looks for registers behind it.
const HOST_BRIDGE: Identity = Identity {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    class: 0x06_00_00,
    subsystem: (0, 0),
};

impl PciHost {
    /// Creates a host bridge with nothing behind it.
    ///
    /// # Errors
    /// If the host does not grant an eventfd.
    pub fn new() -> io::Result<Self> {
        let bridge = HostBridge(ConfigSpace::new(HOST_BRIDGE));
        Ok(Self {
            address: 0,
            slots: vec![Slot::new(Box::new(bridge))],
            next_port: FIRST_PORT,
            doorbell: Doorbell::new()?,
        })
    }

    /// The place of the host bridge on the bus: the ports of the configuration mechanism, and the interrupt lines.
    pub fn resources() -> Resources {
        // The reset control register has the byte 0xcf9.
        let address = IoRegion::Ports(0xcf8..=0xcfb, PortWidth::Only(Width::Dword));
        let data = IoRegion::Ports(0xcfc..=0xcff, PortWidth::Any);
        let resources = Resources::new("PCI").region(address).region(data);
        LINES
            .into_iter()
            .filter_map(Irq::new)
            .fold(resources, Resources::level_line)
    }

    /// The doorbell of the functions' other threads.
    pub fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }

    /// Adds a function as the next device, and gives it I/O ports and an interrupt line as firmware does.
    ///
    /// # Errors
    /// If there is no room.
    pub fn add(&mut self, mut function: impl PciFunction + 'static) -> Result<(), NoSlot> {
        let device = self.slots.len();
        if device == DEVICES {
            return Err(NoSlot);
        }
        let mut next_port = self.next_port;
        let config = function.config_mut();
        for (bar, ports) in config.io_bars() {
            let first = next_port
                .checked_next_multiple_of(ports)
                .filter(|port| *port != 0)
                .ok_or(NoSlot)?;
            config.place_io_bar(bar, first);
            // Behind the last port is none, which the next function finds out.
            next_port = first.saturating_add(ports);
        }
        config.set_interrupt_line(LINES[line_of(device)]);
        self.next_port = next_port;
        self.slots.push(Slot::new(Box::new(function)));
        Ok(())
    }

    /// The device that the address register names, and the register in it.
    fn addressed(&self, access: IoAccess) -> Option<(usize, usize)> {
        if self.address & ENABLE == 0 {
            return None;
        }
        let [register, function, bus, _] = self.address.to_le_bytes();
        // Every device has one function, number 0.
        if bus != 0 || function & 7 != 0 {
            return None;
        }
        let register = usize::from(register & 0xfc) + access.offset as usize;
        (register < SIZE).then_some((usize::from(function >> 3), register))
    }

    /// Drives the interrupt line of `device`, which it shares with others.
    fn drive_line(&self, device: usize, context: &mut DeviceContext<'_>) {
        let line = line_of(device);
        let sharing = self.slots.iter().skip(line).step_by(LINES.len());
        let high = sharing.into_iter().any(Slot::is_interrupting);
        context.set_line(line, Level::from_active(high));
    }

    /// Makes all BARs answer where their registers and the command registers say. A BAR that is in another's way answers
    /// nowhere, until the other has moved.
    fn map_bars(&mut self, context: &mut DeviceContext<'_>) {
        let mut moved = Vec::new();
        for (device, slot) in self.slots.iter_mut().enumerate() {
            for (bar, mapped) in slot.mapped.iter_mut().enumerate() {
                let wanted = slot.function.config().ports(bar);
                if *mapped != wanted {
                    let region = region_of(device, bar);
                    if mapped.take().is_some() {
                        context.unmap(region);
                    }
                    moved.extend(wanted.map(|ports| (region, ports, mapped)));
                }
            }
        }
        for (region, ports, mapped) in moved {
            let wanted = IoRegion::Ports(ports.clone(), PortWidth::Any);
            match context.map(region, &wanted) {
                Ok(()) => *mapped = Some(ports),
                Err(error) => log::debug!("PCI BAR: {error}"),
            }
        }
    }
}

impl Slot {
    fn new(function: Box<dyn PciFunction>) -> Self {
        Self {
            function,
            mapped: Default::default(),
        }
    }

    fn is_interrupting(&self) -> bool {
        self.function.interrupt() && self.function.config().is_interrupt_enabled()
    }
}

impl Device for PciHost {
    fn read(&mut self, access: IoAccess, context: &mut DeviceContext<'_>) -> u64 {
        let bytes = access.bytes;
        match access.region {
            CONFIG_ADDRESS => self.address.into(),
            CONFIG_DATA => {
                let Some((device, register)) = self.addressed(access) else {
                    return u64::MAX;
                };
                let Some(slot) = self.slots.get_mut(device) else {
                    return u64::MAX;
                };
                let pending = slot.function.interrupt();
                slot.function.config_mut().set_interrupt_status(pending);
                let value = slot
                    .function
                    .config_read(register, bytes.into(), context.memory());
                self.drive_line(device, context);
                value.into()
            }
            region => {
                let (device, bar) = bar_of(region);
                let Some(slot) = self.slots.get_mut(device) else {
                    return u64::MAX;
                };
                let value = slot
                    .function
                    .bar_read(bar, access.offset, bytes, context.memory());
                self.drive_line(device, context);
                value.into()
            }
        }
    }

    fn write(&mut self, access: IoAccess, value: u64, context: &mut DeviceContext<'_>) {
        let (bytes, value) = (access.bytes, value as u32);
        match access.region {
            CONFIG_ADDRESS => self.address = value & ADDRESS_BITS,
            CONFIG_DATA => {
                if let Some((device, register)) = self.addressed(access)
                    && let Some(slot) = self.slots.get_mut(device)
                {
                    slot.function
                        .config_write(register, bytes.into(), value, context.memory());
                    self.map_bars(context);
                    self.drive_line(device, context);
                }
            }
            region => {
                let (device, bar) = bar_of(region);
                if let Some(slot) = self.slots.get_mut(device) {
                    let memory = context.memory();
                    slot.function
                        .bar_write(bar, access.offset, bytes, value, memory);
                    self.drive_line(device, context);
                }
            }
        }
    }

    fn advance(&mut self, context: &mut DeviceContext<'_>) {
        if self.doorbell.answer() {
            for device in 0..self.slots.len() {
                self.slots[device].function.advance(context.memory());
                self.drive_line(device, context);
            }
        }
    }

    fn wakeup(&self) -> Option<BorrowedFd<'_>> {
        Some(self.doorbell.descriptor())
    }

    fn save(&self, _: u64) -> Result<Vec<u8>, DeviceStateError> {
        // Functions that stand still for this go on when they are advanced.
        self.doorbell.ring();
        let functions = self
            .slots
            .iter()
            .map(|slot| Ok((slot.function.config().save(), slot.function.save()?)));
        encode_state(&HostState {
            address: self.address,
            functions: functions.collect::<Result<_, DeviceStateError>>()?,
        })
    }

    fn restore(
        &mut self,
        state: &[u8],
        context: &mut DeviceContext<'_>,
    ) -> Result<(), DeviceStateError> {
        let state: HostState = decode_state(state)?;
        if state.address & !ADDRESS_BITS != 0 {
            return Err(DeviceStateError::Impossible("the address register"));
        }
        if state.functions.len() != self.slots.len() {
            return Err(DeviceStateError::Impossible("the number of PCI devices"));
        }
        self.address = state.address;
        for (slot, (config, state)) in self.slots.iter_mut().zip(&state.functions) {
            slot.function.config_mut().restore(config)?;
            slot.function.restore(state, context.memory())?;
        }
        self.map_bars(context);
        for device in 0..self.slots.len() {
            self.drive_line(device, context);
        }
        Ok(())
    }
}

impl PciFunction for HostBridge {
    fn config(&self) -> &ConfigSpace {
        &self.0
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.0
    }

    fn save(&self) -> Result<Vec<u8>, DeviceStateError> {
        Ok(Vec::new())
    }

    fn restore(&mut self, state: &[u8], _: &Arc<Memory>) -> Result<(), DeviceStateError> {
        match state {
            [] => Ok(()),
            _ => Err(DeviceStateError::Impossible("the host bridge")),
        }
    }
}

/// The number, among [`LINES`], of the line that a device drives.
fn line_of(device: usize) -> usize {
    device % LINES.len()
}

fn region_of(device: usize, bar: usize) -> usize {
    FIRST_BAR + BARS * device + bar
}

/// The inverse of [`region_of`].
fn bar_of(region: usize) -> (usize, usize) {
    let number = region - FIRST_BAR;
    (number / BARS, number % BARS)
}
