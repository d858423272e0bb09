//! Directories of the host that the guest has: `--volume HOST:GUEST[:OPTIONS]`.

use std::{path::PathBuf, str::FromStr};

use anyhow::{Context, Result};
use fuse::{Cache, Config, Server};
use guest_kernels::Mount;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use vmm::devices::virtio::Fs;

/// A directory of the host, and where the guest has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The directory on the host.
    host: PathBuf,
    /// Where the guest mounts it, an absolute path.
    guest: String,
    read_only: bool,
    cache: Cache,
}

impl FromStr for Volume {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const USAGE: &str = "not HOST:GUEST[:OPTIONS], where GUEST is an absolute path";
        let colon = text.rfind(":/").ok_or(USAGE)?;
        let (host, rest) = (&text[..colon], &text[colon + 1..]);
        let (guest, options) = match rest.split_once(':') {
            Some((guest, options)) => (guest, options.split(',').collect()),
            None => (rest, Vec::new()),
        };
        if host.is_empty() {
            return Err(USAGE.into());
        }
        if guest.bytes().all(|byte| byte == b'/') {
            return Err("the guest's root cannot be replaced".into());
        }
        let mut volume = Self {
            host: host.into(),
            guest: guest.into(),
            read_only: false,
            cache: Cache::Auto,
        };
        for option in options {
            match option {
                "ro" => volume.read_only = true,
                "rw" => volume.read_only = false,
                "cache=none" => volume.cache = Cache::None,
                "cache=auto" => volume.cache = Cache::Auto,
                "cache=always" => volume.cache = Cache::Always,
                _ => {
                    return Err(format!(
                        "unknown option {option:?}; known: ro, rw, cache=none, cache=auto, cache=always"
                    ));
                }
            }
        }
        Ok(volume)
    }
}

/// Makes the devices for `volumes`, in their order.
///
/// # Errors
/// If a directory cannot be shared.
pub fn open(volumes: &[Volume]) -> Result<Vec<Fs>> {
    if volumes.is_empty() {
        return Ok(Vec::new());
    }
    // All directories together use half of what the process may open.
    let descriptors = most_descriptors() / 2 / volumes.len();
    let open = |(index, volume): (usize, &Volume)| {
        let config = Config {
            cache: volume.cache,
            read_only: volume.read_only,
            descriptors,
            ..Config::default()
        };
        let server = Server::new(&volume.host, config).context("--volume")?;
        Fs::new(&tag(index), server).context("--volume")
    };
    volumes.iter().enumerate().map(open).collect()
}

/// Returns what the guest is to mount for `volumes`.
pub fn mounts(volumes: &[Volume]) -> Vec<Mount> {
    let mount = |(index, volume): (usize, &Volume)| Mount {
        tag: tag(index),
        path: volume.guest.clone(),
        read_only: volume.read_only,
    };
    volumes.iter().enumerate().map(mount).collect()
}

/// The name by which the guest knows the device of a volume.
fn tag(index: usize) -> String {
    format!("volume{index}")
}

/// Lets this process open as many files as it may, and returns how many that is.
fn most_descriptors() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 1024;
    };
    let granted = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard);
    usize::try_from(granted).unwrap_or(usize::MAX).min(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_parsed() {
        let volume = |host: &str, guest: &str, read_only, cache| {
            Ok(Volume {
                host: host.into(),
                guest: guest.into(),
                read_only,
                cache,
            })
        };
        for (text, expected) in [
            (".:/src", volume(".", "/src", false, Cache::Auto)),
            ("/a:b:/src:ro", volume("/a:b", "/src", true, Cache::Auto)),
            (
                "a:/b/c:rw,cache=none",
                volume("a", "/b/c", false, Cache::None),
            ),
            (
                "a:/b c:ro,cache=always",
                volume("a", "/b c", true, Cache::Always),
            ),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
        for text in [
            "",
            "/",
            "a",
            "a:b",
            ":/a",
            "a:/b:",
            "a:/b:rO",
            "a:/b:ro:ro",
            "a:/b:cache=",
            "/a:ro",
            "a:/",
            "a://:ro",
        ] {
            assert!(text.parse::<Volume>().is_err(), "{text}");
        }
    }
}
