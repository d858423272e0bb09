//! A read-only directory.

use std::fs;

use fuse::Config;
use fuse_abi::linux::{self as abi, fuse_opcode as Op};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::client::{Client, ROOT};

#[test]
fn every_change_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), "text").unwrap();
    let config = Config {
        read_only: true,
        ..Config::default()
    };
    let mut client = Client::new(dir.path(), config);
    let node = client.look_up(ROOT, b"f").unwrap().nodeid;
    assert_eq!(client.contents(node).unwrap(), b"text");
    let fh = client.open(node, 0).unwrap().fh;
    let refused = Err(Errno::ROFS);

    const O_TRUNC: i32 = 0o1000;
    for flags in [1, 2, 3, O_TRUNC] {
        assert_eq!(client.open(node, flags).map(drop), refused);
    }
    assert_eq!(client.create(ROOT, b"g", 0, 0o644).map(drop), refused);
    assert_eq!(client.create(ROOT, b"f", 0, 0o644).map(drop), refused);
    assert_eq!(client.mkdir(ROOT, b"d", 0o755).map(drop), refused);
    assert_eq!(client.mknod(ROOT, b"n", 0o100_644).map(drop), refused);
    assert_eq!(client.symlink(ROOT, b"l", b"x").map(drop), refused);
    assert_eq!(client.link(node, ROOT, b"l").map(drop), refused);
    assert_eq!(client.unlink(ROOT, b"f"), refused);
    assert_eq!(
        client.call(Op::FUSE_RMDIR, ROOT, &[b"d\0"]).map(drop),
        refused
    );
    assert_eq!(client.rename((ROOT, b"f"), (ROOT, b"g"), 0), refused);
    let args = [ROOT.as_bytes(), b"f\0g\0"];
    assert_eq!(client.call(Op::FUSE_RENAME, ROOT, &args).map(drop), refused);
    assert_eq!(client.chmod(node, 0o600).map(drop), refused);
    for valid in [abi::FATTR_SIZE, abi::FATTR_MTIME, abi::FATTR_UID] {
        let wanted = abi::fuse_setattr_in {
            valid,
            ..Default::default()
        };
        assert_eq!(client.set(node, &wanted).map(drop), refused);
    }
    assert_eq!(client.write(fh, 0, b"x").map(drop), refused);
    let how = abi::fuse_fallocate_in {
        fh,
        length: 10,
        ..Default::default()
    };
    assert_eq!(
        client
            .call(Op::FUSE_FALLOCATE, node, &[how.as_bytes()])
            .map(drop),
        refused
    );
    let how = abi::fuse_copy_file_range_in {
        fh_in: fh,
        fh_out: fh,
        len: 2,
        ..Default::default()
    };
    assert_eq!(
        client
            .call(Op::FUSE_COPY_FILE_RANGE, node, &[how.as_bytes()])
            .map(drop),
        refused
    );

    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"text");
}
