//! Fetches distribution kernels and builds the test kernels.
//!
//! [`fetch`] gets a [`Guest`]'s unmodified kernel through apt into the user's cache and puts an initramfs with busybox
//! beside it; [`exec_archive`] and [`winsize_archive`] make the small archive that tells this initramfs what one boot is
//! for.

mod cache;
mod command;
mod debian;
mod error;
mod guest;
mod initramfs;
mod progress;
pub mod test_kernel;

pub use cache::{GuestImages, fetch, refresh};
pub use error::FetchError;
pub use guest::{Guest, UnknownGuest};
pub use initramfs::{ALIGNMENT, exec_archive, winsize_archive};
pub use progress::{Progress, Stage};

/// Says why a test is skipped, past the test runner's capture: a skipped test must not look like one that ran.
#[cfg(test)]
fn tell_skipped(why: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
