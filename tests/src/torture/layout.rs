//! Addresses of the torture, which `guest-kernels/kernels/torture.S` keeps free.
//!
//! ```text
//!   physical 0x700000  page tables, directories, pointer tables
//!            0x800000  frames: two pieces of 4 MiB, so that large pages map the frames that small pages map, too
//!   linear   0         all RAM one to one, for users, too
//!            0x40000000, 0xbfc00000  five pieces of 4 MiB; the last two lie above 0xc0000000
//! ```
//!
//! Of each 4 MiB only the pages at its ends and at its middle are used, where the directories' entries meet.

/// Bytes of a page.
pub const PAGE: u32 = 0x1000;
/// Physical address of the frames that the pages map.
pub const POOL: u32 = 0x80_0000;
/// Physical address of the paging structures.
pub const TABLES: u32 = 0x70_0000;
/// End of both.
pub const END: u32 = 0x100_0000;

/// Bytes that a directory's entry maps in 2-level paging.
pub const LARGE: u32 = 4 << 20;
/// Linear addresses of the pieces.
pub const PIECES: [u32; 5] = [
    0x4000_0000,
    0x4040_0000,
    0xbfc0_0000,
    0xc000_0000,
    0xc040_0000,
];
/// The pages of a piece that are used.
const USED: [u32; 8] = [0, 1, 2, 511, 512, 513, 1022, 1023];

/// Page tables, by address.
pub const PAGE_TABLES: [u32; 7] = frames(TABLES);
/// Directories of PAE paging, which the address spaces share.
pub const SHARED_DIRECTORIES: [u32; 6] = frames(TABLES + 0x1_0000);
/// The directory of the first GiB in PAE paging.
pub const IDENTITY_DIRECTORY: u32 = TABLES + 0x1_8000;
/// The number of address spaces. More than the translator keeps tables for.
pub const SPACES: usize = 140;
/// Top structures in 2-level paging: the spaces' directories.
pub const DIRECTORIES: [u32; SPACES] = frames(TABLES + 0x2_0000);
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

/// Returns the linear addresses of the pages that are used, in order.
pub fn pages() -> Vec<u32> {
    let piece = |base| USED.map(|index| base + index * PAGE);
    PIECES.iter().flat_map(|&base| piece(base)).collect()
}

/// Returns the indexes in a page table that are used with `entries` entries.
pub fn table_indexes(entries: u32) -> Vec<u32> {
    let mut indexes = USED.map(|index| index % entries).to_vec();
    indexes.sort_unstable();
    indexes.dedup();
    indexes
}

/// Returns the physical addresses of the frames that the pages can map: those at the ends of each 2 MiB.
pub fn pool() -> Vec<u32> {
    const FRAMES: [u32; 10] = [0, 1, 2, 510, 511, 512, 513, 514, 1022, 1023];
    let bases = [POOL, POOL + LARGE].into_iter();
    bases
        .flat_map(|base| FRAMES.map(|frame| base + frame * PAGE))
        .collect()
}
