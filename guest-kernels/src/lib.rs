//! Guests: distribution kernels, which are fetched, and our own test kernels, which are built.
//!
//! [`fetch`] brings a [`Guest`]'s unmodified kernel into the user's cache by means of apt, and puts an initramfs with busybox
//! beside it. [`exec_archive`] and [`winsize_archive`] make the small archive that tells this initramfs what to do in one boot,
//! [`run_archive`] one with a command that has streams of its own, [`modules_archive`] one with kernel modules, [`mounts_archive`]
//! one with directories to mount, [`clock_archive`] one with the host's time, [`added_archives`] those with files of the user's
//! own. [`test_kernel`] has the test kernels, [`tiny`] guests that are smaller still. [`fetch_host`] brings a kernel to test the
//! host's module on. [`NewRoot`] makes the root directory of a whole distribution ([`Root`]).

mod architecture;
mod cache;
mod command;
mod debian;
mod error;
mod guest;
mod host;
mod initramfs;
mod progress;
mod root;
pub mod test_kernel;
pub mod tiny;

pub use architecture::Architecture;
pub use cache::{
    GuestImages, HostFiles, NewRoot, cache_folder, fetch, fetch_host, missing_packages,
    modules_archive, refresh,
};
pub use error::FetchError;
pub use guest::{Guest, UnknownGuest};
pub use host::{HostKernel, UnknownHostKernel};
pub use initramfs::{
    ALIGNMENT, AddError, AddedArchives, Addition, AdditionParseError, Archive, DeviceNumber,
    FAILED, GuestCommand, GuestNetwork, GuestRoot, GuestTerminal, Mount, ROOT_TAG, RootChanges,
    STATUS, STDERR, STDIN, STDOUT, Status, added_archives, clock_archive, exec_archive,
    mounts_archive, run_archive, winsize_archive,
};
pub use progress::{Progress, Stage};
pub use root::{Root, UnknownRoot};

/// Prints why a test is skipped, past the test runner's capture: a skipped test must not look like one that ran.
#[cfg(test)]
fn tell_skipped(why: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
