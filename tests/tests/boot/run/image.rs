//! Images of containers as a command's root, and what they say about the command.

use std::fs;

use guest_kernels::{Guest, fetch};
use tempfile::TempDir;
use tests::{fetched::fetched, layout};

use crate::program::Boot;

/// An OCI layout, or none if there is no busybox to be had and that is known.
fn image() -> Option<TempDir> {
    let guest = Guest::Debian686;
    let images = fetched(guest, |progress| fetch(guest, progress))?;
    let busybox = fs::read(images.kernel.with_file_name("busybox")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    layout::write(&dir.path().join("layout"), &busybox);
    Some(dir)
}

/// Runs the image's own command, which sees what the image says, and the names of the network.
fn runs_as_it_says(guest: Guest) {
    let (Some(boot), Some(dir)) = (Boot::run_of(guest), image()) else {
        return;
    };
    let layout = dir.path().join("layout");
    let ended = boot.flag(layout.to_str().unwrap()).run();
    let expected = layout::PRINTED
        .replace("group\n", "group\nhosts\n")
        .replace("passwd\n", "passwd\nresolv.conf\n");
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.text(), expected);
    assert_eq!(ended.code(), Some(7));
}

#[test]
fn debian_686_runs_an_image_as_it_says() {
    runs_as_it_says(Guest::Debian686);
}

#[test]
fn debian_686_pae_runs_an_image_as_it_says() {
    runs_as_it_says(Guest::Debian686Pae);
}

/// Options go before the image, a disk of the user's stays the first, and what is written is gone at the end.
#[test]
fn options_go_before_what_the_image_says() {
    let Some(dir) = image() else {
        return;
    };
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("disk"), "the user's disk\n".repeat(32)).unwrap();
    for _ in 0..2 {
        let Some(boot) = Boot::run_of(Guest::Debian686) else {
            return;
        };
        let script = "pwd; id -u; id -g; echo $GREETING; head -n 1 /dev/vda; cat new; echo changed > new; cat new";
        let ended = boot
            .flag(&path("layout"))
            .with("--entrypoint", "/bin/sh")
            .with("-u", "0:users")
            .with("-w", "/opt")
            .with("-e", "GREETING=hello")
            .with("--disk", &format!("{},ro", path("disk")))
            .command_line(&["-c", script])
            .run();
        assert_eq!(ended.stderr, "");
        assert_eq!(
            ended.text(),
            "/opt\n0\n100\nhello\nthe user's disk\nnew\nchanged\n"
        );
    }
}
