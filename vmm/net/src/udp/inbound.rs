//! [`Inbound`]: datagrams of others to the guest's published ports, and the guest's answers.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{SocketAddr, UdpSocket},
    time::Instant,
};

use smoltcp::wire::EthernetAddress;

use super::{IDLE, MAX_EXCHANGES, MAX_PAYLOAD, SWEEP};
use crate::{
    addresses::{GATEWAY, GUEST},
    context::Context,
    poller::{Poller, Token},
};

/// The gateway's ports that stand for peers.
const PEER_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

/// A published port: a socket of the host's.
struct Published {
    socket: UdpSocket,
    guest_port: u16,
    queued: bool,
}

/// A peer of the guest's, which the guest knows as a port of the gateway.
struct Peer {
    /// The number of the published port.
    published: usize,
    address: SocketAddr,
    used: Instant,
}

/// The published ports and the peers that have sent to them.
pub(crate) struct Inbound {
    published: Vec<Published>,
    peers: HashMap<u16, Peer>,
    by_address: HashMap<(usize, SocketAddr), u16>,
    readable: VecDeque<usize>,
    next_port: u16,
    next_sweep: Option<Instant>,
    buffer: Vec<u8>,
}

impl Inbound {
    pub(crate) fn new() -> Self {
        Self {
            published: Vec::new(),
            peers: HashMap::new(),
            by_address: HashMap::new(),
            readable: VecDeque::new(),
            next_port: *PEER_PORTS.start(),
            next_sweep: None,
            buffer: vec![0; MAX_PAYLOAD],
        }
    }

    /// Opens a port of the host's that leads to the guest's, and returns its address.
    pub(crate) fn publish(
        &mut self,
        host: SocketAddr,
        guest_port: u16,
        poller: &Poller,
    ) -> io::Result<SocketAddr> {
        let socket = UdpSocket::bind(host)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        poller.add(&socket, Token::UdpListener(self.published.len() as u64))?;
        self.published.push(Published {
            socket,
            guest_port,
            queued: false,
        });
        Ok(address)
    }

    /// Sends an answer of the guest's to the peer that it is for. Returns whether it is one.
    pub(crate) fn send(
        &mut self,
        guest: SocketAddr,
        destination: SocketAddr,
        payload: &[u8],
        now: Instant,
    ) -> bool {
        if destination.ip() != GATEWAY {
            return false;
        }
        let Some(peer) = self.peers.get_mut(&destination.port()) else {
            return false;
        };
        let published = &self.published[peer.published];
        if guest.port() != published.guest_port {
            return false;
        }
        peer.used = now;
        let _ = published.socket.send_to(payload, peer.address); // datagrams may be lost
        true
    }

    /// Notes that a published port has become readable.
    pub(crate) fn on_readable(&mut self, id: u64) {
        let number = id as usize;
        if let Some(published) = self.published.get_mut(number)
            && !published.queued
        {
            published.queued = true;
            self.readable.push_back(number);
        }
    }

    /// Passes datagrams on while the guest has room for them.
    pub(crate) fn receive(&mut self, mac: EthernetAddress, cx: &mut Context<'_>) {
        while let Some(&number) = self.readable.front() {
            if !cx.egress.has_room() {
                return;
            }
            let published = &mut self.published[number];
            match published.socket.recv_from(&mut self.buffer) {
                Ok((len, address)) => {
                    let to = SocketAddr::new(GUEST.into(), published.guest_port);
                    let from =
                        SocketAddr::new(GATEWAY.into(), self.peer_port(number, address, cx.now));
                    cx.egress.udp(mac, from, to, &self.buffer[..len]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    published.queued = false;
                    self.readable.pop_front();
                }
                Err(_) => {} // of an earlier answer, and taken now
            }
        }
    }

    /// The port of the gateway's that stands for the peer.
    fn peer_port(&mut self, published: usize, address: SocketAddr, now: Instant) -> u16 {
        if let Some(&port) = self.by_address.get(&(published, address))
            && let Some(peer) = self.peers.get_mut(&port)
        {
            peer.used = now;
            return port;
        }
        if self.peers.len() >= MAX_EXCHANGES {
            self.forget_oldest();
        }
        while self.peers.contains_key(&self.next_port) {
            self.next_port = following(self.next_port);
        }
        let port = self.next_port;
        self.next_port = following(port);
        self.peers.insert(
            port,
            Peer {
                published,
                address,
                used: now,
            },
        );
        self.by_address.insert((published, address), port);
        self.next_sweep.get_or_insert(now + SWEEP);
        port
    }

    fn forget_oldest(&mut self) {
        let oldest = self.peers.iter().min_by_key(|(_, peer)| peer.used);
        if let Some((&port, peer)) = oldest {
            self.by_address.remove(&(peer.published, peer.address));
            self.peers.remove(&port);
        }
    }

    /// When [`Self::sweep`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next_sweep
    }

    /// Forgets peers that have been silent.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.peers
            .retain(|_, peer| now.duration_since(peer.used) < IDLE);
        self.by_address
            .retain(|_, port| self.peers.contains_key(port));
        self.next_sweep = (!self.peers.is_empty()).then(|| now + SWEEP);
    }
}

fn following(port: u16) -> u16 {
    if port == *PEER_PORTS.end() {
        *PEER_PORTS.start()
    } else {
        port + 1
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn peers_are_bounded_and_forgotten() {
        let mut inbound = Inbound::new();
        let start = Instant::now();
        let peer = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut ports = Vec::new();
        for port in 1..=MAX_EXCHANGES as u16 + 3 {
            ports.push(inbound.peer_port(
                0,
                peer(port),
                start + Duration::from_micros(port.into()),
            ));
        }
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), MAX_EXCHANGES + 3);
        assert_eq!(inbound.peers.len(), MAX_EXCHANGES);
        assert_eq!(inbound.by_address.len(), MAX_EXCHANGES);
        let kept = inbound.by_address[&(0, peer(4))];
        assert_eq!(inbound.peer_port(0, peer(4), start + IDLE), kept);
        inbound.sweep(start + IDLE + Duration::from_secs(1));
        assert_eq!(inbound.by_address.len(), 1);
        inbound.sweep(start + IDLE * 3);
        assert!(inbound.peers.is_empty() && inbound.deadline().is_none());
    }
}
