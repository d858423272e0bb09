//! Hand-made frames of the guest's, and the gateway's frames taken apart.

use std::net::{IpAddr, SocketAddr};

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, IpRepr, Ipv4Packet, Ipv4Repr,
        Ipv6Packet, Ipv6Repr, UdpPacket, UdpRepr,
    },
};

use crate::guest::MAC;

/// A frame of the guest's.
pub fn frame(to: EthernetAddress, ethertype: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 14 + payload.len()];
    let mut frame = EthernetFrame::new_unchecked(bytes.as_mut_slice());
    frame.set_dst_addr(to);
    frame.set_src_addr(MAC);
    frame.set_ethertype(ethertype);
    frame.payload_mut().copy_from_slice(payload);
    bytes
}

/// A frame with an IP packet of the guest's.
pub fn ip(
    from: IpAddr,
    to: IpAddr,
    protocol: IpProtocol,
    hop_limit: u8,
    payload: &[u8],
) -> Vec<u8> {
    let repr = IpRepr::new(from.into(), to.into(), protocol, payload.len(), hop_limit);
    let mut packet = vec![0; repr.buffer_len()];
    repr.emit(packet.as_mut_slice(), &ChecksumCapabilities::default());
    packet[repr.header_len()..].copy_from_slice(payload);
    let ethertype = match to {
        IpAddr::V4(_) => EthernetProtocol::Ipv4,
        IpAddr::V6(_) => EthernetProtocol::Ipv6,
    };
    frame(EthernetAddress::BROADCAST, ethertype, &packet)
}

/// A frame with a UDP datagram of the guest's.
pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let repr = UdpRepr {
        src_port: from.port(),
        dst_port: to.port(),
    };
    let mut datagram = vec![0; 8 + payload.len()];
    repr.emit(
        &mut UdpPacket::new_unchecked(datagram.as_mut_slice()),
        &from.ip().into(),
        &to.ip().into(),
        payload.len(),
        |data| data.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    ip(from.ip(), to.ip(), IpProtocol::Udp, 64, &datagram)
}

/// Frames with a UDP datagram of the guest's in fragments of `size` bytes (RFC 791, 3.1 Internet Header Format; RFC 8200, 4.5
/// Fragment Header).
pub fn fragments(
    from: SocketAddr,
    to: SocketAddr,
    payload: &[u8],
    size: usize,
    ident: u16,
) -> Vec<Vec<u8>> {
    let whole = udp(from, to, payload);
    let header = if from.is_ipv4() { 20 } else { 40 };
    let datagram = &whole[14 + header..];
    let pieces = datagram.chunks(size).enumerate();
    pieces
        .map(|(number, piece)| {
            let offset = number * size;
            let more = offset + piece.len() < datagram.len();
            let place = (offset / 8) as u16;
            if from.is_ipv4() {
                let mut frame = ip(from.ip(), to.ip(), IpProtocol::Udp, 64, piece);
                frame[18..20].copy_from_slice(&ident.to_be_bytes());
                let flags = place | u16::from(more) << 13;
                frame[20..22].copy_from_slice(&flags.to_be_bytes());
                return frame;
            }
            let [high, low] = (place << 3 | u16::from(more)).to_be_bytes();
            let [first, second] = ident.to_be_bytes();
            let extension = [17, 0, high, low, 0, 0, first, second];
            let payload = [&extension, piece].concat();
            ip(from.ip(), to.ip(), IpProtocol::Ipv6Frag, 64, &payload)
        })
        .collect()
}

/// An IP packet from the gateway, with a valid checksum of its header.
pub struct Packet<'a> {
    pub from: IpAddr,
    pub to: IpAddr,
    pub protocol: IpProtocol,
    pub payload: &'a [u8],
}

/// Takes a frame's IP packet out, which must be well-formed.
pub fn parse_ip(bytes: &[u8]) -> Option<Packet<'_>> {
    let frame = EthernetFrame::new_checked(bytes).unwrap();
    match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
            let repr = Ipv4Repr::parse(&packet, &ChecksumCapabilities::default()).unwrap();
            Some(Packet {
                from: repr.src_addr.into(),
                to: repr.dst_addr.into(),
                protocol: repr.next_header,
                payload: packet.payload(),
            })
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(frame.payload()).unwrap();
            let repr = Ipv6Repr::parse(&packet).unwrap();
            Some(Packet {
                from: repr.src_addr.into(),
                to: repr.dst_addr.into(),
                protocol: repr.next_header,
                payload: packet.payload(),
            })
        }
        _ => None,
    }
}

/// Takes a frame's UDP datagram out, which must have a valid checksum: the ends and the payload.
pub fn parse_udp(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
    let packet = parse_ip(bytes).filter(|packet| packet.protocol == IpProtocol::Udp)?;
    let datagram = UdpPacket::new_checked(packet.payload).unwrap();
    assert!(datagram.verify_checksum(&packet.from.into(), &packet.to.into()));
    Some((
        SocketAddr::new(packet.from, datagram.src_port()),
        SocketAddr::new(packet.to, datagram.dst_port()),
        datagram.payload().to_vec(),
    ))
}

/// Takes a fragment out of a frame: the identification, the offset in bytes, whether others follow, and the data (RFC 791, 3.1
/// Internet Header Format; RFC 8200, 4.5 Fragment Header).
pub fn parse_fragment(bytes: &[u8]) -> Option<(u32, usize, bool, Vec<u8>)> {
    let frame = EthernetFrame::new_checked(bytes).unwrap();
    let word = |at: usize| u16::from_be_bytes([frame.payload()[at], frame.payload()[at + 1]]);
    match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
            assert!(packet.verify_checksum() && !packet.dont_frag());
            assert_eq!(word(2) as usize, frame.payload().len());
            Some((
                word(4).into(),
                usize::from(word(6) & 0x1fff) * 8,
                word(6) & 0x2000 != 0,
                packet.payload().to_vec(),
            ))
        }
        EthernetProtocol::Ipv6 if frame.payload()[6] == 44 => {
            assert_eq!(frame.payload()[40], 17, "UDP");
            Some((
                u32::from(word(44)) << 16 | u32::from(word(46)),
                usize::from(word(42) & !7),
                word(42) & 1 != 0,
                frame.payload()[48..].to_vec(),
            ))
        }
        _ => None,
    }
}
