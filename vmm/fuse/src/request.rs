//! Requests of the FUSE protocol, decoded (Linux `include/uapi/linux/fuse.h`).

use std::ffi::CStr;

use fuse_abi::linux as abi;
use rustix::fs::OFlags;

use crate::name::Name;

/// Header of a request: 40 bytes before its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The driver's number of the request, which the reply repeats.
    pub unique: u64,
    /// Inode that the request is about.
    pub node: u64,
    /// User that asks, as the guest numbers users.
    pub uid: u32,
    /// Group that asks, as the guest numbers groups.
    pub gid: u32,
}

/// What a request asks for. Names are checked, numbers are as the guest gave them.
#[derive(Debug)]
pub enum Request<'a> {
    /// Begins a session.
    Init(abi::fuse_init_in),
    /// Ends a session.
    Destroy,
    /// Finds an entry of a directory.
    Lookup(Name<'a>),
    /// Gives back this many of the lookups of an inode.
    Forget(u64),
    /// Gives back lookups of several inodes.
    BatchForget(Vec<abi::fuse_forget_one>),
    /// Reads attributes of the inode, or of an open file.
    GetAttr(Option<u64>),
    /// Sets attributes.
    SetAttr(abi::fuse_setattr_in),
    /// Reads a symbolic link.
    ReadLink,
    /// Makes a symbolic link with this target.
    SymLink(Name<'a>, &'a CStr),
    /// Makes a file that is no directory.
    MkNod(Name<'a>, abi::fuse_mknod_in),
    /// Makes a directory with this mode.
    MkDir(Name<'a>, u32),
    /// Removes an entry that is no directory.
    Unlink(Name<'a>),
    /// Removes an empty directory.
    RmDir(Name<'a>),
    /// Renames an entry.
    Rename {
        /// Name in the directory of the header.
        name: Name<'a>,
        /// The other directory.
        new_dir: u64,
        /// Name in the other directory.
        new_name: Name<'a>,
        /// RENAME_NOREPLACE or RENAME_EXCHANGE.
        flags: u32,
    },
    /// Makes one more entry for this inode.
    Link(u64, Name<'a>),
    /// Opens a file with the flags of open(2).
    Open(OFlags),
    /// Makes and opens a file.
    Create(Name<'a>, OFlags, u32),
    /// Reads an open file.
    Read(abi::fuse_read_in),
    /// Writes to an open file.
    Write(abi::fuse_write_in, &'a [u8]),
    /// Closes an open file or directory.
    Release(u64),
    /// Brings an open file, or directory, to the disk.
    Fsync(abi::fuse_fsync_in),
    /// Allocates or frees blocks of an open file.
    Fallocate(abi::fuse_fallocate_in),
    /// Looks for data or holes in an open file.
    Lseek(abi::fuse_lseek_in),
    /// Copies from one open file to another.
    CopyFileRange(abi::fuse_copy_file_range_in),
    /// Opens a directory.
    OpenDir,
    /// Reads entries of an open directory; with attributes if the second part is true.
    ReadDir(abi::fuse_read_in, bool),
    /// Describes the file system.
    StatFs,
    /// Brings the file system to the disk.
    SyncFs,
}

impl Request<'_> {
    /// Returns whether the request is for a change that a read-only directory refuses.
    pub fn modifies(&self) -> bool {
        match self {
            Request::SetAttr(..)
            | Request::SymLink(..)
            | Request::MkNod(..)
            | Request::MkDir(..)
            | Request::Unlink(..)
            | Request::RmDir(..)
            | Request::Rename { .. }
            | Request::Link(..)
            | Request::Create(..)
            | Request::Write(..)
            | Request::Fallocate(..)
            | Request::CopyFileRange(..) => true,
            Request::Open(flags) => {
                flags.contains(OFlags::TRUNC)
                    || flags.intersection(OFlags::RWMODE) != OFlags::RDONLY
            }
            Request::Init(..)
            | Request::Destroy
            | Request::Lookup(..)
            | Request::Forget(..)
            | Request::BatchForget(..)
            | Request::GetAttr(..)
            | Request::ReadLink
            | Request::Read(..)
            | Request::Release(..)
            | Request::Fsync(..)
            | Request::Lseek(..)
            | Request::OpenDir
            | Request::ReadDir(..)
            | Request::StatFs
            | Request::SyncFs => false,
        }
    }
}
