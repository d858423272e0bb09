//! Reading of directories.

use std::ffi::CStr;
use std::mem::MaybeUninit;

use fuse_abi::linux as abi;
use rustix::fs::{self, FileType, OFlags, RawDir, RawDirEntry, SeekFrom};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::Server;
use super::attributes::stat;
use super::entries::enter;
use crate::cache::Cache;
use crate::name::Name;
use crate::reply::Reply;

/// Bytes of entries that are read from the host at a time.
const CHUNK: usize = 16 << 10;

impl Server {
    /// Opens a directory.
    pub(super) fn open_directory(&mut self, node: u64, reply: &mut Reply<'_>) -> Result<(), Errno> {
        self.handles.check_room()?;
        if self.inodes.kind(node)? != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        let file = self.inodes.file(&self.host, node)?;
        let dir = self.host.reopen(file, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let flags = match self.config.cache {
            Cache::Always => abi::FOPEN_KEEP_CACHE | abi::FOPEN_CACHE_DIR,
            Cache::Auto | Cache::None => 0,
        };
        self.reply_open(dir, flags, reply)
    }

    /// Reads entries from `what.offset` on, as many as there is room for. With `plus`, each counts as looked up.
    pub(super) fn read_directory(
        &mut self,
        node: u64,
        what: &abi::fuse_read_in,
        plus: bool,
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        let dir = self.handles.get(what.fh)?;
        fs::seek(dir, SeekFrom::Start(what.offset))?;
        let mut room = reply.room().min(what.size as usize);
        let mut buffer = [MaybeUninit::uninit(); CHUNK];
        let mut entries = RawDir::new(dir, &mut buffer);
        let mut any = false;
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(_) if any => break,
                Err(error) => return Err(error),
            };
            let attributes = if plus {
                size_of::<abi::fuse_entry_out>()
            } else {
                0
            };
            let size = attributes + dirent_size(entry.file_name());
            if size > room {
                break;
            }
            room -= size;
            any = true;
            let mut found = None;
            if plus {
                // An entry that cannot be looked up now is told without attributes, as are "." and "..".
                let entered = Name::new(entry.file_name()).and_then(|name| {
                    let file = self.host.find(dir, name)?;
                    let stat = stat(&self.host, &self.config, &file)?;
                    enter(&mut self.inodes, &self.config, file, &stat, (node, name))
                });
                found = entered.ok();
                reply.value(&found.unwrap_or_default())?;
            }
            let kind = match found {
                Some(found) => FileType::from_raw_mode(found.attr.mode),
                None => self.kind(dir, &entry),
            };
            append(&entry, kind, reply)?;
        }
        Ok(())
    }
}

/// Returns the bytes that an entry takes: 24, the name, and up to 7 so that the next one is aligned.
fn dirent_size(name: &CStr) -> usize {
    (24 + name.count_bytes()).next_multiple_of(8)
}

/// Appends an entry of a kind.
fn append(entry: &RawDirEntry<'_>, kind: FileType, reply: &mut Reply<'_>) -> Result<(), Errno> {
    let name = entry.file_name().to_bytes();
    // As `struct fuse_dirent` begins.
    let numbers = [entry.ino(), entry.next_entry_cookie()];
    let length = u32::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?;
    let kind = match kind {
        FileType::Unknown => 0,
        kind => kind.as_raw_mode() >> 12,
    };
    let padding = dirent_size(entry.file_name()) - 24 - name.len();
    reply.value(&numbers)?;
    reply.bytes([length, kind].as_bytes())?;
    reply.bytes(name)?;
    reply.bytes(&[0; 7][..padding])
}
