//! Files in a directory that keeps records.

use std::os::fd::AsFd;

use fuse_abi::linux as abi;
use rustix::fs::{self, FileType, Mode, RawDirEntry, Statx};
use rustix::io::Errno;

use super::Server;
use super::attributes::{kept, shown, stat};
use crate::host;
use crate::name::Name;
use crate::record::Record;
use crate::request::Header;

impl Server {
    /// Returns the mode that a file which the guest makes with `mode` has on the host at first.
    pub(super) fn first_mode(&self, kind: FileType, mode: u32) -> Mode {
        if !self.config.records {
            return kept(kind, mode);
        }
        let record = Record {
            uid: 0,
            gid: 0,
            mode: mode & 0o7777,
            kind,
            device: (0, 0),
        };
        record.host_mode()
    }

    /// Changes owner, group and mode of a file as `wanted.valid` tells.
    pub(super) fn change_record(
        &self,
        file: impl AsFd,
        wanted: &abi::fuse_setattr_in,
    ) -> Result<(), Errno> {
        let has = |bits| wanted.valid & bits != 0;
        let stat = host::stat(&file)?;
        let mut record = Record::of(&shown(&self.host, &self.config, &file, stat)?);
        // All ones mean "leave it", as on the host.
        if has(abi::FATTR_UID) && wanted.uid != u32::MAX {
            record.uid = wanted.uid;
        }
        if has(abi::FATTR_GID) && wanted.gid != u32::MAX {
            record.gid = wanted.gid;
        }
        if has(abi::FATTR_MODE) {
            record.mode = wanted.mode & 0o7777;
        }
        record.store(&self.host, &file, &stat, true)
    }

    /// Gives a new file in `dir` the owner, the mode and the device number that it should have, and returns its attributes as the
    /// guest sees them. The group is that of a directory with setgid, which directories inherit.
    pub(super) fn record_new(
        &self,
        header: &Header,
        dir: impl AsFd,
        file: impl AsFd,
        (mode, device): (u32, u32),
    ) -> Result<Statx, Errno> {
        let mut stat = host::stat(&file)?;
        let group = self.inherited_group(dir)?;
        let mut record = Record::of(&stat);
        let id = |id| if id == u32::MAX { 0 } else { id };
        (record.uid, record.gid) = (id(header.uid), group.unwrap_or(id(header.gid)));
        record.mode = mode & 0o7777;
        match record.kind {
            // It can have no record.
            FileType::Symlink => (record.uid, record.gid) = (0, 0),
            FileType::Directory if group.is_some() => record.mode |= Mode::SGID.as_raw_mode(),
            FileType::RegularFile if is_special(FileType::from_raw_mode(mode)) => {
                record.kind = FileType::from_raw_mode(mode);
                let device = device.into();
                record.device = (fs::major(device), fs::minor(device));
            }
            _ => {}
        }
        record.store(&self.host, &file, &stat, false)?;
        record.show(&mut stat);
        Ok(stat)
    }

    /// Returns the group that a directory gives to what is made in it, if it has setgid.
    fn inherited_group(&self, dir: impl AsFd) -> Result<Option<u32>, Errno> {
        let stat = stat(&self.host, &self.config, dir)?;
        let mode = Mode::from_raw_mode(stat.stx_mode.into());
        Ok(mode.contains(Mode::SGID).then_some(stat.stx_gid))
    }

    /// Returns the kind of an entry as the guest sees it: for a regular file on the host, a record may tell another.
    pub(super) fn kind(&self, dir: impl AsFd, entry: &RawDirEntry<'_>) -> FileType {
        let kind = entry.file_type();
        if kind != FileType::RegularFile || !self.config.records {
            return kind;
        }
        let found = Name::new(entry.file_name())
            .and_then(|name| self.host.find(dir, name))
            .and_then(|file| stat(&self.host, &self.config, file));
        found.map_or(FileType::Unknown, |stat| {
            FileType::from_raw_mode(stat.stx_mode.into())
        })
    }
}

/// Returns whether an empty regular file stands for a file of this kind.
pub(super) fn is_special(kind: FileType) -> bool {
    matches!(
        kind,
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice
    )
}
