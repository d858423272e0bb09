//! DHCP (RFC 2131): the one guest gets the one address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr,
    EthernetAddress,
};

use crate::{
    addresses::{GATEWAY, GUEST, NETMASK, RESOLVER},
    frame::Egress,
};

/// The port at which the server listens.
pub(crate) const PORT: u16 = DHCP_SERVER_PORT;

/// The time in seconds after which the guest asks again.
const LEASE: u32 = 24 * 60 * 60;

/// The option "interface MTU" (RFC 2132, 5.1 Interface MTU Option).
const OPTION_MTU: u8 = 26;

/// Answers a client's message.
pub(crate) fn receive(data: &[u8], egress: &mut Egress<'_>) {
    let Ok(packet) = DhcpPacket::new_checked(data) else {
        return;
    };
    let Ok(request) = DhcpRepr::parse(&packet) else {
        return;
    };
    let Some(message_type) = answer(&request) else {
        return;
    };
    let granted = message_type != DhcpMessageType::Nak;
    let inform = request.message_type == DhcpMessageType::Inform;
    let mtu = egress.mtu.to_be_bytes();
    let options = [DhcpOption {
        kind: OPTION_MTU,
        data: &mtu,
    }];
    let lease = (granted && !inform).then_some(LEASE);
    let reply = DhcpRepr {
        message_type,
        transaction_id: request.transaction_id,
        secs: 0,
        client_hardware_address: request.client_hardware_address,
        client_ip: if inform {
            request.client_ip
        } else {
            Ipv4Addr::UNSPECIFIED
        },
        your_ip: if granted && !inform {
            GUEST
        } else {
            Ipv4Addr::UNSPECIFIED
        },
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: granted.then_some(GATEWAY),
        subnet_mask: granted.then_some(NETMASK),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: request.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(GATEWAY),
        parameter_request_list: None,
        dns_servers: granted.then(|| [RESOLVER].into_iter().collect()),
        max_size: None,
        lease_duration: lease,
        renew_duration: None,
        rebind_duration: None,
        additional_options: if granted { &options } else { &[] },
    };
    let mut buffer = vec![0; reply.buffer_len()];
    if reply
        .emit(&mut DhcpPacket::new_unchecked(buffer.as_mut_slice()))
        .is_ok()
    {
        let from = SocketAddr::new(GATEWAY.into(), DHCP_SERVER_PORT);
        let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::BROADCAST), DHCP_CLIENT_PORT);
        egress.udp(EthernetAddress::BROADCAST, from, to, &buffer);
    }
}

/// The type of the answer, if the message gets one: it is refused if it asks for another address (RFC 2131, 4.3.2
/// DHCPREQUEST message), and is silent if it speaks to another server.
fn answer(request: &DhcpRepr<'_>) -> Option<DhcpMessageType> {
    match request.message_type {
        DhcpMessageType::Discover => Some(DhcpMessageType::Offer),
        DhcpMessageType::Inform => Some(DhcpMessageType::Ack),
        DhcpMessageType::Request => {
            if request
                .server_identifier
                .is_some_and(|server| server != GATEWAY)
            {
                return None;
            }
            let wanted = request.requested_ip.unwrap_or(request.client_ip);
            Some(if wanted == GUEST {
                DhcpMessageType::Ack
            } else {
                DhcpMessageType::Nak
            })
        }
        _ => None,
    }
}
