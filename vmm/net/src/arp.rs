//! ARP: the gateway answers for its own addresses.

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetProtocol};

use crate::{
    addresses::{GATEWAY_MAC, is_gateway},
    frame::Egress,
};

/// Answers a request for an address of the gateway's.
pub(crate) fn receive(data: &[u8], egress: &mut Egress<'_>) {
    let Some(ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    }) = ArpPacket::new_checked(data)
        .and_then(|packet| ArpRepr::parse(&packet))
        .ok()
    else {
        return;
    };
    if !is_gateway(target_protocol_addr.into()) || !source_hardware_addr.is_unicast() {
        return;
    }
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: GATEWAY_MAC,
        source_protocol_addr: target_protocol_addr,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    egress.frame(
        source_hardware_addr,
        EthernetProtocol::Arp,
        reply.buffer_len(),
        |buffer| {
            reply.emit(&mut ArpPacket::new_unchecked(buffer));
        },
    );
}
