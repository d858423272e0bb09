//! [`Rng`]: an entropy device (VIRTIO 1.2, 5.4 Entropy Device), which the host's random numbers feed.

use std::io::{self, Write};

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use super::{
    device::VirtioDevice,
    interrupt::Interrupt,
    queue::{Malformed, Reader, VirtQueue, Writer},
};
use crate::{
    bus::{DeviceStateError, decode_state, encode_state},
    threads::Threads,
};

/// An entropy device.
#[derive(Default)]
pub struct Rng(Option<VirtQueue>);

/// The most bytes for one request, so that each is served at once; Linux asks for 64.
const MOST: usize = 256;

impl VirtioDevice for Rng {
    fn device_type(&self) -> u16 {
        VIRTIO_ID_RNG as u16
    }

    fn queue_sizes(&self) -> &[u16] {
        &[64]
    }

    fn connect(&mut self, queues: &[VirtQueue], _: &Interrupt, _: &Threads) -> io::Result<()> {
        self.0 = queues.first().cloned();
        Ok(())
    }

    fn notify(&mut self, _: usize) {
        if let Some(queue) = &self.0 {
            queue.serve_all(fill);
        }
    }

    fn save(&self) -> Result<Vec<u8>, DeviceStateError> {
        encode_state(&())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), DeviceStateError> {
        decode_state(state)
    }
}

/// Writes random bytes into the room of a request.
fn fill(_: Reader<'_>, mut room: Writer<'_>) -> Result<u32, Malformed> {
    let mut bytes = [0; MOST];
    let len = room.available_bytes().min(MOST);
    // The driver asks for something.
    if len == 0 {
        return Err(Malformed);
    }
    // A host without random numbers gives none, and the driver asks again.
    if getrandom::fill(&mut bytes[..len]).is_err() {
        return Ok(0);
    }
    room.write_all(&bytes[..len])?;
    Ok(len as u32)
}
