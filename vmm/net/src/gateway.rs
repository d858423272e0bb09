//! [`Gateway`]: all protocols together, behind a [`Wire`].

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use nix::errno::Errno;
use thiserror::Error;

use crate::{
    backend::Backend,
    config::Config,
    context::Context,
    frame::{Egress, Scratch},
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
/// Its owner calls [`Backend::wait`] and [`Backend::turn`] in a loop, on a thread of its own:
///
/// ```
/// use net::{Backend, Checksum, Config, Gateway, Wire};
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
///     fn send(&mut self, _: &mut [u8], _: Checksum) {}
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
    scratch: Scratch,
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
            scratch: Scratch::default(),
        })
    }

    /// The host's addresses of the published ports, in the order of [`Config::publish`].
    pub fn published(&self) -> &[SocketAddr] {
        &self.published
    }
}

impl Backend for Gateway {
    fn waker(&self) -> Waker {
        self.poller.waker()
    }

    fn mtu(&self) -> u16 {
        self.protocols.mtu()
    }

    fn limit_mtu(&mut self, mtu: u16) {
        self.protocols.set_mtu(mtu);
    }

    fn ignores_checksums(&self) -> bool {
        true
    }

    fn wait(&mut self) -> io::Result<()> {
        let timeout = if self.busy {
            Some(Duration::ZERO)
        } else {
            let now = Instant::now();
            let deadline = self.protocols.deadline();
            deadline.map(|deadline| deadline.saturating_duration_since(now))
        };
        let protocols = &mut self.protocols;
        let waited = self
            .poller
            .wait(timeout, |token, ready| protocols.on_ready(token, ready));
        Ok(waited?)
    }

    fn turn(&mut self, wire: &mut dyn Wire) {
        let mut cx = Context {
            now: Instant::now(),
            egress: Egress {
                wire,
                mtu: self.protocols.mtu(),
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

    /// Breaks off all connections.
    fn reset(&mut self) {
        self.protocols.reset();
    }
}
