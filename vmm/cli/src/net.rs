//! The network of `--net` and `--publish`.

use std::{path::PathBuf, str::FromStr};

use anyhow::{Context, Result, bail};
use vmm::{
    devices::virtio::Net,
    net::{Config, GatewayError, Publish, PublishError},
};

/// The network that a guest gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// None: not even a card.
    None,
    /// One of its own, behind a gateway in this process.
    User {
        /// Whether the gateway's address leads to the host's loopback.
        host_loopback: bool,
    },
    /// The network of another program, which listens at this Unix socket and takes frames as passt does.
    Passt(PathBuf),
}

impl FromStr for Network {
    type Err = String;

    /// Parses `none`, `user`, `user,host-loopback` or `passt=SOCKET`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(socket) = text
            .strip_prefix("passt=")
            .filter(|socket| !socket.is_empty())
        {
            return Ok(Self::Passt(socket.into()));
        }
        match text {
            "none" => Ok(Self::None),
            "user" => Ok(Self::User {
                host_loopback: false,
            }),
            "user,host-loopback" => Ok(Self::User {
                host_loopback: true,
            }),
            _ => Err("not one of none, user, user,host-loopback and passt=SOCKET".into()),
        }
    }
}

/// Parses a port to publish. Its number on the host is to be known.
pub fn published(text: &str) -> Result<Publish, String> {
    let publish: Publish = text
        .parse()
        .map_err(|error: PublishError| error.to_string())?;
    match publish.host.port() {
        0 => Err("port 0 of the host is none".into()),
        _ => Ok(publish),
    }
}

/// Makes the card that `network` asks for, with published ports, if it does.
///
/// # Errors
/// If ports are to be published without a network, or one cannot be opened.
pub fn card(network: &Network, publish: &[Publish]) -> Result<Option<Net>> {
    match network {
        Network::None if !publish.is_empty() => bail!("--publish: needs --net user"),
        Network::None => Ok(None),
        Network::Passt(_) if !publish.is_empty() => {
            bail!("--publish: needs --net user; passt publishes by its own options -t and -u")
        }
        Network::Passt(socket) => Net::connect_to(socket).context("--net").map(Some),
        Network::User { host_loopback } => {
            let config = Config {
                host_loopback: *host_loopback,
                publish: publish.to_vec(),
                ..Config::default()
            };
            Net::new(&config).map(Some).map_err(|error| {
                let option = match &error {
                    GatewayError::Publish { .. } => "--publish",
                    GatewayError::Poller(_) => "--net",
                };
                anyhow::Error::new(error).context(option)
            })
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
        assert_eq!(
            "passt=/tmp/a,b".parse(),
            Ok(Network::Passt("/tmp/a,b".into()))
        );
        for text in [
            "",
            "passt",
            "passt=",
            "tap",
            "user,",
            "user,x",
            "none,host-loopback",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
