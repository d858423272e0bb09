//! Owners of files. What needs two users of the host is tested where the tests run as root.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use fuse::{Config, Ids};
use fuse_abi::linux as abi;
use rustix::process::{getegid, geteuid};

use crate::client::{Client, ROOT};

#[test]
fn the_users_own_files_are_roots() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), "").unwrap();
    let mut client = Client::new(dir.path(), Config::default());
    let attr = client.look_up(ROOT, b"f").unwrap().attr;
    assert_eq!((attr.uid, attr.gid), (0, 0));
    let made = client.mkdir(ROOT, b"d", 0o755).unwrap().attr;
    assert_eq!((made.uid, made.gid), (0, 0));
    let there = fs::metadata(dir.path().join("d")).unwrap();
    assert_eq!(there.uid(), geteuid().as_raw());
    assert_eq!(there.gid(), getegid().as_raw());
}

#[test]
fn owners_are_mapped_both_ways() {
    if !geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, "").unwrap();
    let config = Config {
        ids: Ids::new(1234, 5678),
        ..Config::default()
    };
    let mut client = Client::new(dir.path(), config);
    for (host, guest) in [
        ((1234, 5678), (0, 0)),
        ((0, 0), (0, 0)),
        ((1000, 5678), (1000, 0)),
        ((5678, 1234), (5678, 1234)),
    ] {
        chown(&path, Some(host.0), Some(host.1)).unwrap();
        let attr = client.look_up(ROOT, b"f").unwrap().attr;
        assert_eq!((attr.uid, attr.gid), guest);
    }
    let node = client.look_up(ROOT, b"f").unwrap().nodeid;
    let owner = |valid, uid, gid| abi::fuse_setattr_in {
        valid,
        uid,
        gid,
        ..Default::default()
    };
    for (wanted, host) in [
        (owner(abi::FATTR_UID, 0, 0), (1234, 1234)),
        (owner(abi::FATTR_GID, 7, 7), (1234, 7)),
        (owner(abi::FATTR_UID | abi::FATTR_GID, 9, 0), (9, 5678)),
        (
            owner(abi::FATTR_UID | abi::FATTR_GID, u32::MAX, u32::MAX),
            (9, 5678),
        ),
    ] {
        client.set(node, &wanted).unwrap();
        let there = fs::metadata(&path).unwrap();
        assert_eq!((there.uid(), there.gid()), host);
    }
}

#[test]
fn whoever_makes_a_file_owns_it_only_if_it_can_be_given_away() {
    if !geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let owner = |name: &str| {
        let there = fs::symlink_metadata(dir.path().join(name)).unwrap();
        (there.uid(), there.gid())
    };
    for (ids, expected) in [
        (Ids::new(0, 0), (1000, 100)),
        (Ids::new(1234, 5678), (0, 0)),
    ] {
        let config = Config {
            ids,
            ..Config::default()
        };
        let mut client = Client::new(dir.path(), config);
        (client.uid, client.gid) = (1000, 100);
        client.mkdir(ROOT, b"d", 0o755).unwrap();
        client.create(ROOT, b"f", 2, 0o644).unwrap();
        client.symlink(ROOT, b"l", b"x").unwrap();
        for name in ["d", "f", "l"] {
            assert_eq!(owner(name), expected);
        }
        fs::remove_dir(dir.path().join("d")).unwrap();
        client.unlink(ROOT, b"f").unwrap();
        client.unlink(ROOT, b"l").unwrap();
    }
    // A directory that gives its group to what is made in it.
    let mut client = Client::new(dir.path(), Config::default());
    (client.uid, client.gid) = (1000, 100);
    let sub = dir.path().join("setgid");
    fs::create_dir(&sub).unwrap();
    chown(&sub, None, Some(55)).unwrap();
    rustix::fs::chmod(&sub, rustix::fs::Mode::from_raw_mode(0o2777)).unwrap();
    let node = client.walk("setgid").unwrap();
    client.create(node, b"f", 2, 0o644).unwrap();
    assert_eq!(owner("setgid/f"), (1000, 55));
}

#[test]
fn a_user_that_cannot_be_makes_files_of_roots() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::new(dir.path(), Config::default());
    (client.uid, client.gid) = (u32::MAX, u32::MAX);
    let made = client.mkdir(ROOT, b"d", 0o755).unwrap().attr;
    assert_eq!((made.uid, made.gid), (0, 0));
}
