//! Entries: finding, making, removing, renaming, and the account of lookups.

use std::fs;
use std::os::unix::fs::FileTypeExt;

use fuse::Config;
use fuse_abi::linux::{self as abi, fuse_opcode as Op};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::client::{Client, ROOT};

const O_RDWR: i32 = 2;
const NOREPLACE: u32 = 1;
const EXCHANGE: u32 = 2;
const WHITEOUT: u32 = 4;

fn shared() -> (tempfile::TempDir, Client) {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new(dir.path(), Config::default());
    (dir, client)
}

#[test]
fn names_of_any_bytes_are_found() {
    let (dir, mut client) = shared();
    let long = [b'n'; 255];
    for name in [&b"plain"[..], b"\xff\xfe\x80", b"a b\n", b"...", &long] {
        let made = client.mknod(ROOT, name, 0o100_644).unwrap();
        assert_eq!(client.look_up(ROOT, name).unwrap().nodeid, made.nodeid);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
    assert_eq!(
        client.look_up(ROOT, &[b'n'; 256]).err(),
        Some(Errno::NAMETOOLONG)
    );
    assert_eq!(client.look_up(ROOT, b"absent").err(), Some(Errno::NOENT));
}

#[test]
fn lookups_are_counted_and_given_back() {
    let (_dir, mut client) = shared();
    let node = client.mkdir(ROOT, b"d", 0o755).unwrap().nodeid;
    for _ in 0..4 {
        assert_eq!(client.look_up(ROOT, b"d").unwrap().nodeid, node);
    }
    client.forget(node, 4);
    assert!(client.attributes(node).is_ok());
    assert_eq!(client.server.counts(), (2, 2, 0));
    client.forget(node, 1);
    assert_eq!(client.attributes(node).err(), Some(Errno::STALE));
    assert_eq!(client.server.counts(), (1, 1, 0));
    let again = client.look_up(ROOT, b"d").unwrap().nodeid;
    assert_ne!(again, node);
    client.forget(again, u64::MAX);
    client.forget(again, 1);
    client.forget(ROOT, u64::MAX);
    assert!(client.attributes(ROOT).is_ok());

    let nodes: Vec<u64> = (0..100)
        .map(|i| {
            client
                .mkdir(ROOT, format!("{i}").as_bytes(), 0o755)
                .unwrap()
                .nodeid
        })
        .collect();
    assert_eq!(client.server.counts().0, 101);
    let mut args = [100_u32, 0].as_bytes().to_vec();
    nodes
        .iter()
        .for_each(|&node| args.extend_from_slice([node, 1].as_bytes()));
    let request = client.encode(Op::FUSE_BATCH_FORGET as u32, 0, &[&args]);
    client.server.answer(&request, 0, &mut Vec::new());
    assert_eq!(client.server.counts(), (1, 1, 0));
}

#[test]
fn a_new_session_knows_nothing() {
    let (_dir, mut client) = shared();
    let (entry, open) = client.create(ROOT, b"f", O_RDWR, 0o600).unwrap();
    assert_eq!(client.server.counts(), (2, 2, 1));
    let agreed = client.init();
    assert_eq!(
        (agreed.major, agreed.minor),
        (7, abi::FUSE_KERNEL_MINOR_VERSION)
    );
    assert_eq!(agreed.max_write, 1 << 20);
    assert_eq!(agreed.flags & abi::FUSE_POSIX_LOCKS, 0);
    assert_eq!(client.server.counts(), (1, 1, 0));
    assert_eq!(client.attributes(entry.nodeid).err(), Some(Errno::STALE));
    assert_eq!(client.read(open.fh, 0, 1), Err(Errno::BADF));
    for minor in [0, 30] {
        let offer = [7, minor, 0, 0_u32];
        let answer = client.call(Op::FUSE_INIT, 0, &[offer.as_bytes()]);
        assert_eq!(answer, Err(Errno::PROTO));
    }
}

#[test]
fn links_name_the_same_inode() {
    let (dir, mut client) = shared();
    let file = client.mknod(ROOT, b"f", 0o100_644).unwrap();
    let sub = client.mkdir(ROOT, b"d", 0o755).unwrap().nodeid;
    let link = client.link(file.nodeid, sub, b"g").unwrap();
    assert_eq!((link.nodeid, link.attr.nlink), (file.nodeid, 2));
    assert_eq!(
        client.link(file.nodeid, sub, b"g").err(),
        Some(Errno::EXIST)
    );
    client.unlink(ROOT, b"f").unwrap();
    assert_eq!(client.attributes(file.nodeid).unwrap().nlink, 1);
    // A link to a symbolic link is one to the link itself.
    let symlink = client.symlink(ROOT, b"s", b"/etc/passwd").unwrap();
    let link = client.link(symlink.nodeid, sub, b"t").unwrap();
    assert_eq!(link.nodeid, symlink.nodeid);
    assert!(dir.path().join("d/t").is_symlink());
}

#[test]
fn symbolic_links_keep_what_they_say() {
    let (dir, mut client) = shared();
    for target in [&b"/etc/passwd"[..], b"../../..", b"\xff", &[b'x'; 4000]] {
        let link = client.symlink(ROOT, b"l", target).unwrap();
        assert_eq!(link.attr.mode & 0o170_000, 0o120_000);
        assert_eq!(
            client.call(Op::FUSE_READLINK, link.nodeid, &[]).unwrap(),
            target
        );
        assert_eq!(client.open(link.nodeid, 0).err(), Some(Errno::ACCESS));
        assert_eq!(
            client.chmod(link.nodeid, 0o600).err(),
            Some(Errno::OPNOTSUPP)
        );
        client.unlink(ROOT, b"l").unwrap();
    }
    assert_eq!(client.call(Op::FUSE_READLINK, ROOT, &[]), Err(Errno::INVAL));
    assert_eq!(client.symlink(ROOT, b"l", b"").err(), Some(Errno::NOENT));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn fifos_and_sockets_are_made_and_never_opened() {
    let (dir, mut client) = shared();
    let fifo = client.mknod(ROOT, b"fifo", 0o010_666).unwrap();
    let socket = client.mknod(ROOT, b"socket", 0o140_666).unwrap();
    let kind = |name| fs::metadata(dir.path().join(name)).unwrap().file_type();
    assert!(kind("fifo").is_fifo() && kind("socket").is_socket());
    for node in [fifo.nodeid, socket.nodeid] {
        for flags in 0..3 {
            assert_eq!(client.open(node, flags).err(), Some(Errno::ACCESS));
        }
    }
    // Nor by way of CREATE.
    assert_eq!(
        client.create(ROOT, b"fifo", O_RDWR, 0o600).err(),
        Some(Errno::ACCESS)
    );
    assert_eq!(client.server.counts().2, 0);
}

#[test]
fn devices_are_shown_and_never_made_nor_opened() {
    let (dir, mut client) = shared();
    for mode in [0o020_666, 0o060_666] {
        assert_eq!(client.mknod(ROOT, b"dev", mode).err(), Some(Errno::PERM));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let mut client = Client::new(std::path::Path::new("/dev"), Config::default());
    let null = client.look_up(ROOT, b"null").unwrap();
    assert_eq!(
        (null.attr.mode & 0o170_000, null.attr.rdev),
        (0o020_000, 1 << 8 | 3)
    );
    assert_eq!(client.open(null.nodeid, O_RDWR).err(), Some(Errno::ACCESS));
    assert_eq!(
        client.create(ROOT, b"null", O_RDWR, 0o600).err(),
        Some(Errno::ACCESS)
    );
}

#[test]
fn renames_move_replace_and_exchange() {
    let (dir, mut client) = shared();
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).ok();
    let sub = client.mkdir(ROOT, b"d", 0o755).unwrap().nodeid;
    for (name, node) in [("a", ROOT), ("b", ROOT), ("c", sub)] {
        let fh = client
            .create(node, name.as_bytes(), O_RDWR, 0o600)
            .unwrap()
            .1
            .fh;
        client.write(fh, 0, name.as_bytes()).unwrap();
    }
    assert_eq!(
        client.rename((ROOT, b"a"), (sub, b"c"), NOREPLACE),
        Err(Errno::EXIST)
    );
    assert_eq!(client.rename((ROOT, b"a"), (sub, b"c"), EXCHANGE), Ok(()));
    assert_eq!(
        (read("a"), read("d/c")),
        (Some("c".into()), Some("a".into()))
    );
    assert_eq!(client.rename((ROOT, b"b"), (sub, b"c"), 0), Ok(()));
    assert_eq!((read("b"), read("d/c")), (None, Some("b".into())));
    assert_eq!(
        client.rename((ROOT, b"b"), (sub, b"x"), 0),
        Err(Errno::NOENT)
    );
    for flags in [
        WHITEOUT,
        WHITEOUT | NOREPLACE,
        NOREPLACE | EXCHANGE,
        8,
        u32::MAX,
    ] {
        assert_eq!(
            client.rename((ROOT, b"a"), (sub, b"x"), flags),
            Err(Errno::INVAL)
        );
    }
    assert_eq!(
        client.rename((ROOT, b"d"), (sub, b"x"), 0),
        Err(Errno::INVAL)
    );
    // Its older form.
    let args = [sub.as_bytes(), b"a\0", b"e\0"];
    client.call(Op::FUSE_RENAME, ROOT, &args).unwrap();
    assert_eq!(read("d/e"), Some("c".into()));
}

#[test]
fn directories_are_removed_when_empty() {
    let (dir, mut client) = shared();
    let sub = client.mkdir(ROOT, b"d", 0o755).unwrap().nodeid;
    client.mknod(sub, b"f", 0o100_644).unwrap();
    let rmdir =
        |client: &mut Client, name: &[u8]| client.call(Op::FUSE_RMDIR, ROOT, &[name, b"\0"]);
    assert_eq!(rmdir(&mut client, b"d"), Err(Errno::NOTEMPTY));
    assert_eq!(client.unlink(ROOT, b"d"), Err(Errno::ISDIR));
    client.unlink(sub, b"f").unwrap();
    assert_eq!(rmdir(&mut client, b"d"), Ok(vec![]));
    assert!(client.attributes(sub).is_ok());
    assert_eq!(client.mknod(sub, b"f", 0o100_644).err(), Some(Errno::NOENT));
    assert!(!dir.path().join("d").exists());
}

#[test]
fn what_is_not_offered_is_said_once() {
    let (_dir, mut client) = shared();
    for op in [
        Op::FUSE_GETXATTR,
        Op::FUSE_SETXATTR,
        Op::FUSE_LISTXATTR,
        Op::FUSE_FLUSH,
        Op::FUSE_ACCESS,
        Op::FUSE_GETLK,
        Op::FUSE_SETLK,
        Op::FUSE_IOCTL,
        Op::FUSE_SETUPMAPPING,
        Op::FUSE_TMPFILE,
    ] {
        assert_eq!(client.call(op, ROOT, &[&[0; 64]]), Err(Errno::NOSYS));
    }
}
