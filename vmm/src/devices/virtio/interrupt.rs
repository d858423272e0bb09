//! [`Interrupt`]: the part of a device's state that its own threads change.

use std::sync::{
    Arc,
    atomic::{
        AtomicBool, AtomicU8,
        Ordering::{Relaxed, SeqCst},
    },
};

use crate::devices::pci::Doorbell;

/// ISR status, bit 0: a queue has used buffers (VIRTIO 1.2, 4.1.4.5 ISR status capability).
const QUEUE: u8 = 1 << 0;
/// ISR status, bit 1: the configuration has changed.
const CONFIGURATION: u8 = 1 << 1;
/// All causes of an interrupt.
const CAUSES: u8 = QUEUE | CONFIGURATION;
/// Beside the ISR status, whether the driver has set DRIVER_OK. Before, a device sends no notifications (VIRTIO 1.2, 2.1.2 Device
/// Requirements: Device Status Field).
const DRIVER_OK: u8 = 1 << 7;

/// A virtio device's way to the driver, shared by all its threads.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The ISR status, and `DRIVER_OK`: in one place, so that no cause outlives the driver that it was for.
    isr: AtomicU8,
    generation: AtomicU8,
    needs_reset: AtomicBool,
    doorbell: Doorbell,
}

impl Interrupt {
    pub(super) fn new(doorbell: Doorbell) -> Self {
        Self(Arc::new(Shared {
            isr: AtomicU8::new(0),
            generation: AtomicU8::new(0),
            needs_reset: AtomicBool::new(false),
            doorbell,
        }))
    }

    /// Tells the driver, if it is ready, that the device's configuration structure has changed.
    pub fn configuration_changed(&self) {
        self.0.generation.fetch_add(1, SeqCst);
        self.raise(CONFIGURATION);
    }

    /// Tells the driver that a queue has used buffers.
    pub(super) fn used(&self) {
        self.raise(QUEUE);
    }

    /// Tells the driver that the device is in an error state, which only a reset ends.
    pub(super) fn needs_reset(&self) {
        self.0.needs_reset.store(true, SeqCst);
        self.raise(CONFIGURATION);
    }

    pub(super) fn is_reset_needed(&self) -> bool {
        self.0.needs_reset.load(Relaxed)
    }

    pub(super) fn generation(&self) -> u8 {
        self.0.generation.load(SeqCst)
    }

    /// The ISR status, which stays as it is.
    pub(super) fn isr(&self) -> u8 {
        self.0.isr.load(SeqCst) & CAUSES
    }

    /// Reads the ISR status as the driver does, which clears it.
    pub(super) fn take_isr(&self) -> u8 {
        self.0.isr.fetch_and(!CAUSES, SeqCst) & CAUSES
    }

    /// Notes that the driver is ready.
    pub(super) fn activate(&self) {
        self.0.isr.fetch_or(DRIVER_OK, SeqCst);
    }

    /// Forgets the driver.
    pub(super) fn reset(&self) {
        self.0.isr.store(0, SeqCst);
        self.0.needs_reset.store(false, SeqCst);
    }

    /// Restores a saved state, of a driver that is not ready yet, and returns whether it can be one.
    pub(super) fn restore(&self, isr: u8, needs_reset: bool) -> bool {
        let possible = isr & !CAUSES == 0;
        if possible {
            self.0.isr.store(isr, SeqCst);
            self.0.needs_reset.store(needs_reset, SeqCst);
        }
        possible
    }

    fn raise(&self, cause: u8) {
        let raised = |isr| (isr & DRIVER_OK != 0).then_some(isr | cause);
        if self.0.isr.fetch_update(SeqCst, SeqCst, raised).is_ok() {
            self.0.doorbell.ring();
        }
    }
}
