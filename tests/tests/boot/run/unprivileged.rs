//! A run by an ordinary user, to whom everything but the cache is read-only.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use guest_kernels::{Guest, fetch};
use nix::unistd::Uid;
use tests::{built::replex, fetched::fetched, report::report};

/// Nobody's number.
const USER: u32 = 65534;

/// Runs its arguments without any privilege, where nothing but the folder $0 can be written to.
const CONFINED: &str = r#"
mount --bind "$0" "$0" &&
mount -o remount,ro,bind / &&
for target in $(awk '$5 ~ "^/(tmp|work|dev/shm|var|run|home|root)" && $5 != c { print $5 }' c="$0" /proc/self/mountinfo); do
    mount -o remount,ro,bind "$target" || :
done
exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs --bounding-set=-all -- "$@"
"#;

/// Whether this process can make the place for the test.
fn can_confine() -> bool {
    let probe = Command::new("unshare")
        .args(["-m", "sh", "-c", "mount --bind /tmp /tmp && setpriv --help"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    Uid::effective().is_root() && probe.is_ok_and(|status| status.success())
}

#[test]
fn an_ordinary_user_who_can_write_to_the_cache_alone() {
    if !can_confine() {
        report("skipped: a run by an ordinary user needs root, unshare and setpriv to be made");
        return;
    }
    let guest = Guest::Debian686;
    let Some(images) = fetched(guest, |progress| fetch(guest, progress)) else {
        return;
    };
    // Others may not enter the folders of the program and of the cache.
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("replex");
    fs::copy(replex(), &program).unwrap();
    let cache = dir.path().join("cache");
    copy(images.kernel.parent().unwrap(), &cache.join(guest.name()));
    let owned = Command::new("chown")
        .args(["-R", &format!("{USER}:{USER}")])
        .arg(&cache)
        .status();
    assert!(owned.unwrap().success());
    let open = Command::new("chmod").arg("755").arg(dir.path()).status();
    assert!(open.unwrap().success());
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", CONFINED])
        .arg(&cache)
        .arg("sh")
        .args([
            "-c",
            "touch /tmp/written 2> /dev/null && echo can write; id -u; exec \"$@\"",
            "sh",
        ])
        .arg(&program)
        .args(["run", "--", "sh", "-c", "cat; echo error >&2; exit 7"])
        .env("REPLEX_CACHE", &cache)
        .env("PATH", env::var_os("PATH").unwrap())
        .current_dir("/")
        .stdin(fs::File::open(replex()).unwrap())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors, "error\n");
    assert_eq!(output.status.code(), Some(7));
    let expected = [&b"65534\n"[..], &fs::read(replex()).unwrap()].concat();
    assert!(output.stdout == expected, "{} bytes", output.stdout.len());
}

/// Copies the files of a folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
