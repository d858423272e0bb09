//! [`KmodError`]: why the host's kernel module is not used.

use std::io;
use std::path::{Path, PathBuf};

use nix::libc::{ENODEV, ENOENT, ENOTDIR, ENXIO};
use thiserror::Error;

use super::abi::VERSION;

/// The reason why the host's kernel module is not used: the path of its device, and what is wrong with that.
#[derive(Debug, Error)]
#[error("{}: {reason}", .path.display())]
pub struct KmodError {
    path: PathBuf,
    reason: Reason,
}

/// What is wrong with the device.
#[derive(Debug, Error)]
pub(super) enum Reason {
    #[error("no such device; is the kernel module loaded?")]
    Absent,
    #[error("cannot be opened for reading and writing: {0}")]
    Open(io::Error),
    #[error("is not the device of replex's kernel module: {0}")]
    Foreign(io::Error),
    #[error("the kernel module has version {0} of the interface, and replex needs {VERSION}")]
    Version(u32),
    #[error("the kernel module refuses guest memory: {0}")]
    Ram(io::Error),
    #[error("the kernel module grants no window: {0}")]
    Window(io::Error),
}

impl KmodError {
    pub(super) fn new(path: &Path, reason: Reason) -> Self {
        Self {
            path: path.into(),
            reason,
        }
    }

    /// Whether the host has no such device, which is no fault.
    pub fn is_absent(&self) -> bool {
        matches!(self.reason, Reason::Absent)
    }
}

impl Reason {
    /// What it means that the device cannot be opened.
    pub(super) fn of_open(error: io::Error) -> Self {
        // Without the module, a node that somebody has made leads to no driver.
        match error.raw_os_error() {
            Some(ENOENT | ENOTDIR | ENODEV | ENXIO) => Self::Absent,
            _ => Self::Open(error),
        }
    }
}
