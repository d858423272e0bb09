//! [`Gateway`]: all protocols together, behind a [`Wire`].

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use nix::errno::Errno;
use thiserror::Error;

use crate::{
    config::Config,
    context::Context,
    frame::Egress,
    poller::{Poller, Waker},
    protocols::Protocols,
    wire::Wire,
};

/// The number of the guest's frames that are taken before the host's sockets are looked at again.
const BATCH: usize = 64;

/// The error of making a gateway.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// The host's port cannot be opened.
    #[error("cannot publish {address}")]
    Publish {
        /// The host's address.
        address: SocketAddr,
        /// The host's reason.
        source: io::Error,
    },
    /// The host has no descriptors left to wait for sockets.
    #[error("cannot wait for sockets")]
    Poller(#[source] Errno),
}

/// The guest's way to the world: router, DHCP server and resolver of a network of its own, whose connections and datagrams
/// are carried by ordinary sockets of the host's.
///
/// Its owner calls [`Self::wait`] and [`Self::turn`] in a loop, on a thread of its own:
///
/// ```
/// use net::{Config, Gateway, Wire};
///
/// /// A guest that has sent nothing.
/// struct Quiet;
///
/// impl Wire for Quiet {
///     fn receive(&mut self, _: &mut Vec<u8>) -> bool {
///         false
///     }
///     fn has_room(&mut self) -> bool {
///         true
///     }
///     fn send(&mut self, _: &[u8]) {}
/// }
///
/// let mut gateway = Gateway::new(&Config::default())?;
/// gateway.waker().wake();
/// gateway.wait()?;
/// gateway.turn(&mut Quiet);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Gateway {
    poller: Poller,
    protocols: Protocols,
    published: Vec<SocketAddr>,
    /// Whether the guest may have more frames.
    busy: bool,
    frame: Vec<u8>,
    scratch: Vec<u8>,
}

impl Gateway {
    /// Makes a gateway and opens the published ports.
    ///
    /// # Errors
    /// If a port cannot be opened, or the host has no descriptors left.
    pub fn new(config: &Config) -> Result<Self, GatewayError> {
        let poller = Poller::new().map_err(GatewayError::Poller)?;
        let mut protocols = Protocols::new(config);
        let mut published = Vec::new();
        for publish in &config.publish {
            let address =
                protocols
                    .publish(publish, &poller)
                    .map_err(|source| GatewayError::Publish {
                        address: publish.host,
                        source,
                    })?;
            published.push(address);
        }
        Ok(Self {
            poller,
            protocols,
            published,
            busy: true,
            frame: Vec::new(),
            scratch: Vec::new(),
        })
    }

    /// The host's addresses of the published ports, in the order of [`Config::publish`].
    pub fn published(&self) -> &[SocketAddr] {
        &self.published
    }

    /// The largest IP packet that the guest is told to send, in bytes.
    pub fn mtu(&self) -> u16 {
        self.protocols.mtu()
    }

    /// Returns a handle that ends [`Self::wait`] from other threads: for when the guest has sent, or has room again.
    pub fn waker(&self) -> Waker {
        self.poller.waker()
    }

    /// Waits until there is something to do in [`Self::turn`].
    ///
    /// # Errors
    /// If the host cannot wait for the sockets.
    pub fn wait(&mut self) -> Result<(), GatewayError> {
        let timeout = if self.busy {
            Some(Duration::ZERO)
        } else {
            let now = Instant::now();
            let deadline = self.protocols.deadline();
            deadline.map(|deadline| deadline.saturating_duration_since(now))
        };
        let protocols = &mut self.protocols;
        self.poller
            .wait(timeout, |token, ready| protocols.on_ready(token, ready))
            .map_err(GatewayError::Poller)
    }

    /// Takes frames from the guest and sends it what the host's sockets have for it, as far as the wire has room.
    pub fn turn(&mut self, wire: &mut dyn Wire) {
        let mut cx = Context {
            now: Instant::now(),
            egress: Egress {
                wire,
                scratch: &mut self.scratch,
            },
            poller: &self.poller,
        };
        let mut count = 0;
        // Room for an answer is there before a frame is taken.
        while count < BATCH && cx.egress.has_room() && cx.egress.wire.receive(&mut self.frame) {
            self.protocols.receive(&self.frame, &mut cx);
            count += 1;
        }
        self.busy = count == BATCH;
        self.protocols.serve(&mut cx);
    }

    /// Breaks off all connections, as when the guest is reset.
    pub fn reset(&mut self) {
        self.protocols.reset();
    }
}
