//! [`VirtioPci`]: a virtio device as a PCI function, by the modern transport (VIRTIO 1.2, 4.1 Virtio Over PCI Bus).

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use mmu::Memory;
use serde::{Deserialize, Serialize};
use virtio_bindings::{
    virtio_config::VIRTIO_F_VERSION_1,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};

use super::{
    common::{Action, Common, Offered, status},
    device::VirtioDevice,
    interrupt::Interrupt,
    layout::{self, Access, BAR, COMMON, DEVICE, ISR, MOST_CONFIG, NOTIFY},
    queue::{Indices, VirtQueue},
};
use crate::{
    bus::{DeviceStateError, decode_state, encode_state},
    devices::pci::{ConfigSpace, Doorbell, PciFunction},
    threads::Threads,
};

/// A virtio device as a PCI function.
pub struct VirtioPci {
    config: ConfigSpace,
    access: Access,
    device: Box<dyn VirtioDevice>,
    common: Common,
    /// The features that device and transport offer.
    features: u64,
    queues: Vec<VirtQueue>,
    interrupt: Interrupt,
    /// Whether requests wait since the state was saved.
    saved: AtomicBool,
}

/// The saved state of the transport and its device.
#[derive(Serialize, Deserialize)]
struct State {
    common: Common,
    isr: u8,
    needs_reset: bool,
    /// Where each queue goes on, if it is live.
    queues: Vec<Option<Indices>>,
    device: Vec<u8>,
}

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
const INDIRECT_DESC: u64 = 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// The features of transport and rings.
const TRANSPORT_FEATURES: u64 = VERSION_1 | EVENT_IDX | INDIRECT_DESC;

impl VirtioPci {
    /// Creates a function around `device`, for the host bridge whose `doorbell` this is.
    ///
    /// # Errors
    /// If the device cannot start.
    ///
    /// # Panics
    /// If the device breaks a rule of [`VirtioDevice`]: about its queues' sizes or the length of its configuration.
    pub fn new(device: Box<dyn VirtioDevice>, doorbell: &Doorbell) -> io::Result<Self> {
        Self::with_threads(device, doorbell, &Threads::default())
    }

    /// Creates a function as [`Self::new`] does, whose device's threads begin as `threads` says.
    ///
    /// # Errors
    /// As [`Self::new`].
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn with_threads(
        mut device: Box<dyn VirtioDevice>,
        doorbell: &Doorbell,
        threads: &Threads,
    ) -> io::Result<Self> {
        let length = device.config().len();
        assert!(length <= MOST_CONFIG);
        let (config, access) = layout::registers(device.device_type(), length);
        let interrupt = Interrupt::new(doorbell.clone());
        let sizes = device.queue_sizes();
        let queues: Vec<_> = sizes
            .iter()
            .map(|&size| VirtQueue::new(size, &interrupt))
            .collect();
        let common = Common::new(sizes);
        device.connect(&queues, &interrupt, threads)?;
        let mut function = Self {
            config,
            access,
            common,
            features: device.features() | TRANSPORT_FEATURES,
            device,
            queues,
            interrupt,
            saved: AtomicBool::new(false),
        };
        function.suspend_or_go_on();
        Ok(function)
    }

    fn offered(&self) -> Offered {
        Offered {
            features: self.features,
            needs_reset: self.interrupt.is_reset_needed(),
            generation: self.interrupt.generation(),
        }
    }

    /// Takes a write of the device status (VIRTIO 1.2, 3.1.1 Driver Requirements: Device Initialization). Bits are only added;
    /// writing 0 resets.
    fn set_status(&mut self, value: u8, memory: &Arc<Memory>) {
        if value == 0 {
            return self.reset();
        }
        let mut added = value & !self.common.status & !status::NEEDS_RESET;
        if !self.are_features_acceptable(&self.common) {
            added &= !status::FEATURES_OK;
        }
        if (self.common.status | added) & status::FEATURES_OK == 0 {
            added &= !status::DRIVER_OK;
        }
        self.common.status |= added;
        if added & status::DRIVER_OK != 0 {
            self.activate(memory);
        }
    }

    /// Whether the driver has accepted features that the device offers, and the version of the specification.
    fn are_features_acceptable(&self, common: &Common) -> bool {
        let accepted = common.driver_features;
        accepted & !self.features == 0 && accepted & VERSION_1 != 0
    }

    fn activate(&mut self, memory: &Arc<Memory>) {
        self.interrupt.activate();
        self.device.activate(self.common.driver_features);
        for number in 0..self.queues.len() {
            if self.common.queues[number].enabled {
                self.start(number, Indices::default(), memory);
            }
        }
    }

    /// Enables a queue, which lives from DRIVER_OK on.
    fn enable(&mut self, number: usize, memory: &Arc<Memory>) {
        self.common.queues[number].enabled = true;
        if self.common.has(status::DRIVER_OK) {
            self.start(number, Indices::default(), memory);
        }
    }

    /// Brings a queue to life, and lets the device look for requests that are there already.
    fn start(&mut self, number: usize, indices: Indices, memory: &Arc<Memory>) {
        let event_idx = self.common.driver_features & EVENT_IDX != 0;
        let place = &self.common.queues[number].place;
        match self.queues[number].start(place, event_idx, indices, memory) {
            Ok(()) => self.device.notify(number),
            Err(_) => self.interrupt.needs_reset(),
        }
    }

    fn reset(&mut self) {
        for queue in &self.queues {
            queue.stop();
        }
        self.interrupt.reset();
        self.device.reset();
        self.common = Common::new(self.device.queue_sizes());
    }

    /// Lets requests wait while the function may not access memory; else lets the device look for those that have waited.
    fn suspend_or_go_on(&mut self) {
        let suspended = !self.config.is_bus_master();
        for (number, queue) in self.queues.iter().enumerate() {
            queue.suspend(suspended);
            if !suspended && queue.indices().is_some() {
                self.device.notify(number);
            }
        }
    }

    fn read_device(&self, offset: u64, bytes: u8) -> u32 {
        let config = self.device.config();
        let mut value = [0; 4];
        let present = config.iter().skip(offset as usize).take(bytes.into());
        for (byte, present) in value.iter_mut().zip(present) {
            *byte = *present;
        }
        u32::from_le_bytes(value)
    }

    fn write_device(&mut self, offset: u64, bytes: u8, value: u32) {
        let (offset, bytes) = (offset as usize, usize::from(bytes));
        if offset + bytes <= self.device.config().len() {
            self.device
                .write_config(offset, &value.to_le_bytes()[..bytes]);
        }
    }
}

impl Drop for VirtioPci {
    /// Ends the life of the queues: the device's threads, which end with it, find no more requests.
    fn drop(&mut self) {
        for queue in &self.queues {
            queue.stop();
        }
    }
}

impl PciFunction for VirtioPci {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_read(&mut self, offset: usize, bytes: usize, memory: &Arc<Memory>) -> u32 {
        if self.access.is_touched(offset, bytes)
            && let Some((at, width)) = self.access.target(&self.config)
        {
            let value = self.bar_read(BAR, at, width, memory);
            let value = &value.to_le_bytes()[..width.into()];
            self.config.set(self.access.data(), value);
        }
        self.config.read(offset, bytes)
    }

    fn config_write(&mut self, offset: usize, bytes: usize, value: u32, memory: &Arc<Memory>) {
        let was_master = self.config.is_bus_master();
        self.config.write(offset, bytes, value);
        if self.config.is_bus_master() != was_master {
            self.suspend_or_go_on();
        }
        if self.access.is_touched(offset, bytes)
            && let Some((at, width)) = self.access.target(&self.config)
        {
            let value = self.config.read(self.access.data(), width.into());
            let value = value & u32::MAX >> (32 - 8 * u32::from(width));
            self.bar_write(BAR, at, width, value, memory);
        }
    }

    fn bar_read(&mut self, _: usize, offset: u64, bytes: u8, _: &Arc<Memory>) -> u32 {
        match offset {
            offset if COMMON.contains(&offset) => self.common.read(offset, bytes, self.offered()),
            ISR => self.interrupt.take_isr().into(),
            DEVICE.. => self.read_device(offset - DEVICE, bytes),
            _ => 0,
        }
    }

    fn bar_write(&mut self, _: usize, offset: u64, bytes: u8, value: u32, memory: &Arc<Memory>) {
        match offset {
            NOTIFY => {
                let number = value as u16;
                if usize::from(number) < self.queues.len() {
                    self.device.notify(number.into());
                }
            }
            offset if COMMON.contains(&offset) => match self.common.write(offset, bytes, value) {
                Some(Action::Status(value)) => self.set_status(value, memory),
                Some(Action::Enable(number)) => self.enable(number, memory),
                None => {}
            },
            DEVICE.. => self.write_device(offset - DEVICE, bytes, value),
            _ => {}
        }
    }

    fn interrupt(&self) -> bool {
        self.interrupt.isr() != 0
    }

    fn advance(&mut self, _: &Arc<Memory>) {
        if self.saved.swap(false, Relaxed) {
            self.suspend_or_go_on();
        }
    }

    fn save(&self) -> Result<Vec<u8>, DeviceStateError> {
        // The memory stays as it is until the machine runs on.
        self.saved.store(true, Relaxed);
        for queue in &self.queues {
            queue.suspend(true);
        }
        encode_state(&State {
            common: self.common.clone(),
            isr: self.interrupt.isr(),
            needs_reset: self.interrupt.is_reset_needed(),
            queues: self.queues.iter().map(VirtQueue::indices).collect(),
            device: self.device.save()?,
        })
    }

    fn restore(&mut self, state: &[u8], memory: &Arc<Memory>) -> Result<(), DeviceStateError> {
        let state: State = decode_state(state)?;
        if state.common.queues.len() != self.queues.len() || state.queues.len() != self.queues.len()
        {
            return Err(DeviceStateError::Impossible("the number of virtio queues"));
        }
        if state.common.has(status::FEATURES_OK) && !self.are_features_acceptable(&state.common) {
            return Err(DeviceStateError::Impossible("virtio features"));
        }
        self.reset();
        if !self.interrupt.restore(state.isr, state.needs_reset) {
            return Err(DeviceStateError::Impossible("the virtio ISR status"));
        }
        self.device.restore(&state.device)?;
        self.common = state.common;
        if self.common.has(status::DRIVER_OK) {
            self.interrupt.activate();
            self.device.activate(self.common.driver_features);
        }
        self.suspend_or_go_on();
        for (number, indices) in state.queues.into_iter().enumerate() {
            if let Some(indices) = indices {
                self.start(number, indices, memory);
            }
        }
        Ok(())
    }
}
