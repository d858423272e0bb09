//! [`Address`]: where the stub listens for gdb.

use std::{
    convert::Infallible,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

/// The port that gdb users know from other emulators.
const PORT: u16 = 1234;
/// The prefix of a Unix socket's address.
const UNIX: &str = "unix:";

/// An address to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP address. Whoever can connect controls the guest.
    Tcp(SocketAddr),
    /// The path of a Unix socket. Whoever may write to the file controls the guest.
    Unix(PathBuf),
}

/// The error for a text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address: PORT, ADDR:PORT with a numeric address, or unix:PATH")]
pub struct NotAnAddress;

impl Default for Address {
    fn default() -> Self {
        Self::local(PORT)
    }
}

impl Address {
    fn local(port: u16) -> Self {
        Self::Tcp((Ipv4Addr::LOCALHOST, port).into())
    }

    /// Whether only this host can connect.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for Address {
    type Err = NotAnAddress;

    /// Parses `PORT`, `ADDR:PORT` or `unix:PATH`. A port alone is one of the loopback address 127.0.0.1.
    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return match path {
                "" => Err(NotAnAddress),
                path => path
                    .parse()
                    .map(Self::Unix)
                    .map_err(|error: Infallible| match error {}),
            };
        }
        let port = |digits: &str| {
            let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| all_digits)
        };
        if let Some(port) = port(text.strip_prefix(':').unwrap_or(text)) {
            return Ok(Self::local(port));
        }
        let address = text.strip_prefix("localhost:").and_then(port);
        match address {
            Some(port) => Ok(Self::local(port)),
            None => text.parse().map(Self::Tcp).map_err(|_| NotAnAddress),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, shown, local) in [
            ("1234", "127.0.0.1:1234", true),
            (":9", "127.0.0.1:9", true),
            ("0", "127.0.0.1:0", true),
            ("localhost:9", "127.0.0.1:9", true),
            ("127.0.0.2:9", "127.0.0.2:9", true),
            ("[::1]:9", "[::1]:9", true),
            ("0.0.0.0:9", "0.0.0.0:9", false),
            ("10.1.2.3:65535", "10.1.2.3:65535", false),
            ("unix:a b", "unix:a b", true),
            ("unix:/x/y", "unix:/x/y", true),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.is_local(), local, "{text}");
        }
        assert_eq!(Address::default().to_string(), "127.0.0.1:1234");
        for text in [
            "", ":", "x", "65536", "+1", "-1", "1.2.3.4", "unix:", "host:1", "::1:9", "[::1]",
        ] {
            assert_eq!(text.parse::<Address>(), Err(NotAnAddress), "{text}");
        }
    }
}
