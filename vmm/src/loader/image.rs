//! [`Image`]: what a kernel wants in memory, whatever kind of file it comes from.

use std::{fmt, ops::Range};

/// The memory of a kernel before its first instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The mode in which the first instruction is executed.
    pub mode: Mode,
    /// Guest-physical address of the first instruction.
    pub entry: u64,
    /// The segments that occupy memory, at least one.
    pub segments: Vec<Segment>,
}

/// A mode of the processor in which a kernel can be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Protected mode, flat 32-bit code, paging off.
    Protected,
    /// Long mode, 64-bit code, addresses mapped to themselves.
    Long,
}

impl Image {
    /// Returns the guest-physical address of the first byte behind all segments.
    pub fn end(&self) -> u64 {
        self.segments.iter().map(Segment::end).max().unwrap_or(0)
    }

    /// Returns whether the first instruction lies in a segment.
    pub(super) fn holds_entry(&self) -> bool {
        let mut segments = self.segments.iter();
        segments.any(|segment| (segment.paddr..segment.end()).contains(&self.entry))
    }
}

/// A segment to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The part of the file that asks for the segment.
    pub origin: Origin,
    /// Guest-physical address of the first byte.
    pub paddr: u64,
    /// Bytes of memory, those beyond `file` zero.
    pub memsz: u64,
    /// Range of its bytes in the file.
    pub file: Range<usize>,
}

/// The part of a kernel's file that asks for a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The ELF program header with this number, from 0 (`p_paddr`, `p_memsz`).
    ElfSegment(usize),
    /// The setup header of a bzImage that is entered unpacked by itself (`pref_address`, `init_size`).
    SetupHeader,
    /// The address fields of a Multiboot header (`load_addr`, `bss_end_addr`).
    MultibootHeader,
    /// Nothing: the file is code without a header.
    Flat,
}

impl Segment {
    /// Returns the guest-physical address of the first byte behind the segment.
    pub fn end(&self) -> u64 {
        self.paddr + self.memsz
    }
}

impl fmt::Display for Segment {
    /// The segment by the fields that place it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { paddr, memsz, .. } = self;
        match self.origin {
            Origin::ElfSegment(index) => {
                write!(
                    f,
                    "ELF segment {index}: p_paddr {paddr:#x} and p_memsz {memsz:#x}"
                )
            }
            Origin::SetupHeader => write!(
                f,
                "protected-mode code of the bzImage: load address {paddr:#x} and {memsz:#x} bytes (init_size)"
            ),
            Origin::MultibootHeader => write!(
                f,
                "Multiboot header: load_addr {paddr:#x} and bss_end_addr {:#x}",
                self.end()
            ),
            Origin::Flat => write!(f, "flat kernel: {memsz:#x} bytes at {paddr:#x}"),
        }
    }
}
