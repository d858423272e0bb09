//! The program `replex` and a guest in the virtual machine, and the module's counts as `--stats` prints them.

use std::collections::BTreeMap;

use ::tests::built;
use ::tests::fetched::fetched;
use guest_kernels::{Guest, GuestImages, fetch};

use crate::initramfs::Initramfs;

/// The beginning of the line of `--stats` with the module's counts.
const SHADOW: &str = "shadow        kmod: ";

/// The images of Debian 686. None, and the reason is printed, if they cannot be had and that is known.
pub fn guest() -> Option<GuestImages> {
    let guest = Guest::Debian686;
    fetched(format_args!("guest {guest}"), |progress| {
        fetch(guest, progress)
    })
}

/// Adds the program and the guest, at the places that `steps.sh` says.
pub fn add(initramfs: &mut Initramfs, guest: &GuestImages) {
    initramfs.program("bin/replex", built::replex());
    initramfs.file("guest/vmlinuz", &guest.kernel);
    initramfs.file("guest/initrd.cpio", &guest.initrd);
}

/// The module's counts by name.
///
/// # Panics
/// If there are none.
pub fn counts(stats: &str) -> BTreeMap<&str, u64> {
    let line = stats.lines().find_map(|line| line.strip_prefix(SHADOW));
    let line = line.unwrap_or_else(|| panic!("no counts of the module: {stats}"));
    let counts = line.split(", ").filter_map(|text| text.split_once(' '));
    counts
        .map(|(count, name)| (name, count.parse().unwrap()))
        .collect()
}

#[test]
fn counts_are_read() {
    let stats = "windows       1 opened\nshadow        kmod: 20 faults, 0 held\n";
    assert_eq!(counts(stats), BTreeMap::from([("faults", 20), ("held", 0)]));
}
