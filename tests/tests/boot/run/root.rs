//! Directories of the host as a command's root, and beside it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use guest_kernels::{Guest, fetch};
use tempfile::TempDir;
use tests::fetched::fetched;

use crate::program::{Boot, Ended};

/// A root with busybox and the names of some users, or none if there is no busybox to be had and that is known.
fn root() -> Option<TempDir> {
    let guest = Guest::Debian686;
    let images = fetched(guest, |progress| fetch(guest, progress))?;
    let busybox = images.kernel.with_file_name("busybox");
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    for folder in ["bin", "etc", "home/ada", "tmp"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    for applet in ["cat", "id", "ls", "mkdir", "pwd", "rm", "sh", "touch", "wc"] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
    write(
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\nada:x:1815:1852:Ada:/home/ada:/bin/sh\n",
    );
    write(
        "etc/group",
        "root:x:0:\nada:x:1852:\nengines:x:1833:charles,ada\nothers:x:9:charles\n",
    );
    write("etc/hosts", "the root's own\n");
    write("etc/name", "a root\n");
    symlink("/nowhere/resolv.conf", root.join("etc/resolv.conf")).unwrap();
    Some(dir)
}

fn assert_printed(ended: &Ended, expected: &str) {
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.text(), expected);
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn changes_to_a_root_are_gone_at_the_end() {
    let (Some(boot), Some(dir)) = (Boot::run_of(Guest::Debian686), root()) else {
        return;
    };
    let root = dir.path().to_str().unwrap();
    let ended = boot.flag(root).script(
        "cat /etc/name; echo changed > /etc/name; rm /bin/wc; touch /new; cat /etc/name
         ls -d /new /proc/self /sys/class /dev/null /dev/stdin /dev/shm",
    );
    assert_printed(
        &ended,
        "a root\nchanged\n/dev/null\n/dev/shm\n/dev/stdin\n/new\n/proc/self\n/sys/class\n",
    );
    assert_eq!(fs::read(dir.path().join("etc/name")).unwrap(), b"a root\n");
    assert!(dir.path().join("bin/wc").exists());
    assert!(!dir.path().join("new").exists());
}

#[test]
fn changes_to_a_root_are_kept_where_that_is_asked_for() {
    let (Some(boot), Some(dir)) = (Boot::run_of(Guest::Debian686Pae), root()) else {
        return;
    };
    let ended = boot
        .with("--root", dir.path().to_str().unwrap())
        .flag("--rw")
        .script("echo changed > /etc/name; mkdir -p /a/b; echo x > /a/b/c");
    assert_printed(&ended, "");
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(read("etc/name"), "changed\n");
    assert_eq!(read("a/b/c"), "x\n");
    assert_eq!(read("etc/hosts"), "the root's own\n");
}

#[test]
fn users_are_those_of_the_root() {
    let (Some(boot), Some(dir)) = (Boot::run_of(Guest::Debian686), root()) else {
        return;
    };
    let ended = boot
        .flag(dir.path().to_str().unwrap())
        .with("-u", "ada")
        .script("id; echo $HOME; cat < /dev/null > /dev/stdout; touch /etc/mine 2> /dev/null || echo refused");
    assert_printed(
        &ended,
        "uid=1815(ada) gid=1852(ada) groups=1833(engines),1852(ada)\n/home/ada\nrefused\n",
    );
}

/// The guest's names of machines are shown to the root, whatever it has.
#[test]
fn a_root_has_the_names_of_the_network() {
    let (Some(boot), Some(dir)) = (Boot::run_of(Guest::Debian686), root()) else {
        return;
    };
    let ended = boot
        .flag(dir.path().to_str().unwrap())
        .script("cat /etc/resolv.conf /etc/hosts");
    assert_printed(&ended, "nameserver 10.0.2.3\n127.0.0.1 localhost replex\n");
    let hosts = fs::read_to_string(dir.path().join("etc/hosts")).unwrap();
    assert_eq!(hosts, "the root's own\n");
}

#[test]
fn directories_of_the_host_are_shared() {
    let Some(boot) = Boot::run_of(Guest::Debian686Pae) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let make = |name: &str| {
        let path = dir.join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("name"), name).unwrap();
        path
    };
    let [volume, read, write] = ["volume", "read", "write"].map(make);
    let show = |path: &Path| path.display().to_string();
    let boot = boot
        .with("-v", &format!("{}:/volume", show(&volume)))
        .with("--rodir", &format!("/read={}", show(&read)))
        .with("--rwdir", &show(&write))
        .flag("--pwd")
        .command_line(&["sh", "-c", "pwd; cat /volume/name /read/name name; echo; touch /read/x 2> /dev/null || echo refused; echo new > new; echo new > /volume/new"]);
    let output = boot
        .command()
        .current_dir(&write)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let expected = format!("{}\nvolumereadwrite\nrefused\n", show(&write));
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    for folder in [&volume, &write] {
        assert_eq!(fs::read(folder.join("new")).unwrap(), b"new\n");
    }
}
