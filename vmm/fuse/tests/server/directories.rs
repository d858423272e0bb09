//! Reading of directories.

use std::collections::BTreeSet;
use std::fs;

use fuse::Config;
use rustix::io::Errno;

use crate::client::{Client, ROOT};

/// Reads a whole directory in pieces of `size` bytes: names in the order in which they come.
fn names(client: &mut Client, node: u64, size: u32, plus: bool) -> Vec<Vec<u8>> {
    let fh = client.open_dir(node).unwrap();
    let mut names = Vec::new();
    let mut offset = 0;
    loop {
        let entries = client.read_dir(node, fh, offset, size, plus).unwrap();
        let Some(last) = entries.last() else {
            client.release(fh).unwrap();
            return names;
        };
        offset = last.next;
        names.extend(entries.into_iter().map(|entry| entry.name));
    }
}

#[test]
fn ten_thousand_entries_come_once_each() {
    let dir = tempfile::tempdir().unwrap();
    let expected: BTreeSet<Vec<u8>> = (0..10_000)
        .map(|i| format!("entry-{i:0width$}", width = 1 + i % 200).into_bytes())
        .chain([b".".to_vec(), b"..".to_vec()])
        .collect();
    for name in &expected {
        let name = std::str::from_utf8(name).unwrap();
        if !name.starts_with('.') {
            fs::write(dir.path().join(name), "").unwrap();
        }
    }
    let mut client = Client::new(dir.path(), Config::default());
    for (size, plus) in [(4096, false), (4096, true), (1 << 20, false), (600, true)] {
        let found = names(&mut client, ROOT, size, plus);
        assert_eq!(found.len(), expected.len(), "{size} {plus}");
        assert_eq!(BTreeSet::from_iter(found), expected);
    }
}

#[test]
fn attributes_come_with_entries_and_count_as_lookups() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), "12345").unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    let mut client = Client::new(dir.path(), Config::default());
    let fh = client.open_dir(ROOT).unwrap();
    let entries = client.read_dir(ROOT, fh, 0, 4096, true).unwrap();
    assert_eq!(entries.len(), 4);
    for entry in &entries {
        match &entry.name[..] {
            b"f" => assert_eq!((entry.kind, entry.found.attr.size), (8, 5)),
            b"d" => assert_eq!(
                (entry.kind, entry.found.attr.mode & 0o170_000),
                (4, 0o040_000)
            ),
            _ => assert_eq!((entry.kind, entry.found.nodeid), (4, 0)),
        }
    }
    assert_eq!(client.server.counts().0, 3);
    for entry in entries {
        client.forget(entry.found.nodeid, 1);
    }
    assert_eq!(client.server.counts().0, 1);
}

#[test]
fn entries_that_do_not_fit_do_not_count() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..10 {
        fs::write(dir.path().join(format!("{i}")), "").unwrap();
    }
    let mut client = Client::new(dir.path(), Config::default());
    let fh = client.open_dir(ROOT).unwrap();
    let entries = client.read_dir(ROOT, fh, 0, 160 * 4, true).unwrap();
    let told = entries
        .iter()
        .filter(|entry| entry.found.nodeid != 0)
        .count();
    assert_eq!(entries.len(), 4);
    assert_eq!(client.server.counts().0, 1 + told);
    assert_eq!(client.read_dir(ROOT, fh, 0, 10, true).unwrap().len(), 0);
}

#[test]
fn only_directories_are_read_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = Client::new(dir.path(), Config::default());
    let (entry, open) = client.create(ROOT, b"f", 2, 0o600).unwrap();
    assert_eq!(client.open_dir(entry.nodeid).err(), Some(Errno::NOTDIR));
    assert_eq!(
        client.read_dir(ROOT, open.fh, 0, 4096, false).err(),
        Some(Errno::NOTDIR)
    );
    let fh = client.open_dir(ROOT).unwrap();
    assert_eq!(client.read(fh, 0, 10), Err(Errno::ISDIR));
    assert_eq!(client.write(fh, 0, b"x"), Err(Errno::BADF));
    assert_eq!(client.open(ROOT, 0).err(), Some(Errno::ISDIR));
    assert_eq!(
        client.read_dir(ROOT, 99, 0, 4096, false).err(),
        Some(Errno::BADF)
    );
}
