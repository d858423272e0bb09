//! The session and the file system as a whole.

use fuse_abi::linux as abi;
use rustix::fs;
use rustix::io::Errno;

use super::Server;
use crate::cache::Cache;
use crate::reply::Reply;

/// Most pages of 4 KiB that a request reads or writes.
const MAX_PAGES: u16 = 256;

/// Oldest minor version of the protocol that is spoken: Linux 5.4, the first with virtio-fs.
const OLDEST: u32 = 31;

/// Features asked for in any case.
///
/// Not asked for, so that the guest's kernel does them itself: locks, umask, clearing of setuid bits when a file is written.
const FEATURES: u32 = abi::FUSE_ASYNC_READ
    | abi::FUSE_ATOMIC_O_TRUNC
    | abi::FUSE_BIG_WRITES
    | abi::FUSE_DO_READDIRPLUS
    | abi::FUSE_READDIRPLUS_AUTO
    | abi::FUSE_PARALLEL_DIROPS
    | abi::FUSE_MAX_PAGES;

impl Server {
    /// Agrees on version and features. Whatever was known or open before is gone.
    pub(super) fn init(
        &mut self,
        offer: &abi::fuse_init_in,
        reply: &mut Reply<'_>,
    ) -> Result<(), Errno> {
        if offer.major < abi::FUSE_KERNEL_VERSION
            || (offer.major == abi::FUSE_KERNEL_VERSION && offer.minor < OLDEST)
        {
            return Err(Errno::PROTO);
        }
        self.reset();
        let wanted = match self.config.cache {
            Cache::None => FEATURES,
            Cache::Auto => FEATURES | abi::FUSE_AUTO_INVAL_DATA,
            Cache::Always => FEATURES | abi::FUSE_CACHE_SYMLINKS,
        };
        reply.value(&abi::fuse_init_out {
            major: abi::FUSE_KERNEL_VERSION,
            minor: abi::FUSE_KERNEL_MINOR_VERSION,
            max_readahead: offer.max_readahead,
            flags: offer.flags & wanted,
            max_background: 64,
            congestion_threshold: 48,
            max_write: u32::from(MAX_PAGES) * 4096,
            time_gran: 1,
            max_pages: MAX_PAGES,
            map_alignment: 0,
            flags2: 0,
            max_stack_depth: 0,
            unused: [0; 6],
        })
    }

    /// Describes the file system that an inode is on.
    pub(super) fn stat_fs(&mut self, node: u64, reply: &mut Reply<'_>) -> Result<(), Errno> {
        let stat = fs::fstatvfs(self.inodes.file(&self.host, node)?)?;
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        reply.value(&abi::fuse_statfs_out {
            st: abi::fuse_kstatfs {
                blocks: stat.f_blocks,
                bfree: stat.f_bfree,
                bavail: stat.f_bavail,
                files: stat.f_files,
                ffree: stat.f_ffree,
                bsize: small(stat.f_bsize),
                namelen: small(stat.f_namemax),
                frsize: small(stat.f_frsize),
                ..Default::default()
            },
        })
    }
}
