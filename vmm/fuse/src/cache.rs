//! How long the guest may go by what it knows of a shared directory.

use std::time::Duration;

/// The part of the directory that the guest keeps in its caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// Names and attributes are asked for each time, and data is not cached. Files cannot be mapped shared and writable.
    None,
    /// Names, absent ones too, and attributes are good for a second, data until the file is opened again and has changed meanwhile.
    /// So changes on the host show within a second, and after open(2) at once.
    #[default]
    Auto,
    /// Everything is good for a day. For directories that nobody else changes.
    Always,
}

impl Cache {
    /// Returns how long names and attributes are good.
    pub fn timeout(self) -> Duration {
        match self {
            Cache::None => Duration::ZERO,
            Cache::Auto => Duration::from_secs(1),
            Cache::Always => Duration::from_secs(86_400),
        }
    }
}
