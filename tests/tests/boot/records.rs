//! Directories that keep records: root does there what root may do, and the host's files are the user's all the same.

use std::{fs, os::unix::fs::MetadataExt as _};

use guest_kernels::Guest;
use tests::report::report;

use crate::program::Boot;

/// What root does in such a directory; each line that it prints is expected.
const SESSION: &str = r#"
cd /src
echo x > file; chown 1000:42 file; chmod 4711 file; stat -c '%u:%g %a' file
su -s /bin/sh nobody -c 'cat file' 2> /dev/null; echo $?
mkdir -m 1777 tmp; mkdir group; chown 0:50 group; chmod 2775 group; echo > group/file; mkdir group/sub
stat -c '%u:%g %a' tmp group group/file group/sub
su -s /bin/sh nobody -c 'umask 077; echo mine > tmp/mine; mkdir tmp/dir; stat -c "%u:%g %a" tmp/mine tmp/dir'
chown 0:0 tmp/mine; su -s /bin/sh nobody -c 'rm tmp/mine' 2> /dev/null; echo $?
mknod null c 1 3; echo lost > null; stat -c '%F %t:%T' null; ls -l null | cut -c 1
mkfifo pipe; echo through the pipe > pipe & cat pipe; wait
chown 7:8 file; stat -c '%u:%g %a' file
chmod 0 file; cat file; echo y > file; cat file
"#;

/// What it prints.
const PRINTED: &str = "\
1000:42 4711
1
0:0 1777
0:50 2775
0:50 644
0:50 2755
65534:65534 600
65534:65534 700
1
character special file 1:3
c
through the pipe
7:8 711
x
y
";

#[test]
fn root_does_what_root_may_do() {
    let Some(boot) = Boot::of(Guest::Debian686) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    if let Err(error) = fuse::keep_records(dir.path()) {
        report(&format!("skipped: {}: {error}", dir.path().display()));
        return;
    }
    let volume = format!("{}:/src", dir.path().display());
    let ended = boot.with("-v", &volume).exec(SESSION);
    assert_eq!(ended.text(), PRINTED, "{}", ended.stderr);
    let owner = nix::unistd::geteuid().as_raw();
    for (name, mode) in [
        ("file", 0o600),
        ("tmp", 0o700),
        ("group", 0o700),
        ("null", 0o600),
        ("pipe", 0o600),
    ] {
        let there = fs::symlink_metadata(dir.path().join(name)).unwrap();
        let found = (there.mode() & 0o7777, there.uid());
        assert_eq!(found, (mode, owner), "{name}");
        assert!(there.is_file() || there.is_dir());
    }
}
