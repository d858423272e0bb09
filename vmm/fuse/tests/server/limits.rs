//! Limits: more inodes than descriptors, more open files than allowed.

use std::fs;

use fuse::Config;
use rustix::io::Errno;

use crate::client::{Client, ROOT};

const O_RDWR: i32 = 2;

/// Makes 12 directories of 12 files each, whose contents are their paths, and shares them by way of few descriptors.
fn shared() -> (tempfile::TempDir, Client, Vec<(u64, String)>) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        descriptors: 64,
        ..Config::default()
    };
    let mut client = Client::new(dir.path(), config);
    let mut files = Vec::new();
    for sub in 0..12 {
        fs::create_dir(dir.path().join(format!("{sub}"))).unwrap();
        for file in 0..12 {
            let path = format!("{sub}/{file}");
            fs::write(dir.path().join(&path), &path).unwrap();
            files.push((client.walk(&path).unwrap(), path));
        }
    }
    (dir, client, files)
}

#[test]
fn inodes_whose_descriptors_were_closed_are_found_again() {
    let (dir, mut client, files) = shared();
    let (known, open, _) = client.server.counts();
    assert_eq!(known, 157);
    assert!(open <= 16, "{open}");
    for (node, path) in &files {
        assert_eq!(client.contents(*node).unwrap(), path.as_bytes());
    }
    // By whatever name the guest gives them.
    let [one, two] = ["1", "2"].map(|name| client.walk(name).unwrap());
    client.rename((ROOT, b"1"), (two, b"sub"), 0).unwrap();
    client.rename((one, b"7"), (ROOT, b"seven"), 0).unwrap();
    client.rename((one, b"8"), (one, b"9"), 2).unwrap();
    for (node, path) in &files {
        assert_eq!(client.contents(*node).unwrap(), path.as_bytes());
    }
    assert!(client.server.counts().1 <= 16);
    assert!(dir.path().join("2/sub/9").exists());
}

#[test]
fn a_file_that_has_lost_its_name_keeps_its_descriptor() {
    let (_dir, mut client, files) = shared();
    let five = client.walk("5").unwrap();
    client.unlink(five, b"5").unwrap();
    client.rename((five, b"6"), (five, b"7"), 0).unwrap();
    assert_eq!(client.unlink(five, b"5"), Err(Errno::NOENT));
    for (node, path) in &files {
        assert_eq!(client.contents(*node).unwrap(), path.as_bytes());
    }
}

#[test]
fn another_file_in_the_place_of_a_known_one_is_not_taken_for_it() {
    let (dir, mut client, files) = shared();
    let (node, path) = &files[20];
    let place = dir.path().join(path);
    assert_eq!(client.contents(*node).unwrap(), path.as_bytes());
    for (other, _) in &files[50..] {
        client.contents(*other).unwrap();
    }
    // It must not get the number that has just become free.
    fs::write(dir.path().join("other"), "other").unwrap();
    fs::rename(dir.path().join("other"), place).unwrap();
    assert_eq!(client.contents(*node), Err(Errno::STALE));
    let again = client.walk(path).unwrap();
    assert_ne!(again, *node);
    assert_eq!(client.contents(again).unwrap(), b"other");
}

#[test]
fn no_more_files_are_open_than_allowed() {
    let (_dir, mut client, files) = shared();
    let node = files[0].0;
    let open: Vec<u64> = (0..32).map(|_| client.open(node, 0).unwrap().fh).collect();
    assert_eq!(client.open(node, 0).err(), Some(Errno::NFILE));
    assert_eq!(client.open_dir(ROOT).err(), Some(Errno::NFILE));
    assert_eq!(
        client.create(ROOT, b"new", O_RDWR, 0o600).err(),
        Some(Errno::NFILE)
    );
    client.release(open[3]).unwrap();
    assert!(client.open(node, 0).is_ok());
}

#[test]
fn files_without_names_are_limited_until_they_are_forgotten() {
    let (_dir, mut client, _) = shared();
    let mut nameless = Vec::new();
    let refused = loop {
        let made = client.mknod(ROOT, b"x", 0o100_600);
        match made {
            Ok(entry) => nameless.push(entry.nodeid),
            Err(error) => break error,
        }
        client.unlink(ROOT, b"x").unwrap();
        assert!(nameless.len() < 64);
    };
    assert_eq!(refused, Errno::NFILE);
    assert!(client.server.counts().1 <= 32);
    client.unlink(ROOT, b"x").unwrap();
    for node in nameless {
        assert_eq!(client.attributes(node).unwrap().nlink, 0);
        client.forget(node, 1);
    }
    assert!(client.mknod(ROOT, b"x", 0o100_600).is_ok());
}
