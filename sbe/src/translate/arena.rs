//! [`Arena`]: memory for emitted code, one memfd mapped twice, once to be written and once to be executed.
//!
//! ```text
//!   memfd ──┬── read/write mapping   `append`, `patch`
//!           └── read/execute mapping `address_of`, what the processor runs
//! ```
//!
//! Hot code, which usually executes, lies in the lower half, cold code in the upper.
//!
//! No mapping is ever writable and executable. Code written through one alias is executed through the other on the same
//! thread only after a serializing instruction (SDM Vol. 3A, 8.1.3 "Handling Self- and Cross-Modifying Code"): see
//! [`Arena::publish`].

use crate::serialize::serialize;
use mmu::{Mapping, Protection, memfd};
use std::io;
use std::ops::{Range, RangeInclusive};

/// The sizes, in bytes, that a code cache can have: branches span it with 32-bit displacements.
pub const CODE_CACHES: RangeInclusive<usize> = 1 << 20..=1 << 30;

/// Memory that holds all emitted code of one processor.
pub struct Arena {
    writable: Mapping,
    executable: Mapping,
    /// Offsets at which the next code of each half goes.
    next: [usize; 2],
    /// Offsets of the halves' ends.
    ends: [usize; 2],
    /// Something was written since the last serializing instruction.
    unpublished: bool,
}

impl Arena {
    /// Creates an empty arena for `bytes` bytes of code.
    ///
    /// # Errors
    /// The host's, where it grants no memory; a size that is not one of [`CODE_CACHES`].
    pub fn new(bytes: usize) -> io::Result<Self> {
        if !CODE_CACHES.contains(&bytes) {
            let what = format!(
                "a code cache has {} to {} bytes",
                CODE_CACHES.start(),
                CODE_CACHES.end()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let file = memfd::create(c"replex-code", bytes as u64)?;
        let writable = Mapping::of_file(&file, bytes, Protection::ReadWrite)?;
        let executable = Mapping::of_file(&file, bytes, Protection::ReadExecute)?;
        let ends = [bytes / 2, bytes];
        Ok(Self {
            writable,
            executable,
            next: [0, ends[0]],
            ends,
            unpublished: false,
        })
    }

    /// The host address at which the byte at `offset` executes.
    pub fn address_of(&self, offset: u32) -> u64 {
        self.executable.start().as_ptr().expose_provenance() as u64 + u64::from(offset)
    }

    /// The host addresses at which code executes.
    pub fn addresses(&self) -> Range<u64> {
        self.address_of(0)..self.address_of(self.ends[1] as u32)
    }

    /// The arena offsets at which the next code of each half goes.
    pub fn next(&self) -> [u32; 2] {
        self.next.map(|next| next as u32)
    }

    /// The number of bytes of code that the arena holds.
    pub fn used(&self) -> usize {
        self.next[0] + self.next[1] - self.ends[0]
    }

    /// The part of the fuller half that is in use, in hundredths.
    pub fn percent_used(&self) -> usize {
        let [hot, cold] = [self.next[0], self.next[1] - self.ends[0]];
        100 * hot.max(cold) / self.ends[0]
    }

    /// Appends code to both halves, which must have been encoded for [`Self::next`]. Returns whether it fitted.
    pub fn append(&mut self, code: [&[u8]; 2]) -> bool {
        let fits = (0..2).all(|half| code[half].len() <= self.ends[half] - self.next[half]);
        if fits {
            for (half, bytes) in code.into_iter().enumerate() {
                self.write(self.next[half], bytes);
                self.next[half] += bytes.len();
            }
        }
        fits
    }

    /// Replaces four bytes of code.
    pub fn patch(&mut self, offset: u32, value: i32) {
        self.write(offset as usize, &value.to_le_bytes());
    }

    /// Replaces eight bytes of code.
    pub fn patch64(&mut self, offset: u32, value: u64) {
        self.write(offset as usize, &value.to_le_bytes());
    }

    /// Copies the code at the arena offsets `range`.
    pub fn read(&self, range: Range<u32>) -> Vec<u8> {
        assert!(range.end as usize <= self.ends[1]);
        let mut bytes = vec![0; range.len()];
        // SAFETY: the range lies in the writable mapping, which only this value writes, and only through `&mut self`; no
        // reference to it exists.
        unsafe {
            let source = self.writable.start().add(range.start as usize);
            std::ptr::copy_nonoverlapping(source.as_ptr(), bytes.as_mut_ptr(), bytes.len());
        }
        bytes
    }

    /// Removes all code from the arena offsets `ends` on, one for each half.
    pub fn truncate(&mut self, ends: [u32; 2]) {
        self.next = ends.map(|end| end as usize);
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.ends[1]);
        // SAFETY: the range lies in the writable mapping, which only this value writes; no reference to it exists.
        unsafe {
            let target = self.writable.start().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.as_ptr(), bytes.len());
        }
        self.unpublished = true;
    }

    /// Makes the code written since the last call safe to execute on this thread.
    #[inline(always)]
    pub fn publish(&mut self) {
        if self.unpublished {
            serialize();
            self.unpublished = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1 << 20;

    #[test]
    fn code_goes_in_through_one_mapping_and_runs_through_the_other() {
        let mut arena = Arena::new(SIZE).expect("memory for code");
        // mov eax, 42; ret
        let [start, _] = arena.next();
        assert!(arena.append([&[0xb8, 42, 0, 0, 0, 0xc3], &[]]));
        arena.publish();
        // SAFETY: the address holds a complete function of the C ABI that touches EAX only.
        let function: extern "C" fn() -> u32 =
            unsafe { std::mem::transmute(arena.address_of(start) as *const ()) };
        assert_eq!(function(), 42);
        arena.patch(start + 1, 7);
        arena.publish();
        assert_eq!(function(), 7);
    }

    #[test]
    fn a_full_arena_takes_nothing() {
        let mut arena = Arena::new(SIZE).expect("memory for code");
        let empty = arena.next();
        assert!(arena.append([&vec![0; SIZE / 2], &[]]));
        assert!(!arena.append([&[0], &[]]));
        assert!(arena.append([&[], &vec![0; SIZE / 2]]));
        assert!(!arena.append([&[], &[0]]));
        assert_eq!(arena.used(), SIZE);
        arena.truncate(empty);
        assert_eq!(arena.used(), 0);
    }
}
