//! [`Cable`]: the card's rings as the gateway's wire.

use std::io::{Read, Write};

use ::net::Wire;
use virtio_bindings::virtio_net::virtio_net_hdr_v1;

use super::super::queue::{Malformed, Reader, VirtQueue, Writer};

/// The length of the header before each frame (VIRTIO 1.2, 5.1.6 Device Operation).
const HEADER: usize = size_of::<virtio_net_hdr_v1>();
/// The header of a frame to the guest that nothing is to be done with: one buffer holds it all.
const PLAIN: [u8; HEADER] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
/// The longest frame: an Ethernet header and the largest IP packet.
const LONGEST: usize = 14 + 65535;

/// The rings of a network card.
pub(super) struct Cable {
    receive: VirtQueue,
    transmit: VirtQueue,
}

impl Cable {
    pub(super) fn new(receive: VirtQueue, transmit: VirtQueue) -> Self {
        Self { receive, transmit }
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

    fn send(&mut self, frame: &[u8]) {
        self.receive.serve_next(|_, room| put(frame, room));
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

/// Puts a frame behind a header. One for which a buffer of the driver's is too short is dropped: the driver gets the buffer
/// back without anything in it.
fn put(frame: &[u8], mut room: Writer<'_>) -> Result<u32, Malformed> {
    let len = HEADER + frame.len();
    if room.available_bytes() < len {
        return Ok(0);
    }
    room.write_all(&PLAIN)?;
    room.write_all(frame)?;
    Ok(len as u32)
}
