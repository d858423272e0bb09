//! Requests of random bytes, and of random operations with arguments that are now right and now wrong.
//!
//! By hand: `REPLEX_REQUESTS=40000000` for some minutes, from another seed each time.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use fuse::{Cache, Config, Server};
use fuse_abi::linux::{self as abi, fuse_opcode as Op};
use zerocopy::{FromBytes, IntoBytes};

/// Operations that wait for no reply: FORGET, INTERRUPT, BATCH_FORGET.
const SILENT: [u32; 3] = [2, 36, 42];

/// Operations, with the bytes of numbers and the count of names that each takes.
const OPERATIONS: [(Op, usize, usize); 27] = [
    (Op::FUSE_LOOKUP, 0, 1),
    (Op::FUSE_FORGET, 8, 0),
    (Op::FUSE_GETATTR, 16, 0),
    (Op::FUSE_SETATTR, 88, 0),
    (Op::FUSE_READLINK, 0, 0),
    (Op::FUSE_SYMLINK, 0, 2),
    (Op::FUSE_MKNOD, 16, 1),
    (Op::FUSE_MKDIR, 8, 1),
    (Op::FUSE_UNLINK, 0, 1),
    (Op::FUSE_RMDIR, 0, 1),
    (Op::FUSE_RENAME, 8, 2),
    (Op::FUSE_RENAME2, 16, 2),
    (Op::FUSE_LINK, 8, 1),
    (Op::FUSE_OPEN, 8, 0),
    (Op::FUSE_READ, 40, 0),
    (Op::FUSE_WRITE, 40, 3),
    (Op::FUSE_STATFS, 0, 0),
    (Op::FUSE_RELEASE, 24, 0),
    (Op::FUSE_OPENDIR, 8, 0),
    (Op::FUSE_READDIR, 40, 0),
    (Op::FUSE_CREATE, 16, 1),
    (Op::FUSE_FALLOCATE, 32, 0),
    (Op::FUSE_READDIRPLUS, 40, 0),
    (Op::FUSE_LSEEK, 24, 0),
    (Op::FUSE_COPY_FILE_RANGE, 56, 0),
    (Op::FUSE_GETXATTR, 8, 1),
    (Op::FUSE_BATCH_FORGET, 40, 0),
];

/// A source of requests that knows the numbers of the latest inode and the latest handle.
struct Source {
    rng: fastrand::Rng,
    inode: u64,
    handle: u64,
}

impl Source {
    /// Returns a number of interest: an inode, a handle, a mode, a small one, one of those at the ends, or two of 32 bits. For
    /// operations on `lengths` none is that of a large file, for which a disk might have room.
    fn number(&mut self, lengths: bool) -> u64 {
        let back = self.rng.u64(..6);
        match self.rng.u8(..16) {
            0 => u64::MAX,
            1 => i64::MAX as u64,
            2 => 1 << 62,
            3 => self.rng.u64(..1 << 18),
            4 | 14 => 0,
            5..8 => self.handle.saturating_sub(back),
            8..11 => self.inode.saturating_sub(back),
            11 => self.rng.u64(..64),
            12 => self
                .rng
                .choice([0o100_644, 0o40_755, 0o10_600, 0o20_600])
                .unwrap_or(0),
            13 if !lengths => self.rng.u64(..4) << 32 | self.rng.u64(..8192),
            13 => self.rng.u64(..8192),
            _ => 1,
        }
    }

    /// Returns a random name.
    fn name(&mut self) -> &'static str {
        let bad = ["..", ".", "", "a/b", "../sentinel", "/etc/passwd"];
        let good = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "link"];
        let one = if self.rng.u8(..8) == 0 {
            self.rng.choice(bad)
        } else {
            self.rng.choice(good)
        };
        one.unwrap_or("")
    }

    /// Returns the arguments of an operation.
    fn arguments(&mut self, op: Op, numbers: usize, names: usize) -> Vec<u8> {
        let lengths = [
            Op::FUSE_SETATTR,
            Op::FUSE_WRITE,
            Op::FUSE_FALLOCATE,
            Op::FUSE_COPY_FILE_RANGE,
        ];
        let lengths = lengths.contains(&op);
        let mut bytes = Vec::new();
        while bytes.len() < numbers {
            bytes.extend_from_slice(&self.number(lengths).to_le_bytes());
        }
        for _ in 0..names {
            bytes.extend_from_slice(self.name().as_bytes());
            bytes.push(0);
        }
        bytes
    }

    /// Returns a random request.
    fn request(&mut self) -> Vec<u8> {
        let (op, numbers, names) = self.rng.choice(OPERATIONS).unwrap_or(OPERATIONS[0]);
        let mut args = self.arguments(op, numbers, names);
        let rng = &mut self.rng;
        let header = abi::fuse_in_header {
            len: match rng.u8(..16) {
                0 => rng.u32(..),
                _ => u32::try_from(40 + args.len()).unwrap(),
            },
            opcode: if rng.u8(..64) == 0 {
                rng.u32(..)
            } else {
                op as u32
            },
            unique: rng.u64(..),
            nodeid: if rng.bool() {
                1
            } else {
                self.inode.saturating_sub(rng.u64(..6))
            },
            uid: rng.u32(..3),
            gid: rng.u32(..3),
            pid: 0,
            total_extlen: if rng.u8(..16) == 0 { rng.u16(..) } else { 0 },
            padding: 0,
        };
        let mut bytes = header.as_bytes().to_vec();
        bytes.append(&mut args);
        if rng.u8(..16) == 0 {
            bytes.truncate(rng.usize(..=bytes.len()));
        }
        bytes
    }

    /// Learns from a reply.
    fn learn(&mut self, op: u32, mut reply: &[u8]) {
        let entries = [1, 6, 8, 9, 13, 35];
        if entries.contains(&op)
            && let Ok((entry, rest)) = abi::fuse_entry_out::read_from_prefix(reply)
        {
            self.inode = self.inode.max(entry.nodeid);
            reply = rest;
        }
        let opens = [14, 27, 35];
        if opens.contains(&op)
            && let Ok((open, _)) = abi::fuse_open_out::read_from_prefix(reply)
        {
            self.handle = self.handle.max(open.fh);
        }
    }
}

#[test]
fn whatever_comes_is_answered_and_leads_nowhere() {
    ask(false);
}

#[test]
fn whatever_comes_to_a_directory_with_records_is_answered_and_leads_nowhere() {
    ask(true);
}

/// Sends requests to a server of a directory, which keeps records or not.
fn ask(records: bool) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("sentinel"), "untouched").unwrap();
    let share = dir.path().join("share");
    fs::create_dir(&share).unwrap();
    std::os::unix::fs::symlink("../sentinel", share.join("link")).unwrap();
    let config = Config {
        cache: Cache::Always,
        descriptors: 400,
        records,
        ..Config::default()
    };
    let by_hand = std::env::var("REPLEX_REQUESTS").ok();
    let requests = by_hand
        .as_deref()
        .map_or(200_000, |count| count.parse().unwrap());
    let seed = by_hand.map_or(0x7265_706c_6578, |_| fastrand::u64(..));
    println!("{requests} requests, seed {seed:#x}");
    let mut source = Source {
        rng: fastrand::Rng::with_seed(seed),
        inode: 1,
        handle: 0,
    };
    let mut server = Server::new(&share, config).unwrap();
    let mut reply = Vec::new();
    let mut successes = [0_u32; 64];
    for count in 0..requests {
        // The owner, if not root, may have been locked out.
        if count % 256 == 0 {
            fs::set_permissions(&share, fs::Permissions::from_mode(0o755)).unwrap();
        }
        // New sessions, as what is open at most is soon open.
        if count % 8192 == 0 {
            server.reset();
            (source.inode, source.handle) = (1, 0);
        }
        let request = source.request();
        let room = if source.rng.bool() {
            8192
        } else {
            source.rng.usize(..200)
        };
        server.answer(&request, room, &mut reply);
        let header = abi::fuse_in_header::read_from_prefix(&request).ok();
        let silent = header
            .as_ref()
            .is_none_or(|(header, _)| SILENT.contains(&header.opcode));
        if silent || room < 16 {
            assert!(reply.is_empty());
            continue;
        }
        assert!(reply.len() <= room);
        let (answer, _) = abi::fuse_out_header::read_from_prefix(&reply).unwrap();
        let (asked, _) = header.unwrap();
        assert_eq!(
            (answer.len as usize, answer.unique),
            (reply.len(), asked.unique)
        );
        assert!((-4095..=0).contains(&answer.error));
        assert!(answer.error == 0 || reply.len() == 16);
        if answer.error == 0 {
            successes[asked.opcode as usize] += 1;
            source.learn(asked.opcode, &reply[16..]);
        }
        let (_, open, handles) = server.counts();
        assert!(open <= 200 && handles <= 200);
    }
    assert_eq!(fs::read(dir.path().join("sentinel")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    // The requests are good enough to get somewhere.
    println!("successes by operation: {successes:?}");
    let reached = |&(op, ..): &(Op, usize, usize)| successes[op as usize] > 0;
    let count = OPERATIONS.into_iter().filter(reached).count();
    assert!(count >= 20, "{successes:?}");
}

#[test]
fn random_bytes_are_survived() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::new(dir.path(), Config::default()).unwrap();
    let mut rng = fastrand::Rng::with_seed(13);
    let mut reply = Vec::new();
    for _ in 0..100_000 {
        let bytes: Vec<u8> = (0..rng.usize(..100)).map(|_| rng.u8(..)).collect();
        server.answer(&bytes, 4096, &mut reply);
        assert!(reply.is_empty() || reply.len() >= 16);
    }
}
