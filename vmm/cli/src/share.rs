//! Directories of the host that are shared by virtio-fs: the root and the volumes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fuse::{Cache, Config, Server};
use guest_kernels::{GuestRoot, Mount, ROOT_TAG, RootChanges, mounts_archive};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use vmm::devices::virtio::Fs;

use crate::volume::{self, Volume};

/// A directory of the host as a device.
pub struct Shared {
    /// The option that asks for it.
    pub option: &'static str,
    /// Linux's modules that init needs for it.
    pub drivers: &'static [&'static str],
    /// The device.
    pub device: Fs,
}

/// A directory of the host that is to be a device.
struct Share<'a> {
    /// The option that asks for it.
    option: &'static str,
    drivers: &'static [&'static str],
    host: &'a Path,
    tag: String,
    read_only: bool,
    cache: Cache,
    volatile: bool,
}

impl<'a> Share<'a> {
    /// Returns the one for the root.
    fn of_root(dir: &'a Path, changes: RootChanges, volatile: bool) -> Self {
        let rw = changes == RootChanges::Kept;
        Self {
            option: "--root",
            drivers: &["virtiofs", "overlay"],
            host: dir,
            tag: ROOT_TAG.into(),
            read_only: !rw,
            // Below an overlay it must not change anyway.
            cache: match rw && !volatile {
                true => Cache::Auto,
                false => Cache::Always,
            },
            volatile,
        }
    }

    /// Returns the one for a volume.
    fn of_volume(index: usize, volume: &'a Volume) -> Self {
        Self {
            option: volume.option,
            drivers: &["virtiofs"],
            host: &volume.host,
            tag: tag(index),
            read_only: volume.read_only,
            cache: volume.cache,
            volatile: false,
        }
    }

    /// Makes the device, which keeps about this many descriptors open.
    fn open(&self, descriptors: usize) -> Result<Shared> {
        let config = Config {
            cache: self.cache,
            read_only: self.read_only,
            descriptors,
            records: fuse::keeps_records(self.host),
            volatile: self.volatile,
            ..Config::default()
        };
        let server = Server::new(self.host, config).context(self.option)?;
        let device = Fs::new(&self.tag, server).context(self.option)?;
        Ok(Shared {
            option: self.option,
            drivers: self.drivers,
            device,
        })
    }
}

/// The directories that a guest gets.
#[derive(Debug, Default)]
pub struct Shares {
    /// The root, and what becomes of changes there.
    pub root: Option<(PathBuf, RootChanges)>,
    /// Whether nobody else changes the root, and it need not outlast a crash of the host.
    pub volatile: bool,
    /// The volumes.
    pub volumes: Vec<Volume>,
}

impl Shares {
    /// Makes the devices.
    ///
    /// # Errors
    /// If a directory cannot be shared, or would hide another.
    pub fn open(&self) -> Result<Vec<Shared>> {
        volume::check(&self.volumes)?;
        let root = self.root.iter();
        let root = root.map(|(dir, changes)| Share::of_root(dir, *changes, self.volatile));
        let volumes = self.volumes.iter().enumerate();
        let volumes = volumes.map(|(index, volume)| Share::of_volume(index, volume));
        let shares: Vec<_> = root.chain(volumes).collect();
        if shares.is_empty() {
            return Ok(Vec::new());
        }
        // All directories together use half of what the process may open.
        let descriptors = most_descriptors() / 2 / shares.len();
        shares.iter().map(|share| share.open(descriptors)).collect()
    }

    /// Returns the archive that tells init what to mount, empty if that is nothing.
    pub fn archive(&self) -> Vec<u8> {
        let root = self.root.as_ref();
        self.archive_with(root.map(|(_, changes)| GuestRoot::Directory(*changes)))
    }

    /// Returns the archive that tells init what to mount, with `root` as the root, empty if that is nothing.
    pub fn archive_with(&self, root: Option<GuestRoot>) -> Vec<u8> {
        let mount = |(index, volume): (usize, &Volume)| Mount {
            tag: tag(index),
            path: volume.guest.clone(),
            read_only: volume.read_only,
        };
        let mounts: Vec<_> = self.volumes.iter().enumerate().map(mount).collect();
        match (&root, mounts.is_empty()) {
            (None, true) => Vec::new(),
            _ => mounts_archive(root.as_ref(), &mounts),
        }
    }
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
