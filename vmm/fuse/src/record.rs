//! Records of owners, modes and kinds that the host does not let an ordinary user give to files.
//!
//! A directory of the host can be made to keep records ([`keep_records`]). Whatever the guest does to a file's owner or mode in
//! such a directory succeeds: what the host's file cannot have is written into an extended attribute of it, in the form of
//! containers/storage and fuse-overlayfs (`user.containers.override_stat`):
//!
//! ```text
//!   1000:42:0640            owner, group, mode (octal)
//!   0:0:0666:char-1-3       and the kind: file, dir, pipe, socket, block-MAJOR-MINOR or char-MAJOR-MINOR
//! ```
//!
//! The host's file then has no bits for anybody but its owner, who may read and write it. A device, FIFO or socket of the guest's
//! is an empty regular file on the host. A file without a record is root's, whosever it is on the host.
//!
//! Only regular files and directories can have records, so symbolic links stay root's.

use std::ffi::CStr;
use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{self, FileType, Mode, Statx, XattrFlags};
use rustix::io::Errno;

use crate::host::Host;

/// Attribute of a file with a record.
const RECORD: &CStr = c"user.containers.override_stat";

/// Attribute of a shared directory that keeps records; empty.
const MARK: &CStr = c"user.replex.records";

/// Most bytes of a record.
const MOST: usize = 64;

/// Attributes of a file that the host does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Owner, as the guest numbers users.
    pub uid: u32,
    /// Group, as the guest numbers groups.
    pub gid: u32,
    /// Mode without the kind: 12 bits.
    pub mode: u32,
    /// Kind of file.
    pub kind: FileType,
    /// Major and minor number of a device, otherwise 0.
    pub device: (u32, u32),
}

/// Makes a directory keep records when it is shared with [`Config::records`](crate::Config::records).
///
/// # Errors
///
/// Those of setxattr(2): EOPNOTSUPP if the file system has no extended attributes of users.
pub fn keep_records(dir: &Path) -> std::io::Result<()> {
    Ok(fs::setxattr(dir, MARK, &[], XattrFlags::empty())?)
}

/// Returns whether a directory has been made to keep records.
pub fn keeps_records(dir: &Path) -> bool {
    fs::getxattr(dir, MARK, &mut [0; MOST][..]).is_ok()
}

impl Record {
    /// Returns the record of a file whose attributes, as the guest sees them, are `stat`.
    pub fn of(stat: &Statx) -> Record {
        let mode = u32::from(stat.stx_mode);
        Record {
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            mode: mode & 0o7777,
            kind: FileType::from_raw_mode(mode),
            device: (stat.stx_rdev_major, stat.stx_rdev_minor),
        }
    }

    /// Reads the record of `file`, whose attributes on the host are `stat`, if it has one.
    ///
    /// # Errors
    ///
    /// EIO if the attribute is no record of such a file. Those of getxattr(2).
    pub fn read(host: &Host, file: impl AsFd, stat: &Statx) -> Result<Option<Record>, Errno> {
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        if !matches!(kind, FileType::RegularFile | FileType::Directory) {
            return Ok(None);
        }
        let mut bytes = [0; MOST];
        match host.attribute(file, RECORD, &mut bytes) {
            Ok(length) => {
                let text = std::str::from_utf8(&bytes[..length]).map_err(|_| Errno::IO)?;
                parse(text, kind).map(Some).ok_or(Errno::IO)
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(Errno::RANGE) => Err(Errno::IO),
            Err(error) => Err(error),
        }
    }

    /// Shows the record in the attributes of its file.
    pub fn show(&self, stat: &mut Statx) {
        (stat.stx_uid, stat.stx_gid) = (self.uid, self.gid);
        let mode = self.kind.as_raw_mode() | self.mode;
        // Kind and mode are 16 bits.
        stat.stx_mode = mode as u16;
        (stat.stx_rdev_major, stat.stx_rdev_minor) = self.device;
    }

    /// Gives `file`, whose attributes on the host are `stat`, this record. `recorded` tells whether it may have one already.
    ///
    /// # Errors
    ///
    /// Those of setxattr(2) and chmod(2): EOPNOTSUPP if the file system has no extended attributes of users.
    pub fn store(
        &self,
        host: &Host,
        file: impl AsFd,
        stat: &Statx,
        recorded: bool,
    ) -> Result<(), Errno> {
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        if kind == FileType::Symlink {
            return Ok(());
        }
        if !self.is_hosts() {
            host.set_attribute(&file, RECORD, self.to_string().as_bytes())?;
        } else if recorded {
            match host.remove_attribute(&file, RECORD) {
                Err(error) if error != Errno::NODATA => return Err(error),
                _ => {}
            }
        }
        let mode = self.host_mode();
        if mode != Mode::from_raw_mode(stat.stx_mode.into()) {
            host.set_mode(&file, mode)?;
        }
        Ok(())
    }

    /// Returns the mode that the host's file has.
    pub fn host_mode(&self) -> Mode {
        let own = owners_bits(self.kind);
        let mode = Mode::from_raw_mode(self.mode);
        match self.is_hosts() {
            true => mode,
            false => own | (mode & Mode::RWXU),
        }
    }

    /// Returns whether the host's file shows all of this without a record: if it is root's, has no bits beyond those for reading,
    /// writing and executing, and its owner may use it.
    fn is_hosts(&self) -> bool {
        let usual = matches!(self.kind, FileType::RegularFile | FileType::Directory);
        let mode = Mode::from_raw_mode(self.mode);
        usual
            && (self.uid, self.gid) == (0, 0)
            && self.mode & 0o7000 == 0
            && mode.contains(owners_bits(self.kind))
    }
}

/// Returns the bits that this process needs to use a file of a kind.
fn owners_bits(kind: FileType) -> Mode {
    match kind {
        FileType::Directory => Mode::RWXU,
        _ => Mode::RUSR | Mode::WUSR,
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{:04o}:", self.uid, self.gid, self.mode)?;
        let (major, minor) = self.device;
        match self.kind {
            FileType::Directory => f.write_str("dir"),
            FileType::Fifo => f.write_str("pipe"),
            FileType::Socket => f.write_str("socket"),
            FileType::BlockDevice => write!(f, "block-{major}-{minor}"),
            FileType::CharacterDevice => write!(f, "char-{major}-{minor}"),
            _ => f.write_str("file"),
        }
    }
}

/// Parses the record of a file that is of kind `host` on the host. A kind that it cannot stand for is refused.
fn parse(text: &str, host: FileType) -> Option<Record> {
    let mut fields = text.split(':');
    let mut next = || fields.next();
    let (uid, gid, mode) = (next()?, next()?, next()?);
    let (kind, device) = match next() {
        Some(kind) => parse_kind(kind)?,
        None => (host, (0, 0)),
    };
    let fits = match host {
        FileType::Directory => kind == FileType::Directory,
        _ => kind != FileType::Directory,
    };
    let record = Record {
        uid: decimal(uid)?,
        gid: decimal(gid)?,
        // Some writers put the kind in front of the mode.
        mode: u32::from_str_radix(mode, 8).ok()? & 0o7777,
        kind,
        device,
    };
    (fits && fields.next().is_none()).then_some(record)
}

/// Parses the kind of a file, with its device number.
fn parse_kind(text: &str) -> Option<(FileType, (u32, u32))> {
    let plain = |kind| Some((kind, (0, 0)));
    match text {
        "file" => plain(FileType::RegularFile),
        "dir" => plain(FileType::Directory),
        "pipe" => plain(FileType::Fifo),
        "socket" => plain(FileType::Socket),
        _ => {
            let mut parts = text.split('-');
            let kind = match parts.next()? {
                "block" => FileType::BlockDevice,
                "char" => FileType::CharacterDevice,
                _ => return None,
            };
            let device = (decimal(parts.next()?)?, decimal(parts.next()?)?);
            parts.next().is_none().then_some((kind, device))
        }
    }
}

/// Parses digits.
fn decimal(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: FileType, device: (u32, u32)) -> Record {
        Record {
            uid: 1000,
            gid: 42,
            mode: 0o4755,
            kind,
            device,
        }
    }

    #[test]
    fn records_round_trip() {
        for (kind, device, text) in [
            (FileType::RegularFile, (0, 0), "1000:42:4755:file"),
            (FileType::Directory, (0, 0), "1000:42:4755:dir"),
            (FileType::Fifo, (0, 0), "1000:42:4755:pipe"),
            (FileType::Socket, (0, 0), "1000:42:4755:socket"),
            (FileType::BlockDevice, (8, 1), "1000:42:4755:block-8-1"),
            (FileType::CharacterDevice, (1, 3), "1000:42:4755:char-1-3"),
        ] {
            let record = record(kind, device);
            assert_eq!(record.to_string(), text);
            let host = match kind {
                FileType::Directory => kind,
                _ => FileType::RegularFile,
            };
            assert_eq!(parse(text, host), Some(record));
        }
    }

    #[test]
    fn what_others_write_is_read() {
        let file = record(FileType::RegularFile, (0, 0));
        for text in ["1000:42:4755", "1000:42:04755", "1000:42:104755"] {
            assert_eq!(parse(text, FileType::RegularFile), Some(file));
        }
    }

    #[test]
    fn other_texts_are_no_records() {
        for text in [
            "",
            "1",
            "1:2",
            "1:2:",
            "1:2:8",
            "-1:2:755",
            "+1:2:755",
            "1:2:755:",
            "1:2:755:dir",
            "1:2:755:file:",
            "1:2:755:char-1",
            "1:2:755:char-1-2-3",
            "1:2:755:char--1-2",
            "4294967296:2:755",
            "1:2:755:symlink",
        ] {
            assert_eq!(parse(text, FileType::RegularFile), None, "{text}");
        }
        assert_eq!(parse("1:2:755:file", FileType::Directory), None);
    }

    #[test]
    fn the_host_has_what_it_can_show() {
        let root = |mode, kind| Record {
            uid: 0,
            gid: 0,
            mode,
            kind,
            device: (0, 0),
        };
        for (record, mode) in [
            (root(0o755, FileType::Directory), 0o755),
            (root(0o555, FileType::Directory), 0o700),
            (root(0o1777, FileType::Directory), 0o700),
            (root(0o644, FileType::RegularFile), 0o644),
            (root(0o4755, FileType::RegularFile), 0o700),
            (root(0, FileType::RegularFile), 0o600),
            (root(0o660, FileType::Fifo), 0o600),
            (record(FileType::RegularFile, (0, 0)), 0o700),
        ] {
            let found = record.host_mode();
            assert_eq!(found, Mode::from_raw_mode(mode), "{record}");
        }
    }
}
