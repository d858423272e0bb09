//! The root of an image, as other readers of squashfs images than a guest's kernel see it.

use std::fs::{self, File};
use std::io::{BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Output};

use backhand::{FilesystemReader, InnerNode};
use guest_kernels::{Guest, fetch};
use oci_root::{Arch, Limits, Reference, open};
use tests::fetched::fetched;
use tests::layout::{self, LISTING};
use tests::report::report;

#[test]
fn an_image_becomes_the_root_that_its_layers_make() {
    // One after the other: a mounted image is busy while a process that another thread starts has its open files.
    check_image(Guest::Debian686, "386", Arch::i386);
    check_image(Guest::DebianAmd64, "amd64", Arch::Amd64);
}

/// Checks the root of an image with the guest's busybox, for an architecture by its name in images.
fn check_image(guest: Guest, name: &str, architecture: Arch) {
    let images = fetched(format_args!("guest {guest}"), |progress| {
        fetch(guest, progress)
    });
    let Some(images) = images else { return };
    let busybox = fs::read(images.kernel.with_file_name("busybox")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("layout");
    layout::write(&path, name, &busybox);
    let reference = Reference::parse(format!("{}:small", path.display()).as_ref()).unwrap();
    let cache = folder.path().join("cache");
    let image = open(
        &reference,
        std::slice::from_ref(&architecture),
        &cache,
        &Limits::default(),
        &mut |_| {},
    )
    .unwrap();
    assert_eq!(image.architecture, architecture);
    assert_eq!(image.config.entrypoint, ["/bin/entry"]);
    assert_eq!(image.config.cmd, ["one", "two words"]);
    assert_eq!(
        image.config.env,
        ["PATH=/bin", "GREETING=hello from the image"]
    );
    assert_eq!(image.config.working_dir, "/srv/data");
    assert_eq!(image.config.user, "guest:users");
    assert_eq!(listing(&image.squashfs, &busybox), LISTING);
    unsquash(&image.squashfs, folder.path(), &busybox);
    mount(&image.squashfs, folder.path(), &busybox);
}

/// What is in a squashfs image.
fn listing(image: &Path, busybox: &[u8]) -> String {
    let image = FilesystemReader::from_reader(BufReader::new(File::open(image).unwrap())).unwrap();
    let mut listing = String::new();
    for node in image.files().skip(1) {
        let (kind, rest) = match &node.inner {
            InnerNode::Dir(_) => ('d', String::new()),
            InnerNode::Symlink(link) => ('l', format!(" -> {}", link.link.display())),
            InnerNode::CharacterDevice(device) => ('c', format!(" {}", device.device_number)),
            InnerNode::File(file) => {
                let mut bytes = Vec::new();
                image.file(file).reader().read_to_end(&mut bytes).unwrap();
                let rest = match bytes.len() {
                    ..100 => format!(" {:?}", String::from_utf8(bytes).unwrap()),
                    _ => String::new(),
                };
                ('f', rest)
            }
            other => panic!("{}: {other:?}", node.fullpath.display()),
        };
        let header = &node.header;
        let (mode, uid, gid) = (header.permissions, header.uid, header.gid);
        let name = node.fullpath.strip_prefix("/").unwrap().display();
        listing += &format!("{kind} {mode:o} {uid}:{gid} {name}{rest}\n");
    }
    let file = image
        .files()
        .find(|node| node.fullpath == Path::new("/bin/busybox"))
        .unwrap();
    let InnerNode::File(file) = &file.inner else {
        panic!("{file:?}")
    };
    let mut bytes = Vec::new();
    image.file(file).reader().read_to_end(&mut bytes).unwrap();
    assert!(bytes == busybox);
    listing
}

/// Unpacks the image by squashfs-tools, if the host has them.
fn unsquash(image: &Path, folder: &Path, busybox: &[u8]) {
    let target = folder.join("unsquashed");
    let mut unsquashfs = Command::new("unsquashfs");
    // Devices take privileges that the test does without.
    unsquashfs
        .args(["-no-progress", "-ignore-errors", "-d"])
        .arg(&target)
        .arg(image);
    match unsquashfs.output() {
        Ok(_) => check(&target, busybox),
        Err(error) => report(&format!("not unpacked by unsquashfs: {error}")),
    }
}

/// Mounts the image by the host's kernel, if it lets us.
fn mount(image: &Path, folder: &Path, busybox: &[u8]) {
    let target = folder.join("mounted");
    fs::create_dir(&target).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "squashfs", "-o", "ro,loop"])
        .arg(image)
        .arg(&target)
        .output();
    match mount {
        Ok(Output { status, .. }) if status.success() => {
            check(&target, busybox);
            let status = Command::new("umount").arg(&target).status();
            assert!(status.unwrap().success());
        }
        Ok(output) => report(&format!(
            "not mounted by the host: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => report(&format!("not mounted by the host: {error}")),
    }
}

/// Checks some of a root that others have unpacked.
fn check(root: &Path, busybox: &[u8]) {
    let text = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    assert!(fs::read(root.join("bin/busybox")).unwrap() == busybox);
    assert_eq!(
        fs::read_link(root.join("bin/sh")).unwrap(),
        Path::new("busybox")
    );
    assert_eq!(text("etc/both"), "of the upper layer\n");
    assert_eq!(text("opt/new"), "new\n");
    assert!(!root.join("etc/hidden").exists() && !root.join("opt/old").exists());
}
