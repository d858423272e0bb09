//! What the guest asks on its link: ARP, DHCP, echo, neighbor discovery.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use net::Config;
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr,
        EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet,
        Icmpv6Repr, IpProtocol, NdiscNeighborFlags, NdiscPrefixInfoFlags, NdiscRepr,
    },
};

use crate::{
    cable::Cable,
    guest::{MAC, host_loopback},
    packet,
};

fn arp_request(target: Ipv4Addr) -> Vec<u8> {
    let request = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: MAC,
        source_protocol_addr: net::GUEST,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let mut payload = vec![0; request.buffer_len()];
    request.emit(&mut ArpPacket::new_unchecked(payload.as_mut_slice()));
    packet::frame(EthernetAddress::BROADCAST, EthernetProtocol::Arp, &payload)
}

/// Takes an ARP reply out of a frame: the Ethernet address of which IP address.
fn arp_reply(bytes: &[u8]) -> Option<(Ipv4Addr, EthernetAddress)> {
    let frame = EthernetFrame::new_checked(bytes).unwrap();
    if frame.ethertype() != EthernetProtocol::Arp {
        return None;
    }
    let packet = ArpPacket::new_checked(frame.payload()).unwrap();
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_hardware_addr,
        target_protocol_addr,
    } = ArpRepr::parse(&packet).unwrap()
    else {
        return None;
    };
    assert_eq!(operation, ArpOperation::Reply);
    assert_eq!(
        (target_hardware_addr, target_protocol_addr),
        (MAC, net::GUEST)
    );
    assert_eq!(
        (frame.dst_addr(), frame.src_addr()),
        (MAC, source_hardware_addr)
    );
    Some((source_protocol_addr, source_hardware_addr))
}

#[test]
fn arp_is_answered_for_the_gateway_only() {
    let cable = Cable::plug(&Config::default());
    for silent in [[10, 0, 2, 15], [10, 0, 2, 9], [8, 8, 8, 8]] {
        cable.send(arp_request(silent.into()));
    }
    for own in [net::GATEWAY, net::RESOLVER] {
        cable.send(arp_request(own));
        let (address, mac) = cable.expect(arp_reply);
        assert_eq!(address, own);
        assert!(mac.is_unicast() && mac.is_local());
    }
}

/// A message of a client's.
fn dhcp(
    message_type: DhcpMessageType,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
) -> Vec<u8> {
    let request = DhcpRepr {
        message_type,
        transaction_id: 0x12345678,
        secs: 0,
        client_hardware_address: MAC,
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: requested,
        client_identifier: None,
        server_identifier: server,
        parameter_request_list: Some(&[1, 3, 6, 26]),
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut payload = vec![0; request.buffer_len()];
    request
        .emit(&mut DhcpPacket::new_unchecked(payload.as_mut_slice()))
        .unwrap();
    let (from, to) = ((Ipv4Addr::UNSPECIFIED, 68), (Ipv4Addr::BROADCAST, 67));
    packet::udp(from.into(), to.into(), &payload)
}

/// Takes the server's answer out of a frame: its type and the address that it gives.
fn dhcp_answer(bytes: &[u8]) -> Option<(DhcpMessageType, Ipv4Addr)> {
    let (from, to, data) = packet::parse_udp(bytes)?;
    assert_eq!(from, SocketAddr::from((net::GATEWAY, 67)));
    assert_eq!(to, SocketAddr::from((Ipv4Addr::BROADCAST, 68)));
    let packet = DhcpPacket::new_checked(data.as_slice()).unwrap();
    let answer = DhcpRepr::parse(&packet).unwrap();
    assert_eq!(answer.transaction_id, 0x12345678);
    assert_eq!(answer.client_hardware_address, MAC);
    assert_eq!(answer.server_identifier, Some(net::GATEWAY));
    if answer.message_type != DhcpMessageType::Nak {
        assert_eq!(answer.router, Some(net::GATEWAY));
        assert_eq!(answer.subnet_mask, Some(net::NETMASK));
        assert_eq!(answer.dns_servers.unwrap().as_slice(), [net::RESOLVER]);
        assert!(answer.lease_duration.is_some());
        let mtu = DhcpOption {
            kind: 26,
            data: &[0xff, 0xf0],
        };
        assert!(packet.options().any(|option| option == mtu));
    }
    Some((answer.message_type, answer.your_ip))
}

#[test]
fn dhcp_gives_the_address() {
    let cable = Cable::plug(&Config::default());
    let ask = |message| {
        cable.send(message);
        cable.expect(dhcp_answer)
    };
    use DhcpMessageType::{Ack, Discover, Nak, Offer, Request};
    assert_eq!(ask(dhcp(Discover, None, None)), (Offer, net::GUEST));
    let request = dhcp(Request, Some(net::GUEST), Some(net::GATEWAY));
    assert_eq!(ask(request), (Ack, net::GUEST));
    let other = Ipv4Addr::new(192, 168, 0, 7);
    assert_eq!(
        ask(dhcp(Request, Some(other), None)),
        (Nak, Ipv4Addr::UNSPECIFIED)
    );
    // One for another server is not answered; the next is.
    cable.send(dhcp(Request, Some(net::GUEST), Some(other)));
    assert_eq!(ask(dhcp(Discover, None, None)), (Offer, net::GUEST));
}

#[test]
fn echo_requests_to_the_gateway_are_answered() {
    let cable = Cable::plug(&Config::default());
    let request = Icmpv4Repr::EchoRequest {
        ident: 7,
        seq_no: 9,
        data: b"are you there",
    };
    let mut message = vec![0; request.buffer_len()];
    let checksums = ChecksumCapabilities::default();
    request.emit(
        &mut Icmpv4Packet::new_unchecked(message.as_mut_slice()),
        &checksums,
    );
    let (guest, gateway) = (net::GUEST.into(), net::GATEWAY.into());
    // Nobody else answers.
    let other = IpAddr::from([192, 0, 2, 1]);
    cable.send(packet::ip(guest, other, IpProtocol::Icmp, 64, &message));
    cable.send(packet::ip(guest, gateway, IpProtocol::Icmp, 64, &message));
    let answer = cable.expect(|frame| {
        let packet = packet::parse_ip(frame)?;
        assert_eq!(
            (packet.from, packet.to, packet.protocol),
            (gateway, guest, IpProtocol::Icmp)
        );
        Some(packet.payload.to_vec())
    });
    let packet = Icmpv4Packet::new_checked(answer.as_slice()).unwrap();
    let expected = Icmpv4Repr::EchoReply {
        ident: 7,
        seq_no: 9,
        data: b"are you there",
    };
    assert_eq!(Icmpv4Repr::parse(&packet, &checksums), Ok(expected));
}

const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x15);

fn icmpv6(to: Ipv6Addr, message: &Icmpv6Repr<'_>) -> Vec<u8> {
    let mut payload = vec![0; message.buffer_len()];
    let mut packet = Icmpv6Packet::new_unchecked(payload.as_mut_slice());
    message.emit(
        &LINK_LOCAL,
        &to,
        &mut packet,
        &ChecksumCapabilities::default(),
    );
    packet::ip(
        LINK_LOCAL.into(),
        to.into(),
        IpProtocol::Icmpv6,
        255,
        &payload,
    )
}

/// Calls `each` with the ICMPv6 message of a frame, which must have a valid checksum.
fn with_icmpv6<T>(frame: &[u8], each: impl FnOnce(Icmpv6Repr<'_>) -> Option<T>) -> Option<T> {
    let packet = packet::parse_ip(frame).filter(|packet| packet.protocol == IpProtocol::Icmpv6)?;
    let (IpAddr::V6(from), IpAddr::V6(to)) = (packet.from, packet.to) else {
        return None;
    };
    let message = Icmpv6Packet::new_checked(packet.payload).unwrap();
    each(Icmpv6Repr::parse(&from, &to, &message, &ChecksumCapabilities::default()).unwrap())
}

#[test]
fn ipv6_has_a_router() {
    if TcpListener::bind("[::1]:0").is_err() {
        return; // a host without IPv6
    }
    let cable = Cable::plug(&host_loopback());
    let all_routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let solicitation = NdiscRepr::RouterSolicit {
        lladdr: Some(MAC.into()),
    };
    cable.send(icmpv6(all_routers, &Icmpv6Repr::Ndisc(solicitation)));
    let prefix = cable.expect(|frame| {
        with_icmpv6(frame, |message| match message {
            Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
                router_lifetime,
                mtu,
                prefix_info,
                ..
            }) => {
                assert!(router_lifetime.secs() > 0);
                assert_eq!(mtu, Some(Config::DEFAULT_MTU.into()));
                prefix_info
            }
            _ => None,
        })
    });
    assert_eq!((prefix.prefix, prefix.prefix_len), (net::PREFIX_V6, 64));
    assert!(prefix.flags.contains(NdiscPrefixInfoFlags::ADDRCONF));

    let target = net::GATEWAY_V6;
    let [.., high, middle, low] = target.octets().map(u16::from);
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high, middle << 8 | low);
    let solicitation = NdiscRepr::NeighborSolicit {
        target_addr: target,
        lladdr: Some(MAC.into()),
    };
    cable.send(icmpv6(group, &Icmpv6Repr::Ndisc(solicitation)));
    let flags = cable.expect(|frame| {
        with_icmpv6(frame, |message| match message {
            Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
                flags,
                target_addr,
                lladdr,
            }) => {
                assert_eq!(target_addr, target);
                assert!(lladdr.is_some());
                Some(flags)
            }
            _ => None,
        })
    });
    assert!(flags.contains(NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::ROUTER));

    let request = Icmpv6Repr::EchoRequest {
        ident: 1,
        seq_no: 2,
        data: b"six",
    };
    cable.send(icmpv6(target, &request));
    let answer = cable.expect(|frame| {
        with_icmpv6(frame, |message| match message {
            Icmpv6Repr::EchoReply {
                ident,
                seq_no,
                data,
            } => Some((ident, seq_no, data.to_vec())),
            _ => None,
        })
    });
    assert_eq!(answer, (1, 2, b"six".to_vec()));
}
