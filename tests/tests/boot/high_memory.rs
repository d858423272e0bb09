//! A guest with RAM above 4 GiB, which the kernel takes first and devices reach. That all of it keeps what is written is tested by
//! [`crate::memory`].

use std::fs;

use guest_kernels::Guest;
use tempfile::TempDir;

use crate::program::Boot;

/// Bytes of the file that goes through the guest's memory. It is in the page cache and then in a tmpfs.
const BYTES: usize = 16 << 20;
/// Pages of it.
const PAGES: u64 = BYTES as u64 / 4096;

/// Prints the pages that are free above 4 GiB, copies the file, and prints them again.
const SCRIPT: &str = "
above() { sed -n '/zone *Normal/ { n; s/.*free *//p; }' /proc/zoneinfo; }
grep MemTotal /proc/meminfo | tr -dc 0-9; echo
above; cat /src/data > /tmp/copy; above
cat /tmp/copy > /src/back
";

/// A file without two pages alike.
fn contents() -> Vec<u8> {
    let words = (0..BYTES as u64 / 8).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    words.flat_map(u64::to_le_bytes).collect()
}

#[test]
fn the_kernel_uses_ram_above_4_gib_and_devices_reach_it() {
    let Some(boot) = Boot::of(Guest::DebianAmd64) else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let data = contents();
    fs::write(dir.path().join("data"), &data).unwrap();
    let ended = boot
        .with("-m", "4G")
        .with("--volume", &format!("{}:/src", dir.path().display()))
        .exec(SCRIPT);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let text = ended.text();
    let numbers: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let [total_kib, before, after] = numbers[..] else {
        panic!("{text}");
    };
    // What lies below the hole for devices is 3.5 GiB.
    assert!(total_kib > 7 << 19, "{text}");
    // The kernel takes memory from its highest zone first.
    assert!(before.saturating_sub(after) > PAGES * 3 / 2, "{text}");
    assert!(fs::read(dir.path().join("back")).unwrap() == data);
}
