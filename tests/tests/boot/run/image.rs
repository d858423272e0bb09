//! Images of containers, whose roots the kernels' own squashfs reads.

use std::fs;

use guest_kernels::{Guest, Stage, fetch};
use tempfile::TempDir;
use tests::layout::{self, PRINTED};

use crate::program::{Boot, Ended};

/// The small image, and a run of it on the guest.
fn image(guest: Guest) -> Option<(TempDir, String, Boot)> {
    Some(image_for(guest, "386", Boot::run_of(guest)?))
}

/// The small image with the guest's busybox for an architecture, and the run.
fn image_for(guest: Guest, architecture: &str, boot: Boot) -> (TempDir, String, Boot) {
    let images = fetch(guest, &mut |_: &Stage| ()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let busybox = fs::read(images.kernel.with_file_name("busybox")).unwrap();
    let path = folder.path().join("layout");
    layout::write(&path, architecture, &busybox);
    let path = path.to_str().unwrap().to_owned();
    (folder, path, boot)
}

fn assert_as_it_says(ended: &Ended) {
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.text(), PRINTED);
    assert_eq!(ended.code(), Some(7));
}

#[test]
fn an_image_runs_as_it_says_on_debian_686() {
    let Some((_folder, path, boot)) = image(Guest::Debian686) else {
        return;
    };
    assert_as_it_says(&boot.flag(&path).run());
}

#[test]
fn an_image_runs_as_it_says_on_debian_686_pae() {
    let Some((_folder, path, boot)) = image(Guest::Debian686Pae) else {
        return;
    };
    assert_as_it_says(&boot.flag(&format!("{path}:small")).run());
}

#[test]
fn an_image_for_amd64_runs_as_it_says_on_a_64_bit_kernel() {
    let guest = Guest::DebianAmd64;
    let Some(boot) = Boot::run_for_root(guest) else {
        return;
    };
    let (_folder, path, boot) = image_for(guest, "amd64", boot);
    assert_as_it_says(&boot.flag(&path).run());
    let ended = Boot::run_of(Guest::Debian686).unwrap().flag(&path).run();
    assert_eq!(
        ended.stderr,
        format!(
            "replex: image {path}: there is no image for linux/386, which the guest's kernel can run, only for linux/amd64\n"
        )
    );
}

#[test]
fn options_go_before_what_the_image_says() {
    let Some((_folder, path, boot)) = image(Guest::Debian686) else {
        return;
    };
    let ended = boot
        .with("--entrypoint", "")
        .with("--user", "root")
        .with("--workdir", "/opt")
        .with("--env", "GREETING=hello")
        .flag(&path)
        .script(
            "pwd; id -u; echo $GREETING; echo x > /opt/x && cat /opt/x
             stat -c '%a %u:%g %Y %F %n' /bin/busybox /srv/data /srv/data/link /bin/sh",
        );
    assert_eq!(ended.stderr, "");
    assert_eq!(
        ended.text(),
        "/opt\n0\nhello\nx\n\
         4755 0:0 1000000000 regular file /bin/busybox\n\
         750 1000:100 1000000000 directory /srv/data\n\
         644 1000:100 1000000000 regular file /srv/data/link\n\
         777 0:0 1000000000 symbolic link /bin/sh\n"
    );
}

#[test]
fn images_that_cannot_run_are_refused() {
    let Some((folder, path, boot)) = image(Guest::Debian686) else {
        return;
    };
    let ended = boot.flag(&format!("{path}:large")).run();
    assert_eq!(
        ended.stderr,
        format!("replex: image {path}: no image is named large; the names are small\n")
    );
    assert_eq!(ended.text(), "");
    let file = folder.path().join("file");
    fs::write(&file, "not an image").unwrap();
    let boot = Boot::run_of(Guest::Debian686).unwrap();
    let ended = boot.flag(file.to_str().unwrap()).run();
    assert!(
        ended
            .stderr
            .starts_with(&format!("replex: image {}: ", file.display())),
        "{}",
        ended.stderr
    );
}
