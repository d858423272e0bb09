//! [`Protocols`]: whom each of the guest's frames is for, and where its destinations lead.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    time::Instant,
};

use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, UdpPacket};

use crate::{
    addresses::{self, Target},
    arp,
    config::{Config, Publish, Transport},
    context::Context,
    dhcp,
    frame::Datagram,
    icmp::{self, Unreachable},
    ndisc::Router,
    poller::{Poller, Readiness, Token},
    reassembly::Reassembly,
    resolvers::Resolvers,
    tcp::Tcp,
    udp::{Ends, Inbound, Outbound},
};

/// Everything behind the wire but the waiting.
pub(crate) struct Protocols {
    host_loopback: bool,
    /// The largest IP packet in bytes: at present, which [`Egress`](crate::frame::Egress) carries to all protocols, and as configured.
    mtu: u16,
    most_mtu: u16,
    tcp: Tcp,
    outbound: Outbound,
    inbound: Inbound,
    /// The IPv6 network's router, where the host has IPv6.
    router: Option<Router>,
    resolvers: Resolvers,
    reassembly: Reassembly,
    /// The Ethernet address from which the guest sent last.
    guest_mac: EthernetAddress,
}

impl Protocols {
    pub(crate) fn new(config: &Config) -> Self {
        let mtu = config.mtu.max(Config::MIN_MTU);
        Self {
            host_loopback: config.host_loopback,
            mtu,
            most_mtu: mtu,
            tcp: Tcp::new(mtu),
            outbound: Outbound::new(),
            inbound: Inbound::new(),
            router: has_ipv6(config.host_loopback).then(Router::default),
            resolvers: Resolvers::new(config.resolv_conf.clone()),
            reassembly: Reassembly::default(),
            guest_mac: EthernetAddress(config.mac),
        }
    }

    pub(crate) fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Sets the largest IP packet, in bytes, of a guest that takes no larger ones.
    pub(crate) fn set_mtu(&mut self, mtu: u16) {
        let mtu = mtu.clamp(Config::MIN_MTU, self.most_mtu);
        if mtu == self.mtu {
            return;
        }
        self.mtu = mtu;
        self.tcp.set_mtu(mtu);
    }

    /// Opens a published port, and returns its address.
    pub(crate) fn publish(&mut self, publish: &Publish, poller: &Poller) -> io::Result<SocketAddr> {
        match publish.transport {
            Transport::Tcp => self.tcp.publish(publish.host, publish.guest, poller),
            Transport::Udp => self.inbound.publish(publish.host, publish.guest, poller),
        }
    }

    /// Notes that a socket has become ready.
    pub(crate) fn on_ready(&mut self, token: Token, ready: Readiness) {
        match token {
            Token::Wake => {}
            Token::Tcp(id) => self.tcp.on_ready(id, ready),
            Token::TcpListener(id) => self.tcp.on_listener_ready(id),
            Token::Udp(id) => self.outbound.on_readable(id),
            Token::UdpListener(id) => self.inbound.on_readable(id),
        }
    }

    /// Breaks off all connections that the guest knows of.
    pub(crate) fn reset(&mut self) {
        self.tcp.reset_all();
        self.outbound = Outbound::new();
    }

    /// When [`Self::serve`] is due though nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let router = self.router.as_ref().and_then(Router::deadline);
        [
            self.tcp.deadline(),
            self.outbound.deadline(),
            self.inbound.deadline(),
            router,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Sends the guest what there is for it.
    pub(crate) fn serve(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if due(self.outbound.deadline()) {
            self.outbound.sweep(now);
        }
        if due(self.inbound.deadline()) {
            self.inbound.sweep(now);
        }
        if let Some(router) = &mut self.router
            && due(router.deadline())
        {
            router.advertise(now, &mut cx.egress);
        }
        self.outbound.receive(cx);
        self.inbound.receive(self.guest_mac, cx);
        self.tcp.run(self.guest_mac, cx);
    }

    /// Takes a frame of the guest's. Malformed ones, and protocols that are not served, are dropped.
    pub(crate) fn receive(&mut self, frame: &[u8], cx: &mut Context<'_>) {
        let Ok(frame) = EthernetFrame::new_checked(frame) else {
            return;
        };
        let mac = frame.src_addr();
        if !mac.is_unicast() {
            return;
        }
        self.guest_mac = mac;
        if frame.ethertype() == EthernetProtocol::Arp {
            return arp::receive(frame.payload(), &mut cx.egress);
        }
        let whole = self
            .reassembly
            .take(frame.ethertype(), frame.payload(), cx.now);
        let packet = whole.as_deref().unwrap_or(frame.payload());
        let Some(datagram) = Datagram::parse(mac, frame.ethertype(), packet) else {
            return;
        };
        match (datagram.source.is_ipv6(), &mut self.router) {
            (true, None) => return,
            (true, Some(router)) if datagram.protocol == IpProtocol::Icmpv6 => {
                return router.receive(&datagram, cx.now, &mut cx.egress);
            }
            _ => {}
        }
        match datagram.protocol {
            IpProtocol::Udp => self.receive_udp(&datagram, cx),
            _ if !addresses::is_guest(datagram.source) => {}
            IpProtocol::Tcp => self.receive_tcp(&datagram, cx),
            IpProtocol::Icmp => icmp::receive_v4(&datagram, &mut cx.egress),
            _ => {}
        }
    }

    fn receive_tcp(&mut self, datagram: &Datagram<'_>, cx: &mut Context<'_>) {
        let (host_loopback, resolvers) = (self.host_loopback, &mut self.resolvers);
        let target = |destination| match addresses::target(destination, host_loopback) {
            Target::Host(address) => Some(address),
            Target::Resolver => Some(resolvers.first()),
            Target::Refused => None,
        };
        self.tcp.segment(datagram, target, cx);
    }

    fn receive_udp(&mut self, datagram: &Datagram<'_>, cx: &mut Context<'_>) {
        let Ok(packet) = UdpPacket::new_checked(datagram.payload) else {
            return;
        };
        let guest = SocketAddr::new(datagram.source, packet.src_port());
        let destination = SocketAddr::new(datagram.destination, packet.dst_port());
        if destination.port() == dhcp::PORT && datagram.source.is_ipv4() {
            return dhcp::receive(packet.payload(), &mut cx.egress);
        }
        if !addresses::is_guest(datagram.source) || guest.port() == 0 {
            return;
        }
        if self
            .inbound
            .send(guest, destination, packet.payload(), cx.now)
        {
            return;
        }
        let target = match addresses::target(destination, self.host_loopback) {
            Target::Host(address) => address,
            Target::Resolver => self.resolvers.next(guest, packet.payload()),
            Target::Refused if addresses::is_unicast(datagram.destination) => {
                return icmp::unreachable(&mut cx.egress, Unreachable::Port, &datagram.into());
            }
            Target::Refused => return,
        };
        let ends = Ends {
            guest,
            destination,
            target,
        };
        self.outbound.send(datagram.mac, ends, packet.payload(), cx);
    }
}

/// Whether the host can reach others by IPv6. Connecting a socket for datagrams sends none.
fn has_ipv6(host_loopback: bool) -> bool {
    // Any address of the global unicast space does; this one is a well-known resolver.
    let global = Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888);
    let reaches = |address: Ipv6Addr| {
        UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).and_then(|socket| socket.connect((address, 53)))
    };
    reaches(global).is_ok() || host_loopback && TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}
