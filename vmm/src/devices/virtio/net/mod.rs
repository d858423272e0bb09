//! [`Net`]: a network card (VIRTIO 1.2, 5.1 Network Device) whose cable leads to a gateway in this process, or to another
//! program's socket.
//!
//! ```text
//!  driver ── transmitq ──► Cable ──► Gateway ──► the host's sockets
//!         ◄── receiveq ───       ◄── or Stream ◄── passt
//!                       the thread "net"
//! ```
//!
//! The rings are the only queues: a frame is copied between a buffer of the guest's and the backend, by the backend's thread,
//! which wakes when the driver has added buffers to either ring.

mod cable;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering::SeqCst},
    },
    thread::JoinHandle,
};

use ::net::{Backend, Config, Gateway, GatewayError, Stream, StreamError, Waker};
use virtio_bindings::{
    virtio_ids::VIRTIO_ID_NET,
    virtio_net::{
        VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MTU,
        VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
    },
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

/// The largest IP packet in bytes for a driver that is not told of any other.
const ETHERNET_MTU: u16 = 1500;

/// A network card.
pub struct Net {
    mac: [u8; 6],
    mtu: u16,
    ignores_checksums: bool,
    /// The far end of the cable, until its thread has it.
    backend: Option<Box<dyn Backend>>,
    waker: Waker,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the machine's thread and the backend's tell each other.
#[derive(Debug)]
struct Shared {
    /// To break off all connections, as the guest of before is gone.
    reset: AtomicBool,
    quit: AtomicBool,
    /// The largest IP packet that the driver takes, in bytes.
    mtu: AtomicU16,
    /// Whether the driver takes frames with partial checksums.
    partial_checksums: Arc<AtomicBool>,
    /// Whether the cable leads anywhere.
    up: AtomicBool,
}

impl Net {
    /// Makes a card and its gateway, and opens the published ports.
    ///
    /// # Errors
    /// If a port cannot be opened, or the host has no descriptors left.
    pub fn new(config: &Config) -> Result<Self, GatewayError> {
        let gateway = Gateway::new(config)?;
        Ok(Self::with(config.mac, Box::new(gateway)))
    }

    /// Makes a card whose cable leads to the socket of another program that carries frames, such as passt.
    ///
    /// # Errors
    /// If nobody listens at the socket, or the host has no descriptors left.
    pub fn connect_to(socket: &Path) -> Result<Self, StreamError> {
        let stream = Stream::connect(socket)?;
        Ok(Self::with(Config::DEFAULT_MAC, Box::new(stream)))
    }

    /// Makes a card with the Ethernet address `mac` and any far end of its cable.
    pub fn with(mac: [u8; 6], backend: Box<dyn Backend>) -> Self {
        let mtu = backend.mtu();
        Self {
            mac,
            mtu,
            ignores_checksums: backend.ignores_checksums(),
            waker: backend.waker(),
            backend: Some(backend),
            shared: Arc::new(Shared {
                reset: AtomicBool::new(false),
                quit: AtomicBool::new(false),
                mtu: AtomicU16::new(mtu),
                partial_checksums: Arc::default(),
                up: AtomicBool::new(true),
            }),
            thread: None,
        }
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
        let checksums = match self.ignores_checksums {
            true => 1 << VIRTIO_NET_F_CSUM | 1 << VIRTIO_NET_F_GUEST_CSUM,
            false => 0,
        };
        checksums | 1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_MTU | 1 << VIRTIO_NET_F_STATUS
    }

    fn config(&self) -> Vec<u8> {
        // mac, status, max_virtqueue_pairs, which no feature makes valid, mtu (5.1.4 Device configuration layout).
        let status = match self.shared.up.load(SeqCst) {
            true => VIRTIO_NET_S_LINK_UP as u16,
            false => 0,
        };
        let (status, mtu) = (status.to_le_bytes(), self.mtu.to_le_bytes());
        [&self.mac[..], &status, &[0; 2], &mtu].concat()
    }

    fn connect(
        &mut self,
        queues: &[VirtQueue],
        interrupt: &Interrupt,
        threads: &Threads,
    ) -> io::Result<()> {
        let Some(backend) = self.backend.take() else {
            return Ok(());
        };
        let cable = Cable::new(
            queues[RECEIVE].clone(),
            queues[TRANSMIT].clone(),
            Arc::clone(&self.shared.partial_checksums),
        );
        let (shared, interrupt) = (Arc::clone(&self.shared), interrupt.clone());
        self.thread = Some(threads.start(ThreadKind::Net, move || {
            serve(backend, cable, &shared, &interrupt);
        })?);
        Ok(())
    }

    fn activate(&mut self, features: u64) {
        let has = |feature: u32| features & 1 << feature != 0;
        let mtu = match has(VIRTIO_NET_F_MTU) {
            true => self.mtu,
            false => self.mtu.min(ETHERNET_MTU),
        };
        self.shared.mtu.store(mtu, SeqCst);
        self.shared
            .partial_checksums
            .store(has(VIRTIO_NET_F_GUEST_CSUM), SeqCst);
    }

    fn notify(&mut self, _: usize) {
        self.waker.wake();
    }

    fn reset(&mut self) {
        self.shared.reset.store(true, SeqCst);
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

/// Serves the backend until the card is dropped.
fn serve(mut backend: Box<dyn Backend>, mut cable: Cable, shared: &Shared, interrupt: &Interrupt) {
    let set_up = |up| {
        if shared.up.swap(up, SeqCst) != up {
            interrupt.configuration_changed();
        }
    };
    while !shared.quit.load(SeqCst) {
        if shared.reset.swap(false, SeqCst) {
            backend.reset();
        }
        backend.limit_mtu(shared.mtu.load(SeqCst));
        backend.turn(&mut cable);
        set_up(backend.is_up());
        if let Err(error) = backend.wait() {
            log::error!("the network has ended: {error}");
            return set_up(false);
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.shared.quit.store(true, SeqCst);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by now.
            let _ = thread.join();
        }
    }
}
