//! The server: one shared directory, and what the guest knows and has open of it.

mod attributes;
mod directories;
mod entries;
mod files;
mod records;
mod session;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::cache::Cache;
use crate::decode;
use crate::handles::Handles;
use crate::host::Host;
use crate::ids::Ids;
use crate::inodes::Inodes;
use crate::reply::Reply;
use crate::request::{Header, Request};

/// The way in which a directory is shared.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The part of the directory that the guest may cache.
    pub cache: Cache,
    /// Whether changes are refused, by EROFS.
    pub read_only: bool,
    /// Who is the guest's root.
    pub ids: Ids,
    /// Whether owners, modes and devices that the host does not let this process give to files are kept as records, in extended
    /// attributes: the guest's root may then do with files what root may do. See [`keeps_records`](crate::keeps_records).
    pub records: bool,
    /// Whether nothing has to outlast a crash of the host, so that the guest need not wait until what it writes is on the disk.
    pub volatile: bool,
    /// About how many descriptors to keep open: half for inodes that the guest knows, half for what it has open.
    pub descriptors: usize,
}

impl Default for Config {
    /// Returns a writable directory with [`Cache::Auto`], the process's user as the guest's root, and a quarter of the
    /// descriptors that the process may have.
    fn default() -> Config {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
        Config {
            cache: Cache::default(),
            read_only: false,
            ids: Ids::of_process(),
            records: false,
            volatile: false,
            descriptors: usize::try_from(limit / 4)
                .unwrap_or(usize::MAX)
                .min(1 << 18),
        }
    }
}

/// A directory cannot be shared.
#[derive(Debug, thiserror::Error)]
#[error("cannot share {}", path.display())]
pub struct OpenError {
    /// What could not be opened.
    path: PathBuf,
    source: std::io::Error,
}

/// A shared directory.
#[derive(Debug)]
pub struct Server {
    host: Host,
    /// The directory, open for reading.
    root: OwnedFd,
    config: Config,
    inodes: Inodes,
    handles: Handles,
}

impl Server {
    /// Shares a directory.
    ///
    /// # Errors
    ///
    /// `dir` is no directory or cannot be read, or `/proc` is not mounted.
    pub fn new(dir: &Path, config: Config) -> Result<Server, OpenError> {
        let failed = |path: &Path, error: Errno| OpenError {
            path: path.to_owned(),
            source: error.into(),
        };
        let host = Host::new().map_err(|error| failed(Path::new("/proc/self/fd"), error))?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |flags| fs::openat(CWD, dir, flags, Mode::empty());
        let root = open(flags | OFlags::RDONLY).map_err(|error| failed(dir, error))?;
        let inode = host
            .reopen(&root, flags | OFlags::PATH)
            .map_err(|error| failed(dir, error))?;
        let inodes =
            Inodes::new(inode, config.descriptors / 2).map_err(|error| failed(dir, error))?;
        Ok(Server {
            host,
            root,
            config,
            inodes,
            handles: Handles::new(config.descriptors / 2),
        })
    }

    /// Answers a request: puts a reply of at most `room` bytes into `reply`, or leaves it empty if none is due.
    pub fn answer(&mut self, request: &[u8], room: usize, reply: &mut Vec<u8>) {
        let mut out = Reply::new(reply, room);
        let Some(header) = decode::header(request) else {
            reply.clear();
            return;
        };
        let result = decode::request(request)
            .and_then(|request| self.check(&request).map(|()| request))
            .and_then(|request| self.carry_out(&header, request, &mut out));
        if decode::is_silent(request) {
            reply.clear();
        } else {
            out.finish(header.unique, result);
        }
    }

    /// Ends the session: forgets what the guest knew and closes what it had open.
    pub fn reset(&mut self) {
        self.handles.clear();
        self.inodes.clear();
    }

    /// Returns how many inodes the guest knows, how many descriptors are open for them, and how many files it has open.
    pub fn counts(&self) -> (usize, usize, usize) {
        let (known, open) = self.inodes.counts();
        (known, open, self.handles.len())
    }

    /// Refuses changes of a read-only directory.
    fn check(&self, request: &Request<'_>) -> Result<(), Errno> {
        if self.config.read_only && request.modifies() {
            return Err(Errno::ROFS);
        }
        Ok(())
    }

    /// Carries out a request.
    fn carry_out(
        &mut self,
        header: &Header,
        request: Request<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        let node = header.node;
        match request {
            Request::Init(offer) => self.init(&offer, reply),
            Request::Destroy => {
                self.reset();
                Ok(())
            }
            Request::StatFs => self.stat_fs(node, reply),
            Request::SyncFs if self.config.volatile => Ok(()),
            Request::SyncFs => fs::syncfs(&self.root),
            Request::Lookup(name) => self.look_up(node, name, reply),
            Request::Forget(count) => {
                self.inodes.forget(node, count);
                Ok(())
            }
            Request::BatchForget(inodes) => {
                for inode in inodes {
                    self.inodes.forget(inode.nodeid, inode.nlookup);
                }
                Ok(())
            }
            Request::GetAttr(handle) => self.get_attributes(node, handle, reply),
            Request::SetAttr(wanted) => self.set_attributes(node, &wanted, reply),
            Request::ReadLink => self.read_link(node, reply),
            Request::SymLink(name, target) => self.make_link(header, name, target, reply),
            Request::MkNod(name, how) => self.make_node(header, name, (how.mode, how.rdev), reply),
            Request::MkDir(name, mode) => self.make_directory(header, name, mode, reply),
            Request::Unlink(name) => self.remove(node, name, false),
            Request::RmDir(name) => self.remove(node, name, true),
            Request::Rename {
                name,
                new_dir,
                new_name,
                flags,
            } => self.rename((node, name), (new_dir, new_name), flags),
            Request::Link(old, name) => self.link(old, node, name, reply),
            Request::Open(flags) => self.open(node, flags, reply),
            Request::Create(name, flags, mode) => self.create(header, name, flags, mode, reply),
            Request::Read(what) => self.read(&what, reply),
            Request::Write(what, data) => self.write(&what, data, reply),
            Request::Release(handle) => self.handles.close(handle),
            Request::Fsync(what) => self.sync(&what),
            Request::Fallocate(what) => self.allocate(&what),
            Request::Lseek(what) => self.seek(&what, reply),
            Request::CopyFileRange(what) => self.copy(&what, reply),
            Request::OpenDir => self.open_directory(node, reply),
            Request::ReadDir(what, plus) => self.read_directory(node, &what, plus, reply),
        }
    }
}
