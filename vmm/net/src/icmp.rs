//! ICMP and ICMPv6: echo requests to the gateway are answered, and the guest is told of what is unreachable.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        EthernetAddress, Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6DstUnreachable,
        Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv4Repr, Ipv6Repr,
    },
};

use crate::{
    addresses::{GATEWAY, GATEWAY_V6, is_gateway},
    checksum::checksums,
    frame::{Datagram, Egress},
};

/// The reason why a datagram does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// There is no way to the host.
    Host,
    /// Nobody listens at the port.
    Port,
}

/// A datagram that did not arrive: the ends, the protocol and the beginning of the payload.
pub(crate) struct Undelivered<'a> {
    pub(crate) mac: EthernetAddress,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: IpProtocol,
    pub(crate) payload: &'a [u8],
}

impl<'a> From<&Datagram<'a>> for Undelivered<'a> {
    fn from(datagram: &Datagram<'a>) -> Self {
        Self {
            mac: datagram.mac,
            source: datagram.source,
            destination: datagram.destination,
            protocol: datagram.protocol,
            payload: datagram.payload,
        }
    }
}

/// The UDP header, as far as an error needs it, of a datagram between these ports (RFC 768, Format).
pub(crate) fn udp_header(source: SocketAddr, destination: SocketAddr) -> [u8; 8] {
    let [s0, s1] = source.port().to_be_bytes();
    let [d0, d1] = destination.port().to_be_bytes();
    [s0, s1, d0, d1, 0, 8, 0, 0]
}

/// Tells the guest that a datagram of its did not arrive.
pub(crate) fn unreachable(egress: &mut Egress<'_>, reason: Unreachable, lost: &Undelivered<'_>) {
    // The header and the first eight bytes are what every receiver understands (RFC 792, Destination Unreachable Message).
    let data = &lost.payload[..lost.payload.len().min(8)];
    match (lost.source, lost.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let message = Icmpv4Repr::DstUnreachable {
                reason: match reason {
                    Unreachable::Host => Icmpv4DstUnreachable::HostUnreachable,
                    Unreachable::Port => Icmpv4DstUnreachable::PortUnreachable,
                },
                header: Ipv4Repr {
                    src_addr: source,
                    dst_addr: destination,
                    next_header: lost.protocol,
                    payload_len: data.len(),
                    hop_limit: 64,
                },
                data,
            };
            send_v4(egress, lost.mac, (GATEWAY, source), &message);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let message = Icmpv6Repr::DstUnreachable {
                reason: match reason {
                    Unreachable::Host => Icmpv6DstUnreachable::AddrUnreachable,
                    Unreachable::Port => Icmpv6DstUnreachable::PortUnreachable,
                },
                header: Ipv6Repr {
                    src_addr: source,
                    dst_addr: destination,
                    next_header: lost.protocol,
                    payload_len: data.len(),
                    hop_limit: 64,
                },
                data,
            };
            send_v6(egress, lost.mac, (GATEWAY_V6, source), 64, &message);
        }
        _ => {}
    }
}

/// Answers an echo request to the gateway.
pub(crate) fn receive_v4(datagram: &Datagram<'_>, egress: &mut Egress<'_>) {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (datagram.source, datagram.destination)
    else {
        return;
    };
    let Ok(packet) = Icmpv4Packet::new_checked(datagram.payload) else {
        return;
    };
    if let Ok(Icmpv4Repr::EchoRequest {
        ident,
        seq_no,
        data,
    }) = Icmpv4Repr::parse(&packet, &ChecksumCapabilities::ignored())
        && is_gateway(datagram.destination)
    {
        let reply = Icmpv4Repr::EchoReply {
            ident,
            seq_no,
            data,
        };
        send_v4(egress, datagram.mac, (destination, source), &reply);
    }
}

/// Answers an echo request to the gateway.
pub(crate) fn answer_echo_v6(
    datagram: &Datagram<'_>,
    request: &Icmpv6Repr<'_>,
    egress: &mut Egress<'_>,
) {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (datagram.source, datagram.destination)
    else {
        return;
    };
    if let &Icmpv6Repr::EchoRequest {
        ident,
        seq_no,
        data,
    } = request
        && is_gateway(datagram.destination)
    {
        let reply = Icmpv6Repr::EchoReply {
            ident,
            seq_no,
            data,
        };
        send_v6(egress, datagram.mac, (destination, source), 64, &reply);
    }
}

fn send_v4(
    egress: &mut Egress<'_>,
    to: EthernetAddress,
    route: (Ipv4Addr, Ipv4Addr),
    message: &Icmpv4Repr<'_>,
) {
    let addresses = (route.0.into(), route.1.into());
    egress.ip(
        to,
        addresses,
        (IpProtocol::Icmp, 64),
        message.buffer_len(),
        |buffer| {
            message.emit(&mut Icmpv4Packet::new_unchecked(buffer), &checksums());
        },
    );
}

/// Sends a message of ICMPv6 with the hop limit given.
pub(crate) fn send_v6(
    egress: &mut Egress<'_>,
    to: EthernetAddress,
    route: (Ipv6Addr, Ipv6Addr),
    hop_limit: u8,
    message: &Icmpv6Repr<'_>,
) {
    let addresses = (route.0.into(), route.1.into());
    egress.ip(
        to,
        addresses,
        (IpProtocol::Icmpv6, hop_limit),
        message.buffer_len(),
        |buffer| {
            message.emit(
                &route.0,
                &route.1,
                &mut Icmpv6Packet::new_unchecked(buffer),
                &checksums(),
            );
        },
    );
}
