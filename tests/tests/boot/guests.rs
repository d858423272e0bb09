//! The guests, if they can be had.

use std::fs;

use guest_kernels::{Guest, fetch};
use tests::fetched::fetched;

/// bzImage header (boot.rst, "The Real-Mode Kernel Header"): offset of the field that holds the version string's offset.
const KERNEL_VERSION: usize = 0x20e;
/// Offset from which that field counts.
const SETUP: usize = 0x200;

/// The release of `guest`'s kernel, read from its file: what `uname -r` must print. None if the guest cannot be had and
/// that is known.
///
/// # Panics
/// If the guest cannot be had and that is not known.
pub fn release(guest: Guest) -> Option<String> {
    let images = fetched(format_args!("guest {guest}"), |progress| {
        fetch(guest, progress)
    })?;
    let kernel = fs::read(images.kernel).unwrap();
    let field = kernel[KERNEL_VERSION..][..2].try_into().unwrap();
    let version = &kernel[SETUP + usize::from(u16::from_le_bytes(field))..];
    let release = version.split(|&byte| byte == b' ' || byte == 0).next();
    Some(String::from_utf8(release.unwrap().to_vec()).unwrap())
}
