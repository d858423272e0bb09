//! [`Fs`]: a file system device (VIRTIO 1.2, 5.11 File System Device), through which the guest has a directory of the host.
//!
//! The queues carry FUSE requests; [`fuse::Server`] answers them on a thread of the device's. Requests are copied out of guest
//! memory and replies into it, so nothing changes while it is looked at.

use std::{
    io::{self, Read as _, Write as _},
    sync::Arc,
};

use fuse::Server;
use parking_lot::Mutex;
use thiserror::Error;
use virtio_bindings::virtio_ids::VIRTIO_ID_FS;

use super::{
    device::VirtioDevice,
    interrupt::Interrupt,
    queue::{Malformed, Reader, VirtQueue, Writer},
    worker::Worker,
};
use crate::threads::{ThreadKind, Threads};

/// The bytes of the tag in the configuration structure.
const TAG: usize = 36;

/// The sizes of the queues: that of high priority, for what frees memory in the guest, and that of all other requests.
const QUEUES: [u16; 2] = [128, 1024];

/// The most bytes of a request or a reply: 256 pages of data, and what comes with them.
const MOST: usize = (256 + 2) << 12;

/// A file system device.
pub struct Fs {
    tag: [u8; TAG],
    server: Arc<Mutex<Server>>,
    worker: Option<Worker>,
}

/// The error of a tag that is empty, too long or has a zero byte.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no tag: 1 to {TAG} bytes, none of them zero")]
pub struct TagError(String);

impl Fs {
    /// Creates a device that the guest mounts by the name `tag` (`mount -t virtiofs TAG FOLDER`).
    ///
    /// # Errors
    /// If `tag` is empty, longer than 36 bytes, or has a zero byte.
    pub fn new(tag: &str, server: Server) -> Result<Self, TagError> {
        let bytes = tag.as_bytes();
        if bytes.is_empty() || bytes.len() > TAG || bytes.contains(&0) {
            return Err(TagError(tag.to_owned()));
        }
        let mut padded = [0; TAG];
        padded[..bytes.len()].copy_from_slice(bytes);
        Ok(Self {
            tag: padded,
            server: Arc::new(Mutex::new(server)),
            worker: None,
        })
    }
}

impl VirtioDevice for Fs {
    fn device_type(&self) -> u16 {
        VIRTIO_ID_FS as u16
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUES
    }

    /// The tag, then the number of request queues.
    fn config(&self) -> Vec<u8> {
        [&self.tag[..], &1_u32.to_le_bytes()].concat()
    }

    fn connect(
        &mut self,
        queues: &[VirtQueue],
        _: &Interrupt,
        threads: &Threads,
    ) -> io::Result<()> {
        let queues = queues.to_vec();
        let server = Arc::clone(&self.server);
        let (mut request, mut reply) = (Vec::new(), Vec::new());
        self.worker = Some(Worker::start(threads, ThreadKind::Files, move |queue| {
            queues[queue].serve_all(|sent, room| {
                answer(&mut server.lock(), sent, room, &mut request, &mut reply)
            });
        })?);
        Ok(())
    }

    fn notify(&mut self, queue: usize) {
        if let Some(worker) = &self.worker {
            worker.notify(queue);
        }
    }

    fn reset(&mut self) {
        self.server.lock().reset();
    }
}

/// Answers a request, by way of buffers whose memory is used again.
fn answer(
    server: &mut Server,
    mut sent: Reader<'_>,
    mut room: Writer<'_>,
    request: &mut Vec<u8>,
    reply: &mut Vec<u8>,
) -> Result<u32, Malformed> {
    let length = sent.available_bytes();
    if length > MOST {
        return Err(Malformed);
    }
    request.resize(length, 0);
    sent.read_exact(request)?;
    server.answer(request, room.available_bytes().min(MOST), reply);
    room.write_all(reply)?;
    Ok(reply.len() as u32)
}
