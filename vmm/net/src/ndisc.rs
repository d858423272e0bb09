//! Neighbor discovery (RFC 4861): where the host has IPv6, the guest gets a prefix, from which it makes its address, and a
//! default router.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use smoltcp::{
    phy::ChecksumCapabilities,
    time::Duration as WireDuration,
    wire::{
        EthernetAddress, Icmpv6Packet, Icmpv6Repr, NdiscNeighborFlags, NdiscPrefixInfoFlags,
        NdiscPrefixInformation, NdiscRepr, NdiscRouterFlags,
    },
};

use crate::{
    addresses::{GATEWAY_LINK_LOCAL, GATEWAY_MAC, PREFIX_V6, is_gateway},
    frame::{Datagram, Egress},
    icmp,
};

/// The hop limit of every message of neighbor discovery: a router has not passed it on.
const HOP_LIMIT: u8 = 255;
/// The address of all nodes on the link, and its Ethernet address.
const ALL_NODES: (Ipv6Addr, EthernetAddress) = (
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    EthernetAddress([0x33, 0x33, 0, 0, 0, 1]),
);
/// The time for which an advertisement holds, in seconds.
const LIFETIME: WireDuration = WireDuration::from_secs(1800);
/// The time between two advertisements that nobody has asked for.
const INTERVAL: Duration = Duration::from_secs(600);

/// The router of the guest's IPv6 network.
#[derive(Default)]
pub(crate) struct Router {
    /// When the prefix is advertised again, once a guest has asked for it.
    next: Option<Instant>,
}

impl Router {
    /// Answers a message of ICMPv6.
    pub(crate) fn receive(
        &mut self,
        datagram: &Datagram<'_>,
        now: Instant,
        egress: &mut Egress<'_>,
    ) {
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (datagram.source, datagram.destination)
        else {
            return;
        };
        let Ok(packet) = Icmpv6Packet::new_checked(datagram.payload) else {
            return;
        };
        let ignored = ChecksumCapabilities::ignored();
        let Ok(message) = Icmpv6Repr::parse(&source, &destination, &packet, &ignored) else {
            return;
        };
        match message {
            Icmpv6Repr::Ndisc(message) if datagram.hop_limit == HOP_LIMIT => match message {
                NdiscRepr::RouterSolicit { .. } => self.advertise(now, egress),
                NdiscRepr::NeighborSolicit { target_addr, .. }
                    if is_gateway(target_addr.into()) =>
                {
                    answer_solicitation(datagram.mac, source, target_addr, egress);
                }
                _ => {}
            },
            _ => icmp::answer_echo_v6(datagram, &message, egress),
        }
    }

    /// When [`Self::advertise`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Tells all nodes of the prefix and the router.
    pub(crate) fn advertise(&mut self, now: Instant, egress: &mut Egress<'_>) {
        self.next = Some(now + INTERVAL);
        let advertisement = NdiscRepr::RouterAdvert {
            hop_limit: 64,
            flags: NdiscRouterFlags::empty(),
            router_lifetime: LIFETIME,
            reachable_time: WireDuration::ZERO,
            retrans_time: WireDuration::ZERO,
            lladdr: Some(GATEWAY_MAC.into()),
            mtu: Some(egress.mtu.into()),
            prefix_info: Some(NdiscPrefixInformation {
                prefix_len: 64,
                flags: NdiscPrefixInfoFlags::ON_LINK | NdiscPrefixInfoFlags::ADDRCONF,
                valid_lifetime: LIFETIME,
                preferred_lifetime: LIFETIME,
                prefix: PREFIX_V6,
            }),
        };
        let (nodes, mac) = ALL_NODES;
        send(egress, mac, (GATEWAY_LINK_LOCAL, nodes), advertisement);
    }
}

/// Answers a solicitation for an address of the gateway's; one of a guest that has no address yet, to all nodes (RFC 4861,
/// 7.2.4 Sending Solicited Neighbor Advertisements).
fn answer_solicitation(
    mac: EthernetAddress,
    source: Ipv6Addr,
    target: Ipv6Addr,
    egress: &mut Egress<'_>,
) {
    let override_router = NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::OVERRIDE;
    let ((to, mac), flags) = if source.is_unspecified() {
        (ALL_NODES, override_router)
    } else {
        (
            (source, mac),
            override_router | NdiscNeighborFlags::SOLICITED,
        )
    };
    let advertisement = NdiscRepr::NeighborAdvert {
        flags,
        target_addr: target,
        lladdr: Some(GATEWAY_MAC.into()),
    };
    send(egress, mac, (target, to), advertisement);
}

fn send(
    egress: &mut Egress<'_>,
    to: EthernetAddress,
    route: (Ipv6Addr, Ipv6Addr),
    message: NdiscRepr<'_>,
) {
    icmp::send_v6(egress, to, route, HOP_LIMIT, &Icmpv6Repr::Ndisc(message));
}
