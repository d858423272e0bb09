//! [`LoadError`]: why something has no place in the guest's memory.

use std::ops::Range;

use sbe::CpuModel;
use thiserror::Error;
use vm_memory::GuestMemoryError;

use super::{image::Segment, ram::Ram};

/// A reason why a kernel, or what else is in memory from the start, cannot be placed there.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A segment of the kernel is not wholly in RAM.
    #[error("{segment} are not within the guest's memory, {ram}")]
    Segment {
        /// The segment.
        segment: Segment,
        /// Where the guest has memory.
        ram: Ram,
    },
    /// A segment of the kernel and a ROM want the same memory.
    #[error("{segment} overlap the ROM from {:#x} to {:#x}", other.start, other.end)]
    SegmentOverlap {
        /// The segment.
        segment: Segment,
        /// The guest-physical addresses of the ROM.
        other: Range<u64>,
    },
    /// There is no room for the initrd.
    #[error(
        "initrd of {len} bytes does not fit between the kernel's end {kernel_end:#x} and {limit:#x}"
    )]
    Initrd {
        /// Length of the initrd in bytes.
        len: usize,
        /// First address that the kernel leaves free.
        kernel_end: u64,
        /// First address behind what the initrd may occupy.
        limit: u64,
    },
    /// The kernel, or ROMs, leave no room for what the kernel is told.
    #[error("the kernel leaves no room for {what}, {len} bytes")]
    NoRoom {
        /// The part that has no room.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// The command line is longer than the kernel takes.
    #[error("kernel command line of {len} bytes is longer than the kernel's limit of {limit}")]
    CommandLine {
        /// Length of the command line in bytes.
        len: usize,
        /// The kernel's `cmdline_size`.
        limit: u32,
    },
    /// The command line holds a zero byte, which would end it.
    #[error("kernel command line holds a zero byte")]
    CommandLineNul,
    /// A ROM has no bytes.
    #[error("ROM at {address:#x} is empty")]
    RomEmpty {
        /// Guest-physical address of the ROM.
        address: u32,
    },
    /// A ROM does not end below 4 GiB.
    #[error("ROM at {address:#x}: {len} bytes reach beyond 4 GiB")]
    RomEnd {
        /// Guest-physical address of the ROM.
        address: u32,
        /// Its length in bytes.
        len: usize,
    },
    /// Two ROMs have bytes at the same address.
    #[error("ROM at {address:#x} overlaps the ROM at {other:#x}")]
    RomOverlap {
        /// Guest-physical address of the one ROM.
        address: u32,
        /// Guest-physical address of the other.
        other: u32,
    },
    /// The processor would start where nothing was placed.
    #[error("no ROM holds the first instruction, at {address:#x}")]
    NothingAtEntry {
        /// Guest-physical address of the first instruction.
        address: u32,
    },
    /// The kernel is one of 64-bit code, and the processor has no 64-bit mode.
    #[error("64-bit kernel on processor model {}, which has no 64-bit mode; {} has", .0.name(), CpuModel::X86_64.name())]
    LongMode(CpuModel),
    /// Guest RAM is smaller than a mebibyte or does not begin at 0.
    #[error("guest memory: {0}")]
    Memory(GuestMemoryError),
}

impl From<GuestMemoryError> for LoadError {
    fn from(error: GuestMemoryError) -> Self {
        Self::Memory(error)
    }
}
