//! [`Outbound`]: the guest's datagrams to others, and the answers.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, ErrorKind},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Instant,
};

use smoltcp::wire::{EthernetAddress, IpProtocol};

use super::{IDLE, MAX_EXCHANGES, MAX_PAYLOAD, SWEEP};
use crate::{
    context::Context,
    frame::Egress,
    icmp::{self, Undelivered, Unreachable},
    poller::Token,
};

/// The ends of an exchange. The target is the host's idea of the destination: a question to the resolver may go to several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    pub(crate) guest: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) target: SocketAddr,
}

/// An exchange: a socket of the host's that is connected to the target, so that others cannot answer and errors come back.
struct Exchange {
    ends: Ends,
    mac: EthernetAddress,
    socket: UdpSocket,
    used: Instant,
    /// Whether the exchange is in the queue of those whose socket may have something to read.
    queued: bool,
}

/// The exchanges that the guest has begun.
pub(crate) struct Outbound {
    exchanges: HashMap<u64, Exchange>,
    by_ends: HashMap<Ends, u64>,
    readable: VecDeque<u64>,
    next_id: u64,
    next_sweep: Option<Instant>,
    buffer: Vec<u8>,
}

impl Outbound {
    pub(crate) fn new() -> Self {
        Self {
            exchanges: HashMap::new(),
            by_ends: HashMap::new(),
            readable: VecDeque::new(),
            next_id: 0,
            next_sweep: None,
            buffer: vec![0; MAX_PAYLOAD],
        }
    }

    /// Sends a datagram of the guest's.
    pub(crate) fn send(
        &mut self,
        mac: EthernetAddress,
        ends: Ends,
        payload: &[u8],
        cx: &mut Context<'_>,
    ) {
        let id = match self.by_ends.get(&ends) {
            Some(&id) => id,
            None => match self.open(mac, ends, cx) {
                Ok(id) => id,
                Err(error) => return report(&error, mac, &ends, &mut cx.egress),
            },
        };
        let exchange = self
            .exchanges
            .get_mut(&id)
            .expect("by_ends names exchanges that are open");
        exchange.used = cx.now;
        exchange.mac = mac;
        let mut result = exchange.socket.send(payload);
        if is_refusal(&result) {
            // The error of an earlier datagram.
            report_result(&result, exchange, &mut cx.egress);
            result = exchange.socket.send(payload);
        }
        report_result(&result, exchange, &mut cx.egress);
    }

    fn open(&mut self, mac: EthernetAddress, ends: Ends, cx: &Context<'_>) -> io::Result<u64> {
        if self.exchanges.len() >= MAX_EXCHANGES {
            self.close_oldest();
        }
        let any = match ends.target {
            SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        socket.connect(ends.target)?;
        let id = self.next_id;
        self.next_id += 1;
        cx.watch(&socket, Token::Udp(id))?;
        self.exchanges.insert(
            id,
            Exchange {
                ends,
                mac,
                socket,
                used: cx.now,
                queued: false,
            },
        );
        self.by_ends.insert(ends, id);
        self.next_sweep.get_or_insert(cx.now + SWEEP);
        Ok(id)
    }

    fn close_oldest(&mut self) {
        let oldest = self
            .exchanges
            .iter()
            .min_by_key(|(_, exchange)| exchange.used);
        if let Some((&id, _)) = oldest {
            self.close(id);
        }
    }

    fn close(&mut self, id: u64) {
        if let Some(exchange) = self.exchanges.remove(&id) {
            self.by_ends.remove(&exchange.ends);
        }
    }

    /// Notes that a socket has become readable.
    pub(crate) fn on_readable(&mut self, id: u64) {
        if let Some(exchange) = self.exchanges.get_mut(&id)
            && !exchange.queued
        {
            exchange.queued = true;
            self.readable.push_back(id);
        }
    }

    /// Passes answers on while the guest has room for them.
    pub(crate) fn receive(&mut self, cx: &mut Context<'_>) {
        while let Some(&id) = self.readable.front() {
            let Some(exchange) = self.exchanges.get_mut(&id) else {
                self.readable.pop_front();
                continue;
            };
            if !cx.egress.has_room() {
                return;
            }
            match exchange.socket.recv(&mut self.buffer) {
                Ok(len) => {
                    exchange.used = cx.now;
                    let (from, to) = (exchange.ends.destination, exchange.ends.guest);
                    cx.egress.udp(exchange.mac, from, to, &self.buffer[..len]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    exchange.queued = false;
                    self.readable.pop_front();
                }
                Err(error) => report(&error, exchange.mac, &exchange.ends, &mut cx.egress),
            }
        }
    }

    /// When [`Self::sweep`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next_sweep
    }

    /// Closes exchanges that are over.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.exchanges
            .retain(|_, exchange| now.duration_since(exchange.used) < IDLE);
        self.by_ends.retain(|_, id| self.exchanges.contains_key(id));
        self.next_sweep = (!self.exchanges.is_empty()).then(|| now + SWEEP);
    }
}

fn is_refusal(result: &io::Result<usize>) -> bool {
    matches!(result, Err(error) if error.kind() == ErrorKind::ConnectionRefused)
}

fn report_result(result: &io::Result<usize>, exchange: &Exchange, egress: &mut Egress<'_>) {
    if let Err(error) = result {
        report(error, exchange.mac, &exchange.ends, egress);
    }
}

/// Tells the guest that a datagram did not arrive, where the host knows it; others are lost in silence, as datagrams may be.
fn report(error: &io::Error, mac: EthernetAddress, ends: &Ends, egress: &mut Egress<'_>) {
    let reason = match error.kind() {
        ErrorKind::ConnectionRefused => Unreachable::Port,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Unreachable::Host,
        _ => return,
    };
    let lost = Undelivered {
        mac,
        source: ends.guest.ip(),
        destination: ends.destination.ip(),
        protocol: IpProtocol::Udp,
        payload: &icmp::udp_header(ends.guest, ends.destination),
    };
    icmp::unreachable(egress, reason, &lost);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{frame::Scratch, poller::Poller, wire::Unplugged};

    fn exchange(port: u16, target: SocketAddr) -> Ends {
        Ends {
            guest: SocketAddr::new(crate::addresses::GUEST.into(), port),
            destination: target,
            target,
        }
    }

    #[test]
    fn exchanges_are_bounded_and_end() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        let poller = Poller::new().unwrap();
        let mut outbound = Outbound::new();
        let start = Instant::now();
        let send = |outbound: &mut Outbound, port, now| {
            let mut cx = Context {
                now,
                egress: Egress {
                    wire: &mut Unplugged,
                    mtu: 1500,
                    scratch: &mut Scratch::default(),
                },
                poller: &poller,
            };
            outbound.send(
                EthernetAddress::BROADCAST,
                exchange(port, target),
                b"x",
                &mut cx,
            );
        };
        for port in 1..=MAX_EXCHANGES as u16 + 5 {
            send(
                &mut outbound,
                port,
                start + Duration::from_micros(port.into()),
            );
        }
        assert_eq!(outbound.exchanges.len(), MAX_EXCHANGES);
        assert_eq!(outbound.by_ends.len(), MAX_EXCHANGES);
        assert!(!outbound.by_ends.contains_key(&exchange(5, target)));
        assert!(outbound.by_ends.contains_key(&exchange(6, target)));

        send(&mut outbound, 6, start + IDLE);
        outbound.sweep(start + IDLE + Duration::from_secs(1));
        assert_eq!(outbound.by_ends.len(), 1);
        assert!(outbound.deadline().is_some());
        outbound.sweep(start + IDLE * 2);
        assert!(outbound.exchanges.is_empty());
        assert_eq!(outbound.deadline(), None);
    }
}
