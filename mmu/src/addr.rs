//! Address types: guest-virtual, guest-physical, and the page numbers of both.
//!
//! They cannot be mixed up and have no `+` or `&`: arithmetic goes through named methods that say what happens at the
//! end of the address space.

use std::fmt;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

/// Bytes of the smallest page and of a frame (SDM Vol. 3A, 4.3 32-Bit Paging).
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;

const OFFSET_MASK: u64 = PAGE_SIZE as u64 - 1;

/// A linear (guest-virtual) address: what segmentation yields and paging translates.
///
/// 64 bits are kept for later processors; a 32-bit guest sees the low 32 (SDM Vol. 3A, 3.4 Logical and Linear Addresses),
/// and every access of [`Mmu`](crate::Mmu) ignores the rest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LinearAddr(u64);

impl LinearAddr {
    /// The address `value`.
    #[inline]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The address as a number.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The 4 KiB page that holds the address, within the low 4 GiB.
    #[inline]
    pub const fn page(self) -> LinearPage {
        LinearPage(self.0 as u32 >> PAGE_SHIFT)
    }

    /// Byte offset in the 4 KiB page, 0..=4095.
    #[inline]
    pub const fn offset(self) -> u32 {
        (self.0 & OFFSET_MASK) as u32
    }

    /// The address `bytes` further, wrapping at 4 GiB as a 32-bit linear address does.
    #[inline]
    pub const fn wrapping_add32(self, bytes: u32) -> Self {
        Self((self.0 as u32).wrapping_add(bytes) as u64)
    }
}

impl From<u32> for LinearAddr {
    #[inline]
    fn from(value: u32) -> Self {
        Self(value.into())
    }
}

/// Number of a 4 KiB page of the 32-bit linear address space: always below 2^20.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinearPage(u32);

impl LinearPage {
    /// Pages in the 32-bit linear address space.
    pub const COUNT: usize = 1 << (32 - PAGE_SHIFT);

    /// The page number, below [`LinearPage::COUNT`].
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The page whose number is the low 20 bits of `number`.
    #[inline]
    pub(crate) const fn truncated(number: u32) -> Self {
        Self(number & (Self::COUNT as u32 - 1))
    }

    /// Address of the page's first byte.
    #[inline]
    pub const fn base(self) -> LinearAddr {
        LinearAddr((self.0 as u64) << PAGE_SHIFT)
    }
}

/// A guest-physical address: what paging yields and the memory bus sees.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GuestPhys(u64);

impl GuestPhys {
    /// The address `value`.
    #[inline]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The address as a number.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The 4 KiB frame that holds the address.
    #[inline]
    pub const fn frame(self) -> Frame {
        Frame(self.0 >> PAGE_SHIFT)
    }

    /// Byte offset in the frame, 0..=4095.
    #[inline]
    pub const fn offset(self) -> u32 {
        (self.0 & OFFSET_MASK) as u32
    }

    /// The address `bytes` further, or `None` past the end of 64 bits.
    #[inline]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The address with the bits of `offset` set in place of its own low ones; `offset` must be below the alignment.
    #[inline]
    pub(crate) const fn with_offset(self, offset: u64) -> Self {
        debug_assert!(self.0 & offset == 0);
        Self(self.0 | offset)
    }
}

/// A guest-physical page number: guest-physical address >> 12.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Frame(u64);

impl Frame {
    /// The frame with this number.
    #[inline]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The frame number.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The frame after this one.
    #[inline]
    pub(crate) const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Address of the frame's first byte. Frame numbers of more than 52 bits do not occur; their high bits would be lost.
    #[inline]
    pub const fn base(self) -> GuestPhys {
        GuestPhys(self.0 << PAGE_SHIFT)
    }
}

impl fmt::Debug for LinearAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinearAddr({:#x})", self.0)
    }
}

impl fmt::Display for LinearAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl fmt::Debug for GuestPhys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestPhys({:#x})", self.0)
    }
}

impl fmt::Display for GuestPhys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
