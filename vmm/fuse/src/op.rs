//! Operation codes (Linux `include/uapi/linux/fuse.h`, `enum fuse_opcode`) as the integers that requests carry.

use fuse_abi::linux::fuse_opcode as Opcode;

pub const BATCH_FORGET: u32 = Opcode::FUSE_BATCH_FORGET as u32;
pub const COPY_FILE_RANGE: u32 = Opcode::FUSE_COPY_FILE_RANGE as u32;
pub const CREATE: u32 = Opcode::FUSE_CREATE as u32;
pub const DESTROY: u32 = Opcode::FUSE_DESTROY as u32;
pub const FALLOCATE: u32 = Opcode::FUSE_FALLOCATE as u32;
pub const FORGET: u32 = Opcode::FUSE_FORGET as u32;
pub const FSYNC: u32 = Opcode::FUSE_FSYNC as u32;
pub const FSYNCDIR: u32 = Opcode::FUSE_FSYNCDIR as u32;
pub const GETATTR: u32 = Opcode::FUSE_GETATTR as u32;
pub const INIT: u32 = Opcode::FUSE_INIT as u32;
pub const INTERRUPT: u32 = Opcode::FUSE_INTERRUPT as u32;
pub const LINK: u32 = Opcode::FUSE_LINK as u32;
pub const LOOKUP: u32 = Opcode::FUSE_LOOKUP as u32;
pub const LSEEK: u32 = Opcode::FUSE_LSEEK as u32;
pub const MKDIR: u32 = Opcode::FUSE_MKDIR as u32;
pub const MKNOD: u32 = Opcode::FUSE_MKNOD as u32;
pub const OPEN: u32 = Opcode::FUSE_OPEN as u32;
pub const OPENDIR: u32 = Opcode::FUSE_OPENDIR as u32;
pub const READ: u32 = Opcode::FUSE_READ as u32;
pub const READDIR: u32 = Opcode::FUSE_READDIR as u32;
pub const READDIRPLUS: u32 = Opcode::FUSE_READDIRPLUS as u32;
pub const READLINK: u32 = Opcode::FUSE_READLINK as u32;
pub const RELEASE: u32 = Opcode::FUSE_RELEASE as u32;
pub const RELEASEDIR: u32 = Opcode::FUSE_RELEASEDIR as u32;
pub const RENAME: u32 = Opcode::FUSE_RENAME as u32;
pub const RENAME2: u32 = Opcode::FUSE_RENAME2 as u32;
pub const RMDIR: u32 = Opcode::FUSE_RMDIR as u32;
pub const SETATTR: u32 = Opcode::FUSE_SETATTR as u32;
pub const STATFS: u32 = Opcode::FUSE_STATFS as u32;
pub const SYMLINK: u32 = Opcode::FUSE_SYMLINK as u32;
pub const SYNCFS: u32 = Opcode::FUSE_SYNCFS as u32;
pub const UNLINK: u32 = Opcode::FUSE_UNLINK as u32;
pub const WRITE: u32 = Opcode::FUSE_WRITE as u32;
