//! The places of a hostile guest, in physical memory and by linear address.
//!
//! ```text
//!   physical 0x1000   page tables of four levels      linear: physical memory from 0 on, at each of the places
//!            0x14000  GDT, IDT, TSS, handlers                 0, HIGH, KERNEL: pages of 4 KiB
//!            0x1a000  inner stacks                            2 MiB: a page of 2 MiB;  1 GiB: a page of 1 GiB
//!            0x20000  code                                    1 TiB: other frames, which share its slots
//!            0x28000  data, user stacks                       around 4 GiB, and at the ends of both halves: the data
//! ```

/// RAM: 640 KiB, and the hole up to 1 MiB.
pub const MEMORY: u64 = 1 << 20;
/// The bytes that are RAM.
pub const RAM: usize = 0xa_0000;
pub const PAGE: u64 = 0x1000;

/// The page tables of each level, top ones first.
pub const PAGE_MAPS: [u64; 2] = [0x1000, 0x2000];
pub const POINTER_TABLES: [u64; 4] = [0x3000, 0x4000, 0x5000, 0x6000];
pub const DIRECTORIES: [u64; 4] = [0x7000, 0x8000, 0x9000, 0xa000];
pub const PAGE_TABLES: [u64; 8] = [
    0xb000, 0xc000, 0xd000, 0xe000, 0xf000, 0x1_0000, 0x1_1000, 0x1_2000,
];

pub const GDT: u64 = 0x1_4000;
pub const IDT: u64 = 0x1_5000;
pub const TSS: u64 = 0x1_6000;
pub const HANDLERS: u64 = 0x1_7000;
pub const HANDLER_BYTES: u64 = 128;
pub const HANDLER_COUNT: u64 = 64;
pub const INNER_STACKS: u64 = 0x1_a000;
/// The number of exceptions after which handlers halt.
pub const HOPS: u64 = 0x1_9ff8;
pub const CODE: u64 = 0x2_0000;
pub const CODE_BYTES: u64 = 0x8000;
pub const DATA: u64 = 0x2_8000;
pub const DATA_BYTES: u64 = 0x1_0000;

/// The upper half, where supervisors live: too far from its end for a branch to lead out of it.
pub const HIGH: u64 = 0xffff_8880_0000_0000;
/// The last two GiB, where Linux is.
pub const KERNEL: u64 = 0xffff_ffff_8000_0000;
/// The entry of the page map for [`HIGH`].
pub const HIGH_INDEX: u64 = HIGH >> 39 & 511;
/// The linear addresses at which physical memory begins.
pub const PLACES: [u64; 6] = [0, HIGH, KERNEL, 0x20_0000, 0x4000_0000, 0x100_0000_0000];
/// Addresses around which something changes: the ends of pages of each size, of halves and of 32 bits.
pub const EDGES: [u64; 8] = [
    0,
    DATA + PAGE,
    0x20_0000,
    0x4000_0000,
    0x1_0000_0000,
    0x8000_0000_0000,
    0xffff_8000_0000_0000,
    KERNEL,
];

/// Selectors of the GDT. Conforming code, a call gate and others are reached by random ones.
pub const CODE32: u16 = 0x08;
pub const CODE64: u16 = 0x10;
pub const DATA0: u16 = 0x18;
pub const USER_CODE32: u16 = 0x23;
pub const USER_DATA: u16 = 0x2b;
pub const USER_CODE64: u16 = 0x33;
pub const TASK: u16 = 0x40;
pub const LDT: u16 = 0x50;
pub const USER_CODE16: u16 = 0x73;
/// The first of the descriptors that are random.
pub const RANDOM: u16 = 0x80;
pub const GDT_BYTES: u16 = 0x100;
