//! [`Mapping`]: the one owner of host mappings, and [`Atomics`]: large zeroed tables of atomics.
//!
//! A mapping hands out raw pointers only. So no change to its parts (protect, replace, discard) can break a reference, and the
//! methods are safe; whoever dereferences a pointer has to know what is mapped there. No mapping is ever writable and
//! executable: [`Protection`] has no such value.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU8, AtomicU64};

use nix::libc::{c_void, off_t};
use nix::sys::mman::{
    MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap,
};

use crate::addr::PAGE_SIZE;

/// The accesses that the host's processor may make to mapped memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protection {
    /// No access: reserved address space.
    None,
    /// Reads.
    Read,
    /// Reads and writes.
    ReadWrite,
    /// Reads and instruction fetches.
    ReadExecute,
}

impl Protection {
    fn flags(self) -> ProtFlags {
        match self {
            Self::None => ProtFlags::PROT_NONE,
            Self::Read => ProtFlags::PROT_READ,
            Self::ReadWrite => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            Self::ReadExecute => ProtFlags::PROT_READ | ProtFlags::PROT_EXEC,
        }
    }
}

/// Flags of anonymous memory, which takes host memory where it is touched.
const ANONYMOUS: MapFlags = MapFlags::MAP_PRIVATE.union(MapFlags::MAP_NORESERVE);

/// Flags of the memory of a file, of which nothing is reserved.
const SHARED: MapFlags = MapFlags::MAP_SHARED.union(MapFlags::MAP_NORESERVE);

/// The owner of a range of host addresses and of everything mapped there, which it unmaps when dropped.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<c_void>,
    len: NonZeroUsize,
}

// SAFETY: the value owns its addresses, and neither they nor the host calls on them are tied to a thread.
unsafe impl Send for Mapping {}
// SAFETY: methods that take `&self` only compute addresses.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of zeroed private memory.
    ///
    /// # Errors
    /// The host's error if it grants no address space, or `InvalidInput` for a length of 0.
    pub fn anonymous(len: usize, protection: Protection) -> io::Result<Self> {
        Self::map(None, None, len, protection)
    }

    /// Maps as [`Self::anonymous`] does, at `start`.
    ///
    /// # Errors
    /// `AlreadyExists` if anything is mapped among these addresses; else as [`Self::anonymous`].
    pub(crate) fn anonymous_at(
        start: usize,
        len: usize,
        protection: Protection,
    ) -> io::Result<Self> {
        Self::map(Some(non_zero(start)?), None, len, protection)
    }

    /// Maps the first `len` bytes of `file`, shared with all other mappings of it.
    ///
    /// # Errors
    /// As [`Self::anonymous`].
    pub fn of_file(file: &File, len: usize, protection: Protection) -> io::Result<Self> {
        Self::map(None, Some(file), len, protection)
    }

    /// Maps as [`Self::of_file`] does, at `start`.
    ///
    /// # Errors
    /// As [`Self::anonymous_at`].
    pub(crate) fn of_file_at(
        start: usize,
        file: &File,
        len: usize,
        protection: Protection,
    ) -> io::Result<Self> {
        Self::map(Some(non_zero(start)?), Some(file), len, protection)
    }

    fn map(
        at: Option<NonZeroUsize>,
        file: Option<&File>,
        len: usize,
        protection: Protection,
    ) -> io::Result<Self> {
        let len = non_zero(len)?;
        let place = match at {
            Some(_) => MapFlags::MAP_FIXED_NOREPLACE,
            None => MapFlags::empty(),
        };
        let protection = protection.flags();
        // SAFETY: a new mapping at an address of the host's choice, or where there is none, affects no existing memory.
        let start = unsafe {
            match file {
                Some(file) => mmap(at, len, protection, SHARED | place, file, 0),
                None => mmap_anonymous(at, len, protection, ANONYMOUS | place),
            }
        }?;
        let mapping = Self { start, len };
        // Linux before 4.17 does not know the flag and maps it elsewhere.
        match at.is_none_or(|at| at == start.addr()) {
            true => Ok(mapping),
            false => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    /// Address of the first byte.
    #[inline(always)]
    pub fn start(&self) -> NonNull<u8> {
        self.start.cast()
    }

    /// Length in bytes.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.len.get()
    }

    /// Maps the bytes of `file` from `offset` on over the bytes `at` of the mapping. With `populate`, the host fills in its page
    /// tables at once.
    ///
    /// # Errors
    /// The host's error. The contents of `at` are then unspecified.
    ///
    /// # Panics
    /// If `at` is not within the mapping.
    pub fn map_file(
        &mut self,
        at: Range<usize>,
        file: &File,
        offset: u64,
        protection: Protection,
        populate: bool,
    ) -> io::Result<()> {
        let Some((address, len)) = self.part(&at) else {
            return Ok(());
        };
        let mut flags = SHARED | MapFlags::MAP_FIXED;
        flags.set(MapFlags::MAP_POPULATE, populate);
        // SAFETY: the range is this value's, and there are no references to its bytes that this could break.
        unsafe {
            mmap(
                Some(address),
                len,
                protection.flags(),
                flags,
                file,
                offset as off_t,
            )
        }?;
        Ok(())
    }

    /// Maps zeroed private memory over the bytes `at` of the mapping.
    ///
    /// # Errors
    /// As [`Self::map_file`].
    ///
    /// # Panics
    /// If `at` is not within the mapping.
    pub fn map_anonymous(&mut self, at: Range<usize>, protection: Protection) -> io::Result<()> {
        let Some((address, len)) = self.part(&at) else {
            return Ok(());
        };
        let flags = ANONYMOUS | MapFlags::MAP_FIXED;
        // SAFETY: as in `map_file`.
        unsafe { mmap_anonymous(Some(address), len, protection.flags(), flags) }?;
        Ok(())
    }

    /// Changes the protection of the bytes `at` of the mapping.
    ///
    /// # Errors
    /// The host's error.
    ///
    /// # Panics
    /// If `at` is not within the mapping.
    pub fn protect(&mut self, at: Range<usize>, protection: Protection) -> io::Result<()> {
        let Some((address, len)) = self.part(&at) else {
            return Ok(());
        };
        let start = pointer(address);
        // SAFETY: the range is this value's, and there are no references to its bytes.
        Ok(unsafe { mprotect(start, len.get(), protection.flags()) }?)
    }

    /// Gives the memory of the bytes `at`, which are private, back to the host, after which they read as zeros.
    ///
    /// # Errors
    /// The host's error.
    ///
    /// # Panics
    /// If `at` is not within the mapping.
    pub fn discard(&mut self, at: Range<usize>) -> io::Result<()> {
        self.advise(&at, MmapAdvise::MADV_DONTNEED)
    }

    /// Keeps the host from using huge pages, each of which takes 2 MiB for the first byte touched. Hosts without huge pages
    /// refuse, which does no harm.
    pub fn avoid_huge_pages(&mut self) {
        let _refused = self.advise(&(0..self.len()), MmapAdvise::MADV_NOHUGEPAGE);
    }

    fn advise(&mut self, at: &Range<usize>, advice: MmapAdvise) -> io::Result<()> {
        let Some((address, len)) = self.part(at) else {
            return Ok(());
        };
        // SAFETY: the range is this value's, there are no references to its bytes, and neither advice that is given here does
        // more than change private bytes to zero.
        Ok(unsafe { madvise(pointer(address), len.get(), advice) }?)
    }

    /// Address and length of the bytes `at`; `None` if there are none.
    fn part(&self, at: &Range<usize>) -> Option<(NonZeroUsize, NonZeroUsize)> {
        assert!(at.start <= at.end && at.end <= self.len());
        let len = NonZeroUsize::new(at.len())?;
        Some((self.start.addr().checked_add(at.start)?, len))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this value's, and nobody uses a pointer into it any more.
        let unmapped = unsafe { munmap(self.start, self.len()) };
        debug_assert!(unmapped.is_ok());
    }
}

fn non_zero(len: usize) -> io::Result<NonZeroUsize> {
    NonZeroUsize::new(len).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn pointer(address: NonZeroUsize) -> NonNull<c_void> {
    // The provenance is the mapping's, which the host calls do not ask for.
    NonNull::without_provenance(address)
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for std::sync::atomic::AtomicU8 {}
    impl Sealed for std::sync::atomic::AtomicU64 {}
}

/// An atomic integer whose value 0 is all zero bytes.
pub(crate) trait Atomic: sealed::Sealed + Sync {}

impl Atomic for AtomicU8 {}
impl Atomic for AtomicU64 {}

/// A table of atomics, all 0 at first, that takes host memory only where entries were set.
#[derive(Debug)]
pub(crate) struct Atomics<T> {
    mapping: Mapping,
    count: usize,
    entries: PhantomData<T>,
}

impl<T: Atomic> Atomics<T> {
    /// Creates a table of `count` zeros.
    ///
    /// # Errors
    /// The host's error if it grants no address space.
    pub(crate) fn new(count: usize) -> io::Result<Self> {
        let bytes = (count * size_of::<T>()).next_multiple_of(PAGE_SIZE);
        let mut mapping = Mapping::anonymous(bytes.max(PAGE_SIZE), Protection::ReadWrite)?;
        mapping.avoid_huge_pages();
        Ok(Self {
            mapping,
            count,
            entries: PhantomData,
        })
    }
}

impl<T: Atomic> Deref for Atomics<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: the mapping has room for `count` entries, is page-aligned, readable and writable, zeroed at first, and stays as
        // it is for the life of this value, which never changes it. T is an atomic integer, valid for all bytes (`Atomic` is
        // sealed).
        unsafe { slice::from_raw_parts(self.mapping.start().cast().as_ptr(), self.count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memfd;
    use std::sync::atomic::Ordering;

    fn read(mapping: &Mapping, at: usize) -> u8 {
        assert!(at < mapping.len());
        // SAFETY: the byte is mapped readable by the tests that ask for it.
        unsafe { mapping.start().add(at).read_volatile() }
    }

    fn write(mapping: &Mapping, at: usize, value: u8) {
        assert!(at < mapping.len());
        // SAFETY: the byte is mapped writable by the tests that ask for it.
        unsafe { mapping.start().add(at).write_volatile(value) }
    }

    #[test]
    fn parts_are_replaced_and_discarded() {
        let file = memfd::create(c"test", 2 * PAGE_SIZE as u64).unwrap();
        let whole = Mapping::of_file(&file, 2 * PAGE_SIZE, Protection::ReadWrite).unwrap();
        write(&whole, PAGE_SIZE, 7);
        let mut mapping = Mapping::anonymous(4 * PAGE_SIZE, Protection::ReadWrite).unwrap();
        write(&mapping, PAGE_SIZE, 1);
        let second = PAGE_SIZE..2 * PAGE_SIZE;
        mapping
            .map_file(
                second.clone(),
                &file,
                PAGE_SIZE as u64,
                Protection::Read,
                true,
            )
            .unwrap();
        assert_eq!(read(&mapping, PAGE_SIZE), 7);
        mapping
            .map_anonymous(second.clone(), Protection::ReadWrite)
            .unwrap();
        assert_eq!(read(&mapping, PAGE_SIZE), 0);
        write(&mapping, PAGE_SIZE, 2);
        mapping.discard(second).unwrap();
        assert_eq!(read(&mapping, PAGE_SIZE), 0);
        assert_eq!(read(&whole, PAGE_SIZE), 7);
    }

    #[test]
    fn nothing_is_mapped_for_an_empty_range() {
        assert!(Mapping::anonymous(0, Protection::None).is_err());
        let mut mapping = Mapping::anonymous(PAGE_SIZE, Protection::None).unwrap();
        assert!(mapping.protect(0..0, Protection::Read).is_ok());
    }

    #[test]
    #[should_panic = "at.end <= self.len()"]
    fn a_range_beyond_the_mapping_is_refused() {
        let mut mapping = Mapping::anonymous(PAGE_SIZE, Protection::None).unwrap();
        let _ = mapping.discard(0..2 * PAGE_SIZE);
    }

    #[test]
    fn tables_of_atomics_begin_with_zeros() {
        let table = Atomics::<AtomicU64>::new(1000).unwrap();
        assert_eq!(table.len(), 1000);
        table[999].store(5, Ordering::Relaxed);
        assert_eq!(table[999].load(Ordering::Relaxed), 5);
        assert_eq!(table[0].load(Ordering::Relaxed), 0);
        assert!(Atomics::<AtomicU8>::new(0).unwrap().is_empty());
    }
}
