//! The guests, if they can be had.

use std::{
    env, fs,
    io::{self, Write as _},
};

use guest_kernels::{Guest, Stage, fetch};

/// Environment variable that says, by the value 1, that guests cannot be fetched if the cache lacks them.
const OFFLINE: &str = "REPLEX_OFFLINE";

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
    let images = match fetch(guest, &mut |stage: &Stage| report(&stage.to_string())) {
        Ok(images) => images,
        Err(error) if env::var_os(OFFLINE).is_some_and(|value| value == "1") => {
            report(&format!(
                "skipped, {OFFLINE} is set: guest {guest}: {error}"
            ));
            return None;
        }
        Err(error) => panic!("guest {guest}: {error}\n({OFFLINE}=1 skips this test)"),
    };
    let kernel = fs::read(images.kernel).unwrap();
    let field = kernel[KERNEL_VERSION..][..2].try_into().unwrap();
    let version = &kernel[SETUP + usize::from(u16::from_le_bytes(field))..];
    let release = version.split(|&byte| byte == b' ' || byte == 0).next();
    Some(String::from_utf8(release.unwrap().to_vec()).unwrap())
}

/// Prints past the test runner's capture: a skipped test must not look like one that ran.
fn report(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
