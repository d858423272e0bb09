//! Open files.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime};

use fuse_abi::linux as abi;
use rustix::fs::{self, FallocateFlags, FileType, OFlags, SeekFrom};
use rustix::io::{self, Errno, ReadWriteFlags};

use super::Server;
use super::entries::{enter, remove_new};
use crate::cache::Cache;
use crate::host;
use crate::inodes::Version;
use crate::name::Name;
use crate::reply::Reply;
use crate::request::Header;

/// Most bytes that one request copies; the guest asks again for the rest.
const COPY: u64 = 64 << 20;

/// How old a change must be for the next one to get another time stamp, whatever the file system's resolution.
const RESOLUTION: Duration = Duration::from_secs(2);

/// Returns the flags of open(2) that reach the host.
///
/// O_DIRECT would ask for alignment that the guest's memory need not have; O_APPEND comes with each write. Those that would wait
/// for the disk do not matter to what is volatile.
fn honoured(flags: OFlags, volatile: bool) -> Result<OFlags, Errno> {
    let access = flags & OFlags::RWMODE;
    if access == OFlags::RWMODE {
        return Err(Errno::INVAL);
    }
    let others = match volatile {
        true => OFlags::TRUNC,
        false => OFlags::TRUNC | OFlags::DSYNC | OFlags::SYNC,
    };
    Ok(access | (flags & others))
}

impl Server {
    /// Opens a regular file; all others are the guest's own business.
    pub(super) fn open(
        &mut self,
        node: u64,
        flags: OFlags,
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        let (file, flags) = self.open_inode(node, flags)?;
        self.reply_open(file, flags, reply)
    }

    /// Opens a regular file, and returns what the guest is told about its cache (FOPEN_*).
    fn open_inode(&mut self, node: u64, flags: OFlags) -> Result<(OwnedFd, u32), Errno> {
        self.handles.check_room()?;
        match self.inodes.kind(node)? {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR),
            _ => return Err(Errno::ACCESS),
        }
        let inode = self.inodes.file(&self.host, node)?;
        let file = self
            .host
            .reopen(inode, honoured(flags, self.config.volatile)?)?;
        let flags = self.caching(node, &file)?;
        Ok((file, flags))
    }

    /// Returns what the guest may do with data that it has in its cache, as FOPEN_* flags.
    fn caching(&mut self, node: u64, file: impl AsFd) -> Result<u32, Errno> {
        match self.config.cache {
            Cache::None => Ok(abi::FOPEN_DIRECT_IO),
            Cache::Always => Ok(abi::FOPEN_KEEP_CACHE),
            Cache::Auto => {
                let stat = host::stat(file)?;
                let version = Version::of(&stat);
                let changed = SystemTime::UNIX_EPOCH
                    + Duration::from_secs(u64::try_from(stat.stx_ctime.tv_sec).unwrap_or(0));
                let settled = changed.elapsed().is_ok_and(|age| age > RESOLUTION);
                let before = self.inodes.cached(node, settled.then_some(version));
                let same = before == Some(version);
                Ok(if same { abi::FOPEN_KEEP_CACHE } else { 0 })
            }
        }
    }

    /// Tells the guest the handle of what has been opened; if there is no room for that, it is closed.
    pub(super) fn reply_open(
        &mut self,
        file: OwnedFd,
        open_flags: u32,
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        let fh = self.handles.add(file);
        let open = abi::fuse_open_out {
            fh,
            open_flags,
            backing_id: 0,
        };
        reply.value(&open).inspect_err(|_| {
            let _ = self.handles.close(fh);
        })
    }

    /// Makes and opens a file, or opens the one there is unless `flags` has O_EXCL.
    pub(super) fn create(
        &mut self,
        header: &Header,
        name: Name<'_>,
        flags: OFlags,
        mode: u32,
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        self.handles.check_room()?;
        let dir = self.inodes.file(&self.host, header.node)?;
        let allowed = self.first_mode(FileType::RegularFile, mode);
        let place = (header.node, name);
        let (entry, opened) =
            match self
                .host
                .create(&dir, name, honoured(flags, self.config.volatile)?, allowed)
            {
                Ok(file) => {
                    let settled = self.host.reopen(&file, OFlags::PATH).and_then(|inode| {
                        let stat = self.settle(header, &dir, &inode, (mode, 0))?;
                        Ok((inode, stat))
                    });
                    let (inode, stat) = settled.inspect_err(|_| remove_new(&dir, name, &file))?;
                    let entry = enter(&mut self.inodes, &self.config, inode, &stat, place)?;
                    let flags = self.caching(entry.nodeid, &file);
                    (entry, flags.map(|flags| (file, flags)))
                }
                Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => {
                    let entry = self.find(header.node, name)?;
                    let opened = self.open_inode(entry.nodeid, flags);
                    (entry, opened)
                }
                Err(error) => return Err(error),
            };
        let node = entry.nodeid;
        opened
            .and_then(|(file, flags)| {
                reply.value(&entry)?;
                self.reply_open(file, flags, reply)
            })
            .inspect_err(|_| self.inodes.forget(node, 1))
    }

    /// Reads.
    pub(super) fn read(
        &self,
        what: &abi::fuse_read_in,
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        let file = self.handles.get(what.fh)?;
        reply.read(what.size as usize, |buffer| {
            let mut done = 0;
            while done < buffer.len() {
                let offset = at(what.offset, done)?;
                match io::pread(file, &mut buffer[done..], offset) {
                    Ok(0) => break,
                    Ok(count) => done += count,
                    Err(Errno::INTR) => {}
                    Err(_) if done > 0 => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(done)
        })
    }

    /// Writes; at the end of the file if it is open for appending and the data does not come out of the guest's page cache.
    pub(super) fn write(
        &self,
        what: &abi::fuse_write_in,
        data: &[u8],
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        let file = self.handles.get(what.fh)?;
        let appends = OFlags::from_bits_retain(what.flags).contains(OFlags::APPEND)
            && what.write_flags & abi::FUSE_WRITE_CACHE == 0;
        let flags = if appends {
            ReadWriteFlags::APPEND
        } else {
            ReadWriteFlags::empty()
        };
        let mut done = 0;
        while done < data.len() {
            let offset = at(what.offset, done)?;
            match io::pwritev2(file, &[IoSlice::new(&data[done..])], offset, flags) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        reply_size(done, reply)
    }

    /// Brings a file or directory to the disk.
    pub(super) fn sync(&self, what: &abi::fuse_fsync_in) -> Result<(), Errno> {
        let file = self.handles.get(what.fh)?;
        if self.config.volatile {
            return Ok(());
        }
        if what.fsync_flags & abi::FUSE_FSYNC_FDATASYNC != 0 {
            fs::fdatasync(file)
        } else {
            fs::fsync(file)
        }
    }

    /// Allocates or frees blocks.
    pub(super) fn allocate(&self, what: &abi::fuse_fallocate_in) -> Result<(), Errno> {
        let flags = FallocateFlags::from_bits(what.mode).ok_or(Errno::OPNOTSUPP)?;
        let file = self.handles.get(what.fh)?;
        fs::fallocate(file, flags, what.offset, what.length)
    }

    /// Looks for data or a hole (SEEK_DATA, SEEK_HOLE).
    pub(super) fn seek(
        &self,
        what: &abi::fuse_lseek_in,
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        const SEEK_DATA: u32 = 3;
        const SEEK_HOLE: u32 = 4;
        let to = match what.whence {
            SEEK_DATA => SeekFrom::Data(what.offset),
            SEEK_HOLE => SeekFrom::Hole(what.offset),
            _ => return Err(Errno::INVAL),
        };
        let offset = fs::seek(self.handles.get(what.fh)?, to)?;
        reply.value(&abi::fuse_lseek_out { offset })
    }

    /// Copies from one file to another.
    pub(super) fn copy(
        &self,
        what: &abi::fuse_copy_file_range_in,
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        if what.flags != 0 {
            return Err(Errno::INVAL);
        }
        let from = self.handles.get(what.fh_in)?;
        let to = self.handles.get(what.fh_out)?;
        let (mut off_in, mut off_out) = (what.off_in, what.off_out);
        let len = usize::try_from(what.len.min(COPY)).map_err(|_| Errno::INVAL)?;
        let size = fs::copy_file_range(from, Some(&mut off_in), to, Some(&mut off_out), len)?;
        reply_size(size, reply)
    }
}

/// Returns the position `done` bytes after `offset`; EINVAL if a file cannot be that long.
fn at(offset: u64, done: usize) -> Result<u64, Errno> {
    // To the host, all ones would mean "where the last access has ended".
    let position = offset
        .checked_add(done as u64)
        .filter(|&position| i64::try_from(position).is_ok());
    position.ok_or(Errno::INVAL)
}

/// Tells the guest how many bytes were written.
fn reply_size(size: usize, reply: &mut Reply<'_>) -> Result<(), Errno> {
    reply.value(&abi::fuse_write_out {
        size: u32::try_from(size).map_err(|_| Errno::INVAL)?,
        padding: 0,
    })
}
