//! `--volume`: directories of the host in the guest, by virtio-fs.

use std::{
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::Path,
    thread,
    time::{Duration, SystemTime},
};

use guest_kernels::Guest;
use tempfile::TempDir;

use crate::program::Boot;

/// What a guest does to a directory with some files of the host's; each line that it prints is expected.
const SESSION: &str = r#"
cd /src
cat hello; readlink link; cat link; stat -c '%u:%g %a' hello
ls | wc -l; ls names | wc -l; ls -l names | grep -c many
echo made by the guest > made; mv made 'named again'; chmod 754 'named again'
ln 'named again' second; ln -s /etc/passwd outward; cmp outward /etc/passwd; echo $?
cat up/secret 2> /dev/null; echo $?
(umask 027; mkdir -p a/b/c; echo x > a/b/c/file)
cp -p /bin/busybox a/busybox; a/busybox true; echo $?
printf '#!/bin/sh\necho script "$@"\n' > run; chmod +x run; ./run it
exec 3<> gone; echo still there >&3; rm gone; cat /proc/self/fd/3; exec 3>&-
printf 0123456789 > numbers; printf ab | dd of=numbers bs=1 seek=4 conv=notrunc 2> /dev/null
truncate -s 8 numbers; printf end >> numbers; cat numbers; echo
dd if=/dev/urandom of=random bs=64k count=100 2> /dev/null; md5sum random | cut -c-32 > random.md5
mkfifo pipe; echo through the pipe > pipe & cat pipe; wait
mknod device c 1 3 2> /dev/null; echo $?
echo > setuid; chmod 6755 setuid; stat -c %a setuid
touch -d '2001-02-03 04:05:06' old; stat -c %y old | cut -c-19
mkdir big; (cd big; seq 1500 | xargs touch); ls big | wc -l; tar cf big.tar big; rm -r big; tar xf big.tar; ls big | wc -l
rm -r names; ls names 2> /dev/null; echo $?
df . | grep -c volume0
exit 5
"#;

/// What it prints.
const PRINTED: &str = "\
hello of the host
hello
hello of the host
0:0 640
4
1002
1000
0
1
0
script it
still there
0123ab67end
through the pipe
1
755
2001-02-03 04:05:06
1500
1500
1
1
";

/// A directory with `share` and, beside it, a file that the guest is not to see.
fn shared() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let share = dir.path().join("share");
    fs::create_dir_all(share.join("names")).unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    fs::write(share.join("hello"), "hello of the host\n").unwrap();
    fs::set_permissions(share.join("hello"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("hello", share.join("link")).unwrap();
    symlink("..", share.join("up")).unwrap();
    for name in 0..1000 {
        fs::write(share.join(format!("names/many {name}")), "").unwrap();
    }
    for name in [&b"\xff\xfe"[..], &[b'n'; 255]] {
        fs::write(
            share.join("names").join(std::ffi::OsStr::from_bytes(name)),
            "",
        )
        .unwrap();
    }
    dir
}

fn volume(dir: &Path, rest: &str) -> String {
    format!("{}:{rest}", dir.display())
}

/// Lets a guest work in a directory, and checks what it has left there.
fn session(boot: Boot) {
    let dir = shared();
    let share = dir.path().join("share");
    let ended = boot.with("--volume", &volume(&share, "/src")).exec(SESSION);
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.text(), PRINTED);
    assert_eq!(ended.code(), Some(5));

    let read = |name: &str| fs::read(share.join(name)).unwrap();
    let mode = |name: &str| fs::symlink_metadata(share.join(name)).unwrap().mode() & 0o7777;
    assert_eq!(read("named again"), b"made by the guest\n");
    assert_eq!(mode("named again"), 0o754);
    assert_eq!(fs::metadata(share.join("second")).unwrap().nlink(), 2);
    assert_eq!(
        fs::read_link(share.join("outward")).unwrap(),
        Path::new("/etc/passwd")
    );
    assert_eq!((mode("a/b"), mode("a/b/c/file")), (0o750, 0o640));
    assert_eq!(
        (mode("setuid"), read("numbers")),
        (0o755, b"0123ab67end".to_vec())
    );
    assert!(
        fs::symlink_metadata(share.join("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    let old = fs::metadata(share.join("old")).unwrap().modified().unwrap();
    assert_eq!(
        old,
        SystemTime::UNIX_EPOCH + Duration::from_secs(981_173_106)
    );
    assert_eq!(fs::read_dir(share.join("big")).unwrap().count(), 1500);
    assert!(!share.join("names").exists() && !share.join("gone").exists());
    assert_eq!(read("random").len(), 6_553_600);
    let sum = std::process::Command::new("md5sum")
        .arg(share.join("random"))
        .output()
        .unwrap();
    assert_eq!(sum.stdout[..32], read("random.md5")[..32]);
    assert_eq!(fs::read(dir.path().join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn a_session_in_a_directory_on_debian_686() {
    if let Some(boot) = Boot::of(Guest::Debian686) {
        session(boot);
    }
}

#[test]
fn a_session_in_a_directory_on_debian_686_pae() {
    if let Some(boot) = Boot::of(Guest::Debian686Pae) {
        session(boot.with("--mem", "64M"));
    }
}

#[test]
fn read_only_directories_stay_as_they_are_and_each_way_of_caching_works() {
    let Some(boot) = Boot::of(Guest::Debian686Pae) else {
        return;
    };
    let dir = shared();
    let share = dir.path().join("share");
    let [none, always] = ["none", "always"].map(|name| {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    });
    let ended = boot
        .with("-v", &volume(&share, "/it's read-only:ro"))
        .with("-v", &volume(&none, "/a/none:cache=none"))
        .with("-v", &volume(&always, "/a/always:rw,cache=always"))
        .exec(
            r#"cd "/it's read-only"; cat hello; echo > new; mount -o remount,rw "$PWD"
             for change in 'touch new' 'rm hello' 'chmod 600 hello' 'mv hello h' 'mkdir d' 'ln hello h' 'truncate -s 0 hello'; do
                 $change 2>&1 | grep -c 'Read-only file system'
             done
             for cache in none always; do
                 cd /a/$cache; cp /bin/busybox .; ./busybox echo $cache > out; cat out; mkdir d; mv out d; ls d; ls absent; echo > absent; ls -1
             done"#,
        );
    let expected = "hello of the host\n1\n1\n1\n1\n1\n1\n1\nnone\nout\nabsent\nbusybox\nd\nalways\nout\nabsent\nbusybox\nd\n";
    assert_eq!(ended.text(), expected, "{}", ended.stderr);
    assert_eq!(
        fs::read(share.join("hello")).unwrap(),
        b"hello of the host\n"
    );
    assert_eq!(fs::read_dir(&share).unwrap().count(), 4);
    for (path, text) in [(none, "none\n"), (always, "always\n")] {
        assert_eq!(fs::read_to_string(path.join("d/out")).unwrap(), text);
        assert_eq!(
            fs::metadata(path.join("busybox")).unwrap().mode() & 0o111,
            0o111
        );
    }
}

#[test]
fn host_and_guest_see_each_others_changes_meanwhile() {
    let Some(boot) = Boot::of(Guest::Debian686) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("known"), "one").unwrap();
    let running = boot
        .with("-v", &volume(dir.path(), "/src"))
        .with(
            "--exec",
            "cd /src; cat known; echo > ready; until [ -e go ]; do sleep 0.1; done
             sleep 1.1; cat known; ls -1",
        )
        .start();
    while !dir.path().join("ready").exists() {
        assert!(running.is_open());
        thread::sleep(Duration::from_millis(10));
    }
    fs::write(dir.path().join("known"), "two and more\n").unwrap();
    fs::rename(dir.path().join("ready"), dir.path().join("go")).unwrap();
    let ended = running.end();
    assert_eq!(
        ended.text(),
        "onetwo and more\ngo\nknown\n",
        "{}",
        ended.stderr
    );
}

#[test]
fn without_its_directories_a_command_does_not_run() {
    let Some(boot) = Boot::of(Guest::Debian686) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let ended = boot
        .with("-v", &volume(dir.path(), "/proc/none"))
        .exec("echo never");
    assert_eq!((ended.code(), ended.text().as_str()), (Some(124), ""));
    assert!(ended.stderr.contains("/proc/none"), "{}", ended.stderr);
}

/// Makes a root in `dir`, by a guest that has busybox: a shell, its tools and a file.
fn make_root(boot: Boot, dir: &Path) {
    let ended = boot.with("-v", &volume(dir, "/new")).exec(
        "mkdir /new/bin /new/etc && cp /bin/busybox /new/bin && chroot /new /bin/busybox --install -s /bin &&
         echo of the host > /new/etc/file",
    );
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_directory_is_the_root_and_its_changes_are_dropped_or_kept() {
    let boot = || Boot::of(Guest::Debian686);
    let (Some(first), Some(pae)) = (boot(), Boot::of(Guest::Debian686Pae)) else {
        return;
    };
    let [root, data] = [(), ()].map(|()| tempfile::tempdir().unwrap());
    make_root(first, root.path());
    let file = || fs::read_to_string(root.path().join("etc/file")).unwrap();
    let change = "pwd; cat /etc/file; echo changed > /etc/file; cat /etc/file; mkdir -p /a/b; ls -d /a/*
                  grep -o '^[a-z0-9]* / [a-z]*' /proc/mounts; echo out > /data/out; ls /replex 2> /dev/null; exit 9";
    let printed = |mount| format!("/\nof the host\nchanged\n/a/b\n{mount}\n");

    let with_root = |boot: Boot| {
        let path = root.path().to_str().unwrap();
        boot.with("--root", path)
    };
    let ended = with_root(pae)
        .with("-v", &volume(data.path(), "/data"))
        .exec(change);
    assert_eq!(
        ended.text(),
        printed("overlay / overlay"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.code(), Some(9));
    assert_eq!(file(), "of the host\n");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
    assert_eq!(
        fs::read_to_string(data.path().join("out")).unwrap(),
        "out\n"
    );

    let Some(boot) = boot() else {
        return;
    };
    fs::remove_file(data.path().join("out")).unwrap();
    let ended = with_root(boot)
        .flag("--rw")
        .with("-v", &volume(data.path(), "/data"))
        .exec(change);
    assert_eq!(ended.text(), printed("root / virtiofs"), "{}", ended.stderr);
    assert_eq!(ended.code(), Some(9));
    assert_eq!(file(), "changed\n");
    assert!(root.path().join("a/b").is_dir() && data.path().join("out").exists());
}

#[test]
fn a_root_without_a_shell_gets_one() {
    let Some(boot) = Boot::of(Guest::Debian686Pae) else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    let ended = boot
        .with("--root", root.path().to_str().unwrap())
        .exec("echo /*");
    let expected = "/dev /file /proc /run /sys\n";
    assert_eq!(
        (ended.code(), ended.text().as_str()),
        (Some(0), expected),
        "{}",
        ended.stderr
    );
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}
