//! [`Ordered`]: an image file whose L1 table leads to nothing that the refcounts in the file do not count.
//!
//! imago writes an entry of a qcow2 image's L1 table at once, but the refcount of the L2 table that it leads to later, with the
//! other refcounts. Were the process killed in between, the cluster would be in use and not counted, and given away again by the
//! next who writes to the image. So these entries wait for the flush, in which they follow the refcounts. A crash leaves clusters
//! that are counted and not used, as a power cut does.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use imago::{
    Storage, StorageOpenOptions,
    file::File as Stored,
    io_buffers::{IoVector, IoVectorMut},
    storage::{PreallocateMode, drivers::CommonStorageHelper},
};
use parking_lot::Mutex;

/// An image file in imago's hands.
#[derive(Debug)]
pub struct Ordered {
    stored: Stored,
    file: File,
    l1_table: Range<u64>,
    /// The writes to the L1 table that wait, by offset.
    waiting: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl Ordered {
    /// Takes an open file, in which an L1 table is at `l1_table`, empty if there is none that is written.
    ///
    /// # Errors
    /// If the host refuses another descriptor of the file, or to tell its size.
    pub fn new(file: File, options: StorageOpenOptions, l1_table: Range<u64>) -> io::Result<Self> {
        Ok(Self {
            l1_table,
            file: file.try_clone()?,
            stored: Stored::from_open_file(file, options)?,
            waiting: Mutex::default(),
        })
    }
}

impl Display for Ordered {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.stored.fmt(f)
    }
}

impl Storage for Ordered {
    fn mem_align(&self) -> usize {
        self.stored.mem_align()
    }

    fn req_align(&self) -> usize {
        self.stored.req_align()
    }

    fn zero_align(&self) -> usize {
        self.stored.zero_align()
    }

    fn discard_align(&self) -> usize {
        self.stored.discard_align()
    }

    fn size(&self) -> io::Result<u64> {
        self.stored.size()
    }

    fn resolve_relative_path<P: AsRef<Path>>(&self, relative: P) -> io::Result<PathBuf> {
        self.stored.resolve_relative_path(relative)
    }

    fn get_filename(&self) -> Option<PathBuf> {
        self.stored.get_filename()
    }

    unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        // SAFETY: the caller has promised the same.
        unsafe { self.stored.pure_readv(bufv, offset) }
    }

    unsafe fn pure_writev(&self, bufv: IoVector<'_>, offset: u64) -> io::Result<()> {
        if self.l1_table.contains(&offset) {
            let mut bytes = vec![0; bufv.len() as usize];
            bufv.copy_into_slice(&mut bytes);
            self.waiting.lock().insert(offset, bytes);
            return Ok(());
        }
        // SAFETY: the caller has promised the same.
        unsafe { self.stored.pure_writev(bufv, offset) }
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        // SAFETY: the caller has promised the same.
        unsafe { self.stored.pure_write_zeroes(offset, length) }
    }

    unsafe fn pure_write_allocated_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        // SAFETY: the caller has promised the same.
        unsafe { self.stored.pure_write_allocated_zeroes(offset, length) }
    }

    unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        // SAFETY: the caller has promised the same.
        unsafe { self.stored.pure_discard(offset, length) }
    }

    /// Imago calls this once it has written refcounts and L2 tables.
    fn flush(&self) -> io::Result<()> {
        let mut waiting = self.waiting.lock();
        if !waiting.is_empty() {
            // What the entries lead to comes first, on stable storage too.
            self.stored.sync()?;
        }
        while let Some(entry) = waiting.first_entry() {
            self.file.write_all_at(entry.get(), *entry.key())?;
            entry.remove();
        }
        self.stored.flush()
    }

    fn sync(&self) -> io::Result<()> {
        self.stored.sync()
    }

    fn settle_writes(&self) -> io::Result<()> {
        self.stored.settle_writes()
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        // SAFETY: the caller has promised the same.
        unsafe { self.stored.invalidate_cache() }
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        self.stored.get_storage_helper()
    }

    fn resize(&self, new_size: u64, mode: PreallocateMode) -> io::Result<()> {
        self.stored.resize(new_size, mode)
    }
}
