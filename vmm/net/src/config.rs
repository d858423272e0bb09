//! [`Config`]: the options of the network, and [`Publish`], a port of the host that leads to the guest.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use thiserror::Error;

/// The options of a guest's network.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether the gateway's addresses, 10.0.2.2 and fec0::2, lead to the host's loopback addresses, 127.0.0.1 and ::1.
    pub host_loopback: bool,
    /// The host's ports that lead to the guest.
    pub publish: Vec<Publish>,
    /// The Ethernet address of the guest's network card.
    pub mac: [u8; 6],
    /// The largest IP packet in bytes, at least [`Self::MIN_MTU`].
    pub mtu: u16,
    /// The file that names the host's resolvers, as resolv.conf(5) describes it. It is read again when it has changed.
    pub resolv_conf: PathBuf,
}

impl Config {
    /// The default [`Self::mac`], the one that QEMU gives its first card.
    pub const DEFAULT_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
    /// The smallest [`Self::mtu`]: what IPv6 asks of every link (RFC 8200, 5. Packet Size Issues).
    pub const MIN_MTU: u16 = 1280;
    /// The default [`Self::mtu`]: few, large frames, still a multiple of 8 bytes.
    pub const DEFAULT_MTU: u16 = 65520;
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host_loopback: false,
            publish: Vec::new(),
            mac: Self::DEFAULT_MAC,
            mtu: Self::DEFAULT_MTU,
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
        }
    }
}

/// The transport of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A port of the host that leads to a port of the guest: `[IP:]HOST:GUEST[/tcp|/udp]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The host's address. Port 0 lets the host choose one.
    pub host: SocketAddr,
    /// The guest's port.
    pub guest: u16,
    /// The transport.
    pub transport: Transport,
}

/// The error of a text that names no published port.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PublishError {
    /// The text does not have the form.
    #[error("{0:?} is not of the form [IP:]HOST:GUEST[/tcp|/udp]")]
    Form(String),
    /// The address is none.
    #[error("{0:?} is not an IP address (IPv6 addresses stand in brackets)")]
    Address(String),
    /// A port is none.
    #[error("{0:?} is not a port")]
    Port(String),
}

impl FromStr for Publish {
    type Err = PublishError;

    fn from_str(text: &str) -> Result<Self, PublishError> {
        let (rest, transport) = match text.rsplit_once('/') {
            None => (text, Transport::Tcp),
            Some((rest, "tcp")) => (rest, Transport::Tcp),
            Some((rest, "udp")) => (rest, Transport::Udp),
            Some(_) => return Err(PublishError::Form(text.into())),
        };
        let (rest, guest) = rest
            .rsplit_once(':')
            .ok_or_else(|| PublishError::Form(text.into()))?;
        let (address, host) = match rest.rsplit_once(':') {
            None => (IpAddr::V4(Ipv4Addr::LOCALHOST), rest),
            Some((address, host)) => (parse_address(address)?, host),
        };
        let guest = parse_port(guest)?;
        if guest == 0 {
            return Err(PublishError::Port("0".into()));
        }
        Ok(Self {
            host: SocketAddr::new(address, parse_port(host)?),
            guest,
            transport,
        })
    }
}

fn parse_address(text: &str) -> Result<IpAddr, PublishError> {
    let parsed = match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        Some(v6) => v6.parse().map(IpAddr::V6).ok(),
        None => text.parse().map(IpAddr::V4).ok(),
    };
    parsed.ok_or_else(|| PublishError::Address(text.into()))
}

fn parse_port(text: &str) -> Result<u16, PublishError> {
    text.parse().map_err(|_| PublishError::Port(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(host: &str, guest: u16, transport: Transport) -> Publish {
        Publish {
            host: host.parse().unwrap(),
            guest,
            transport,
        }
    }

    #[test]
    fn published_ports_are_read() {
        for (text, expected) in [
            ("8080:80", published("127.0.0.1:8080", 80, Transport::Tcp)),
            ("0:80/tcp", published("127.0.0.1:0", 80, Transport::Tcp)),
            (
                "5353:53/udp",
                published("127.0.0.1:5353", 53, Transport::Udp),
            ),
            (
                "0.0.0.0:80:8080",
                published("0.0.0.0:80", 8080, Transport::Tcp),
            ),
            (
                "[::1]:80:8080/udp",
                published("[::1]:80", 8080, Transport::Udp),
            ),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_published_port_is_refused_by_name() {
        let form = |text: &str| PublishError::Form(text.into());
        let port = |text: &str| PublishError::Port(text.into());
        let address = |text: &str| PublishError::Address(text.into());
        for (text, error) in [
            ("", form("")),
            ("80", form("80")),
            ("80:80/sctp", form("80:80/sctp")),
            ("80:65536", port("65536")),
            ("80:0", port("0")),
            ("x:80", port("x")),
            (":80", port("")),
            ("localhost:80:80", address("localhost")),
            ("::1:80:80", address("::1")),
            ("[10.0.0.1]:80:80", address("[10.0.0.1]")),
        ] {
            assert_eq!(text.parse::<Publish>(), Err(error), "{text}");
        }
    }
}
