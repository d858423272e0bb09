//! Entries of directories: finding, making, removing and renaming them.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use fuse_abi::linux as abi;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags, Statx};
use rustix::io::Errno;

use super::attributes::{kept, seen, set_owner, shown, stat};
use super::records::is_special;
use super::{Config, Server};
use crate::cache::Cache;
use crate::host;
use crate::inodes::Inodes;
use crate::name::Name;
use crate::reply::Reply;
use crate::request::Header;

/// Counts a lookup of `file` and returns what the guest is told of it.
pub(super) fn enter(
    inodes: &mut Inodes,
    config: &Config,
    file: OwnedFd,
    stat: &Statx,
    (dir, name): (u64, Name<'_>),
) -> Result<abi::fuse_entry_out, Errno> {
    let valid = config.cache.timeout();
    Ok(abi::fuse_entry_out {
        nodeid: inodes.looked_up(file, stat, dir, name)?,
        generation: 0,
        entry_valid: valid.as_secs(),
        attr_valid: valid.as_secs(),
        entry_valid_nsec: valid.subsec_nanos(),
        attr_valid_nsec: valid.subsec_nanos(),
        attr: seen(stat),
    })
}

/// Removes the entry `name` of `dir`, which was made for a request that has then failed, if it is still the entry of `file`. The
/// guest is told why the request failed, so an error here is told to nobody.
///
/// Another process of the host can replace the entry between the comparison and the removal: no system call does both.
pub(super) fn remove_new(dir: impl AsFd, name: Name<'_>, file: impl AsFd) {
    let identity = |stat: Statx| (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
    let there = host::stat_entry(&dir, name);
    let (Ok(made), Ok(there)) = (host::stat(file), there) else {
        return;
    };
    let flags = match FileType::from_raw_mode(made.stx_mode.into()) {
        FileType::Directory => AtFlags::REMOVEDIR,
        _ => AtFlags::empty(),
    };
    if identity(made) == identity(there) {
        let _ = fs::unlinkat(dir, name.as_c_str(), flags);
    }
}

impl Server {
    /// Finds an entry.
    pub(super) fn look_up(
        &mut self,
        dir: u64,
        name: Name<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        match self.find(dir, name) {
            Err(Errno::NOENT) if self.config.cache != Cache::None => {
                // Inode 0 tells the guest for how long there is no such entry.
                reply.value(&abi::fuse_entry_out {
                    entry_valid: self.config.cache.timeout().as_secs(),
                    ..Default::default()
                })
            }
            entry => self.reply_entry(entry?, reply),
        }
    }

    /// Finds an entry and counts the lookup.
    pub(super) fn find(&mut self, dir: u64, name: Name<'_>) -> Result<abi::fuse_entry_out, Errno> {
        let file = self.host.find(self.inodes.file(&self.host, dir)?, name)?;
        let stat = stat(&self.host, &self.config, &file)?;
        enter(&mut self.inodes, &self.config, file, &stat, (dir, name))
    }

    /// Tells the guest of an entry; if there is no room for that, the lookup does not count.
    fn reply_entry(
        &mut self,
        entry: abi::fuse_entry_out,
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        reply
            .value(&entry)
            .inspect_err(|_| self.inodes.forget(entry.nodeid, 1))
    }

    /// Reads a symbolic link.
    pub(super) fn read_link(&mut self, node: u64, reply: &mut Reply<'_>) -> Result<(), Errno> {
        if self.inodes.kind(node)? != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        let file = self.inodes.file(&self.host, node)?;
        reply.bytes(fs::readlinkat(file, c"", Vec::new())?.as_bytes())
    }

    /// Makes a symbolic link. Where it leads is the guest's business: the server follows none.
    pub(super) fn make_link(
        &mut self,
        header: &Header,
        name: Name<'_>,
        target: &CStr,
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        let dir = self.inodes.file(&self.host, header.node)?;
        fs::symlinkat(target, &dir, name.as_c_str())?;
        self.reply_made(header, name, (0o777, 0), reply)
    }

    /// Makes a directory.
    pub(super) fn make_directory(
        &mut self,
        header: &Header,
        name: Name<'_>,
        mode: u32,
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        let dir = self.inodes.file(&self.host, header.node)?;
        fs::mkdirat(
            &dir,
            name.as_c_str(),
            self.first_mode(FileType::Directory, mode),
        )?;
        self.reply_made(header, name, (mode, 0), reply)
    }

    /// Makes a regular file, FIFO, socket or device. Where records are kept, an empty regular file stands for those that are not
    /// regular; elsewhere devices are refused.
    pub(super) fn make_node(
        &mut self,
        header: &Header,
        name: Name<'_>,
        (mode, device): (u32, u32),
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        let dir = self.inodes.file(&self.host, header.node)?;
        let kind = FileType::from_raw_mode(mode);
        let first = self.first_mode(kind, mode);
        let is_file = kind == FileType::RegularFile || self.config.records && is_special(kind);
        match kind {
            _ if is_file => {
                self.host.create(&dir, name, OFlags::WRONLY, first)?;
            }
            FileType::Fifo | FileType::Socket => {
                fs::mknodat(&dir, name.as_c_str(), kind, first, 0)?;
            }
            FileType::CharacterDevice | FileType::BlockDevice => return Err(Errno::PERM),
            _ => return Err(Errno::INVAL),
        }
        self.reply_made(header, name, (mode, device), reply)
    }

    /// Gives an entry that has just been made with this mode and device number the attributes that it should have, and tells the
    /// guest of it.
    fn reply_made(
        &mut self,
        header: &Header,
        name: Name<'_>,
        made: (u32, u32),
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        let dir = self.inodes.file(&self.host, header.node)?;
        let file = self.host.find(&dir, name)?;
        let settled = self.settle(header, &dir, &file, made);
        let stat = settled.inspect_err(|_| remove_new(&dir, name, &file))?;
        let place = (header.node, name);
        let entry = enter(&mut self.inodes, &self.config, file, &stat, place)?;
        self.reply_entry(entry, reply)
    }

    /// Gives a new file in `dir` the mode, the owner and, where records are kept, the device number that it should have, and
    /// returns its attributes as the guest sees them.
    ///
    /// The guest's umask has been applied by the guest; this process's must not show. If the process may give files away,
    /// the owner is who asked; otherwise it is this process's user, whoever asked.
    pub(super) fn settle(
        &self,
        header: &Header,
        dir: impl AsFd,
        file: impl AsFd,
        (mode, device): (u32, u32),
    ) -> Result<Statx, Errno> {
        if self.config.records {
            return self.record_new(header, dir, file, (mode, device));
        }
        let mut stat = host::stat(&file)?;
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let mut changed = false;
        if self.config.ids.is_privileged() && (header.uid, header.gid) != (0, 0) {
            let inherits =
                Mode::from_raw_mode(host::stat(dir)?.stx_mode.into()).contains(Mode::SGID);
            let gid = (!inherits).then_some(header.gid);
            set_owner(&file, Some(header.uid), gid)?;
            changed = true;
        }
        let has = Mode::from_raw_mode(stat.stx_mode.into());
        // A directory has inherited setgid from the one that it is in.
        let wanted = kept(kind, mode) | (has & Mode::SGID);
        if wanted != has && kind != FileType::Symlink {
            self.host.set_mode(&file, wanted)?;
            changed = true;
        }
        if changed {
            stat = host::stat(&file)?;
        }
        shown(&self.host, &self.config, file, stat)
    }

    /// Makes one more entry for an inode.
    pub(super) fn link(
        &mut self,
        node: u64,
        dir: u64,
        name: Name<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        let file = self.inodes.file(&self.host, node)?;
        let to = self.inodes.file(&self.host, dir)?;
        self.host.link(&file, &to, name)?;
        let entry = self.find(dir, name)?;
        self.reply_entry(entry, reply)
    }

    /// Removes an entry: a directory, or anything else.
    pub(super) fn remove(
        &mut self,
        dir: u64,
        name: Name<'_>,
        directory: bool,
    ) -> Result<(), Errno> {
        let from = self.inodes.file(&self.host, dir)?;
        let flags = if directory {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        let node = self.inodes.hold(&self.host, dir, name);
        let result = fs::unlinkat(from, name.as_c_str(), flags);
        if let (Err(_), Some(node)) = (result, node) {
            self.inodes.found(node, dir, name);
        }
        result
    }

    /// Renames an entry, or exchanges two.
    pub(super) fn rename(
        &mut self,
        old: (u64, Name<'_>),
        new: (u64, Name<'_>),
        flags: u32,
    ) -> Result<(), Errno> {
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        // A whiteout is a device.
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::INVAL);
        }
        let from = self.inodes.file(&self.host, old.0)?;
        let to = self.inodes.file(&self.host, new.0)?;
        let moving = self.inodes.hold(&self.host, old.0, old.1);
        let there = self.inodes.hold(&self.host, new.0, new.1);
        let result = fs::renameat_with(from, old.1.as_c_str(), to, new.1.as_c_str(), flags);
        let exchanged = flags.contains(RenameFlags::EXCHANGE);
        let (moved_to, there_now) = match result {
            Ok(()) => (new, exchanged.then_some(old)),
            Err(_) => (old, Some(new)),
        };
        if let (Some(node), Some((dir, name))) = (there, there_now) {
            self.inodes.found(node, dir, name);
        }
        if let Some(node) = moving {
            self.inodes.found(node, moved_to.0, moved_to.1);
        }
        result
    }
}
