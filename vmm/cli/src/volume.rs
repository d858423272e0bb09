//! A directory of the host that the guest has: `--volume HOST:GUEST[:OPTIONS]`.

use std::{path::PathBuf, str::FromStr};

use fuse::Cache;

/// A directory of the host, and where the guest has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The directory on the host.
    pub host: PathBuf,
    /// Where the guest mounts it, an absolute path.
    pub guest: String,
    /// Whether changes are refused.
    pub read_only: bool,
    /// What the guest may cache.
    pub cache: Cache,
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
        if guest.split('/').any(|name| name == "..") {
            return Err("a path in the guest with ..".into());
        }
        if guest.split('/').all(|name| matches!(name, "" | ".")) {
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
            "a:/.",
            "a:/..:ro",
            "a:/b/..",
        ] {
            assert!(text.parse::<Volume>().is_err(), "{text}");
        }
    }
}
