//! Frames: [`Datagram`], an IP packet from the guest, and [`Egress`], the way to it.

use std::net::{IpAddr, SocketAddr};

use smoltcp::{
    phy::{Checksum, ChecksumCapabilities},
    wire::{
        ETHERNET_HEADER_LEN, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, IpRepr,
        Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, UDP_HEADER_LEN, UdpPacket, UdpRepr,
    },
};

use crate::{addresses::GATEWAY_MAC, wire::Wire};

/// The wire cannot damage a frame: checksums are computed for the guest, which checks them, but its own are not checked.
pub(crate) fn checksums() -> ChecksumCapabilities {
    let mut checksums = ChecksumCapabilities::ignored();
    checksums.ipv4 = Checksum::Tx;
    checksums.udp = Checksum::Tx;
    checksums.tcp = Checksum::Tx;
    checksums.icmpv4 = Checksum::Tx;
    checksums.icmpv6 = Checksum::Tx;
    checksums
}

/// A whole IP packet from the guest.
#[derive(Clone, Copy)]
pub(crate) struct Datagram<'a> {
    pub(crate) mac: EthernetAddress,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: IpProtocol,
    pub(crate) hop_limit: u8,
    pub(crate) payload: &'a [u8],
    /// The packet from its IP header on.
    pub(crate) packet: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Returns the packet in an Ethernet frame's payload; nothing if it is malformed, a fragment, or one with an extension
    /// header of IPv6 or a source route.
    pub(crate) fn parse(
        mac: EthernetAddress,
        ethertype: EthernetProtocol,
        data: &'a [u8],
    ) -> Option<Self> {
        match ethertype {
            EthernetProtocol::Ipv4 => Self::parse_v4(mac, data),
            EthernetProtocol::Ipv6 => Self::parse_v6(mac, data),
            _ => None,
        }
    }

    fn parse_v4(mac: EthernetAddress, data: &'a [u8]) -> Option<Self> {
        let packet = Ipv4Packet::new_checked(data).ok()?;
        let repr = Ipv4Repr::parse(&packet, &ChecksumCapabilities::ignored()).ok()?;
        if packet.more_frags() || packet.frag_offset() != 0 {
            return None;
        }
        Some(Self {
            mac,
            source: repr.src_addr.into(),
            destination: repr.dst_addr.into(),
            protocol: repr.next_header,
            hop_limit: repr.hop_limit,
            payload: packet.payload(),
            packet: &data[..usize::from(packet.total_len())],
        })
    }

    fn parse_v6(mac: EthernetAddress, data: &'a [u8]) -> Option<Self> {
        let packet = Ipv6Packet::new_checked(data).ok()?;
        let repr = Ipv6Repr::parse(&packet).ok()?;
        Some(Self {
            mac,
            source: repr.src_addr.into(),
            destination: repr.dst_addr.into(),
            protocol: repr.next_header,
            hop_limit: repr.hop_limit,
            payload: packet.payload(),
            packet: &data[..packet.total_len()],
        })
    }
}

/// The way to the guest: puts headers before payloads and sends frames.
pub(crate) struct Egress<'a> {
    pub(crate) wire: &'a mut dyn Wire,
    pub(crate) scratch: &'a mut Vec<u8>,
}

impl Egress<'_> {
    /// Whether the guest can take one more frame.
    pub(crate) fn has_room(&mut self) -> bool {
        self.wire.has_room()
    }

    /// Sends a frame with `len` bytes of payload, which `fill` writes; it is dropped if there is no room.
    pub(crate) fn frame<R>(
        &mut self,
        to: EthernetAddress,
        ethertype: EthernetProtocol,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        self.scratch.resize(ETHERNET_HEADER_LEN + len, 0);
        let mut frame = EthernetFrame::new_unchecked(self.scratch.as_mut_slice());
        frame.set_src_addr(GATEWAY_MAC);
        frame.set_dst_addr(to);
        frame.set_ethertype(ethertype);
        let result = fill(frame.payload_mut());
        if self.wire.has_room() {
            self.wire.send(self.scratch);
        }
        result
    }

    /// Sends an IP packet with `len` bytes of payload, which `fill` writes.
    pub(crate) fn ip(
        &mut self,
        to: EthernetAddress,
        route: (IpAddr, IpAddr),
        (protocol, hop_limit): (IpProtocol, u8),
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let repr = IpRepr::new(route.0.into(), route.1.into(), protocol, len, hop_limit);
        self.frame(to, ethertype(route.1), repr.buffer_len(), |packet| {
            repr.emit(&mut *packet, &checksums());
            fill(&mut packet[repr.header_len()..]);
        });
    }

    /// Sends a UDP datagram.
    pub(crate) fn udp(
        &mut self,
        to: EthernetAddress,
        source: SocketAddr,
        destination: SocketAddr,
        payload: &[u8],
    ) {
        let repr = UdpRepr {
            src_port: source.port(),
            dst_port: destination.port(),
        };
        let route = (source.ip(), destination.ip());
        let len = UDP_HEADER_LEN + payload.len();
        self.ip(to, route, (IpProtocol::Udp, 64), len, |buffer| {
            repr.emit(
                &mut UdpPacket::new_unchecked(buffer),
                &route.0.into(),
                &route.1.into(),
                payload.len(),
                |data| data.copy_from_slice(payload),
                &checksums(),
            );
        });
    }
}

/// The Ethernet protocol of packets between such addresses.
pub(crate) fn ethertype(address: IpAddr) -> EthernetProtocol {
    match address {
        IpAddr::V4(_) => EthernetProtocol::Ipv4,
        IpAddr::V6(_) => EthernetProtocol::Ipv6,
    }
}
