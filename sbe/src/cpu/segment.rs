//! Segment registers and descriptors (SDM Vol. 3A, 3.4 "Logical and Linear Addresses").
//!
//! A [`Segment`] is the register with its hidden part. The bounds within which it may be read and written are worked out
//! once when it is loaded, so that an access costs two compares: null, unreadable and read-only segments get empty bounds.

use super::address_size::AddressSize;
use mmu::LinearAddr;
use serde::{Deserialize, Serialize};

/// Segment registers by their number in instruction encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SegReg {
    /// Extra data.
    Es = 0,
    /// Code.
    Cs = 1,
    /// Stack.
    Ss = 2,
    /// Data.
    Ds = 3,
    /// First of the two segments with no fixed use.
    Fs = 4,
    /// Second of the two segments with no fixed use.
    Gs = 5,
}

impl SegReg {
    /// All segment registers, in encoding order.
    pub const ALL: [Self; 6] = [Self::Es, Self::Cs, Self::Ss, Self::Ds, Self::Fs, Self::Gs];
}

/// A segment selector (SDM Vol. 3A, 3.4.2 "Segment Selectors").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Selector(pub u16);

impl Selector {
    /// Requested privilege level, 0..=3.
    pub fn rpl(self) -> u8 {
        (self.0 & 3) as u8
    }

    /// Whether the table indicator names the LDT.
    pub fn is_local(self) -> bool {
        self.0 & 4 != 0
    }

    /// Byte offset of the descriptor in its table.
    pub fn offset(self) -> u32 {
        u32::from(self.0 & !7)
    }

    /// Whether the selector names the first entry of the GDT.
    pub fn is_null(self) -> bool {
        self.0 & !3 == 0
    }

    /// The selector as an error code: RPL cleared, EXT and IDT bits zero.
    pub fn error_code(self) -> u32 {
        u32::from(self.0 & !3)
    }

    /// The selector with another RPL.
    pub fn with_rpl(self, rpl: u8) -> Self {
        Self(self.0 & !3 | u16::from(rpl))
    }
}

/// Attribute bits of a descriptor: bits 8..=15 and 20..=23 of its upper doubleword, moved down by 8
/// (SDM Vol. 3A, 3.4.5 "Segment Descriptors").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Attributes(pub u16);

impl Attributes {
    const ACCESSED: u16 = 1 << 0;
    const WRITABLE_OR_READABLE: u16 = 1 << 1;
    const EXPAND_DOWN_OR_CONFORMING: u16 = 1 << 2;
    const CODE: u16 = 1 << 3;
    const CODE_OR_DATA: u16 = 1 << 4;
    const DPL_SHIFT: u16 = 5;
    const PRESENT: u16 = 1 << 7;
    const LONG: u16 = 1 << 13;
    const BIG: u16 = 1 << 14;
    const GRANULARITY: u16 = 1 << 15;

    /// Present, ring 0, read/write data, 16-bit: what RESET puts into the data segments.
    pub const REAL_DATA: Self = Self(0x93);
    /// Present, ring 3, read/write data, 16-bit: every segment of virtual-8086 mode.
    pub const V86: Self = Self(0xf3);

    /// Present, ring 0, execute/read, accessed, 32-bit, 4-KByte granularity.
    pub const FLAT_CODE: Self = Self(0xc09b);
    /// Present, ring 0, read/write, accessed, 32-bit, 4-KByte granularity.
    pub const FLAT_DATA: Self = Self(0xc093);
    /// Present, ring 0, execute/read, accessed, 64-bit, 4-KByte granularity.
    pub const FLAT_CODE64: Self = Self(0xa09b);

    /// The attribute bits that exist.
    pub const DEFINED: u16 = 0xf0ff;

    /// The attributes with another descriptor privilege level.
    pub fn with_dpl(self, dpl: u8) -> Self {
        Self(self.0 & !(3 << Self::DPL_SHIFT) | u16::from(dpl) << Self::DPL_SHIFT)
    }

    /// The four type bits.
    pub fn kind(self) -> u8 {
        (self.0 & 0xf) as u8
    }

    /// Whether this is a code or data segment and not a system descriptor (the S bit).
    pub fn is_code_or_data(self) -> bool {
        self.0 & Self::CODE_OR_DATA != 0
    }

    /// Whether this is a code segment.
    pub fn is_code(self) -> bool {
        self.is_code_or_data() && self.0 & Self::CODE != 0
    }

    /// Whether this is a data segment.
    pub fn is_data(self) -> bool {
        self.is_code_or_data() && self.0 & Self::CODE == 0
    }

    /// Whether this is a conforming code segment.
    pub fn is_conforming(self) -> bool {
        self.is_code() && self.0 & Self::EXPAND_DOWN_OR_CONFORMING != 0
    }

    /// Whether this is a data segment that grows down.
    pub fn is_expand_down(self) -> bool {
        self.is_data() && self.0 & Self::EXPAND_DOWN_OR_CONFORMING != 0
    }

    /// Whether data may be read: any data segment, and readable code.
    pub fn is_readable(self) -> bool {
        self.is_data() || self.is_code() && self.0 & Self::WRITABLE_OR_READABLE != 0
    }

    /// Whether data may be written.
    pub fn is_writable(self) -> bool {
        self.is_data() && self.0 & Self::WRITABLE_OR_READABLE != 0
    }

    /// Whether the accessed bit is set.
    pub fn is_accessed(self) -> bool {
        self.0 & Self::ACCESSED != 0
    }

    /// The attributes with the accessed bit set.
    pub fn accessed(self) -> Self {
        Self(self.0 | Self::ACCESSED)
    }

    /// Descriptor privilege level, 0..=3.
    pub fn dpl(self) -> u8 {
        (self.0 >> Self::DPL_SHIFT & 3) as u8
    }

    /// Whether the present bit is set.
    pub fn is_present(self) -> bool {
        self.0 & Self::PRESENT != 0
    }

    /// The L bit: 64-bit code, in IA-32e mode.
    #[inline(always)]
    pub fn is_long(self) -> bool {
        self.0 & Self::LONG != 0
    }

    /// The D/B bit: 32-bit code, 32-bit stack pointer, upper bound of an expand-down segment.
    pub fn is_big(self) -> bool {
        self.0 & Self::BIG != 0
    }

    /// The G bit: the limit counts 4-KByte units.
    pub fn is_granular(self) -> bool {
        self.0 & Self::GRANULARITY != 0
    }
}

/// An 8-byte descriptor as it stands in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Descriptor(pub u64);

impl Descriptor {
    /// Base linear address, of which a descriptor of 8 bytes has 32 bits.
    pub fn base(self) -> u64 {
        self.0 >> 16 & 0xff_ffff | self.0 >> 32 & 0xff00_0000
    }

    /// Limit in bytes: the last valid offset, or the last invalid one of an expand-down segment.
    pub fn limit(self) -> u32 {
        let raw = self.0 as u32 & 0xffff | (self.0 >> 32) as u32 & 0xf_0000;
        if self.attributes().is_granular() {
            raw << 12 | 0xfff
        } else {
            raw
        }
    }

    /// Attribute bits.
    pub fn attributes(self) -> Attributes {
        Attributes((self.0 >> 40) as u16 & Attributes::DEFINED)
    }

    /// Target selector, when this is a gate (SDM Vol. 3A, 5.8.3 "Call Gates", 6.11 "IDT Descriptors").
    pub fn gate_selector(self) -> Selector {
        Selector((self.0 >> 16) as u16)
    }

    /// Target offset, when this is a gate: 32 bits, of which 16-bit gates use the lower half, and which the upper 8 bytes of a
    /// 64-bit gate extend.
    pub fn gate_offset(self) -> u64 {
        self.0 & 0xffff | self.0 >> 32 & 0xffff_0000
    }

    /// Number of the interrupt stack, 1..=7, or 0 for none, when this is a 64-bit interrupt or trap gate.
    pub fn interrupt_stack(self) -> u8 {
        (self.0 >> 32 & 7) as u8
    }

    /// Parameter count of a call gate, 0..=31.
    pub fn gate_parameters(self) -> u32 {
        (self.0 >> 32) as u32 & 0x1f
    }
}

/// Offsets that may be accessed, both ends included; empty when `low > high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// First valid offset.
    pub low: u32,
    /// Last valid offset.
    pub high: u32,
}

impl Bounds {
    const EMPTY: Self = Self { low: 1, high: 0 };
    /// All offsets: 4 GiB.
    pub const ALL: Self = Self {
        low: 0,
        high: u32::MAX,
    };

    /// The offsets that the limit of a segment permits.
    fn within(limit: u32, attributes: Attributes) -> Self {
        match (attributes.is_expand_down(), attributes.is_big()) {
            (false, _) => Self {
                low: 0,
                high: limit,
            },
            (true, _) if limit == u32::MAX => Self::EMPTY,
            (true, true) => Self {
                low: limit + 1,
                high: u32::MAX,
            },
            (true, false) => Self {
                low: limit + 1,
                high: 0xffff,
            },
        }
    }

    /// Whether all `size` bytes from `offset` lie inside. A segment that spans all 4 GiB wraps around
    /// (SDM Vol. 3A, 5.3 "Limit Checking" leaves that to the implementation).
    #[inline(always)]
    pub fn allow(self, offset: u32, size: u32) -> bool {
        let fits = offset >= self.low && offset <= self.high && self.high - offset >= size - 1;
        fits || self == Self::ALL
    }
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The visible part.
    pub selector: Selector,
    /// Base linear address. Outside of 64-bit mode its low 32 bits count; there the bases of FS and GS alone do.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u32,
    /// Attribute bits.
    pub attributes: Attributes,
    /// The offsets that may be read.
    pub read: Bounds,
    /// The offsets that may be written.
    pub write: Bounds,
}

impl Segment {
    /// A segment register that was loaded with these parts.
    pub fn new(selector: Selector, base: u64, limit: u32, attributes: Attributes) -> Self {
        let bounds = Bounds::within(limit, attributes);
        let when = |allowed| if allowed { bounds } else { Bounds::EMPTY };
        let usable = attributes.is_present();
        Self {
            selector,
            base,
            limit,
            attributes,
            read: when(usable && attributes.is_readable()),
            write: when(usable && attributes.is_writable()),
        }
    }

    /// The offsets that the limit permits, whatever the type; none if the segment is absent.
    pub fn within(&self) -> Bounds {
        match self.attributes.is_present() {
            true => Bounds::within(self.limit, self.attributes),
            false => Bounds::EMPTY,
        }
    }

    /// The size of the stack pointer if this is SS, outside of 64-bit mode.
    #[inline(always)]
    pub fn stack_size(&self) -> AddressSize {
        if self.attributes.is_big() {
            AddressSize::Bits32
        } else {
            AddressSize::Bits16
        }
    }

    /// The linear address of `offset` outside of 64-bit mode.
    #[inline(always)]
    pub fn linear32(&self, offset: u32) -> LinearAddr {
        LinearAddr::from((self.base as u32).wrapping_add(offset))
    }

    /// A segment register that was loaded from `descriptor`.
    pub fn from_descriptor(selector: Selector, descriptor: Descriptor) -> Self {
        Self::new(
            selector,
            descriptor.base(),
            descriptor.limit(),
            descriptor.attributes(),
        )
    }

    /// A data segment register after a null selector was loaded: any use faults.
    pub fn null(selector: Selector) -> Self {
        Self::new(selector, 0, 0, Attributes(0))
    }

    /// A segment of real-address mode as RESET leaves it.
    pub fn real(selector: Selector) -> Self {
        Self::new(
            selector,
            u64::from(selector.0) << 4,
            0xffff,
            Attributes::REAL_DATA,
        )
    }

    /// A segment of virtual-8086 mode.
    pub fn v86(selector: Selector) -> Self {
        Self::new(
            selector,
            u64::from(selector.0) << 4,
            0xffff,
            Attributes::V86,
        )
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DescriptorTable {
    /// Linear base address, of 32 bits outside of IA-32e mode.
    pub base: u64,
    /// Last valid byte offset.
    pub limit: u16,
}

/// The result of a load of DS, ES, FS or GS in protected mode.
#[derive(Clone, Copy, Debug)]
pub struct SegmentLoad {
    /// The selector loaded.
    pub selector: Selector,
    /// The register's contents since then.
    pub segment: Segment,
    /// CPL at the time.
    pub cpl: u8,
    /// [`super::Cpu::retired`] before the instruction.
    pub retired: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_descriptor_covers_four_gigabytes() {
        let segment = Segment::from_descriptor(Selector(0x10), Descriptor(0x00cf_9300_0000_ffff));
        assert_eq!((segment.base, segment.limit), (0, u32::MAX));
        assert!(segment.write.allow(0xffff_fffc, 4));
        assert!(segment.write.allow(0xffff_fffe, 4), "wraps");
    }

    #[test]
    fn expand_down_segments_are_valid_above_their_limit() {
        let small = Segment::new(Selector(8), 0, 0x0fff, Attributes(0x97));
        assert!(!small.read.allow(0x0fff, 1) && small.read.allow(0x1000, 1));
        assert!(small.read.allow(0xfffe, 2) && !small.read.allow(0xffff, 2));
        let big = Segment::new(Selector(8), 0, 0x0fff, Attributes(0x4097));
        assert!(big.read.allow(0xffff_fffc, 4) && !big.read.allow(0xffff_fffd, 4));
    }

    #[test]
    fn code_is_never_writable_and_null_is_nothing() {
        let code = Segment::from_descriptor(Selector(8), Descriptor(0x00cf_9b00_0000_ffff));
        assert!(code.read.allow(0, 4) && !code.write.allow(0, 1));
        assert!(!Segment::null(Selector(3)).read.allow(0, 1));
    }
}
