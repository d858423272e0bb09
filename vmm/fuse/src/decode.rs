//! Decoding of requests.
//!
//! Whatever the bytes are, the result is a [`Request`] or an error; nothing is read beyond the length that the header says.

use std::ffi::CStr;

use fuse_abi::linux as abi;
use rustix::fs::OFlags;
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::name::Name;
use crate::op;
use crate::request::{Header, Request};

/// Bytes of a request's header.
const HEADER: usize = size_of::<abi::fuse_in_header>();

/// Decodes the header of a request; `None` if `bytes` do not begin with one.
pub fn header(bytes: &[u8]) -> Option<Header> {
    let (header, _) = abi::fuse_in_header::read_from_prefix(bytes).ok()?;
    Some(Header {
        unique: header.unique,
        node: header.nodeid,
        uid: header.uid,
        gid: header.gid,
    })
}

/// Returns whether the request that begins with `bytes` wants no reply: forgetting and interrupting never do.
pub fn is_silent(bytes: &[u8]) -> bool {
    let Ok((header, _)) = abi::fuse_in_header::read_from_prefix(bytes) else {
        return true;
    };
    matches!(header.opcode, op::FORGET | op::BATCH_FORGET | op::INTERRUPT)
}

/// Decodes a request: header and arguments.
///
/// # Errors
///
/// EINVAL if the request is malformed, ENOSYS if its operation is unknown or not offered. (Linux asks no second time for an
/// operation that is answered by ENOSYS, and does without.)
pub fn request(bytes: &[u8]) -> Result<Request<'_>, Errno> {
    let (header, _) = abi::fuse_in_header::read_from_prefix(bytes).map_err(|_| Errno::INVAL)?;
    let len = header.len as usize;
    // Extensions follow the arguments; none is asked for.
    let end = len.checked_sub(8 * usize::from(header.total_extlen));
    let mut args = Arguments(
        bytes
            .get(HEADER..end.ok_or(Errno::INVAL)?)
            .ok_or(Errno::INVAL)?,
    );
    operation(header.opcode, &mut args)
}

/// Decodes the arguments of operation `opcode`.
fn operation<'a>(opcode: u32, args: &mut Arguments<'a>) -> Result<Request<'a>, Errno> {
    Ok(match opcode {
        op::INIT => Request::Init(args.init()?),
        op::DESTROY => Request::Destroy,
        op::LOOKUP => Request::Lookup(args.name()?),
        op::FORGET => Request::Forget(args.take::<abi::fuse_forget_in>()?.nlookup),
        op::BATCH_FORGET => Request::BatchForget(args.forgets()?),
        op::GETATTR => Request::GetAttr(args.getattr()?),
        op::SETATTR => Request::SetAttr(args.take()?),
        op::READLINK => Request::ReadLink,
        op::SYMLINK => Request::SymLink(args.name()?, args.string()?),
        op::MKNOD => {
            let how = args.take()?;
            Request::MkNod(args.name()?, how)
        }
        op::MKDIR => {
            let mode = args.take::<abi::fuse_mkdir_in>()?.mode;
            Request::MkDir(args.name()?, mode)
        }
        op::UNLINK => Request::Unlink(args.name()?),
        op::RMDIR => Request::RmDir(args.name()?),
        op::RENAME => {
            let new_dir = args.take()?;
            args.rename(new_dir, 0)?
        }
        op::RENAME2 => {
            let how = args.take::<abi::fuse_rename2_in>()?;
            args.rename(how.newdir, how.flags)?
        }
        op::LINK => {
            let node = args.take::<abi::fuse_link_in>()?.oldnodeid;
            Request::Link(node, args.name()?)
        }
        op::OPEN => Request::Open(flags(args.take::<abi::fuse_open_in>()?.flags)),
        op::CREATE => {
            let how = args.take::<abi::fuse_create_in>()?;
            Request::Create(args.name()?, flags(how.flags), how.mode)
        }
        op::READ => Request::Read(args.take()?),
        op::WRITE => {
            let how = args.take::<abi::fuse_write_in>()?;
            let data = args.0.get(..how.size as usize).ok_or(Errno::INVAL)?;
            Request::Write(how, data)
        }
        op::RELEASE | op::RELEASEDIR => Request::Release(args.take::<abi::fuse_release_in>()?.fh),
        op::FSYNC | op::FSYNCDIR => Request::Fsync(args.take()?),
        op::FALLOCATE => Request::Fallocate(args.take()?),
        op::LSEEK => Request::Lseek(args.take()?),
        op::COPY_FILE_RANGE => Request::CopyFileRange(args.take()?),
        op::OPENDIR => Request::OpenDir,
        op::READDIR => Request::ReadDir(args.take()?, false),
        op::READDIRPLUS => Request::ReadDir(args.take()?, true),
        op::STATFS => Request::StatFs,
        op::SYNCFS => Request::SyncFs,
        _ => return Err(Errno::NOSYS),
    })
}

/// Returns the flags of open(2) in `flags`, which x86 and x86-64 encode alike.
fn flags(flags: u32) -> OFlags {
    OFlags::from_bits_retain(flags)
}

/// Arguments that are left to decode.
struct Arguments<'a>(&'a [u8]);

impl<'a> Arguments<'a> {
    /// Takes a structure.
    fn take<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Result<T, Errno> {
        let (value, rest) = T::read_from_prefix(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = rest;
        Ok(value)
    }

    /// Takes a string and the zero after it.
    fn string(&mut self) -> Result<&'a CStr, Errno> {
        let string = CStr::from_bytes_until_nul(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = &self.0[string.count_bytes() + 1..];
        Ok(string)
    }

    /// Takes the name of an entry.
    fn name(&mut self) -> Result<Name<'a>, Errno> {
        Name::new(self.string()?)
    }

    /// Takes the arguments of INIT, which are shorter before protocol 7.36.
    fn init(&mut self) -> Result<abi::fuse_init_in, Errno> {
        let mut padded = [0; size_of::<abi::fuse_init_in>()];
        let given = self.0.len().min(padded.len());
        if given < 16 {
            return Err(Errno::INVAL);
        }
        padded[..given].copy_from_slice(&self.0[..given]);
        abi::fuse_init_in::read_from_bytes(&padded).map_err(|_| Errno::INVAL)
    }

    /// Takes the arguments of GETATTR: an open file, if there is one.
    fn getattr(&mut self) -> Result<Option<u64>, Errno> {
        let how = self.take::<abi::fuse_getattr_in>()?;
        Ok((how.getattr_flags & abi::FUSE_GETATTR_FH != 0).then_some(how.fh))
    }

    /// Takes the two names of a rename.
    fn rename(&mut self, new_dir: u64, flags: u32) -> Result<Request<'a>, Errno> {
        Ok(Request::Rename {
            name: self.name()?,
            new_dir,
            new_name: self.name()?,
            flags,
        })
    }

    /// Takes the inodes of a BATCH_FORGET.
    fn forgets(&mut self) -> Result<Vec<abi::fuse_forget_one>, Errno> {
        let count = self.take::<abi::fuse_batch_forget_in>()?.count as usize;
        let size = size_of::<abi::fuse_forget_one>();
        if self.0.len() / size < count {
            return Err(Errno::INVAL);
        }
        (0..count).map(|_| self.take()).collect()
    }
}
