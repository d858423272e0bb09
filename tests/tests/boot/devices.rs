//! Virtio devices, driven by the kernels' own modules.

use std::{fs, process::Command};

use guest_kernels::Guest;

use tests::report::report;

use crate::program::Boot;

#[test]
fn debian_686_has_random_numbers() {
    random_numbers(Guest::Debian686);
}

#[test]
fn debian_686_pae_has_random_numbers() {
    random_numbers(Guest::Debian686Pae);
}

fn random_numbers(guest: Guest) {
    let Some(boot) = Boot::of(guest) else { return };
    let ended = boot.flag("--rng").exec(
        "cat /sys/class/misc/hw_random/rng_current
         head -c 100000 /dev/hwrng > /tmp/numbers
         wc -c < /tmp/numbers
         gzip -c /tmp/numbers | wc -c
         ls -d /replex/modules 2> /dev/null
         grep -c virtio0 /proc/interrupts",
    );
    assert_eq!(ended.stderr, "");
    let text = ended.text();
    let lines: Vec<_> = text.lines().collect();
    let ["virtio_rng.0", "100000", packed, "1"] = lines[..] else {
        panic!("{text}");
    };
    assert!(packed.parse::<u32>().unwrap() > 100_000, "not compressible");
}

#[test]
fn debian_686_has_disks() {
    disks(Guest::Debian686);
}

#[test]
fn debian_686_pae_has_disks() {
    disks(Guest::Debian686Pae);
}

/// The size of the test's disks in MiB.
const DISK: u64 = 8;

/// Reads a disk, writes another, and tries to write one that is read-only; what the guest has written to a snapshot is lost.
fn disks(guest: Guest) {
    let Some(boot) = Boot::of(guest) else { return };
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..DISK << 20)
        .map(|at| (at / 3 + at / 512) as u8)
        .collect();
    let path = |name: &str| folder.path().join(name);
    for name in ["written", "kept", "temporary"] {
        fs::write(path(name), &bytes).unwrap();
    }
    let ended = boot
        .with("--disk", path("written").to_str().unwrap())
        .with("--disk", &format!("{},ro", path("kept").display()))
        .with(
            "--disk",
            &format!("{},snapshot", path("temporary").display()),
        )
        .exec(
            "cat /sys/block/vd?/size
             cmp /dev/vda /dev/vdb && cmp /dev/vda /dev/vdc && echo same
             dd if=/dev/vda of=/tmp/piece bs=64k skip=7 count=16 2> /dev/null
             dd if=/tmp/piece of=/dev/vda bs=4k seek=1 conv=notrunc,fsync 2> /dev/null
             dd if=/tmp/piece of=/dev/vdc bs=4k seek=1 conv=notrunc,fsync 2> /dev/null
             cmp /dev/vda /dev/vdc && echo same
             dd if=/tmp/piece of=/dev/vdb 2> /dev/null || echo refused",
        );
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.text(), "16384\n16384\n16384\nsame\nsame\nrefused\n");
    let mut expected = bytes.clone();
    expected.copy_within(7 * 65536..23 * 65536, 4096);
    assert!(fs::read(path("written")).unwrap() == expected);
    for name in ["kept", "temporary"] {
        assert!(fs::read(path(name)).unwrap() == bytes, "{name}");
    }
}

/// A program that the guest executes is read from a disk, through the page cache, into pages that held other programs before.
#[test]
fn programs_run_from_an_ext4_disk() {
    let Some(boot) = Boot::of(Guest::Debian686) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("ext4.img");
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(
        tree.join("script"),
        "#!/mnt/busybox sh\n/mnt/busybox echo $((6 * 7))\n",
    )
    .unwrap();
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-d"])
        .args([&tree, &image])
        .arg("32M")
        .status();
    if !made.is_ok_and(|status| status.success()) {
        report("skipped: making an ext4 file system takes mke2fs");
        return;
    }
    let ended = boot.with("--disk", image.to_str().unwrap()).exec(
        "mkdir /mnt && mount -t ext4 /dev/vda /mnt || exit 1
         for round in 1 2 3; do
             cp /bin/busybox /mnt/busybox && sync
             umount /mnt
             echo 3 > /proc/sys/vm/drop_caches
             mount -t ext4 /dev/vda /mnt
             sh -c '. /mnt/script'
             rm /mnt/busybox
         done
         umount /mnt",
    );
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.text(), "42\n42\n42\n");
    let checked = Command::new("e2fsck").arg("-fn").arg(&image).output();
    let checked = checked.unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stdout)
    );
}
