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
/// It has 64 bits. Outside 4-level paging a processor uses the low 32 (SDM Vol. 3A, 3.4 Logical and Linear Addresses), and every
/// access of [`Mmu`](crate::Mmu) ignores the rest.
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

    /// The 4 KiB page that holds the address.
    #[inline]
    pub const fn page(self) -> LinearPage {
        LinearPage(self.0 >> PAGE_SHIFT)
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

    /// The address `bytes` further, wrapping at 2^64 as addresses do in 64-bit mode.
    #[inline]
    pub const fn wrapping_add(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// Whether bits 63:47 are all equal: the address is one of 48 bits, sign-extended (SDM Vol. 1, 3.3.7.1 Canonical Addressing).
    #[inline]
    pub const fn is_canonical(self) -> bool {
        const UNUSED: u32 = u64::BITS - LinearWidth::Bits48.bits();
        ((self.0 << UNUSED) as i64 >> UNUSED) as u64 == self.0
    }
}

impl From<u32> for LinearAddr {
    #[inline]
    fn from(value: u32) -> Self {
        Self(value.into())
    }
}

/// The width of a processor's linear addresses (CPUID leaf 0x80000008, EAX bits 15:8).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LinearWidth {
    /// 32 bits: a processor without IA-32e mode.
    #[default]
    Bits32,
    /// 48 bits, sign-extended to 64: a processor with 4-level paging.
    Bits48,
}

impl LinearWidth {
    /// The width in bits.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Bits32 => 32,
            Self::Bits48 => 48,
        }
    }
}

/// Number of a 4 KiB page of the linear address space: linear address >> 12. It is below 2^20 for a 32-bit linear address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinearPage(u64);

impl LinearPage {
    /// The page with this number, which is below 2^52.
    #[inline]
    pub(crate) const fn new(number: u64) -> Self {
        debug_assert!(number >> (u64::BITS - PAGE_SHIFT) == 0);
        Self(number)
    }

    /// The page number.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The page of a processor whose linear addresses have `width`: one of 32 bits ignores all others.
    #[inline]
    pub(crate) const fn cut(self, width: LinearWidth) -> Self {
        match width {
            LinearWidth::Bits32 => self.base().wrapping_add32(0).page(),
            LinearWidth::Bits48 => self,
        }
    }

    /// Address of the page's first byte.
    #[inline]
    pub const fn base(self) -> LinearAddr {
        LinearAddr(self.0 << PAGE_SHIFT)
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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
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
