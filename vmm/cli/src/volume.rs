//! A directory of the host that the guest has: `--volume HOST:GUEST[:OPTIONS]`, `--rodir` and `--rwdir [GUEST=]HOST`.

use std::{collections::HashSet, fmt::Display, path::PathBuf, str::FromStr};

use anyhow::{Result, bail};
use fuse::Cache;

/// A directory of the host, and where the guest has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The option that asks for it, for errors.
    pub option: &'static str,
    /// The directory on the host.
    pub host: PathBuf,
    /// The place where the guest mounts it, an absolute path.
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
            option: "--volume",
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

/// Directories of the guest's kernel, which it cannot do without.
const KERNELS: [&str; 3] = ["dev", "proc", "sys"];

/// Refuses a volume that would hide another one, or a directory of the kernel.
///
/// # Errors
/// If there is one.
pub fn check(volumes: &[Volume]) -> Result<()> {
    let mut places = HashSet::new();
    for Volume { option, guest, .. } in volumes {
        let names = guest.split('/').filter(|name| !matches!(*name, "" | "."));
        let names: Vec<&str> = names.collect();
        if let [name] = names[..]
            && KERNELS.contains(&name)
        {
            bail!("{option}: the guest's /{name} cannot be replaced");
        }
        if !places.insert(names) {
            bail!("{option}: {guest} is given twice as a place in the guest");
        }
    }
    Ok(())
}

/// A directory of the host with vng's spelling: `[GUEST=]HOST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedDir {
    /// Where the guest mounts it, an absolute path; without one it is the host's path.
    guest: Option<String>,
    host: PathBuf,
}

impl FromStr for SharedDir {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A GUEST is absolute; other equals signs belong to the name.
        let (guest, host) = match text.split_once('=') {
            Some((guest, host)) if guest.starts_with('/') => (Some(guest.to_owned()), host),
            _ => (None, text),
        };
        if host.is_empty() {
            return Err("not [GUEST=]HOST".into());
        }
        let host = host.into();
        Ok(Self { guest, host })
    }
}

impl SharedDir {
    /// Returns the volume that it asks for.
    ///
    /// # Errors
    /// If there is no such directory, or it cannot have a place in the guest.
    pub fn volume(&self, read_only: bool) -> Result<Volume, String> {
        let named = |why: &dyn Display| format!("{}: {why}", self.host.display());
        let guest = match &self.guest {
            Some(guest) => guest.clone(),
            None => {
                let path = self.host.canonicalize().map_err(|error| named(&error))?;
                let path = path.into_os_string().into_string();
                path.map_err(|_| named(&"its path is no UTF-8"))?
            }
        };
        if guest.bytes().all(|byte| byte == b'/') {
            return Err(named(&"the guest's root cannot be replaced"));
        }
        Ok(Volume {
            option: match read_only {
                true => "--rodir",
                false => "--rwdir",
            },
            host: self.host.clone(),
            guest,
            read_only,
            cache: Cache::Auto,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_parsed() {
        let volume = |host: &str, guest: &str, read_only, cache| {
            Ok(Volume {
                option: "--volume",
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

    #[test]
    fn volumes_that_hide_something_are_refused() {
        let checked = |texts: &[&str]| {
            let volumes: Vec<Volume> = texts.iter().map(|text| text.parse().unwrap()).collect();
            check(&volumes).map_err(|error| error.to_string())
        };
        assert_eq!(checked(&["a:/b", "a:/c", "a:/b/c", "a:/b/proc"]), Ok(()));
        for texts in [
            &["a:/proc"][..],
            &["a:/b", "a:/./dev//"],
            &["a:/sys:ro"],
            &["a:/b", "c:/b"],
            &["a:/b/c", "c:/b/./c/"],
        ] {
            assert!(checked(texts).unwrap_err().starts_with("--volume: "));
        }
    }

    #[test]
    fn directories_in_vngs_spelling_are_parsed() {
        let dir = |guest: Option<&str>, host: &str| {
            Ok(SharedDir {
                guest: guest.map(str::to_owned),
                host: host.into(),
            })
        };
        assert_eq!("/src=.".parse(), dir(Some("/src"), "."));
        assert_eq!("/a=b=c".parse(), dir(Some("/a"), "b=c"));
        assert_eq!("a=b".parse(), dir(None, "a=b"));
        for text in ["", "/a="] {
            assert!(text.parse::<SharedDir>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_directory_without_a_place_has_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().canonicalize().unwrap();
        let shared: SharedDir = host.to_str().unwrap().parse().unwrap();
        let volume = shared.volume(true).unwrap();
        assert_eq!(volume.guest, host.to_str().unwrap());
        assert!(volume.read_only);
        let nothing: SharedDir = "/nonexistent".parse().unwrap();
        assert!(nothing.volume(true).unwrap_err().contains("/nonexistent"));
        let root: SharedDir = "/".parse().unwrap();
        assert!(root.volume(false).unwrap_err().contains("root"));
    }
}
