//! The refcounts of a qcow2 image (QEMU, docs/interop/qcow2.txt), checked before a guest may write to it.
//!
//! imago takes them as they are: its allocator would recurse without bound where a cluster is in use that no refcount block covers,
//! and whoever could write to a cluster that is data and a table at once would write the tables. So an image is only written if
//! each cluster is counted at least as often as header, tables and data use it, and is marked as having one user only if it has
//! one. Clusters that are counted and not used, as a crash leaves them, do no harm.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt as _};

/// The most bytes of tables that are read: an image of 1.6 TiB in clusters of 64 KiB has as many.
const MOST_TABLES: u64 = 256 << 20;

/// The offset in an entry of an L1 or L2 table, or of the refcount table.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Whether the cluster that an entry leads to has no other user.
const COPIED: u64 = 1 << 63;
/// Whether an entry of an L2 table leads to compressed data.
const COMPRESSED: u64 = 1 << 62;

/// The length of the header as far as it is read.
pub(super) const HEADER: usize = 104;
/// The bits of a cluster's size.
pub(super) const CLUSTER_BITS: Range<u32> = 9..22;
/// The first bytes of an image.
pub(super) const MAGIC: [u8; 4] = *b"QFI\xfb";
/// The log2 of a refcount's width in version 2, and the largest in version 3.
const VERSION_2_ORDER: u32 = 4;
const LARGEST_ORDER: u32 = 6;

/// The parts of a header that lead to the tables.
struct Header {
    cluster_bits: u32,
    /// The size of the disk.
    size: u64,
    l1_entries: u64,
    l1_offset: u64,
    table_offset: u64,
    table_clusters: u64,
    /// The log2 of the width of a refcount in bits.
    order: u32,
}

/// A walk through an image's tables.
struct Walk<'a> {
    file: &'a File,
    header: Header,
    /// The refcount table.
    table: Vec<u64>,
    /// The refcount blocks that have been read.
    blocks: Vec<Option<Block>>,
    /// Bytes of tables that may still be read.
    budget: u64,
}

/// A refcount block.
struct Block {
    counts: Vec<u8>,
    /// How often each of its clusters has been found in use.
    used: Vec<u16>,
}

/// Checks the image in `file`, and returns the place of its L1 table. One that imago refuses by its header passes, with none.
///
/// # Errors
/// If the image must not be written, or cannot be read.
pub fn check(file: &File) -> io::Result<Range<u64>> {
    let Some(header) = Header::read(file)? else {
        return Ok(0..0);
    };
    if header.l1_entries < header.needed_l1_entries() {
        return Err(invalid("its L1 table is too small for its size"));
    }
    let l1_table = header.l1_offset..header.l1_offset.saturating_add(8 * header.l1_entries);
    Walk::new(file, header)?.all()?;
    Ok(l1_table)
}

impl Header {
    /// Reads a header, if it is one that imago accepts so far.
    fn read(file: &File) -> io::Result<Option<Self>> {
        let bytes = read(file, 0, HEADER)?;
        let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| bytes[at + byte]));
        let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        let version = word(4);
        let (features, order) = match version {
            2 => (0, VERSION_2_ORDER),
            _ => (long(72), word(96)),
        };
        let header = Self {
            cluster_bits: word(20),
            size: long(24),
            l1_entries: word(36).into(),
            l1_offset: long(40),
            table_offset: long(48),
            table_clusters: word(56).into(),
            order,
        };
        let known = bytes.starts_with(&MAGIC)
            && matches!(version, 2 | 3)
            && features == 0
            && CLUSTER_BITS.contains(&header.cluster_bits)
            && order <= LARGEST_ORDER;
        Ok(known.then_some(header))
    }

    fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The entries of an L1 table that reaches the end of the disk.
    fn needed_l1_entries(&self) -> u64 {
        // An L2 table is a cluster of entries of 8 bytes, each of which leads to a cluster.
        self.size.div_ceil(1 << (2 * self.cluster_bits - 3))
    }

    /// The number of refcounts in a block.
    fn block_entries(&self) -> u64 {
        (self.cluster_size() * 8) >> self.order
    }

    /// The clusters that `len` bytes from `offset` on touch.
    fn clusters(&self, offset: u64, len: u64) -> Range<u64> {
        let end = offset.saturating_add(len).div_ceil(self.cluster_size());
        offset >> self.cluster_bits..end
    }
}

impl<'a> Walk<'a> {
    fn new(file: &'a File, header: Header) -> io::Result<Self> {
        let mut walk = Self {
            file,
            header,
            table: Vec::new(),
            blocks: Vec::new(),
            budget: MOST_TABLES,
        };
        let len = walk.header.table_clusters << walk.header.cluster_bits;
        walk.table = walk.entries(walk.header.table_offset, len)?;
        walk.blocks.resize_with(walk.table.len(), || None);
        Ok(walk)
    }

    /// Finds all uses of clusters.
    fn all(mut self) -> io::Result<()> {
        self.count(0, false)?;
        let table = self.table.clone();
        let table_len = table.len() as u64 * 8;
        self.count_range(self.header.table_offset, table_len)?;
        for entry in table.into_iter().filter(|entry| *entry != 0) {
            self.count(self.cluster(entry)?, false)?;
        }
        let l1_len = self.header.l1_entries * 8;
        self.count_range(self.header.l1_offset, l1_len)?;
        for entry in self.entries(self.header.l1_offset, l1_len)? {
            if entry & OFFSET != 0 {
                let cluster = self.cluster(entry)?;
                self.count(cluster, entry & COPIED != 0)?;
                self.count_data(cluster)?;
            }
        }
        Ok(())
    }

    /// Finds the clusters that the L2 table in `cluster` leads to.
    fn count_data(&mut self, cluster: u64) -> io::Result<()> {
        let size = self.header.cluster_size();
        for entry in self.entries(cluster << self.header.cluster_bits, size)? {
            if entry & COMPRESSED != 0 {
                let bits = 62 - (self.header.cluster_bits - 8);
                let offset = entry & ((1 << bits) - 1);
                let sectors = (entry & !COPIED & !COMPRESSED) >> bits;
                self.count_range(offset, (sectors + 1) * 512 - offset % 512)?;
            } else if entry & OFFSET != 0 {
                self.count(self.cluster(entry)?, entry & COPIED != 0)?;
            }
        }
        Ok(())
    }

    fn count_range(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.header
            .clusters(offset, len)
            .try_for_each(|cluster| self.count(cluster, false))
    }

    /// Counts one more use of `cluster`; if it is `alone`, there must be no other.
    fn count(&mut self, cluster: u64, alone: bool) -> io::Result<()> {
        let entries = self.header.block_entries();
        let order = self.header.order;
        let at = (cluster % entries) as usize;
        let block = self.block(cluster / entries)?;
        let known = block.is_some_and(|block| block.count(at, order, alone));
        match known {
            true => Ok(()),
            false => Err(invalid(&format!(
                "the refcount of cluster {cluster} is wrong; qemu-img check -r all corrects it"
            ))),
        }
    }

    /// The refcount block with this number, if there is one.
    fn block(&mut self, number: u64) -> io::Result<Option<&mut Block>> {
        let Ok(number) = usize::try_from(number) else {
            return Ok(None);
        };
        let Some(&entry) = self.table.get(number).filter(|entry| **entry != 0) else {
            return Ok(None);
        };
        if self.blocks[number].is_none() {
            let offset = self.cluster(entry)? << self.header.cluster_bits;
            let counts = self.read(offset, self.header.cluster_size())?;
            let used = vec![0; self.header.block_entries() as usize];
            self.blocks[number] = Some(Block { counts, used });
        }
        Ok(self.blocks[number].as_mut())
    }

    /// The cluster that an entry leads to.
    fn cluster(&self, entry: u64) -> io::Result<u64> {
        let offset = entry & OFFSET;
        match offset.is_multiple_of(self.header.cluster_size()) {
            true => Ok(offset >> self.header.cluster_bits),
            false => Err(invalid("an entry of its tables is misaligned")),
        }
    }

    /// Reads a table of entries.
    fn entries(&mut self, offset: u64, len: u64) -> io::Result<Vec<u64>> {
        let bytes = self.read(offset, len)?;
        let (entries, _) = bytes.as_chunks();
        Ok(entries
            .iter()
            .map(|entry| u64::from_be_bytes(*entry))
            .collect())
    }

    fn read(&mut self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let Some(budget) = self.budget.checked_sub(len) else {
            let most = MOST_TABLES >> 20;
            return Err(invalid(&format!("more than {most} MiB of tables")));
        };
        self.budget = budget;
        read(self.file, offset, len as usize)
    }
}

impl Block {
    /// Counts one more use of the cluster that is number `at` of the block, and returns whether it is among those that the
    /// refcount knows.
    fn count(&mut self, at: usize, order: u32, alone: bool) -> bool {
        let used = self.used[at].saturating_add(1);
        self.used[at] = used;
        let known = self.refcount(at, order);
        u64::from(used) <= known && used < u16::MAX && (!alone || known == 1)
    }

    fn refcount(&self, at: usize, order: u32) -> u64 {
        if order < 3 {
            // Several in a byte, the first in the lowest bits.
            let bits = at << order;
            let width = 1 << order;
            return u64::from(self.counts[bits / 8] >> (bits % 8)) & ((1 << width) - 1);
        }
        let len = 1 << (order - 3);
        let bytes = &self.counts[at * len..(at + 1) * len];
        bytes
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
}

/// Reads `len` bytes at `offset`, zeroes where there are none.
pub(super) fn read(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

pub(super) fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
