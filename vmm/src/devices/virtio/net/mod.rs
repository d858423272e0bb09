//! [`Net`]: a network card (VIRTIO 1.2, 5.1 Network Device) whose wire leads to a gateway in this process.
//!
//! ```text
//!  driver ── transmitq ──► Cable ──► Gateway ──► the host's sockets
//!         ◄── receiveq ───       ◄──         ◄──
//!                       the thread "net"
//! ```
//!
//! The rings are the only queues: a frame is copied between a buffer of the guest's and the gateway, by the gateway's thread,
//! which wakes when the driver has added buffers to either ring.

mod cable;
#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
};

use ::net::{Config, Gateway, GatewayError, Waker};
use virtio_bindings::{
    virtio_ids::VIRTIO_ID_NET,
    virtio_net::{VIRTIO_NET_F_CSUM, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MTU},
};

use self::cable::Cable;
use super::{device::VirtioDevice, interrupt::Interrupt, queue::VirtQueue};
use crate::{
    bus::{DeviceStateError, decode_state, encode_state},
    threads::{ThreadKind, Threads},
};

/// The numbers of the queues (VIRTIO 1.2, 5.1.2 Virtqueues).
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// A network card.
pub struct Net {
    mac: [u8; 6],
    mtu: u16,
    /// The gateway, until its thread has it.
    gateway: Option<Gateway>,
    waker: Waker,
    requests: Arc<Requests>,
    thread: Option<JoinHandle<()>>,
}

/// What the machine's thread asks of the gateway's.
#[derive(Debug, Default)]
struct Requests {
    /// To break off all connections, as the guest of before is gone.
    reset: AtomicBool,
    quit: AtomicBool,
}

impl Net {
    /// Makes a card and its gateway, and opens the published ports.
    ///
    /// # Errors
    /// If a port cannot be opened, or the host has no descriptors left.
    pub fn new(config: &Config) -> Result<Self, GatewayError> {
        let gateway = Gateway::new(config)?;
        Ok(Self {
            mac: config.mac,
            mtu: gateway.mtu(),
            waker: gateway.waker(),
            gateway: Some(gateway),
            requests: Arc::default(),
            thread: None,
        })
    }
}

impl VirtioDevice for Net {
    fn device_type(&self) -> u16 {
        VIRTIO_ID_NET as u16
    }

    fn queue_sizes(&self) -> &[u16] {
        &[256, 256]
    }

    fn features(&self) -> u64 {
        // Frames of the guest's may come without checksums of TCP and UDP, as nobody checks them.
        1 << VIRTIO_NET_F_CSUM | 1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_MTU
    }

    fn config(&self) -> Vec<u8> {
        // mac, status and max_virtqueue_pairs, which no feature makes valid, mtu (5.1.4 Device configuration layout).
        [&self.mac[..], &[0; 4], &self.mtu.to_le_bytes()].concat()
    }

    fn connect(
        &mut self,
        queues: &[VirtQueue],
        _: &Interrupt,
        threads: &Threads,
    ) -> io::Result<()> {
        let Some(gateway) = self.gateway.take() else {
            return Ok(());
        };
        let cable = Cable::new(queues[RECEIVE].clone(), queues[TRANSMIT].clone());
        let requests = Arc::clone(&self.requests);
        self.thread =
            Some(threads.start(ThreadKind::Net, move || serve(gateway, cable, &requests))?);
        Ok(())
    }

    fn notify(&mut self, _: usize) {
        self.waker.wake();
    }

    fn reset(&mut self) {
        self.requests.reset.store(true, SeqCst);
        self.waker.wake();
    }

    fn save(&self) -> Result<Vec<u8>, DeviceStateError> {
        // Connections end here: after a restore, the guest's segments belong to none, and are answered with resets.
        encode_state(&())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), DeviceStateError> {
        decode_state(state)
    }
}

/// Serves the gateway until the card is dropped.
fn serve(mut gateway: Gateway, mut cable: Cable, requests: &Requests) {
    while !requests.quit.load(SeqCst) {
        if requests.reset.swap(false, SeqCst) {
            gateway.reset();
        }
        gateway.turn(&mut cable);
        if let Err(error) = gateway.wait() {
            log::error!("the network has ended: {error}");
            return;
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.requests.quit.store(true, SeqCst);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by now.
            let _ = thread.join();
        }
    }
}
