//! What a guest is given besides its kernel and initramfs: files of the host, a loopback interface, and a bzImage that unpacks
//! itself.

use std::{fs, os::unix::fs::PermissionsExt as _};

use guest_kernels::{Guest, Stage, fetch};

use crate::program::Boot;

/// Pings 127.0.0.1, and sends a line through a TCP connection to it.
const LOOPBACK: &str = "ping -c 1 -q 127.0.0.1 > /tmp/ping || { cat /tmp/ping; exit 1; }
     ifconfig lo | grep -o 'inet addr:[0-9.]*'
     echo through | nc -l -p 7 > /dev/null &
     until nc 127.0.0.1 7 < /dev/null 2> /dev/null; do :; done";

#[test]
fn the_loopback_interface_is_up_on_debian_686() {
    loopback(Guest::Debian686);
}

#[test]
fn the_loopback_interface_is_up_on_debian_686_pae() {
    loopback(Guest::Debian686Pae);
}

fn loopback(guest: Guest) {
    let Some(boot) = Boot::of(guest) else { return };
    let ended = boot.exec(LOOPBACK);
    assert_eq!(ended.code(), Some(0), "{}{}", ended.text(), ended.stderr);
    assert_eq!(ended.text(), "inet addr:127.0.0.1\nthrough\n");
    assert_eq!(ended.stderr, "");
}

#[test]
fn files_are_added() {
    let Some(boot) = Boot::of(Guest::Debian686) else {
        return;
    };
    let host = tempfile::tempdir().unwrap();
    let path = |name: &str| host.path().join(name).to_str().unwrap().to_owned();
    let file = |name: &str, mode: u32, content: &str| {
        fs::write(path(name), content).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    file("pro:gram", 0o4751, "#!/bin/sh\necho \"it runs, $1\"\n");
    fs::create_dir_all(path("tree/sub")).unwrap();
    file("tree/sub/data", 0o640, "data\n");
    std::os::unix::fs::symlink("sub/data", path("tree/link")).unwrap();
    // What leads to the places: folders of the guest's, links of the guest's, one of them to bin, and new folders.
    let ended = boot
        .with("--add", &format!("{}:/sbin/program", path("pro:gram")))
        .with("--add", &format!("{}:/usr/bin/", path("pro:gram")))
        .with("--add", &format!("{}:/usr/sbin/new/p", path("pro:gram")))
        .with("--add", &format!("{}:/tmp/new/tree", path("tree")))
        .with("--add", &format!("{}:/root/deep/er/x", path("pro:gram")))
        .with("--add", &format!("{}:/etc/profile", path("pro:gram")))
        .exec(
            "program one; pro:gram two; /bin/new/p three; cat /tmp/new/tree/link /etc/profile
             cd /; stat -c '%a %u %n' bin/program tmp tmp/new tmp/new/tree/sub/data root root/deep sbin usr/bin bin
             ls bin | wc -l",
        );
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.stderr, "");
    let text = ended.text();
    let (text, applets) = text.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(
        text,
        "it runs, one\nit runs, two\nit runs, three\ndata\n#!/bin/sh\necho \"it runs, $1\"\n\
         4751 0 bin/program\n1777 0 tmp\n755 0 tmp/new\n640 0 tmp/new/tree/sub/data\n700 0 root\n755 0 root/deep\n\
         777 0 sbin\n777 0 usr/bin\n755 0 bin"
    );
    assert!(applets.parse::<u32>().unwrap() > 100, "{applets} applets");
}

/// Without the fields that say where its payload is, Debian's kernel is loaded as it is and unpacks itself.
#[test]
fn a_bzimage_without_payload_fields_unpacks_itself() {
    let guest = Guest::Debian686;
    if Boot::of(guest).is_none() {
        return;
    }
    let images = fetch(guest, &mut |_: &Stage| ()).unwrap();
    let mut kernel = fs::read(images.kernel).unwrap();
    // payload_offset and payload_length, boot.rst.
    kernel[0x248..0x250].fill(0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernel");
    fs::write(&path, kernel).unwrap();
    let (path, initrd) = (path.to_str().unwrap(), images.initrd.to_str().unwrap());
    let ended = Boot::of_kernel(path)
        .with("--initrd", initrd)
        .exec("uname -m; exit 3");
    assert_eq!(ended.code(), Some(3), "{}", ended.stderr);
    assert_eq!(ended.text(), "i686\n");
}
