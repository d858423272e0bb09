//! Frames: [`Datagram`], an IP packet of the guest's or for it, and [`Egress`], the way to it.

use std::net::{IpAddr, SocketAddr};

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        ETHERNET_HEADER_LEN, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, IpRepr,
        Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, UDP_HEADER_LEN, UdpPacket, UdpRepr, checksum,
    },
};

use crate::{
    addresses::GATEWAY_MAC,
    checksum::{Checksum, checksums},
    fragments,
    wire::Wire,
};

/// The offset in bytes of the checksum in TCP's header (RFC 9293, 3.1 Header Format).
const TCP_CHECKSUM: u16 = 16;

/// The largest payload in bytes of a datagram in an IPv4 packet.
const MAX_PAYLOAD_V4: usize = 65535 - 20 - 8;

/// A whole IP packet of the guest's or for it.
#[derive(Clone, Copy)]
pub(crate) struct Datagram<'a> {
    /// The sender.
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
    /// Returns the packet in an Ethernet frame's payload; nothing if it is malformed or a fragment.
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

/// The memory in which frames to the guest are made.
#[derive(Default)]
pub(crate) struct Scratch {
    frame: Vec<u8>,
    /// The payload of a packet that is sent in fragments.
    payload: Vec<u8>,
    /// The identification of the next packet that is sent in fragments.
    ident: u32,
}

/// The way to the guest: puts headers before payloads and sends frames.
pub(crate) struct Egress<'a> {
    pub(crate) wire: &'a mut dyn Wire,
    /// The largest IP packet in bytes. Larger ones are sent in fragments.
    pub(crate) mtu: u16,
    pub(crate) scratch: &'a mut Scratch,
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
        let result = fill(self.begin(to, ethertype, len));
        self.finish(Checksum::Complete);
        result
    }

    /// Sends a frame with an IP packet of `len` bytes, which `fill` writes but for the checksum of TCP, if it is a segment.
    pub(crate) fn segment<R>(
        &mut self,
        to: EthernetAddress,
        ethertype: EthernetProtocol,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let packet = self.begin(to, ethertype, len);
        let result = fill(packet);
        let checksum = begin_checksum(ethertype, packet);
        self.finish(checksum);
        result
    }

    /// Returns the payload, `len` bytes, of the frame that is sent next.
    fn begin(&mut self, to: EthernetAddress, ethertype: EthernetProtocol, len: usize) -> &mut [u8] {
        let bytes = &mut self.scratch.frame;
        bytes.resize(ETHERNET_HEADER_LEN + len, 0);
        let mut frame = EthernetFrame::new_unchecked(bytes.as_mut_slice());
        frame.set_src_addr(GATEWAY_MAC);
        frame.set_dst_addr(to);
        frame.set_ethertype(ethertype);
        &mut bytes[ETHERNET_HEADER_LEN..]
    }

    fn finish(&mut self, checksum: Checksum) {
        if self.wire.has_room() {
            self.wire.send(&mut self.scratch.frame, checksum);
        }
    }

    /// Sends an IP packet with `len` bytes of payload, which `fill` writes; in fragments, if it is too large for the link.
    pub(crate) fn ip(
        &mut self,
        to: EthernetAddress,
        route: (IpAddr, IpAddr),
        (protocol, hop_limit): (IpProtocol, u8),
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let repr = IpRepr::new(route.0.into(), route.1.into(), protocol, len, hop_limit);
        if repr.buffer_len() > self.mtu.into() {
            let mut payload = std::mem::take(&mut self.scratch.payload);
            payload.clear();
            payload.resize(len, 0);
            fill(&mut payload);
            self.fragments(to, &repr, &payload);
            self.scratch.payload = payload;
            return;
        }
        self.frame(to, ethertype(route.1), repr.buffer_len(), |packet| {
            repr.emit(&mut *packet, &checksums());
            fill(&mut packet[repr.header_len()..]);
        });
    }

    /// Sends an IP packet in fragments, which are lost all together if there is no room for one.
    fn fragments(&mut self, to: EthernetAddress, repr: &IpRepr, payload: &[u8]) {
        let ident = self.scratch.ident;
        self.scratch.ident = ident.wrapping_add(1);
        let ethertype = ethertype(repr.dst_addr().into());
        let header = fragments::header_len(repr);
        for fragment in fragments::fragments(repr, payload.len(), self.mtu) {
            self.frame(to, ethertype, header + fragment.len, |packet| {
                fragments::emit(repr, fragment, ident, packet);
                packet[header..].copy_from_slice(&payload[fragment.offset..][..fragment.len]);
            });
        }
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
        if destination.is_ipv4() && payload.len() > MAX_PAYLOAD_V4 {
            return; // a resolver's answer by IPv6, to a question by IPv4
        }
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

/// Puts the sum over the pseudo header where the checksum of a TCP segment belongs (RFC 9293, 3.1 Header Format; RFC 8200, 8.1
/// Upper-Layer Checksums). Other packets are complete.
fn begin_checksum(ethertype: EthernetProtocol, packet: &mut [u8]) -> Checksum {
    let Some(segment) = Datagram::parse(GATEWAY_MAC, ethertype, packet) else {
        return Checksum::Complete;
    };
    let len = segment.payload.len();
    let header = segment.packet.len() - len;
    let at = header + usize::from(TCP_CHECKSUM);
    if segment.protocol != IpProtocol::Tcp || packet.len() < at + 2 {
        return Checksum::Complete;
    }
    let (source, destination) = (segment.source.into(), segment.destination.into());
    let pseudo = checksum::pseudo_header(&source, &destination, IpProtocol::Tcp, len as u32);
    packet[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
    Checksum::Partial {
        start: (ETHERNET_HEADER_LEN + header) as u16,
        field: TCP_CHECKSUM,
    }
}

/// The Ethernet protocol of packets between such addresses.
pub(crate) fn ethertype(address: IpAddr) -> EthernetProtocol {
    match address {
        IpAddr::V4(_) => EthernetProtocol::Ipv4,
        IpAddr::V6(_) => EthernetProtocol::Ipv6,
    }
}
