//! Attempts to reach files outside the shared directory. Where it applies, the same attempt by an ordinary path succeeds: so the
//! tests would notice.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use fuse::Config;
use fuse_abi::linux::{self as abi, fuse_opcode as Op};
use rustix::fs::{AtFlags, CWD, RenameFlags, linkat, renameat_with};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::client::{Client, ROOT};

const O_RDWR: i32 = 2;
const O_CREAT_TRUNC: i32 = 0o1000;
const OUTSIDE: &[u8] = b"outside";
const INSIDE: &[u8] = b"inside";

/// Makes a directory with a file `secret` and a directory `share`, and shares the latter.
fn shared() -> (tempfile::TempDir, Client) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("secret"), OUTSIDE).unwrap();
    fs::create_dir(dir.path().join("share")).unwrap();
    let client = Client::new(&dir.path().join("share"), Config::default());
    (dir, client)
}

/// Returns what the file outside holds.
fn secret(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("secret")).unwrap()
}

#[test]
fn names_that_lead_up_or_are_paths_are_refused() {
    let (dir, mut client) = shared();
    let sub = client.mkdir(ROOT, b"d", 0o755).unwrap().nodeid;
    let file = client.mknod(ROOT, b"f", 0o100_644).unwrap().nodeid;
    let absolute = dir.path().join("secret");
    let absolute = absolute.to_str().unwrap().as_bytes();
    for name in [
        &b".."[..],
        b".",
        b"",
        b"../secret",
        b"d/f",
        b"d/../../secret",
        b"/",
        absolute,
    ] {
        let refused = Err(Errno::INVAL);
        for dir in [ROOT, sub] {
            assert_eq!(client.look_up(dir, name).map(drop), refused);
            assert_eq!(client.create(dir, name, O_RDWR, 0o600).map(drop), refused);
            assert_eq!(client.mkdir(dir, name, 0o700).map(drop), refused);
            assert_eq!(client.mknod(dir, name, 0o100_600).map(drop), refused);
            assert_eq!(client.symlink(dir, name, b"x").map(drop), refused);
            assert_eq!(client.link(file, dir, name).map(drop), refused);
            assert_eq!(client.unlink(dir, name), refused);
            assert_eq!(
                client.call(Op::FUSE_RMDIR, dir, &[name, b"\0"]).map(drop),
                refused
            );
            assert_eq!(client.rename((dir, name), (ROOT, b"x"), 0), refused);
            assert_eq!(client.rename((ROOT, b"f"), (dir, name), 0), refused);
        }
    }
    assert_eq!(secret(dir.path()), OUTSIDE);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn symbolic_links_are_not_followed() {
    let (dir, mut client) = shared();
    let share = dir.path().join("share");
    symlink(dir.path().join("secret"), share.join("absolute")).unwrap();
    symlink("../secret", share.join("relative")).unwrap();
    symlink("..", share.join("up")).unwrap();
    for name in ["absolute", "relative", "up/secret"] {
        assert_eq!(fs::read(share.join(name)).unwrap(), OUTSIDE);
    }
    let before = fs::metadata(dir.path().join("secret"))
        .unwrap()
        .modified()
        .unwrap();
    for name in [b"absolute", b"relative"] {
        let node = client.look_up(ROOT, name).unwrap().nodeid;
        assert_eq!(client.open(node, O_RDWR).err(), Some(Errno::ACCESS));
        for flags in [O_RDWR, O_RDWR | O_CREAT_TRUNC] {
            assert_eq!(
                client.create(ROOT, name, flags, 0o600).err(),
                Some(Errno::ACCESS)
            );
        }
        let times = abi::fuse_setattr_in {
            valid: abi::FATTR_MTIME,
            ..Default::default()
        };
        client.set(node, &times).unwrap();
        let size = abi::fuse_setattr_in {
            valid: abi::FATTR_SIZE,
            ..Default::default()
        };
        assert_eq!(client.set(node, &size).err(), Some(Errno::INVAL));
        assert_eq!(client.chmod(node, 0).err(), Some(Errno::OPNOTSUPP));
    }
    let up = client.look_up(ROOT, b"up").unwrap().nodeid;
    assert_eq!(client.look_up(up, b"secret").err(), Some(Errno::NOTDIR));
    assert_eq!(client.mkdir(up, b"d", 0o700).err(), Some(Errno::NOTDIR));
    assert_eq!(client.unlink(up, b"secret"), Err(Errno::NOTDIR));
    assert_eq!(
        client.rename((up, b"secret"), (ROOT, b"mine"), 0),
        Err(Errno::NOTDIR)
    );
    assert_eq!(client.open_dir(up).err(), Some(Errno::NOTDIR));
    assert_eq!(secret(dir.path()), OUTSIDE);
    let after = fs::metadata(dir.path().join("secret"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(after, before);
}

#[test]
fn magic_links_are_not_followed() {
    assert!(fs::metadata("/proc/self/root/etc/passwd").is_ok());
    let mut client = Client::new(Path::new("/proc/self"), Config::default());
    for name in [&b"root"[..], b"cwd"] {
        let node = client.look_up(ROOT, name).unwrap().nodeid;
        assert_eq!(client.look_up(node, b"etc").err(), Some(Errno::NOTDIR));
        assert_eq!(client.open_dir(node).err(), Some(Errno::NOTDIR));
    }
    let exe = client.look_up(ROOT, b"exe").unwrap().nodeid;
    assert_eq!(client.open(exe, 0).err(), Some(Errno::ACCESS));
}

#[test]
fn inodes_that_were_never_told_cannot_be_linked_or_used() {
    let (_dir, mut client) = shared();
    for node in [0, 2, 3, 1 << 32, u64::MAX] {
        assert_eq!(client.link(node, ROOT, b"mine").err(), Some(Errno::STALE));
        assert_eq!(client.look_up(node, b"secret").err(), Some(Errno::STALE));
        assert_eq!(client.open(node, 0).err(), Some(Errno::STALE));
    }
}

#[test]
fn a_directory_that_is_moved_out_leads_no_further() {
    let (dir, mut client) = shared();
    let sub = client.mkdir(ROOT, b"d", 0o755).unwrap().nodeid;
    fs::rename(dir.path().join("share/d"), dir.path().join("moved")).unwrap();
    assert_eq!(
        fs::read(dir.path().join("moved/../secret")).unwrap(),
        OUTSIDE
    );
    assert_eq!(client.look_up(sub, b"..").err(), Some(Errno::INVAL));
    assert_eq!(client.look_up(sub, b"secret").err(), Some(Errno::NOENT));
    let fh = client.open_dir(sub).unwrap();
    for entry in client.read_dir(sub, fh, 0, 4096, true).unwrap() {
        assert_eq!(entry.found.nodeid, 0);
    }
}

/// Exchanges `share/a` and `share/b` all the time while `attempt` runs.
fn while_exchanging(share: &Path, mut attempt: impl FnMut()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (a, b) = (share.join("a"), share.join("b"));
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
            }
        });
        attempt();
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_directory_exchanged_for_a_link_does_not_lead_out() {
    let (dir, mut client) = shared();
    let share = dir.path().join("share");
    fs::create_dir(share.join("a")).unwrap();
    fs::write(share.join("a/secret"), INSIDE).unwrap();
    symlink("..", share.join("b")).unwrap();
    let (mut escaped, mut inside, mut tries) = (0, 0, 0);
    while_exchanging(&share, || {
        while escaped < 100 || inside < 100 || tries < 5_000 {
            tries += 1;
            if fs::read(share.join("a/secret")).is_ok_and(|data| data == OUTSIDE) {
                escaped += 1;
            }
            match client
                .walk("a/secret")
                .and_then(|node| client.contents(node))
            {
                Ok(data) => {
                    assert_eq!(data, INSIDE);
                    inside += 1;
                }
                Err(error) => assert_eq!(error, Errno::NOTDIR),
            }
        }
    });
}

#[test]
fn a_file_exchanged_for_a_link_does_not_lead_out() {
    let (dir, mut client) = shared();
    let share = dir.path().join("share");
    fs::write(share.join("a"), INSIDE).unwrap();
    symlink("../secret", share.join("b")).unwrap();
    let (mut escaped, mut inside, mut tries) = (0, 0, 0);
    while_exchanging(&share, || {
        while escaped < 100 || inside < 100 || tries < 5_000 {
            tries += 1;
            if fs::read(share.join("a")).is_ok_and(|data| data == OUTSIDE) {
                escaped += 1;
            }
            match client.create(ROOT, b"a", O_RDWR, 0o600) {
                Ok((_, open)) => {
                    assert_eq!(client.read(open.fh, 0, 100).unwrap(), INSIDE);
                    client.release(open.fh).unwrap();
                    inside += 1;
                }
                Err(error) => assert_eq!(error, Errno::ACCESS),
            }
        }
    });
    assert_eq!(secret(dir.path()), OUTSIDE);
}

#[test]
fn an_extension_of_a_request_is_no_part_of_a_name() {
    let (_dir, mut client) = shared();
    let request = client.encode(Op::FUSE_LOOKUP as u32, ROOT, &[b"..", b"\0", &[0; 8]]);
    let mut header = [0; 40];
    header.copy_from_slice(&request[..40]);
    // Length of extensions, in units of 8 bytes.
    header[36..38].copy_from_slice(1_u16.as_bytes());
    let mut reply = Vec::new();
    client
        .server
        .answer(&[&header, &request[40..]].concat(), 4096, &mut reply);
    assert_eq!(reply[4..8], (-Errno::INVAL.raw_os_error()).to_le_bytes());
}

#[test]
fn a_hard_link_of_a_symbolic_link_is_no_link_to_what_it_names() {
    let (dir, mut client) = shared();
    let share = dir.path().join("share");
    symlink("../secret", share.join("link")).unwrap();
    let follow = AtFlags::SYMLINK_FOLLOW;
    linkat(CWD, share.join("link"), CWD, share.join("followed"), follow).unwrap();
    assert_eq!(fs::read(share.join("followed")).unwrap(), OUTSIDE);
    fs::remove_file(share.join("followed")).unwrap();
    let link = client.look_up(ROOT, b"link").unwrap().nodeid;
    client.link(link, ROOT, b"mine").unwrap();
    let made = fs::symlink_metadata(share.join("mine")).unwrap();
    assert!(made.is_symlink(), "{made:?}");
    let mine = client.look_up(ROOT, b"mine").unwrap().nodeid;
    assert_eq!(client.open(mine, O_RDWR).err(), Some(Errno::ACCESS));
    assert_eq!(secret(dir.path()), OUTSIDE);
}

#[test]
fn a_file_exchanged_for_a_link_is_not_hard_linked_to_what_that_names() {
    let (dir, mut client) = shared();
    let share = dir.path().join("share");
    fs::write(share.join("a"), INSIDE).unwrap();
    symlink("../secret", share.join("b")).unwrap();
    let (mut escaped, mut linked, mut tries) = (0, 0, 0);
    let mine = share.join("mine");
    while_exchanging(&share, || {
        while escaped < 100 || linked < 100 || tries < 5_000 {
            tries += 1;
            let follow = AtFlags::SYMLINK_FOLLOW;
            linkat(CWD, share.join("a"), CWD, &mine, follow).unwrap();
            escaped += u32::from(fs::read(&mine).unwrap() == OUTSIDE);
            fs::remove_file(&mine).unwrap();
            let node = client.look_up(ROOT, b"a").unwrap().nodeid;
            client.link(node, ROOT, b"mine").unwrap();
            let made = fs::symlink_metadata(&mine).unwrap();
            assert!(made.is_symlink() || fs::read(&mine).unwrap() == INSIDE);
            linked += u32::from(made.is_file());
            client.unlink(ROOT, b"mine").unwrap();
        }
    });
    assert_eq!(secret(dir.path()), OUTSIDE);
}
