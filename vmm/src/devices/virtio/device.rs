//! [`VirtioDevice`]: the interface of a virtio device.

use std::io;

use super::{interrupt::Interrupt, queue::VirtQueue};
use crate::{bus::DeviceStateError, threads::Threads};

/// A virtio device, without transport and rings.
///
/// All methods are called on the machine's thread. The device's life:
///
/// ```text
///   connect ─► activate ─► notify, notify, … ─► reset ─┐
///                 ▲                                    │
///                 └────────────────────────────────────┘
/// ```
///
/// The queues that `connect` brings stay the same for ever, and can be cloned and given to other threads at once. A queue has
/// requests between `activate` and `reset` only. After `reset` no thread finds a request of before, because
/// [`VirtQueue::serve_next`] holds the queue while it serves one; so a device that keeps nothing else has nothing to do then.
pub trait VirtioDevice: Send {
    /// The device type (VIRTIO 1.2, 5 Device Types), VIRTIO_ID_* in `virtio_bindings::virtio_ids`.
    fn device_type(&self) -> u16;

    /// The largest size of each queue, powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// The feature bits of the device type that it offers, 0 to 23 and from 50 on. The transport has its own: VERSION_1,
    /// INDIRECT_DESC and EVENT_IDX.
    fn features(&self) -> u64 {
        0
    }

    /// The device configuration structure as the driver reads it at present, little-endian, of constant length, 192 bytes at
    /// most. Where the device changes it by itself it calls [`Interrupt::configuration_changed`].
    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes a write of 1, 2 or 4 bytes to the device configuration structure, within its length.
    fn write_config(&mut self, _offset: usize, _bytes: &[u8]) {}

    /// Takes the device's queues and interrupt, once. Here a device starts its threads, by `threads`, as later the machine's thread
    /// may have no right to.
    ///
    /// # Errors
    /// If the host refuses a thread or what else it needs.
    fn connect(
        &mut self,
        queues: &[VirtQueue],
        interrupt: &Interrupt,
        threads: &Threads,
    ) -> io::Result<()>;

    /// Takes the features that were negotiated: the driver is ready, and the queues that it has enabled may have requests.
    fn activate(&mut self, _features: u64) {}

    /// Serves a queue to which the driver has added requests, or lets a thread serve it. Also called where there are none.
    fn notify(&mut self, queue: usize);

    /// Returns to the state before `activate`.
    fn reset(&mut self) {}

    /// Saves the state, without transport and queues. No request is served meanwhile, nor until the machine runs on.
    ///
    /// # Errors
    /// [`DeviceStateError::Unsupported`] unless the device implements this.
    fn save(&self) -> Result<Vec<u8>, DeviceStateError> {
        Err(DeviceStateError::Unsupported)
    }

    /// Restores a saved state, which may come from an untrusted source. `activate` and `notify` follow if the driver was
    /// ready.
    ///
    /// # Errors
    /// If the state cannot be one of this device.
    fn restore(&mut self, _state: &[u8]) -> Result<(), DeviceStateError> {
        Err(DeviceStateError::Unsupported)
    }
}
