//! [`Common`]: the registers of the common configuration structure (VIRTIO 1.2, 4.1.4.3 Common configuration structure layout).

use serde::{Deserialize, Serialize};

use super::queue::Place;

/// The registers that the driver writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Common {
    device_feature_select: u32,
    driver_feature_select: u32,
    /// The features that the driver has accepted.
    pub driver_features: u64,
    /// The device status, without DEVICE_NEEDS_RESET.
    pub status: u8,
    queue_select: u16,
    /// The queues by number.
    pub queues: Vec<QueueRegisters>,
}

/// The registers of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRegisters {
    /// The place and the size.
    pub place: Place,
    /// Whether the driver has enabled the queue.
    pub enabled: bool,
}

/// The contents of the registers that the driver does not write.
#[derive(Clone, Copy, Debug)]
pub struct Offered {
    /// The features that the device offers.
    pub features: u64,
    /// Whether the device is in an error state.
    pub needs_reset: bool,
    /// The configuration generation.
    pub generation: u8,
}

/// A write that does more than to change a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The driver writes the device status.
    Status(u8),
    /// The driver enables the selected queue.
    Enable(usize),
}

/// Device status bits (VIRTIO 1.2, 2.1 Device Status Field).
pub mod status {
    use virtio_bindings::virtio_config::*;

    pub const DRIVER_OK: u8 = VIRTIO_CONFIG_S_DRIVER_OK as u8;
    pub const FEATURES_OK: u8 = VIRTIO_CONFIG_S_FEATURES_OK as u8;
    pub const NEEDS_RESET: u8 = VIRTIO_CONFIG_S_NEEDS_RESET as u8;
}

/// The vector register of a device without MSI-X.
const NO_VECTOR: u16 = 0xffff;

/// The length of the structure.
const LENGTH: usize = 0x38;

mod offset {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const CONFIG_VECTOR: u64 = 0x10;
    pub const NUM_QUEUES: u64 = 0x12;
    pub const DEVICE_STATUS: u64 = 0x14;
    pub const CONFIG_GENERATION: u64 = 0x15;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_DESC: u64 = 0x20;
    pub const QUEUE_DRIVER: u64 = 0x28;
    pub const QUEUE_DEVICE: u64 = 0x30;
    pub const QUEUE_DEVICE_HIGH: u64 = 0x34;
}

impl Common {
    /// Creates the registers after a reset, of a device with queues of these largest sizes.
    pub fn new(sizes: &[u16]) -> Self {
        let queue = |&size| QueueRegisters {
            place: Place {
                size,
                descriptors: 0,
                available: 0,
                used: 0,
            },
            enabled: false,
        };
        Self {
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            status: 0,
            queue_select: 0,
            queues: sizes.iter().map(queue).collect(),
        }
    }

    /// Whether the status has all these bits.
    pub fn has(&self, bits: u8) -> bool {
        self.status & bits == bits
    }

    /// Reads `bytes` bytes at `offset`.
    pub fn read(&self, offset: u64, bytes: u8, offered: Offered) -> u32 {
        let image = self.image(offered);
        let mut value = [0; 4];
        let registers = image.iter().skip(offset as usize).take(bytes.into());
        for (byte, register) in value.iter_mut().zip(registers) {
            *byte = *register;
        }
        u32::from_le_bytes(value)
    }

    /// Writes a register of its own width, or half of one of 64 bits; other writes, and those of read-only registers, do
    /// nothing.
    pub fn write(&mut self, offset: u64, bytes: u8, value: u32) -> Option<Action> {
        match (offset, bytes) {
            (offset::DEVICE_FEATURE_SELECT, 4) => self.device_feature_select = value,
            (offset::DRIVER_FEATURE_SELECT, 4) => self.driver_feature_select = value,
            (offset::DRIVER_FEATURE, 4) => self.set_driver_features(value),
            (offset::DEVICE_STATUS, 1) => return Some(Action::Status(value as u8)),
            (offset::QUEUE_SELECT, 2) => self.queue_select = value as u16,
            (offset::QUEUE_SIZE, 2) => {
                self.with_disabled_queue(|queue| queue.place.size = value as u16);
            }
            (offset::QUEUE_ENABLE, 2) if value == 1 => {
                let number = usize::from(self.queue_select);
                let queue = self.queues.get(number)?;
                return (!queue.enabled).then_some(Action::Enable(number));
            }
            (offset::QUEUE_DESC..=offset::QUEUE_DEVICE_HIGH, 4) if offset.is_multiple_of(4) => {
                self.with_disabled_queue(|queue| {
                    let address = match offset & !7 {
                        offset::QUEUE_DESC => &mut queue.place.descriptors,
                        offset::QUEUE_DRIVER => &mut queue.place.available,
                        _ => &mut queue.place.used,
                    };
                    let shift = 8 * (offset & 4);
                    *address =
                        *address & !(u64::from(u32::MAX) << shift) | u64::from(value) << shift;
                });
            }
            _ => {}
        }
        None
    }

    /// The bytes of the structure.
    fn image(&self, offered: Offered) -> [u8; LENGTH] {
        let mut image = [0; LENGTH];
        let mut put = |offset: u64, bytes: &[u8]| {
            let offset = offset as usize;
            image[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        let device_feature = half(offered.features, self.device_feature_select);
        let driver_feature = half(self.driver_features, self.driver_feature_select);
        put(
            offset::DEVICE_FEATURE_SELECT,
            &self.device_feature_select.to_le_bytes(),
        );
        put(offset::DEVICE_FEATURE, &device_feature.to_le_bytes());
        put(
            offset::DRIVER_FEATURE_SELECT,
            &self.driver_feature_select.to_le_bytes(),
        );
        put(offset::DRIVER_FEATURE, &driver_feature.to_le_bytes());
        put(offset::CONFIG_VECTOR, &NO_VECTOR.to_le_bytes());
        put(
            offset::NUM_QUEUES,
            &(self.queues.len() as u16).to_le_bytes(),
        );
        let needs_reset = if offered.needs_reset {
            status::NEEDS_RESET
        } else {
            0
        };
        put(offset::DEVICE_STATUS, &[self.status | needs_reset]);
        put(offset::CONFIG_GENERATION, &[offered.generation]);
        put(offset::QUEUE_SELECT, &self.queue_select.to_le_bytes());
        // Where there is no queue its size is 0, and so is the offset of its notification register, as everybody's.
        if let Some(queue) = self.queues.get(usize::from(self.queue_select)) {
            let Place {
                size,
                descriptors,
                available,
                used,
            } = queue.place;
            put(offset::QUEUE_SIZE, &size.to_le_bytes());
            put(offset::QUEUE_VECTOR, &NO_VECTOR.to_le_bytes());
            put(
                offset::QUEUE_ENABLE,
                &u16::from(queue.enabled).to_le_bytes(),
            );
            put(offset::QUEUE_DESC, &descriptors.to_le_bytes());
            put(offset::QUEUE_DRIVER, &available.to_le_bytes());
            put(offset::QUEUE_DEVICE, &used.to_le_bytes());
        }
        image
    }

    /// Features are fixed once FEATURES_OK is set.
    fn set_driver_features(&mut self, value: u32) {
        if self.has(status::FEATURES_OK) || self.driver_feature_select > 1 {
            return;
        }
        let shift = 32 * self.driver_feature_select;
        let others = self.driver_features & !(u64::from(u32::MAX) << shift);
        self.driver_features = others | u64::from(value) << shift;
    }

    /// The registers of an enabled queue are fixed.
    fn with_disabled_queue(&mut self, change: impl FnOnce(&mut QueueRegisters)) {
        let queue = self.queues.get_mut(usize::from(self.queue_select));
        if let Some(queue) = queue.filter(|queue| !queue.enabled) {
            change(queue);
        }
    }
}

/// The 32 feature bits that `select` selects.
fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}
