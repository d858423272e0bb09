//! The addresses of memory operands: mostly the middle of writable pages, and every kind of edge.

use super::layout::{PAGE, SANDBOX};
use super::values::percent;
use fastrand::Rng;

/// The two runs of writable pages, by the index of their first page; each is two pages long.
const WRITABLE_RUNS: [u32; 2] = [1, 5];
/// Index of the read-only page, which follows a writable one.
const READ_ONLY_PAGE: u32 = 3;
/// Indices of unmapped pages of the sandbox.
const UNMAPPED_PAGES: [u32; 3] = [0, 4, 7];

fn page(index: u32) -> u32 {
    SANDBOX + index * PAGE
}

/// The alignment that an operand of `size` bytes may want: the largest power of two in it, at most 16.
fn alignment(size: u32) -> u32 {
    (size | 16) & (size | 16).wrapping_neg()
}

/// A linear address for an operand of `size` bytes.
pub fn any(size: u32, rng: &mut Rng) -> u32 {
    match rng.u32(0..100) {
        0..=84 => writable(size, rng),
        // Across the boundary of two writable pages, or just before it.
        85..=91 => page(WRITABLE_RUNS[rng.usize(0..2)] + 1) - rng.u32(0..size.max(2) + 2),
        // Across the end of the writable pages: into the read-only page, or into nothing.
        92..=93 => page(WRITABLE_RUNS[rng.usize(0..2)] + 2) - rng.u32(0..size.max(2) + 2),
        94..=96 => page(READ_ONLY_PAGE) + rng.u32(0..PAGE),
        _ => page(UNMAPPED_PAGES[rng.usize(0..3)]) + rng.u32(0..PAGE),
    }
}

/// A linear address where `size` bytes can be written, inside one page, mostly aligned.
pub fn writable(size: u32, rng: &mut Rng) -> u32 {
    let run = page(WRITABLE_RUNS[rng.usize(0..2)] + rng.u32(0..2));
    let offset = rng.u32(0..PAGE - size);
    if percent(rng, 85) {
        run + offset / alignment(size) * alignment(size)
    } else {
        run + offset
    }
}

/// Room that [`stack`] leaves on both sides.
const STACK_ROOM: u32 = 0x200;

/// A stack pointer with room on both sides.
pub fn stack(rng: &mut Rng) -> u32 {
    let run = page(WRITABLE_RUNS[rng.usize(0..2)]);
    let offset = rng.u32(STACK_ROOM..2 * PAGE - STACK_ROOM);
    if percent(rng, 90) {
        run + (offset & !3)
    } else {
        run + offset
    }
}

/// Whether `address` is a stack pointer that small pushes and pops may use.
pub fn is_stack(address: u32) -> bool {
    const MARGIN: u32 = 0x80;
    WRITABLE_RUNS
        .iter()
        .any(|&run| (page(run) + MARGIN..page(run + 2) - MARGIN).contains(&address))
}
