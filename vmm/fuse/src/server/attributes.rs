//! Attributes of inodes: as the guest sees them, and as it may set them.

use std::os::fd::AsFd;

use fuse_abi::linux as abi;
use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, Statx, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
    Uid,
};
use rustix::io::Errno;

use super::{Config, Server};
use crate::host::{self, Host};
use crate::record::Record;
use crate::reply::Reply;

/// Returns the attributes of an inode as the guest sees them, with the guest's numbers of owners.
pub(super) fn stat(host: &Host, config: &Config, file: impl AsFd) -> Result<Statx, Errno> {
    let stat = host::stat(&file)?;
    shown(host, config, file, stat)
}

/// Returns the attributes of an inode as the guest sees them; on the host they are `stat`.
pub(super) fn shown(
    host: &Host,
    config: &Config,
    file: impl AsFd,
    mut stat: Statx,
) -> Result<Statx, Errno> {
    if !config.records {
        stat.stx_uid = config.ids.guest_uid(stat.stx_uid);
        stat.stx_gid = config.ids.guest_gid(stat.stx_gid);
        return Ok(stat);
    }
    match Record::read(host, file, &stat)? {
        Some(record) => record.show(&mut stat),
        // Whoever has made the directory.
        None => (stat.stx_uid, stat.stx_gid) = (0, 0),
    }
    Ok(stat)
}

/// Encodes attributes that the guest sees.
pub(super) fn seen(stat: &Statx) -> abi::fuse_attr {
    let seconds = |seconds: i64| seconds.cast_unsigned();
    abi::fuse_attr {
        ino: stat.stx_ino,
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        atime: seconds(stat.stx_atime.tv_sec),
        mtime: seconds(stat.stx_mtime.tv_sec),
        ctime: seconds(stat.stx_ctime.tv_sec),
        atimensec: stat.stx_atime.tv_nsec,
        mtimensec: stat.stx_mtime.tv_nsec,
        ctimensec: stat.stx_ctime.tv_nsec,
        mode: stat.stx_mode.into(),
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        // Linux's number of 32 bits is the lower half (`include/linux/kdev_t.h`, `new_encode_dev`).
        rdev: fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor) as u32,
        blksize: stat.stx_blksize,
        flags: 0,
    }
}

/// Returns the mode bits that a file of this kind keeps of `mode`: for all but directories, not setuid and setgid.
///
/// On the host they would let others run what the guest has written, in the name of replex's user.
pub(super) fn kept(kind: FileType, mode: u32) -> Mode {
    let mode = Mode::from_raw_mode(mode & 0o7777);
    if kind == FileType::Directory {
        mode
    } else {
        mode - (Mode::SUID | Mode::SGID)
    }
}

impl Server {
    /// Reads attributes, by an open file if there is one.
    pub(super) fn get_attributes(
        &mut self,
        node: u64,
        handle: Option<u64>,
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        let stat = match handle.and_then(|handle| self.handles.get(handle).ok()) {
            Some(file) => stat(&self.host, &self.config, file)?,
            None => {
                let file = self.inodes.file(&self.host, node)?;
                stat(&self.host, &self.config, file)?
            }
        };
        let valid = self.config.cache.timeout();
        reply.value(&abi::fuse_attr_out {
            attr_valid: valid.as_secs(),
            attr_valid_nsec: valid.subsec_nanos(),
            dummy: 0,
            attr: seen(&stat),
        })
    }

    /// Sets the attributes that `wanted.valid` tells.
    pub(super) fn set_attributes(
        &mut self,
        node: u64,
        wanted: &abi::fuse_setattr_in,
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        let has = |bits| wanted.valid & bits != 0;
        let kind = self.inodes.kind(node)?;
        let file = self.inodes.file(&self.host, node)?;
        let handle = has(abi::FATTR_FH).then_some(wanted.fh);
        if has(abi::FATTR_MODE) && kind == FileType::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        if self.config.records && has(abi::FATTR_UID | abi::FATTR_GID | abi::FATTR_MODE) {
            self.change_record(&file, wanted)?;
        } else {
            self.change_owner_and_mode(&file, kind, wanted)?;
        }
        if has(abi::FATTR_SIZE) {
            match handle.map(|handle| self.handles.get(handle)) {
                Some(file) => fs::ftruncate(file?, wanted.size)?,
                None if kind == FileType::RegularFile => {
                    fs::ftruncate(self.host.reopen(&file, OFlags::WRONLY)?, wanted.size)?;
                }
                None => return Err(Errno::INVAL),
            }
        }
        if has(abi::FATTR_ATIME | abi::FATTR_MTIME) {
            let itself = kind == FileType::Symlink;
            self.host.set_times(&file, &times(wanted), itself)?;
        }
        self.get_attributes(node, handle, reply)
    }

    /// Sets owner, group and mode of the host's file.
    fn change_owner_and_mode(
        &self,
        file: impl AsFd,
        kind: FileType,
        wanted: &abi::fuse_setattr_in,
    ) -> Result<(), Errno> {
        let has = |bits| wanted.valid & bits != 0;
        if has(abi::FATTR_UID | abi::FATTR_GID) {
            let ids = self.config.ids;
            let uid = has(abi::FATTR_UID).then(|| ids.host_uid(wanted.uid));
            let gid = has(abi::FATTR_GID).then(|| ids.host_gid(wanted.gid));
            set_owner(&file, uid, gid)?;
        }
        if has(abi::FATTR_MODE) {
            self.host.set_mode(&file, kept(kind, wanted.mode))?;
        }
        Ok(())
    }
}

/// Sets owner and group of an inode; `None` leaves one as it is.
pub(super) fn set_owner(file: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    // All ones mean "leave it" to the host, too.
    let uid = uid.filter(|&uid| uid != u32::MAX).map(Uid::from_raw);
    let gid = gid.filter(|&gid| gid != u32::MAX).map(Gid::from_raw);
    fs::chownat(file, c"", uid, gid, AtFlags::EMPTY_PATH)
}

/// Returns the times that a request sets.
fn times(wanted: &abi::fuse_setattr_in) -> Timestamps {
    let time = |set, now, seconds: u64, nanoseconds: u32| Timespec {
        tv_sec: seconds.cast_signed(),
        tv_nsec: if wanted.valid & set == 0 {
            UTIME_OMIT
        } else if wanted.valid & now != 0 {
            UTIME_NOW
        } else {
            nanoseconds.into()
        },
    };
    Timestamps {
        last_access: time(
            abi::FATTR_ATIME,
            abi::FATTR_ATIME_NOW,
            wanted.atime,
            wanted.atimensec,
        ),
        last_modification: time(
            abi::FATTR_MTIME,
            abi::FATTR_MTIME_NOW,
            wanted.mtime,
            wanted.mtimensec,
        ),
    }
}
