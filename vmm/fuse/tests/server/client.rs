//! A client of the server: encodes requests and decodes replies.

use std::path::Path;

use fuse::{Config, Server};
use fuse_abi::linux::{self as abi, fuse_opcode as Op};
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Number of the directory that is shared.
pub const ROOT: u64 = abi::FUSE_ROOT_ID;

/// Room for replies: that of 256 pages and a header.
pub const ROOM: usize = (1 << 20) + 4096;

/// A server and the guest's end of it.
pub struct Client {
    pub server: Server,
    pub uid: u32,
    pub gid: u32,
    unique: u64,
}

impl Client {
    /// Shares `dir` and begins a session.
    pub fn new(dir: &Path, config: Config) -> Client {
        let mut client = Client {
            server: Server::new(dir, config).unwrap(),
            uid: 0,
            gid: 0,
            unique: 0,
        };
        client.init();
        client
    }

    /// Begins a session, and returns what the server agrees to.
    pub fn init(&mut self) -> abi::fuse_init_out {
        let offer = abi::fuse_init_in {
            major: 7,
            minor: 38,
            max_readahead: 128 << 10,
            flags: u32::MAX,
            ..Default::default()
        };
        self.ask(Op::FUSE_INIT, 0, &[offer.as_bytes()]).unwrap()
    }

    /// Encodes a request.
    pub fn encode(&mut self, op: u32, node: u64, args: &[&[u8]]) -> Vec<u8> {
        self.unique += 2;
        let length =
            size_of::<abi::fuse_in_header>() + args.iter().map(|arg| arg.len()).sum::<usize>();
        let header = abi::fuse_in_header {
            len: u32::try_from(length).unwrap(),
            opcode: op,
            unique: self.unique,
            nodeid: node,
            uid: self.uid,
            gid: self.gid,
            pid: 1,
            total_extlen: 0,
            padding: 0,
        };
        let mut bytes = header.as_bytes().to_vec();
        args.iter().for_each(|arg| bytes.extend_from_slice(arg));
        bytes
    }

    /// Sends a request, checks the reply's header and returns what follows it, or the error.
    pub fn call(&mut self, op: Op, node: u64, args: &[&[u8]]) -> Result<Vec<u8>, Errno> {
        let request = self.encode(op as u32, node, args);
        let mut reply = vec![0xff; 7];
        self.server.answer(&request, ROOM, &mut reply);
        let (header, rest) = abi::fuse_out_header::read_from_prefix(&reply).unwrap();
        assert_eq!(header.len as usize, reply.len());
        assert_eq!(header.unique, self.unique);
        match header.error {
            0 => Ok(rest.to_vec()),
            error => {
                assert!(rest.is_empty());
                Err(Errno::from_raw_os_error(-error))
            }
        }
    }

    /// Sends a request whose reply is a structure.
    pub fn ask<T: FromBytes + KnownLayout + Immutable>(
        &mut self,
        op: Op,
        node: u64,
        args: &[&[u8]],
    ) -> Result<T, Errno> {
        self.call(op, node, args)
            .map(|reply| T::read_from_bytes(&reply).unwrap())
    }

    /// Finds an entry.
    pub fn look_up(&mut self, dir: u64, name: &[u8]) -> Result<abi::fuse_entry_out, Errno> {
        let entry = self.look_up_any(dir, name)?;
        (entry.nodeid != 0).then_some(entry).ok_or(Errno::NOENT)
    }

    /// Looks up an entry; that there is none may be told by inode 0.
    pub fn look_up_any(&mut self, dir: u64, name: &[u8]) -> Result<abi::fuse_entry_out, Errno> {
        self.ask(Op::FUSE_LOOKUP, dir, &[name, b"\0"])
    }

    /// Finds an entry by a path of several names.
    pub fn walk(&mut self, path: &str) -> Result<u64, Errno> {
        path.split('/').try_fold(ROOT, |dir, name| {
            self.look_up(dir, name.as_bytes()).map(|entry| entry.nodeid)
        })
    }

    /// Gives lookups back. There is no reply.
    pub fn forget(&mut self, node: u64, count: u64) {
        let request = self.encode(Op::FUSE_FORGET as u32, node, &[count.as_bytes()]);
        let mut reply = vec![1];
        self.server.answer(&request, ROOM, &mut reply);
        assert!(reply.is_empty());
    }

    /// Reads attributes.
    pub fn attributes(&mut self, node: u64) -> Result<abi::fuse_attr, Errno> {
        let how = abi::fuse_getattr_in::default();
        let out: abi::fuse_attr_out = self.ask(Op::FUSE_GETATTR, node, &[how.as_bytes()])?;
        Ok(out.attr)
    }

    /// Sets attributes.
    pub fn set(
        &mut self,
        node: u64,
        wanted: &abi::fuse_setattr_in,
    ) -> Result<abi::fuse_attr, Errno> {
        let out: abi::fuse_attr_out = self.ask(Op::FUSE_SETATTR, node, &[wanted.as_bytes()])?;
        Ok(out.attr)
    }

    /// Sets a mode.
    pub fn chmod(&mut self, node: u64, mode: u32) -> Result<abi::fuse_attr, Errno> {
        let wanted = abi::fuse_setattr_in {
            valid: abi::FATTR_MODE,
            mode,
            ..Default::default()
        };
        self.set(node, &wanted)
    }

    /// Makes a directory.
    pub fn mkdir(
        &mut self,
        dir: u64,
        name: &[u8],
        mode: u32,
    ) -> Result<abi::fuse_entry_out, Errno> {
        let how = abi::fuse_mkdir_in { mode, umask: 0 };
        self.ask(Op::FUSE_MKDIR, dir, &[how.as_bytes(), name, b"\0"])
    }

    /// Makes something that is no directory.
    pub fn mknod(
        &mut self,
        dir: u64,
        name: &[u8],
        mode: u32,
    ) -> Result<abi::fuse_entry_out, Errno> {
        self.make_device(dir, name, mode, 0)
    }

    /// Makes something that is no directory, with a device number.
    pub fn make_device(
        &mut self,
        dir: u64,
        name: &[u8],
        mode: u32,
        rdev: u32,
    ) -> Result<abi::fuse_entry_out, Errno> {
        let how = abi::fuse_mknod_in {
            mode,
            rdev,
            ..Default::default()
        };
        self.ask(Op::FUSE_MKNOD, dir, &[how.as_bytes(), name, b"\0"])
    }

    /// Makes a symbolic link.
    pub fn symlink(
        &mut self,
        dir: u64,
        name: &[u8],
        target: &[u8],
    ) -> Result<abi::fuse_entry_out, Errno> {
        self.ask(Op::FUSE_SYMLINK, dir, &[name, b"\0", target, b"\0"])
    }

    /// Makes a hard link.
    pub fn link(&mut self, node: u64, dir: u64, name: &[u8]) -> Result<abi::fuse_entry_out, Errno> {
        self.ask(Op::FUSE_LINK, dir, &[node.as_bytes(), name, b"\0"])
    }

    /// Removes a file.
    pub fn unlink(&mut self, dir: u64, name: &[u8]) -> Result<(), Errno> {
        self.call(Op::FUSE_UNLINK, dir, &[name, b"\0"]).map(drop)
    }

    /// Renames.
    pub fn rename(
        &mut self,
        (dir, name): (u64, &[u8]),
        (newdir, new_name): (u64, &[u8]),
        flags: u32,
    ) -> Result<(), Errno> {
        let how = abi::fuse_rename2_in {
            newdir,
            flags,
            padding: 0,
        };
        let args = [how.as_bytes(), name, b"\0", new_name, b"\0"];
        self.call(Op::FUSE_RENAME2, dir, &args).map(drop)
    }

    /// Makes and opens a file.
    pub fn create(
        &mut self,
        dir: u64,
        name: &[u8],
        flags: i32,
        mode: u32,
    ) -> Result<(abi::fuse_entry_out, abi::fuse_open_out), Errno> {
        let how = abi::fuse_create_in {
            flags: flags.cast_unsigned(),
            mode,
            ..Default::default()
        };
        let reply = self.call(Op::FUSE_CREATE, dir, &[how.as_bytes(), name, b"\0"])?;
        let (entry, rest) = abi::fuse_entry_out::read_from_prefix(&reply).unwrap();
        Ok((entry, abi::fuse_open_out::read_from_bytes(rest).unwrap()))
    }

    /// Opens a file.
    pub fn open(&mut self, node: u64, flags: i32) -> Result<abi::fuse_open_out, Errno> {
        let how = abi::fuse_open_in {
            flags: flags.cast_unsigned(),
            open_flags: 0,
        };
        self.ask(Op::FUSE_OPEN, node, &[how.as_bytes()])
    }

    /// Opens a directory.
    pub fn open_dir(&mut self, node: u64) -> Result<u64, Errno> {
        let how = abi::fuse_open_in::default();
        let out: abi::fuse_open_out = self.ask(Op::FUSE_OPENDIR, node, &[how.as_bytes()])?;
        Ok(out.fh)
    }

    /// Closes a file.
    pub fn release(&mut self, fh: u64) -> Result<(), Errno> {
        let how = abi::fuse_release_in {
            fh,
            ..Default::default()
        };
        self.call(Op::FUSE_RELEASE, 0, &[how.as_bytes()]).map(drop)
    }

    /// Reads.
    pub fn read(&mut self, fh: u64, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let what = abi::fuse_read_in {
            fh,
            offset,
            size,
            ..Default::default()
        };
        self.call(Op::FUSE_READ, 0, &[what.as_bytes()])
    }

    /// Writes as `how` says, whose size is that of `data`.
    pub fn write_as(&mut self, how: abi::fuse_write_in, data: &[u8]) -> Result<u32, Errno> {
        let how = abi::fuse_write_in {
            size: u32::try_from(data.len()).unwrap(),
            ..how
        };
        let out: abi::fuse_write_out = self.ask(Op::FUSE_WRITE, 0, &[how.as_bytes(), data])?;
        Ok(out.size)
    }

    /// Writes.
    pub fn write(&mut self, fh: u64, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        let how = abi::fuse_write_in {
            fh,
            offset,
            ..Default::default()
        };
        self.write_as(how, data)
    }

    /// Reads a whole file by its inode.
    pub fn contents(&mut self, node: u64) -> Result<Vec<u8>, Errno> {
        let fh = self.open(node, 0)?.fh;
        let data = self.read(fh, 0, 1 << 20)?;
        self.release(fh)?;
        Ok(data)
    }

    /// Reads entries of an open directory: name, position of the next, and what a look-up would have told.
    pub fn read_dir(
        &mut self,
        node: u64,
        fh: u64,
        offset: u64,
        size: u32,
        plus: bool,
    ) -> Result<Vec<Entry>, Errno> {
        let what = abi::fuse_read_in {
            fh,
            offset,
            size,
            ..Default::default()
        };
        let op = if plus {
            Op::FUSE_READDIRPLUS
        } else {
            Op::FUSE_READDIR
        };
        let reply = self.call(op, node, &[what.as_bytes()])?;
        assert!(reply.len() <= size as usize);
        let mut rest = &reply[..];
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let mut found = abi::fuse_entry_out::default();
            if plus {
                (found, rest) = FromBytes::read_from_prefix(rest).unwrap();
            }
            let ((_, next), after) = <[u64; 2]>::read_from_prefix(rest)
                .map(|(n, r)| ((n[0], n[1]), r))
                .unwrap();
            let ([length, kind], after) = <[u32; 2]>::read_from_prefix(after).unwrap();
            let length = length as usize;
            entries.push(Entry {
                name: after[..length].to_vec(),
                kind,
                next,
                found,
            });
            rest = &after[length.next_multiple_of(8)..];
        }
        Ok(entries)
    }
}

/// An entry of a directory.
pub struct Entry {
    pub name: Vec<u8>,
    pub kind: u32,
    pub next: u64,
    pub found: abi::fuse_entry_out,
}
