//! The addresses of memory operands: mostly the middle of writable pages, and every kind of edge.
//!
//! The sandbox of one of `places` is taken; each is what [`super::layout::PLACES`] adds to its address.

use super::layout::{PAGE, SANDBOX, SANDBOX_PAGES};
use super::values::percent;
use fastrand::Rng;
use mmu::LinearAddr;

/// The two runs of writable pages, by the index of their first page; each is two pages long.
const WRITABLE_RUNS: [u32; 2] = [1, 5];
/// Index of the read-only page, which follows a writable one.
const READ_ONLY_PAGE: u32 = 3;
/// Indices of unmapped pages of the sandbox.
const UNMAPPED_PAGES: [u32; 3] = [0, 4, 7];
/// The ends of the two halves of the canonical addresses (SDM Vol. 1, 3.3.7.1 "Canonical Addressing"), and of the address space.
const BORDERS: [u64; 4] = [0, 0x8000_0000_0000, 0xffff_8000_0000_0000, 1 << 63];

/// The sandbox of one of `places`.
fn sandbox(places: &[u64], rng: &mut Rng) -> u64 {
    let place = match places {
        [only] => only,
        _ => &places[rng.usize(..places.len())],
    };
    place + u64::from(SANDBOX)
}

fn page(sandbox: u64, index: u32) -> u64 {
    sandbox + u64::from(index * PAGE)
}

/// The alignment that an operand of `size` bytes may want: the largest power of two in it, at most 16.
fn alignment(size: u32) -> u32 {
    (size | 16) & (size | 16).wrapping_neg()
}

/// A linear address for an operand of `size` bytes.
pub fn any(places: &[u64], size: u32, rng: &mut Rng) -> u64 {
    let at = sandbox(places, rng);
    match rng.u32(0..100) {
        0..=84 => writable_in(at, size, rng),
        // Across the boundary of two writable pages, or just before it.
        85..=91 => {
            page(at, WRITABLE_RUNS[rng.usize(0..2)] + 1) - u64::from(rng.u32(0..size.max(2) + 2))
        }
        // Across the end of the writable pages: into the read-only page, or into nothing.
        92..=93 => {
            page(at, WRITABLE_RUNS[rng.usize(0..2)] + 2) - u64::from(rng.u32(0..size.max(2) + 2))
        }
        94..=96 => page(at, READ_ONLY_PAGE) + u64::from(rng.u32(0..PAGE)),
        _ => page(at, UNMAPPED_PAGES[rng.usize(0..3)]) + u64::from(rng.u32(0..PAGE)),
    }
}

/// A linear address where `size` bytes can be written, inside one page, mostly aligned.
pub fn writable(places: &[u64], size: u32, rng: &mut Rng) -> u64 {
    let at = sandbox(places, rng);
    writable_in(at, size, rng)
}

fn writable_in(sandbox: u64, size: u32, rng: &mut Rng) -> u64 {
    let run = page(sandbox, WRITABLE_RUNS[rng.usize(0..2)] + rng.u32(0..2));
    let offset = rng.u32(0..PAGE - size);
    if percent(rng, 85) {
        run + u64::from(offset / alignment(size) * alignment(size))
    } else {
        run + u64::from(offset)
    }
}

/// Whether `address` is canonical.
pub fn is_canonical(address: u64) -> bool {
    LinearAddr::new(address).is_canonical()
}

/// A linear address of 64 bits that no program can use: not canonical, near a border of the canonical addresses, in their upper
/// half, or an [`alias`] of one that it can use.
pub fn strange(places: &[u64], size: u32, rng: &mut Rng) -> u64 {
    if percent(rng, 50) {
        let border = BORDERS[rng.usize(..BORDERS.len())];
        return border.wrapping_add_signed(rng.i64(-40..40));
    }
    alias(writable(places, size, rng), rng)
}

/// Bits of a linear address that select a slot of the engines' tables; the bits above may be anything.
pub const SLOT_BITS: u32 = 40;

/// An address that differs from `address` by a multiple of 1 TiB, so that it has the same slot in the engines' tables. Nothing is
/// mapped there; it may not be canonical.
pub fn alias(address: u64, rng: &mut Rng) -> u64 {
    address ^ 1 << rng.u32(SLOT_BITS..64)
}

/// Whether `address` is in the sandbox of one of `places`.
pub fn is_in_sandbox(places: &[u64], address: u64) -> bool {
    let bytes = u64::from(SANDBOX_PAGES * PAGE);
    let mut starts = places.iter().map(|place| place + u64::from(SANDBOX));
    starts.any(|start| address.wrapping_sub(start) < bytes)
}

/// Room that [`stack`] leaves on both sides.
const STACK_ROOM: u32 = 0x200;

/// A stack pointer with room on both sides.
pub fn stack(places: &[u64], rng: &mut Rng) -> u64 {
    let at = sandbox(places, rng);
    let run = page(at, WRITABLE_RUNS[rng.usize(0..2)]);
    let offset = rng.u32(STACK_ROOM..2 * PAGE - STACK_ROOM);
    if percent(rng, 90) {
        run + u64::from(offset & !3)
    } else {
        run + u64::from(offset)
    }
}

/// Whether `address` is a stack pointer that small pushes and pops may use.
pub fn is_stack(places: &[u64], address: u64) -> bool {
    const MARGIN: u64 = 0x80;
    places.iter().any(|place| {
        let at = place + u64::from(SANDBOX);
        WRITABLE_RUNS
            .iter()
            .any(|&run| (page(at, run) + MARGIN..page(at, run + 2) - MARGIN).contains(&address))
    })
}

/// Whether the fault of an access to the linear address `linear` in a segment with the base `base` is open: AMD's processors raise
/// #GP for an offset that is not canonical, Intel's manual speaks of the linear address.
pub fn is_open(linear: u64, base: u64) -> bool {
    is_canonical(linear) && !is_canonical(linear.wrapping_sub(base))
}
