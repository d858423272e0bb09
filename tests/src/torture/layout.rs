//! Addresses of the torture, which `guest-kernels/kernels/torture.inc` keeps free.
//!
//! ```text
//!   physical 0x700000  page tables, pointer tables, directories, page maps
//!            0x800000  frames: two pieces of 4 MiB, so that large pages map the frames that small pages map, too
//!   linear   0         all RAM one to one, for users, too; at DIRECT for supervisors, in 64-bit code
//!            pieces    of 4 MiB; some lie side by side, some share slots of the translator's tables
//! ```
//!
//! Of each 4 MiB only the pages at its ends and at its middle are used, where the directories' entries meet.

use super::format::{Mode, PAGE, Width};

/// Pages whose addresses differ by a multiple of it share a slot.
pub const TIB: u64 = 1 << 40;
/// Physical address of the frames that the pages map.
pub const POOL: u32 = 0x80_0000;
/// Physical address of the paging structures.
pub const TABLES: u32 = 0x70_0000;
/// End of both.
pub const END: u32 = 0x100_0000;

/// Bytes of a piece, and of what a directory's entry maps in 2-level paging.
pub const LARGE: u32 = 4 << 20;
/// The pages of a piece that are used.
const USED: [u64; 8] = [0, 1, 2, 511, 512, 513, 1022, 1023];

/// Page tables, by address.
pub const PAGE_TABLES: [u32; 7] = frames(TABLES);
/// Directories of PAE paging, which the address spaces share.
pub const SHARED_DIRECTORIES: [u32; 6] = frames(TABLES + 0x1_0000);
/// Pointer tables of 4-level paging for all but the first 512 GiB, which the address spaces share.
pub const HIGH_POINTERS: [u32; 5] = frames(TABLES + 0x8000);
/// Pointer tables of 4-level paging for the first 512 GiB, which begin with the directory of the first GiB.
pub const LOW_POINTERS: [u32; 2] = frames(TABLES + 0xe000);
/// All pointer tables of 4-level paging.
const POINTERS: [u32; 7] = [
    HIGH_POINTERS[0],
    HIGH_POINTERS[1],
    HIGH_POINTERS[2],
    HIGH_POINTERS[3],
    HIGH_POINTERS[4],
    LOW_POINTERS[0],
    LOW_POINTERS[1],
];
/// The directory of the first GiB in PAE and 4-level paging.
pub const IDENTITY_DIRECTORY: u32 = TABLES + 0x1_8000;
/// The page map of the kernel's own, which maps nothing but the first GiB.
pub const HOME: u32 = TABLES + 0x1_a000;
/// The linear address at which supervisors have the first GiB of physical memory in 4-level paging.
pub const DIRECT: u64 = 0xffff_8880_0000_0000;
/// The number of address spaces. More than the translator keeps tables for.
pub const SPACES: usize = 140;
/// Top structures in 2-level and 4-level paging: the spaces' directories or page maps.
pub const TOPS: [u32; SPACES] = frames(TABLES + 0x2_0000);
/// Top structures in PAE paging: the spaces' pointer tables, of which a frame holds many.
pub const POINTER_TABLES: [u32; SPACES] = {
    let mut tables = [0; SPACES];
    let mut i = 0;
    while i < SPACES {
        tables[i] = TABLES + 0xe_0000 + 32 * i as u32;
        i += 1;
    }
    tables
};

const fn frames<const N: usize>(first: u32) -> [u32; N] {
    let mut frames = [0; N];
    let mut i = 0;
    while i < N {
        frames[i] = first + PAGE * i as u32;
        i += 1;
    }
    frames
}

/// Linear addresses of the pieces.
fn pieces(width: Width) -> &'static [u64] {
    match width {
        Width::Narrow => &[
            0x4000_0000,
            0x4040_0000,
            0xbfc0_0000,
            0xc000_0000,
            0xc040_0000,
        ],
        Width::Wide => &[
            // Where pages of 1 GiB lead to the pool, three times, and the addresses share slots.
            0x4080_0000,
            0x40c0_0000,
            0x4080_0000 + TIB,
            0x4080_0000 + 3 * TIB,
            // Two sides of an entry of the page map, where programs are.
            0x557f_ffc0_0000,
            0x5580_0000_0000,
            // The ends of the halves.
            0x7fff_ffc0_0000,
            0xffff_8000_0000_0000,
            // Again where pages of 1 GiB lead to the pool.
            0xffff_c900_4080_0000,
            0xffff_c900_4080_0000 + TIB,
            0xffff_ffff_8080_0000,
            0xffff_ffff_ffc0_0000,
        ],
    }
}

/// Returns the linear addresses of the pages that are used, in order.
pub fn pages(width: Width) -> Vec<u64> {
    let piece = |&base| USED.map(|index| base + index * u64::from(PAGE));
    pieces(width).iter().flat_map(piece).collect()
}

/// The paging structures of one level.
pub struct Level {
    /// Their addresses.
    pub structures: &'static [u32],
    /// What entries of the level above may lead to.
    pub targets: &'static [u32],
    /// The indexes of the entries that a used page is translated by.
    indexes: Vec<u32>,
}

impl Level {
    /// The structures of `level`, from 1 for page tables on.
    pub fn of(mode: Mode, level: u32) -> Self {
        let (structures, targets): (&[_], &[_]) = match (mode, level) {
            (_, 1) => (&PAGE_TABLES, &PAGE_TABLES),
            (Mode::TwoLevel, _) | (_, 4) => (&TOPS, &[]),
            (_, 2) => (&SHARED_DIRECTORIES, &SHARED_DIRECTORIES),
            _ => (&POINTERS, &HIGH_POINTERS),
        };
        let used = pages(mode.width()).into_iter();
        let mut indexes: Vec<_> = used.map(|page| mode.index(level, page)).collect();
        indexes.sort_unstable();
        indexes.dedup();
        Self {
            structures,
            targets,
            indexes,
        }
    }

    /// The addresses of the entries in `structure` that scripts change.
    pub fn entries(&self, mode: Mode, structure: u32) -> Vec<u32> {
        let entries = self.indexes.iter();
        entries
            .map(|index| structure + index * mode.entry())
            .filter(|&entry| !is_fixed(mode, entry))
            .collect()
    }
}

/// Whether scripts leave an entry as it is, as it is one of 4-level paging that leads to the first GiB.
pub fn is_fixed(mode: Mode, entry: u32) -> bool {
    let index = entry % PAGE / mode.entry();
    let structure = entry - entry % PAGE;
    match index {
        _ if mode != Mode::FourLevel => false,
        0 => TOPS.contains(&structure) || LOW_POINTERS.contains(&structure),
        _ => TOPS.contains(&structure) && index == mode.index(4, DIRECT),
    }
}

/// Whether a page of 1 GiB by a pointer table's entry of that index leads all pages that are used to the pool.
pub fn maps_pool_by_gib(index: u32) -> bool {
    let mode = Mode::FourLevel;
    let used = pages(mode.width()).into_iter();
    let bytes = mode.bytes(3);
    let mut offsets = used
        .filter(|&page| mode.index(3, page) == index)
        .map(|page| page % bytes);
    offsets.all(|offset| (u64::from(POOL)..u64::from(END)).contains(&offset))
}

/// Returns the physical addresses of the frames that the pages can map: those at the ends of each 2 MiB.
pub fn pool() -> Vec<u32> {
    const FRAMES: [u32; 10] = [0, 1, 2, 510, 511, 512, 513, 514, 1022, 1023];
    let bases = [POOL, POOL + LARGE].into_iter();
    bases
        .flat_map(|base| FRAMES.map(|frame| base + frame * PAGE))
        .collect()
}
