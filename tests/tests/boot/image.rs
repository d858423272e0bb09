//! Images of containers, whose roots the kernels' own squashfs reads.

use std::{
    fs::{self, File},
    io::BufReader,
};

use guest_kernels::{Guest, Stage, fetch};
use oci_root::{Limits, Reference, open};
use tests::layout;

use crate::program::Boot;

#[test]
fn debian_686_reads_the_root_of_an_image() {
    read(Guest::Debian686);
}

#[test]
fn debian_686_pae_reads_the_root_of_an_image() {
    read(Guest::Debian686Pae);
}

/// Mounts the root from a disk.
fn read(guest: Guest) {
    let Some(boot) = Boot::of(guest) else { return };
    let images = fetch(guest, &mut |_: &Stage| ()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let busybox = images.kernel.with_file_name("busybox");
    layout::write(&path("layout"), &fs::read(&busybox).unwrap());
    let reference = Reference {
        path: path("layout"),
        name: None,
    };
    let image = open(&reference, &path("cache"), &Limits::default(), &mut |_| {}).unwrap();

    let modules = BufReader::new(File::open(images.kernel.with_file_name("modules")).unwrap());
    for entry in tar::Archive::new(modules).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().as_os_str() == "squashfs.ko" {
            entry.unpack(path("squashfs.ko")).unwrap();
        }
    }
    let ended = boot
        .with("--disk", &format!("{},ro", image.squashfs.display()))
        .with("--add", &format!("{}:/squashfs.ko", path("squashfs.ko").display()))
        .with("--add", &format!("{}:/given/busybox", busybox.display()))
        .exec(
            "insmod /squashfs.ko && mkdir /image && mount -t squashfs -o ro /dev/vda /image || exit 1
             cd /image
             find . -mindepth 1 | sort
             stat -c '%a %u:%g %Y %F %n' bin/busybox dev/null srv/data srv/data/link bin/sh
             cat etc/both opt/new srv/data/file; readlink bin/sh; stat -c '%t:%T' dev/null
             cmp bin/busybox /given/busybox && echo same; touch x 2> /dev/null || echo read-only
             cd srv/data; GREETING='hello from the image' chroot /image /bin/entry one 'two words' | head -n 2
             dmesg | grep -i squashfs | grep -v 'version 4.0'",
        );
    assert_eq!(ended.stderr, "");
    let names = layout::LISTING.lines().map(|line| {
        let name = line.split(' ').nth(3).unwrap();
        format!("./{name}\n")
    });
    let expected = names.collect::<String>()
        + "4755 0:0 1000000000 regular file bin/busybox\n\
           666 0:0 1000000000 character special file dev/null\n\
           750 1000:100 1000000000 directory srv/data\n\
           644 1000:100 1000000000 regular file srv/data/link\n\
           777 0:0 1000000000 symbolic link bin/sh\n\
           of the upper layer\nnew\nlinked\nbusybox\n1:3\nsame\nread-only\n\
           arguments: 2 <one> <two words>\ngreeting: hello from the image\n";
    assert_eq!(ended.text(), expected);
}
