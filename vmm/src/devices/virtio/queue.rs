//! [`VirtQueue`]: a split virtqueue (VIRTIO 1.2, 2.7 Split Virtqueues), by `virtio-queue`.
//!
//! ```text
//!   available ring ─► head ─► chain of descriptors ─┬─ readable ─► Reader ─┐
//!                                                   └─ writable ─► Writer ─┴─► the device
//!   used ring ◄───────── head, bytes written ◄────────────────────────────────────┘
//! ```
//!
//! The queue is locked while a request is served. So whoever resets or saves the device finds it between two requests, and no
//! thread writes into guest memory afterwards.

use std::{
    io,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
};

use mmu::{GuestRam, Memory, StoreHook};
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{
    DescriptorChain, Queue, QueueOwnedT, QueueState, QueueT, desc::split::Descriptor,
};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

use super::interrupt::Interrupt;

/// The bytes that the driver has sent with a request.
pub type Reader<'a> = virtio_queue::Reader<'a, StoreHook>;
/// The room that the driver gives for the answer to a request.
pub type Writer<'a> = virtio_queue::Writer<'a, StoreHook>;

/// A virtqueue of a device, shared by its threads.
#[derive(Clone)]
pub struct VirtQueue(Arc<Shared>);

struct Shared {
    ring: Mutex<Ring>,
    interrupt: Interrupt,
}

struct Ring {
    queue: Queue,
    /// The RAM, while the queue is live.
    ram: Option<GuestRam>,
    /// Whether requests wait, since the device may not access memory at present.
    suspended: bool,
}

/// The place and size of a queue, as the driver has set them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The number of descriptors.
    pub size: u16,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring, the driver's area.
    pub available: u64,
    /// Guest-physical address of the used ring, the device's area.
    pub used: u64,
}

/// The indices at which a queue goes on: of the available and of the used ring.
pub type Indices = (u16, u16);

/// The error of a ring or a request that breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("malformed virtio ring or request")]
pub struct Malformed;

impl From<io::Error> for Malformed {
    /// Reader and writer fail where a request is shorter than its type demands.
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl From<virtio_queue::Error> for Malformed {
    fn from(_: virtio_queue::Error) -> Self {
        Self
    }
}

/// The sizes of a descriptor, and of the rings around their elements (VIRTIO 1.2, 2.7 Split Virtqueues).
const DESCRIPTOR: u64 = 16;
const RING_FIELDS: u64 = 6;
const AVAILABLE_ELEMENT: u64 = 2;
const USED_ELEMENT: u64 = 8;

impl VirtQueue {
    /// Creates a queue for `largest` descriptors at most.
    ///
    /// # Panics
    /// If that is no power of two up to 32768.
    pub(super) fn new(largest: u16, interrupt: &Interrupt) -> Self {
        let queue = Queue::new(largest).expect("a device's queue size is a power of two");
        Self(Arc::new(Shared {
            ring: Mutex::new(Ring {
                queue,
                ram: None,
                suspended: false,
            }),
            interrupt: interrupt.clone(),
        }))
    }

    /// Serves the next request, if there is one, and returns whether there was. `serve` is given what the driver has sent and
    /// the room for the answer, and returns the number of bytes that it has written there, from the beginning. It must not use
    /// this queue itself.
    ///
    /// If it finds the request malformed, or the ring is, the queue stops until the driver has reset the device.
    pub fn serve_next(
        &self,
        serve: impl FnOnce(Reader<'_>, Writer<'_>) -> Result<u32, Malformed>,
    ) -> bool {
        let mut ring = self.0.ring.lock();
        let served = match ring.serve_next(serve) {
            Ok(None) => false,
            Ok(Some(notify)) => {
                if notify {
                    self.0.interrupt.used();
                }
                true
            }
            Err(Malformed) => {
                ring.ram = None;
                self.0.interrupt.needs_reset();
                false
            }
        };
        // Whoever stops the queue gets it before the next request.
        MutexGuard::unlock_fair(ring);
        served
    }

    /// Serves requests until there are no more. The driver sends no notifications meanwhile.
    pub fn serve_all(
        &self,
        mut serve: impl FnMut(Reader<'_>, Writer<'_>) -> Result<u32, Malformed>,
    ) {
        loop {
            self.set_notifications(false);
            while self.serve_next(&mut serve) {}
            if !self.set_notifications(true) {
                return;
            }
        }
    }

    /// Tells the driver whether it is to notify the device of new requests, and returns whether there are some already. A
    /// device that has turned notifications off must look again after it has turned them on.
    pub fn set_notifications(&self, wanted: bool) -> bool {
        let mut ring = self.0.ring.lock();
        let Ring {
            queue,
            ram: Some(ram),
            suspended: false,
        } = &mut *ring
        else {
            return false;
        };
        // The rings were in RAM when the queue was enabled.
        match wanted {
            true => queue.enable_notification(ram).unwrap_or(false),
            false => {
                let _ = queue.disable_notification(ram);
                false
            }
        }
    }

    /// Whether no request waits.
    pub fn is_empty(&self) -> bool {
        let ring = self.0.ring.lock();
        let Ring {
            queue,
            ram: Some(ram),
            suspended: false,
        } = &*ring
        else {
            return true;
        };
        // The rings were in RAM when the queue was enabled.
        let available = queue.avail_idx(ram, Ordering::Acquire);
        available.is_ok_and(|index| index.0 == queue.next_avail())
    }

    /// Makes the queue live, at `place` in memory and going on at `indices`.
    ///
    /// # Errors
    /// If the place is not in RAM, or it is misaligned.
    pub(super) fn start(
        &self,
        place: &Place,
        event_idx_enabled: bool,
        (next_avail, next_used): Indices,
        memory: &Arc<Memory>,
    ) -> Result<(), Malformed> {
        let ram = memory.guest_ram();
        place.check(&ram)?;
        let mut ring = self.0.ring.lock();
        ring.queue = Queue::try_from(QueueState {
            max_size: ring.queue.max_size(),
            next_avail,
            next_used,
            event_idx_enabled,
            size: place.size,
            ready: true,
            desc_table: place.descriptors,
            avail_ring: place.available,
            used_ring: place.used,
        })?;
        ring.ram = Some(ram);
        Ok(())
    }

    /// Ends the queue's life. Waits for the request that is being served.
    pub(super) fn stop(&self) {
        let mut ring = self.0.ring.lock();
        ring.ram = None;
        ring.queue.reset();
    }

    /// Sets whether requests wait. Waits for the request that is being served.
    pub(super) fn suspend(&self, suspended: bool) {
        self.0.ring.lock().suspended = suspended;
    }

    /// The indices at which the queue goes on, if it is live.
    pub(super) fn indices(&self) -> Option<Indices> {
        let ring = self.0.ring.lock();
        let live = ring.ram.is_some();
        live.then(|| (ring.queue.next_avail(), ring.queue.next_used()))
    }
}

impl Ring {
    /// Serves the next request, and returns whether the driver wants to know, or `None` if there is no request.
    fn serve_next(
        &mut self,
        serve: impl FnOnce(Reader<'_>, Writer<'_>) -> Result<u32, Malformed>,
    ) -> Result<Option<bool>, Malformed> {
        let Self {
            queue,
            ram: Some(ram),
            suspended: false,
        } = self
        else {
            return Ok(None);
        };
        let ram: &GuestRam = ram;
        let Some(chain) = queue.iter(ram)?.next() else {
            return Ok(None);
        };
        check(chain.clone())?;
        let head = chain.head_index();
        let written = serve(chain.clone().reader(ram)?, chain.writer(ram)?)?;
        queue.add_used(ram, head, written)?;
        Ok(Some(is_interrupt_wanted(queue, ram)?))
    }
}

/// Whether the driver wants an interrupt for the buffers used since the last one (VIRTIO 1.2, 2.7.7 Used Buffer Notification
/// Suppression).
fn is_interrupt_wanted(queue: &mut Queue, ram: &GuestRam) -> Result<bool, Malformed> {
    if !queue.event_idx_enabled() {
        // The used ring is written before the driver's wish is read, as the driver looks at them the other way round.
        fence(Ordering::SeqCst);
        let flags = GuestAddress(queue.avail_ring());
        let flags: u16 = ram.load(flags, Ordering::SeqCst).map_err(|_| Malformed)?;
        return Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0);
    }
    Ok(queue.needs_notification(ram)?)
}

/// Checks what iteration over a chain passes over in silence: it ends at a descriptor that has no next one, and no readable
/// descriptor follows a writable one (VIRTIO 1.2, 2.7.4.2 Driver Requirements: Message Framing).
fn check(chain: DescriptorChain<&GuestRam>) -> Result<(), Malformed> {
    let mut last: Option<Descriptor> = None;
    for descriptor in chain {
        if last.is_some_and(|last| last.is_write_only() && !descriptor.is_write_only()) {
            return Err(Malformed);
        }
        last = Some(descriptor);
    }
    match last {
        Some(last) if !last.has_next() => Ok(()),
        _ => Err(Malformed),
    }
}

impl Place {
    /// Checks that table and rings are in RAM.
    fn check(&self, ram: &GuestRam) -> Result<(), Malformed> {
        let size = u64::from(self.size);
        let parts = [
            (self.descriptors, DESCRIPTOR * size),
            (self.available, RING_FIELDS + AVAILABLE_ELEMENT * size),
            (self.used, RING_FIELDS + USED_ELEMENT * size),
        ];
        let in_ram = parts.into_iter().all(|(start, len)| {
            ram.check_range(GuestAddress(start), len as usize, Permissions::ReadWrite)
        });
        in_ram.then_some(()).ok_or(Malformed)
    }
}
