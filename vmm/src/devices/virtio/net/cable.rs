//! [`Cable`]: the card's rings as the wire of its far end.

use std::{
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use ::net::{Checksum, Wire};
use virtio_bindings::virtio_net::{VIRTIO_NET_HDR_F_NEEDS_CSUM, virtio_net_hdr_v1};

use super::super::queue::{Malformed, Reader, VirtQueue, Writer};

/// The length of the header before each frame (VIRTIO 1.2, 5.1.6 Device Operation).
const HEADER: usize = size_of::<virtio_net_hdr_v1>();
/// The longest frame: an Ethernet header and the largest IP packet.
const LONGEST: usize = 14 + 65535;

/// The rings of a network card.
pub(super) struct Cable {
    receive: VirtQueue,
    transmit: VirtQueue,
    /// Whether the driver takes frames with partial checksums.
    partial_checksums: Arc<AtomicBool>,
}

impl Cable {
    pub(super) fn new(
        receive: VirtQueue,
        transmit: VirtQueue,
        partial_checksums: Arc<AtomicBool>,
    ) -> Self {
        Self {
            receive,
            transmit,
            partial_checksums,
        }
    }
}

/// Whether there are requests in the queue; if not, the driver notifies of the next.
fn has_requests(queue: &VirtQueue) -> bool {
    if !queue.is_empty() {
        return true;
    }
    if queue.set_notifications(true) {
        queue.set_notifications(false);
        return true;
    }
    false
}

impl Wire for Cable {
    fn receive(&mut self, frame: &mut Vec<u8>) -> bool {
        has_requests(&self.transmit)
            && self.transmit.serve_next(|sent, _| {
                take(sent, frame)?;
                Ok(0)
            })
    }

    fn has_room(&mut self) -> bool {
        has_requests(&self.receive)
    }

    fn send(&mut self, frame: &mut [u8], mut checksum: Checksum) {
        if !self.partial_checksums.load(SeqCst) {
            checksum.complete(frame);
            checksum = Checksum::Complete;
        }
        let header = header(checksum);
        self.receive.serve_next(|_, room| put(&header, frame, room));
    }
}

/// Takes a frame from behind its header. One that is too long is dropped.
fn take(mut sent: Reader<'_>, frame: &mut Vec<u8>) -> Result<(), Malformed> {
    sent.read_exact(&mut [0; HEADER])?;
    let len = sent.available_bytes();
    frame.resize(if len > LONGEST { 0 } else { len }, 0);
    sent.read_exact(frame)?;
    Ok(())
}

/// The header of a frame to the guest, which lies in one buffer (VIRTIO 1.2, 5.1.6 Device Operation: struct virtio_net_hdr).
fn header(checksum: Checksum) -> [u8; HEADER] {
    let mut header = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    if let Checksum::Partial { start, field } = checksum {
        header[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
        header[6..8].copy_from_slice(&start.to_le_bytes());
        header[8..10].copy_from_slice(&field.to_le_bytes());
    }
    header
}

/// Puts a frame behind its header. One for which a buffer of the driver's is too short is dropped: the driver gets the buffer
/// back without anything in it.
fn put(header: &[u8], frame: &[u8], mut room: Writer<'_>) -> Result<u32, Malformed> {
    let len = header.len() + frame.len();
    if room.available_bytes() < len {
        return Ok(0);
    }
    room.write_all(header)?;
    room.write_all(frame)?;
    Ok(len as u32)
}
