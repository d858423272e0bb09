//! The network of `--net` and `--publish`.

use std::str::FromStr;

use anyhow::{Context, Result, bail};
use vmm::{
    devices::virtio::Net,
    net::{Config, Publish},
};

/// The network that a guest gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// None: not even a card.
    None,
    /// One of its own, behind a gateway in this process.
    User {
        /// Whether the gateway's address leads to the host's loopback.
        host_loopback: bool,
    },
}

impl FromStr for Network {
    type Err = String;

    /// Parses `none`, `user` or `user,host-loopback`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "user" => Ok(Self::User {
                host_loopback: false,
            }),
            "user,host-loopback" => Ok(Self::User {
                host_loopback: true,
            }),
            _ => Err("not one of none, user and user,host-loopback".into()),
        }
    }
}

/// Makes the card that `network` asks for, with published ports, if it does.
///
/// # Errors
/// If ports are to be published without a network, or one cannot be opened.
pub fn card(network: Network, publish: &[Publish]) -> Result<Option<Net>> {
    match network {
        Network::None if !publish.is_empty() => bail!("--publish: needs --net user"),
        Network::None => Ok(None),
        Network::User { host_loopback } => {
            let config = Config {
                host_loopback,
                publish: publish.to_vec(),
                ..Config::default()
            };
            Net::new(&config).context("--net").map(Some)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read() {
        let user = |host_loopback| Ok(Network::User { host_loopback });
        assert_eq!("none".parse(), Ok(Network::None));
        assert_eq!("user".parse(), user(false));
        assert_eq!("user,host-loopback".parse(), user(true));
        for text in ["", "tap", "user,", "user,x", "none,host-loopback"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
