//! Root directories of Debian, made by `replex guest`.
//!
//! By hand, since they download some 40 MB each and take a minute: [`an_i386_root_is_made_and_works`] and
//! [`an_amd64_root_is_made_and_works`]; and since it needs the network:
//! [`a_package_that_nobody_has_is_told_before_any_is_downloaded`]. The other test is quick, but needs what `replex guest` makes.

use std::{fs, path::Path, process::Command};

use guest_kernels::{Guest, Root};
use tests::{built::replex, report::report};

use crate::program::Boot;

/// What is done in such a root; each line that it prints is expected. A member of no group reads his entry in /etc/shadow by
/// `chage`, which has setgid.
const SESSION: &str = "\
id -u
apt --version | cut -d ' ' -f 1
dpkg --print-architecture
dpkg --audit
dpkg --verify --verify-format rpm | grep -v ' c '
apt-get check > /dev/null; echo $?
stat -c '%U:%G %a' / /tmp /etc/shadow /usr/bin/chage /usr/bin/passwd
su -s /bin/sh nobody -c 'chage -l nobody > /dev/null; echo $?; touch /etc/x 2> /dev/null; echo $?'
ls -d /.replex-setup /usr/sbin/policy-rc.d 2> /dev/null
perl -e 'print 6 * 7, \"\\n\"'
";

/// What it prints behind the architecture.
const PRINTED: &str = "\
0
root:root 755
root:root 1777
root:shadow 640
root:shadow 2755
root:root 4755
0
1
42
";

fn check(root: Root, dir: &Path) {
    let (guest, architecture) = match root {
        Root::DebianI386 => (Guest::Debian686Pae, "i386"),
        Root::DebianAmd64 => (Guest::DebianAmd64, "amd64"),
    };
    let Some(boot) = Boot::of(guest) else {
        return;
    };
    let ended = boot.with("--root", dir.to_str().unwrap()).exec(SESSION);
    let expected = format!("0\napt\n{architecture}\n{PRINTED}");
    assert_eq!(ended.text(), expected, "{}", ended.stderr);
}

#[test]
fn a_root_that_is_there_works() {
    for root in Root::ALL {
        match root.dir().unwrap() {
            Some(dir) => check(root, &dir),
            None => report(&format!("skipped: replex guest {root} has not been run")),
        }
    }
}

#[test]
#[ignore = "takes a minute, and the network"]
fn an_i386_root_is_made_and_works() {
    check_made(Root::DebianI386);
}

#[test]
#[ignore = "takes a minute, and the network"]
fn an_amd64_root_is_made_and_works() {
    check_made(Root::DebianAmd64);
}

/// Checks that `replex guest` makes `root` and leaves nothing else.
fn check_made(root: Root) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("root");
    let make = || {
        Command::new(replex())
            .args(["guest", root.name(), "--include", "make", "--to"])
            .arg(&dir)
            .output()
            .unwrap()
    };
    let made = make();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
    assert_eq!(made.stdout, format!("{}\n", dir.display()).as_bytes());
    report(&said);
    check(root, &dir);
    assert!(dir.join("usr/bin/make").exists());
    // Nothing else is left, and what is there stays as it is.
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    let again = make();
    assert_eq!(again.status.code(), Some(2));
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(said.contains("there already"), "{said}");
}

#[test]
#[ignore = "needs the network"]
fn a_package_that_nobody_has_is_told_before_any_is_downloaded() {
    let parent = tempfile::tempdir().unwrap();
    let made = Command::new(replex())
        .args(["guest", "debian-i386", "--include", "nosuchpkg", "--to"])
        .arg(parent.path().join("root"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert_eq!(made.status.code(), Some(2), "{said}");
    assert!(
        said.contains("nosuchpkg") && !said.contains("downloading"),
        "{said}"
    );
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
}
