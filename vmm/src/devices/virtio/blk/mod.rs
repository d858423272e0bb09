//! [`Disk`]: a block device (VIRTIO 1.2, 5.2 Block Device) on an image file.
//!
//! ```text
//!   driver ──► request: header, data, status ──► thread ──► image: raw or qcow2, overlay of --disk …,snapshot
//! ```
//!
//! A thread serves the requests, one after the other. A write has reached the file when its status is set, and stable storage
//! when a later flush's is; without the feature FLUSH, each write does.

mod config;
mod extensions;
#[cfg(test)]
mod hostile;
mod image;
mod ordered;
mod refcounts;
mod request;
#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use parking_lot::Mutex;
use virtio_bindings::{
    virtio_blk::{
        VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO,
        VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
    },
    virtio_ids::VIRTIO_ID_BLOCK,
};

use super::{device::VirtioDevice, interrupt::Interrupt, queue::VirtQueue, worker::Worker};
use crate::{
    bus::{DeviceStateError, decode_state, encode_state},
    threads::{ThreadKind, Threads},
};
pub use config::{DiskConfig, DiskConfigError, DiskFormat};
pub use image::DiskError;
use image::{Image, SECTOR};
use request::{MOST_SECTORS, Requests};

/// A block device.
pub struct Disk {
    capacity: u64,
    read_only: bool,
    id: String,
    image: Arc<Mutex<Image>>,
    /// Whether each write is to reach stable storage before it is done.
    write_through: Arc<AtomicBool>,
    worker: Option<Worker>,
}

/// The size of the queue.
const QUEUE: u16 = 256;
/// The most segments of a request's data: a queue's descriptors less those of header and status.
const MOST_SEGMENTS: u32 = QUEUE as u32 - 2;

impl Disk {
    /// Opens the image that `config` names, and locks it against other machines.
    ///
    /// # Errors
    /// See [`DiskError`].
    pub fn open(config: &DiskConfig) -> Result<Self, DiskError> {
        let image = Image::open(config)?;
        let name = config.path.file_name().unwrap_or_default();
        Ok(Self {
            capacity: image.size() / SECTOR,
            read_only: config.read_only,
            id: name.to_string_lossy().into_owned(),
            image: Arc::new(Mutex::new(image)),
            write_through: Arc::default(),
            worker: None,
        })
    }
}

impl VirtioDevice for Disk {
    fn device_type(&self) -> u16 {
        VIRTIO_ID_BLOCK as u16
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE]
    }

    fn features(&self) -> u64 {
        let common = 1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE;
        common
            | match self.read_only {
                true => 1 << VIRTIO_BLK_F_RO,
                false => {
                    1 << VIRTIO_BLK_F_FLUSH
                        | 1 << VIRTIO_BLK_F_DISCARD
                        | 1 << VIRTIO_BLK_F_WRITE_ZEROES
                }
            }
    }

    fn config(&self) -> Vec<u8> {
        // VIRTIO 1.2, 5.2.4 Device configuration layout.
        let mut config = vec![0; 60];
        let mut put = |offset: usize, bytes: &[u8]| {
            config[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &self.capacity.to_le_bytes());
        put(12, &MOST_SEGMENTS.to_le_bytes()); // seg_max
        put(20, &(SECTOR as u32).to_le_bytes()); // blk_size
        put(34, &1u16.to_le_bytes()); // num_queues
        put(36, &MOST_SECTORS.to_le_bytes()); // max_discard_sectors
        put(40, &1u32.to_le_bytes()); // max_discard_seg
        put(44, &1u32.to_le_bytes()); // discard_sector_alignment
        put(48, &MOST_SECTORS.to_le_bytes()); // max_write_zeroes_sectors
        put(52, &1u32.to_le_bytes()); // max_write_zeroes_seg
        put(56, &[1]); // write_zeroes_may_unmap
        config
    }

    fn connect(
        &mut self,
        queues: &[VirtQueue],
        _: &Interrupt,
        threads: &Threads,
    ) -> io::Result<()> {
        let queues = queues.to_vec();
        let mut requests = Requests::new(
            Arc::clone(&self.image),
            Arc::clone(&self.write_through),
            self.capacity,
            self.read_only,
            &self.id,
        );
        let worker = Worker::start(threads, ThreadKind::Disk, move |queue| {
            queues[queue].serve_all(|request, room| requests.serve(request, room));
        })?;
        self.worker = Some(worker);
        Ok(())
    }

    fn activate(&mut self, features: u64) {
        let flushes = features & 1 << VIRTIO_BLK_F_FLUSH != 0;
        self.write_through.store(!flushes, SeqCst);
    }

    fn notify(&mut self, queue: usize) {
        if let Some(worker) = &self.worker {
            worker.notify(queue);
        }
    }

    fn save(&self) -> Result<Vec<u8>, DeviceStateError> {
        // Another process opens the file.
        let flushed = self.image.lock().flush();
        flushed.map_err(|_| DeviceStateError::Unsupported)?;
        encode_state(&self.capacity)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), DeviceStateError> {
        match decode_state::<u64>(state)? == self.capacity {
            true => Ok(()),
            false => Err(DeviceStateError::Impossible("the size of the disk")),
        }
    }
}
