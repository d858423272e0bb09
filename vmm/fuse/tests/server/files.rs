//! Files: data, sizes, times, holes, and what the guest may cache.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use fuse::{Cache, Config};
use fuse_abi::linux::{self as abi, fuse_opcode as Op};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::client::{Client, ROOT};

const O_WRONLY: i32 = 1;
const O_RDWR: i32 = 2;
const O_EXCL: i32 = 0o200;
const O_TRUNC: i32 = 0o1000;
const O_APPEND: i32 = 0o2000;
const O_DIRECT: i32 = 0o40000;

fn shared() -> (tempfile::TempDir, Client) {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new(dir.path(), Config::default());
    (dir, client)
}

#[test]
fn what_is_written_is_read_and_is_on_the_host() {
    let (dir, mut client) = shared();
    let (entry, open) = client.create(ROOT, b"f", O_RDWR, 0o640).unwrap();
    let data: Vec<u8> = (0..1 << 20).map(|i: u32| ((i * 7) >> 3) as u8).collect();
    assert_eq!(client.write(open.fh, 0, &data), Ok(1 << 20));
    assert_eq!(client.write(open.fh, 1 << 20, b"end"), Ok(3));
    assert_eq!(client.read(open.fh, 0, 1 << 20).unwrap(), data);
    assert_eq!(client.read(open.fh, (1 << 20) - 1, 100).unwrap().len(), 4);
    assert_eq!(client.read(open.fh, 1 << 30, 100), Ok(vec![]));
    assert_eq!(fs::read(dir.path().join("f")).unwrap().len(), (1 << 20) + 3);
    assert_eq!(client.attributes(entry.nodeid).unwrap().size, (1 << 20) + 3);
    assert_eq!(client.release(open.fh), Ok(()));
    assert_eq!(client.release(open.fh), Err(Errno::BADF));
    assert_eq!(client.read(open.fh, 0, 1), Err(Errno::BADF));
}

#[test]
fn create_opens_the_file_there_is_unless_it_must_not() {
    let (dir, mut client) = shared();
    fs::write(dir.path().join("f"), "there").unwrap();
    let there = client.look_up(ROOT, b"f").unwrap().nodeid;
    assert_eq!(
        client.create(ROOT, b"f", O_RDWR | O_EXCL, 0o600).err(),
        Some(Errno::EXIST)
    );
    let (entry, open) = client.create(ROOT, b"f", O_RDWR, 0o600).unwrap();
    assert_eq!(entry.nodeid, there);
    assert_eq!(client.read(open.fh, 0, 9), Ok(b"there".to_vec()));
    client
        .create(ROOT, b"f", O_WRONLY | O_TRUNC, 0o600)
        .unwrap();
    assert_eq!(client.read(open.fh, 0, 9), Ok(vec![]));
}

#[test]
fn a_file_that_has_lost_its_name_can_be_used() {
    let (dir, mut client) = shared();
    let (entry, open) = client.create(ROOT, b"f", O_RDWR, 0o600).unwrap();
    client.unlink(ROOT, b"f").unwrap();
    assert!(!dir.path().join("f").exists());
    assert_eq!(client.write(open.fh, 0, b"still"), Ok(5));
    let attr = client.attributes(entry.nodeid).unwrap();
    assert_eq!((attr.size, attr.nlink), (5, 0));
    assert_eq!(client.contents(entry.nodeid).unwrap(), b"still");
}

#[test]
fn appending_goes_to_the_end_unless_a_page_is_written_back() {
    let (dir, mut client) = shared();
    fs::write(dir.path().join("log"), "0123").unwrap();
    let node = client.look_up(ROOT, b"log").unwrap().nodeid;
    let fh = client.open(node, O_WRONLY | O_APPEND).unwrap().fh;
    let append = |write_flags| abi::fuse_write_in {
        fh,
        flags: (O_WRONLY | O_APPEND).cast_unsigned(),
        write_flags,
        ..Default::default()
    };
    client.write_as(append(0), b"45").unwrap();
    client
        .write_as(append(abi::FUSE_WRITE_CACHE), b"ab")
        .unwrap();
    assert_eq!(fs::read(dir.path().join("log")).unwrap(), b"ab2345");
}

#[test]
fn direct_access_is_served_whatever_its_alignment() {
    let (dir, mut client) = shared();
    fs::write(dir.path().join("f"), "0123").unwrap();
    let node = client.look_up(ROOT, b"f").unwrap().nodeid;
    let fh = client.open(node, O_RDWR | O_DIRECT).unwrap().fh;
    assert_eq!(client.write(fh, 1, b"x"), Ok(1));
    assert_eq!(client.read(fh, 1, 2), Ok(b"x2".to_vec()));
}

#[test]
fn sizes_and_times_are_set() {
    let (dir, mut client) = shared();
    fs::write(dir.path().join("f"), "0123").unwrap();
    std::os::unix::fs::symlink("f", dir.path().join("l")).unwrap();
    let node = client.look_up(ROOT, b"f").unwrap().nodeid;
    let size = |size, valid, fh| abi::fuse_setattr_in {
        valid: abi::FATTR_SIZE | valid,
        size,
        fh,
        ..Default::default()
    };
    assert_eq!(client.set(node, &size(2, 0, 0)).unwrap().size, 2);
    let fh = client.open(node, O_RDWR).unwrap().fh;
    assert_eq!(
        client
            .set(node, &size(9000, abi::FATTR_FH, fh))
            .unwrap()
            .size,
        9000
    );
    assert_eq!(client.set(ROOT, &size(2, 0, 0)).err(), Some(Errno::INVAL));

    let times = abi::fuse_setattr_in {
        valid: abi::FATTR_MTIME,
        mtime: 1_000_000_000,
        mtimensec: 7,
        ..Default::default()
    };
    for name in ["f", "l"] {
        let node = client.look_up(ROOT, name.as_bytes()).unwrap().nodeid;
        let attr = client.set(node, &times).unwrap();
        assert_eq!((attr.mtime, attr.mtimensec), (1_000_000_000, 7));
        let there = fs::symlink_metadata(dir.path().join(name)).unwrap();
        assert_eq!((there.mtime(), there.mtime_nsec()), (1_000_000_000, 7));
        assert_ne!(there.atime(), 1_000_000_000);
    }
    let now = abi::fuse_setattr_in {
        valid: abi::FATTR_MTIME | abi::FATTR_MTIME_NOW,
        ..Default::default()
    };
    assert!(client.set(node, &now).unwrap().mtime > 1_700_000_000);
}

#[test]
fn modes_are_kept_but_for_setuid_and_setgid() {
    let (dir, mut client) = shared();
    let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().mode() & 0o7777;
    // Whatever umask this process has.
    let file = client.create(ROOT, b"f", O_RDWR, 0o6777).unwrap().0;
    assert_eq!((file.attr.mode, mode("f")), (0o100_777, 0o777));
    assert_eq!(client.chmod(file.nodeid, 0o7640).unwrap().mode, 0o101_640);
    assert_eq!(mode("f"), 0o1640);
    client.mknod(ROOT, b"n", 0o104_666).unwrap();
    assert_eq!(mode("n"), 0o666);
    let inner = client.mkdir(ROOT, b"d", 0o3777).unwrap();
    assert_eq!(mode("d"), 0o3777);
    assert_eq!(
        client.mkdir(inner.nodeid, b"d", 0o777).unwrap().attr.mode,
        0o42_777
    );
}

#[test]
fn holes_are_found_and_made() {
    let (dir, mut client) = shared();
    let file = fs::File::create(dir.path().join("f")).unwrap();
    file.write_all_at(&[1; 4096], 1 << 20).unwrap();
    let node = client.look_up(ROOT, b"f").unwrap().nodeid;
    let fh = client.open(node, O_RDWR).unwrap().fh;
    let seek = |client: &mut Client, offset, whence| {
        let what = abi::fuse_lseek_in {
            fh,
            offset,
            whence,
            padding: 0,
        };
        client
            .ask::<abi::fuse_lseek_out>(Op::FUSE_LSEEK, node, &[what.as_bytes()])
            .map(|out| out.offset)
    };
    // A file system without holes tells of none.
    let data = seek(&mut client, 0, 3).unwrap();
    assert!(data == 1 << 20 || data == 0, "{data}");
    assert_eq!(seek(&mut client, 1 << 20, 4), Ok((1 << 20) + 4096));
    assert_eq!(seek(&mut client, 1 << 21, 3), Err(Errno::NXIO));
    assert_eq!(seek(&mut client, 0, 0), Err(Errno::INVAL));

    let fallocate = |mode| abi::fuse_fallocate_in {
        fh,
        offset: 0,
        length: 2 << 20,
        mode,
        padding: 0,
    };
    client
        .call(Op::FUSE_FALLOCATE, node, &[fallocate(0).as_bytes()])
        .unwrap();
    assert_eq!(fs::metadata(dir.path().join("f")).unwrap().len(), 2 << 20);
    let unknown = client.call(Op::FUSE_FALLOCATE, node, &[fallocate(1 << 20).as_bytes()]);
    assert_eq!(unknown, Err(Errno::OPNOTSUPP));
}

#[test]
fn ranges_are_copied() {
    let (dir, mut client) = shared();
    fs::write(dir.path().join("a"), "0123456789").unwrap();
    fs::write(dir.path().join("b"), "").unwrap();
    let [a, b] = [b"a", b"b"].map(|name| client.look_up(ROOT, name).unwrap().nodeid);
    let what = abi::fuse_copy_file_range_in {
        fh_in: client.open(a, 0).unwrap().fh,
        off_in: 2,
        nodeid_out: b,
        fh_out: client.open(b, O_RDWR).unwrap().fh,
        off_out: 1,
        len: 5,
        flags: 0,
    };
    let out: abi::fuse_write_out = client
        .ask(Op::FUSE_COPY_FILE_RANGE, a, &[what.as_bytes()])
        .unwrap();
    assert_eq!(out.size, 5);
    assert_eq!(fs::read(dir.path().join("b")).unwrap(), b"\x0023456");
}

#[test]
fn syncing_is_passed_on() {
    let (_dir, mut client) = shared();
    let fh = client.create(ROOT, b"f", O_RDWR, 0o600).unwrap().1.fh;
    let dir = client.open_dir(ROOT).unwrap();
    for (op, fh, fsync_flags) in [
        (Op::FUSE_FSYNC, fh, 0),
        (Op::FUSE_FSYNC, fh, abi::FUSE_FSYNC_FDATASYNC),
        (Op::FUSE_FSYNCDIR, dir, 0),
    ] {
        let what = abi::fuse_fsync_in {
            fh,
            fsync_flags,
            padding: 0,
        };
        assert_eq!(client.call(op, ROOT, &[what.as_bytes()]), Ok(vec![]));
    }
    assert_eq!(client.call(Op::FUSE_SYNCFS, ROOT, &[&[0; 8]]), Ok(vec![]));
    let out: abi::fuse_statfs_out = client.ask(Op::FUSE_STATFS, ROOT, &[]).unwrap();
    assert!(out.st.blocks > 0 && out.st.namelen >= 255);
}

/// Directories of /proc cannot be brought to any disk, so the host's fsync(2) fails.
#[test]
fn what_is_volatile_is_not_brought_to_the_disk() {
    for (volatile, expected) in [(false, Err(Errno::INVAL)), (true, Ok(vec![]))] {
        let config = Config {
            volatile,
            read_only: true,
            ..Config::default()
        };
        let mut client = Client::new(Path::new("/proc/sys"), config);
        let what = abi::fuse_fsync_in {
            fh: client.open_dir(ROOT).unwrap(),
            ..Default::default()
        };
        let done = client.call(Op::FUSE_FSYNCDIR, ROOT, &[what.as_bytes()]);
        assert_eq!(done, expected);
        let nothing = abi::fuse_fsync_in::default();
        let done = client.call(Op::FUSE_FSYNC, ROOT, &[nothing.as_bytes()]);
        assert_eq!(done, Err(Errno::BADF));
    }
}

#[test]
fn the_guest_keeps_data_only_if_the_file_has_not_changed() {
    let (dir, mut client) = shared();
    let path = dir.path().join("f");
    fs::write(&path, "one").unwrap();
    let node = client.look_up(ROOT, b"f").unwrap().nodeid;
    // What changes just now may change again without another time stamp.
    for _ in 0..2 {
        assert_eq!(client.open(node, 0).unwrap().open_flags, 0);
    }
    // Only the file's ctime counts, which nobody can set: a file of the system that has long been as it is.
    let mut client = Client::new(Path::new("/etc"), Config::default());
    let node = client.look_up(ROOT, b"passwd").unwrap().nodeid;
    assert_eq!(client.open(node, 0).unwrap().open_flags, 0);
    assert_eq!(
        client.open(node, 0).unwrap().open_flags,
        abi::FOPEN_KEEP_CACHE
    );

    let of = |cache| {
        let config = Config {
            cache,
            ..Config::default()
        };
        let mut client = Client::new(dir.path(), config);
        let entry = client.look_up(ROOT, b"f").unwrap();
        let absent = client
            .look_up_any(ROOT, b"absent")
            .map(|entry| (entry.nodeid, entry.entry_valid));
        (
            client.open(entry.nodeid, 0).unwrap().open_flags,
            entry.entry_valid,
            entry.attr_valid,
            absent,
        )
    };
    let day = 86_400;
    assert_eq!(
        of(Cache::None),
        (abi::FOPEN_DIRECT_IO, 0, 0, Err(Errno::NOENT))
    );
    assert_eq!(of(Cache::Auto), (0, 1, 1, Ok((0, 1))));
    assert_eq!(
        of(Cache::Always),
        (abi::FOPEN_KEEP_CACHE, day, day, Ok((0, day)))
    );
}
