//! The guest's network: who has which address, and where the guest's destinations lead on the host.
//!
//! The addresses are those of QEMU's user network, which people know. What leads nowhere is refused as a host would that has
//! no such service: the host's loopback network in any spelling, unless asked for, and addresses that name nobody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::wire::EthernetAddress;

/// The gateway's Ethernet address.
pub(crate) const GATEWAY_MAC: EthernetAddress =
    EthernetAddress([0x52, 0x55, 0x0a, 0x00, 0x02, 0x02]);

/// The guest's address, given by DHCP.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The gateway's address.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The address of the resolver.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// The mask of the guest's network.
pub const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);

/// The prefix, of 64 bits, of the guest's IPv6 network.
pub const PREFIX_V6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0);
/// The gateway's IPv6 address.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 2);
/// The IPv6 address of the resolver.
pub const RESOLVER_V6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 3);
/// The gateway's link-local address.
pub(crate) const GATEWAY_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

/// The port of DNS.
pub(crate) const DNS_PORT: u16 = 53;

/// The end of a guest's connection or datagram on the host's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// This address.
    Host(SocketAddr),
    /// A resolver of the host's.
    Resolver,
    /// Nobody.
    Refused,
}

/// Whether the gateway itself has this address.
pub(crate) fn is_gateway(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address == GATEWAY || address == RESOLVER,
        IpAddr::V6(address) => [GATEWAY_V6, RESOLVER_V6, GATEWAY_LINK_LOCAL].contains(&address),
    }
}

/// Whether a guest may send from this address: one of its network that is not the gateway's.
pub(crate) fn is_guest(address: IpAddr) -> bool {
    !is_gateway(address)
        && match address {
            IpAddr::V4(address) => in_network(address) && ![0, 255].contains(&address.octets()[3]),
            IpAddr::V6(address) => in_prefix(address) || address.is_unicast_link_local(),
        }
}

/// Whether the address is one machine's: others get no errors.
pub(crate) fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let broadcast = address.is_broadcast() || address == GATEWAY | !NETMASK;
            !(broadcast || address.is_multicast() || address.is_unspecified())
        }
        IpAddr::V6(address) => !(address.is_multicast() || address.is_unspecified()),
    }
}

/// The target of the guest's `destination`.
pub(crate) fn target(destination: SocketAddr, host_loopback: bool) -> Target {
    let port = destination.port();
    match destination.ip() {
        _ if port == 0 => Target::Refused,
        IpAddr::V4(RESOLVER) | IpAddr::V6(RESOLVER_V6) if port == DNS_PORT => Target::Resolver,
        IpAddr::V4(GATEWAY) if host_loopback => {
            Target::Host(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
        }
        IpAddr::V6(GATEWAY_V6) if host_loopback => {
            Target::Host(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port))
        }
        IpAddr::V4(address) if is_outside(address) => Target::Host(destination),
        IpAddr::V6(address) if is_outside_v6(address) => Target::Host(destination),
        _ => Target::Refused,
    }
}

fn in_network(address: Ipv4Addr) -> bool {
    address & NETMASK == GATEWAY & NETMASK
}

fn in_prefix(address: Ipv6Addr) -> bool {
    address.segments()[..4] == PREFIX_V6.segments()[..4]
}

/// Whether the address can be one of another machine. Connecting to 0.0.0.0, or to any address of 0.0.0.0/8 on some hosts,
/// leads to the host itself.
fn is_outside(address: Ipv4Addr) -> bool {
    !(in_network(address)
        || address.octets()[0] == 0
        || address.is_loopback()
        || address.is_multicast()
        || address.is_broadcast())
}

/// Whether the address can be one of another machine. Addresses that embed one of IPv4 are left to IPv4; link-local ones
/// name nobody without an interface.
fn is_outside_v6(address: Ipv6Addr) -> bool {
    let embeds_v4 = address.to_ipv4().is_some(); // among these :: and ::1
    !(embeds_v4 || in_prefix(address) || address.is_multicast() || address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, host_loopback: bool) -> Target {
        target(text.parse().unwrap(), host_loopback)
    }

    #[test]
    fn loopback_is_out_of_reach_in_every_spelling() {
        for host_loopback in [false, true] {
            for text in [
                "127.0.0.1:80",
                "127.255.0.9:80",
                "0.0.0.0:80",
                "0.1.2.3:80",
                "[::1]:80",
                "[::]:80",
                "[::ffff:127.0.0.1]:80",
                "[::127.0.0.1]:80",
                "[fe80::1]:80",
                "[ff02::1]:80",
                "224.0.0.1:80",
                "255.255.255.255:80",
                "10.0.2.9:80",
                "10.0.2.255:80",
                "10.0.2.3:80",
                "[fec0::9]:80",
                "8.8.8.8:0",
            ] {
                assert_eq!(of(text, host_loopback), Target::Refused, "{text}");
            }
        }
    }

    #[test]
    fn the_gateway_leads_to_loopback_when_asked() {
        for (text, host) in [
            ("10.0.2.2:80", "127.0.0.1:80"),
            ("[fec0::2]:80", "[::1]:80"),
        ] {
            assert_eq!(of(text, false), Target::Refused);
            assert_eq!(of(text, true), Target::Host(host.parse().unwrap()));
        }
    }

    #[test]
    fn resolvers_answer_at_the_port_of_dns_only() {
        assert_eq!(of("10.0.2.3:53", false), Target::Resolver);
        assert_eq!(of("[fec0::3]:53", false), Target::Resolver);
        assert_eq!(of("10.0.2.3:853", true), Target::Refused);
    }

    #[test]
    fn other_machines_keep_their_addresses() {
        for text in [
            "10.0.3.2:80",
            "192.168.0.1:443",
            "8.8.8.8:53",
            "[2001:db8::1]:80",
            "[fd00::1]:80",
        ] {
            assert_eq!(
                of(text, false),
                Target::Host(text.parse().unwrap()),
                "{text}"
            );
        }
    }

    #[test]
    fn guests_send_from_their_own_network() {
        for text in [
            "10.0.2.15",
            "10.0.2.99",
            "fec0::5054:ff:fe12:3456",
            "fe80::1",
        ] {
            assert!(is_guest(text.parse().unwrap()), "{text}");
        }
        for text in [
            "10.0.2.2",
            "10.0.2.3",
            "10.0.2.255",
            "10.0.2.0",
            "0.0.0.0",
            "127.0.0.1",
            "fec0::2",
            "2001:db8::1",
        ] {
            assert!(!is_guest(text.parse().unwrap()), "{text}");
        }
    }
}
