//! Directories that keep records of what the host's files cannot have.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::thread;

use fuse::{Config, keep_records, keeps_records};
use fuse_abi::linux as abi;
use rustix::fs::{XattrFlags, getxattr, setxattr};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use tempfile::TempDir;

use crate::client::{Client, ROOT};

/// Attribute of a file with a record.
const RECORD: &str = "user.containers.override_stat";

/// Returns a directory that keeps records, or prints why there is none.
fn directory() -> Option<TempDir> {
    let dir = tempfile::tempdir().unwrap();
    assert!(!keeps_records(dir.path()));
    if let Err(error) = keep_records(dir.path()) {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: no extended attributes in {}: {error}",
            dir.path().display()
        );
        return None;
    }
    assert!(keeps_records(dir.path()));
    Some(dir)
}

/// Shares a directory that keeps records.
fn share(dir: &TempDir) -> Client {
    let config = Config {
        records: true,
        ..Config::default()
    };
    Client::new(dir.path(), config)
}

fn owner(uid: u32, gid: u32) -> abi::fuse_setattr_in {
    abi::fuse_setattr_in {
        valid: abi::FATTR_UID | abi::FATTR_GID,
        uid,
        gid,
        ..Default::default()
    }
}

fn record(path: &Path) -> Option<String> {
    let mut value = [0; 100];
    let length = getxattr(path, RECORD, &mut value[..]).ok()?;
    Some(String::from_utf8(value[..length].to_vec()).unwrap())
}

/// Checks that the file is this user's, with this mode.
fn check_host(path: &Path, mode: u32) {
    let there = fs::symlink_metadata(path).unwrap();
    assert_eq!(there.mode() & 0o7777, mode);
    assert_eq!(there.uid(), geteuid().as_raw());
    assert_eq!(there.gid(), getegid().as_raw());
}

#[test]
fn owners_and_modes_are_kept() {
    let Some(dir) = directory() else { return };
    let path = dir.path().join("f");
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut client = share(&dir);
    let entry = client.look_up(ROOT, b"f").unwrap();
    assert_eq!((entry.attr.uid, entry.attr.gid), (0, 0));
    assert_eq!(entry.attr.mode, 0o100_644);
    let node = entry.nodeid;

    let attr = client.set(node, &owner(1000, 42)).unwrap();
    assert_eq!((attr.uid, attr.gid, attr.mode), (1000, 42, 0o100_644));
    let attr = client.set(node, &owner(u32::MAX, 43)).unwrap();
    assert_eq!((attr.uid, attr.gid), (1000, 43));
    let attr = client.chmod(node, 0o104_511).unwrap();
    assert_eq!(attr.mode, 0o104_511);
    check_host(&path, 0o700);
    assert_eq!(record(&path).as_deref(), Some("1000:43:4511:file"));

    // Another session finds it as this one has left it.
    let attr = share(&dir).look_up(ROOT, b"f").unwrap().attr;
    assert_eq!((attr.uid, attr.gid, attr.mode), (1000, 43, 0o104_511));

    // What the host's file can have needs no record.
    client.set(node, &owner(0, 0)).unwrap();
    let attr = client.chmod(node, 0o640).unwrap();
    assert_eq!((attr.uid, attr.gid, attr.mode), (0, 0, 0o100_640));
    check_host(&path, 0o640);
    assert_eq!(record(&path), None);
}

#[test]
fn files_belong_to_who_makes_them() {
    let Some(dir) = directory() else { return };
    let mut client = share(&dir);
    (client.uid, client.gid) = (1000, 100);
    let (entry, _) = client.create(ROOT, b"f", 2, 0o4640).unwrap();
    let attr = entry.attr;
    assert_eq!((attr.uid, attr.gid, attr.mode), (1000, 100, 0o104_640));
    check_host(&dir.path().join("f"), 0o600);
    let attr = client.mkdir(ROOT, b"d", 0o1577).unwrap().attr;
    assert_eq!((attr.uid, attr.gid, attr.mode), (1000, 100, 0o41_577));
    check_host(&dir.path().join("d"), 0o700);
    (client.uid, client.gid) = (0, 0);
    let attr = client.mkdir(ROOT, b"roots", 0o755).unwrap().attr;
    assert_eq!((attr.uid, attr.gid, attr.mode), (0, 0, 0o40_755));
    check_host(&dir.path().join("roots"), 0o755);
    assert_eq!(record(&dir.path().join("roots")), None);
    (client.uid, client.gid) = (u32::MAX, u32::MAX);
    let attr = client.mkdir(ROOT, b"nobodys", 0o755).unwrap().attr;
    assert_eq!((attr.uid, attr.gid), (0, 0));
}

#[test]
fn directories_with_setgid_give_their_group() {
    let Some(dir) = directory() else { return };
    let mut client = share(&dir);
    let node = client.mkdir(ROOT, b"d", 0o755).unwrap().nodeid;
    client.set(node, &owner(0, 55)).unwrap();
    client.chmod(node, 0o2775).unwrap();
    check_host(&dir.path().join("d"), 0o700);
    (client.uid, client.gid) = (1000, 100);
    let file = client.create(node, b"f", 2, 0o644).unwrap().0.attr;
    assert_eq!((file.uid, file.gid, file.mode), (1000, 55, 0o100_644));
    let sub = client.mkdir(node, b"sub", 0o755).unwrap().attr;
    assert_eq!((sub.uid, sub.gid, sub.mode), (1000, 55, 0o42_755));
    let pipe = client.mknod(node, b"pipe", 0o10_600).unwrap().attr;
    assert_eq!((pipe.uid, pipe.gid), (1000, 55));
}

#[test]
fn devices_are_the_guests_only() {
    let Some(dir) = directory() else { return };
    let mut client = share(&dir);
    for (name, mode, number, text) in [
        ("null", 0o20_666, 0x103, "0:0:0666:char-1-3"),
        ("disk", 0o60_640, 0x0120_1fff, "0:0:0640:block-31-4863"),
        ("pipe", 0o10_644, 0, "0:0:0644:pipe"),
        ("socket", 0o140_755, 0, "0:0:0755:socket"),
    ] {
        let made = client.make_device(ROOT, name.as_bytes(), mode, number);
        let made = made.unwrap();
        assert_eq!((made.attr.mode, made.attr.rdev), (mode, number), "{name}");
        let path = dir.path().join(name);
        assert_eq!(record(&path).as_deref(), Some(text));
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        check_host(&path, if name == "socket" { 0o700 } else { 0o600 });
        assert_eq!(client.open(made.nodeid, 2), Err(Errno::ACCESS));
        let size = abi::fuse_setattr_in {
            valid: abi::FATTR_SIZE,
            ..Default::default()
        };
        assert_eq!(client.set(made.nodeid, &size), Err(Errno::INVAL));
        let attr = share(&dir).look_up(ROOT, name.as_bytes()).unwrap().attr;
        assert_eq!((attr.mode, attr.rdev), (mode, number), "{name}");
    }
    let made = client.mknod(ROOT, b"null", 0o100_644).map(drop);
    assert_eq!(made, Err(Errno::EXIST));
    for plus in [false, true] {
        let fh = client.open_dir(ROOT).unwrap();
        let entries = client.read_dir(ROOT, fh, 0, 4096, plus).unwrap();
        let kind = |name: &[u8]| entries.iter().find(|e| e.name == name).unwrap().kind;
        let kinds = [b"null".as_slice(), b"disk", b"pipe", b"socket", b".."].map(kind);
        assert_eq!(kinds, [2, 6, 1, 12, 4]);
        client.release(fh).unwrap();
    }
}

#[test]
fn root_may_use_what_nobody_else_may() {
    let Some(dir) = directory() else { return };
    let mut client = share(&dir);
    let (entry, open) = client.create(ROOT, b"f", 2, 0).unwrap();
    client.write(open.fh, 0, b"secret").unwrap();
    client.release(open.fh).unwrap();
    assert_eq!(client.contents(entry.nodeid).unwrap(), b"secret");
    let node = client.mkdir(ROOT, b"d", 0).unwrap().nodeid;
    client.create(node, b"f", 2, 0o644).unwrap();
    check_host(&dir.path().join("d"), 0o700);
}

#[test]
fn links_stay_roots() {
    let Some(dir) = directory() else { return };
    symlink("elsewhere", dir.path().join("link")).unwrap();
    let mut client = share(&dir);
    (client.uid, client.gid) = (1000, 100);
    let made = client.symlink(ROOT, b"made", b"x").unwrap();
    assert_eq!((made.attr.uid, made.attr.gid), (0, 0));
    for name in [b"link".as_slice(), b"made"] {
        let node = client.look_up(ROOT, name).unwrap().nodeid;
        let attr = client.set(node, &owner(1000, 100)).unwrap();
        assert_eq!((attr.uid, attr.gid, attr.mode), (0, 0, 0o120_777));
        assert_eq!(client.chmod(node, 0o600), Err(Errno::OPNOTSUPP));
    }
}

/// Lets the calling thread set no extended attribute any more, as if the disk were full.
fn fill_the_disk() {
    // x86-64's number, arch/x86/entry/syscalls/syscall_64.tbl.
    const SETXATTR: i64 = 188;
    let full = SeccompAction::Errno(Errno::NOSPC.raw_os_error().cast_unsigned());
    let calls = [(SETXATTR, Vec::new())].into();
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, full, TargetArch::x86_64);
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

#[test]
fn what_cannot_be_recorded_is_not_made() {
    let Some(dir) = directory() else { return };
    let mut client = share(&dir);
    (client.uid, client.gid) = (1000, 100);
    fs::write(dir.path().join("there"), "").unwrap();
    let outcomes = thread::spawn(move || {
        fill_the_disk();
        [
            client.create(ROOT, b"file", 2, 0o644).map(drop),
            client.mkdir(ROOT, b"dir", 0o755).map(drop),
            client.mknod(ROOT, b"node", 0o100_644).map(drop),
            client.mknod(ROOT, b"pipe", 0o10_644).map(drop),
            client.make_device(ROOT, b"null", 0o20_666, 0x103).map(drop),
        ]
    });
    assert_eq!(outcomes.join().unwrap(), [Err(Errno::NOSPC); 5]);
    let names = fs::read_dir(dir.path()).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["there"]);
}

/// A directory may be used by another user than the one who has made it, root for example.
#[test]
fn files_without_records_are_roots() {
    let Some(dir) = directory() else { return };
    let path = dir.path().join("f");
    fs::write(&path, "").unwrap();
    if geteuid().is_root() {
        chown(&path, Some(1234), Some(5678)).unwrap();
    }
    let attr = share(&dir).look_up(ROOT, b"f").unwrap().attr;
    assert_eq!((attr.uid, attr.gid), (0, 0));
}

#[test]
fn records_of_others_are_read() {
    let Some(dir) = directory() else { return };
    let path = dir.path().join("f");
    fs::write(&path, "").unwrap();
    let set = |text: &str| setxattr(&path, RECORD, text.as_bytes(), XattrFlags::empty()).unwrap();
    set("7:8:755");
    let attr = share(&dir).look_up(ROOT, b"f").unwrap().attr;
    assert_eq!((attr.uid, attr.gid, attr.mode), (7, 8, 0o100_755));
    for bad in ["", "7:8:755:dir", "7:8:755:char-1", &"7".repeat(99)] {
        set(bad);
        let found = share(&dir).look_up(ROOT, b"f").map(drop);
        assert_eq!(found, Err(Errno::IO), "{bad:?}");
    }
    // Where records are not asked for, they do not count.
    let mut client = Client::new(dir.path(), Config::default());
    let attr = client.look_up(ROOT, b"f").unwrap().attr;
    assert_eq!((attr.uid, attr.gid), (0, 0));
}
