//! Segment selectors that a user program may try, with the answers of both sides known to agree.

use super::layout::{FLAT_CODE, FLAT_DATA, SEGMENT_DOWN, SEGMENT_LIMITED, SEGMENT_READ_ONLY};
use fastrand::Rng;

/// Ring-0 32-bit code of Linux's GDT (arch/x86/include/asm/segment.h).
const KERNEL_CODE: u16 = 0x08;
/// Ring-0 data.
const KERNEL_DATA: u16 = 0x18;
/// Beyond the limit of the GDT.
const BEYOND_GDT: u16 = 0xfff8;
/// A selector of the LDT, which is empty.
const LOCAL: u16 = 0x0f;

fn one_of(list: &[u16], rng: &mut Rng) -> u16 {
    list[rng.usize(..list.len())]
}

/// Draws a selector for DS, ES, FS and GS.
pub fn data(rng: &mut Rng) -> u16 {
    match rng.u32(0..100) {
        0..=59 => FLAT_DATA,
        60..=94 => one_of(
            &[
                SEGMENT_LIMITED,
                SEGMENT_DOWN,
                SEGMENT_READ_ONLY,
                FLAT_CODE,
                FLAT_DATA & !3,
            ],
            rng,
        ),
        95..=96 => rng.u16(0..4),
        _ => one_of(
            &[KERNEL_CODE, KERNEL_DATA, BEYOND_GDT, LOCAL, KERNEL_DATA | 3],
            rng,
        ),
    }
}

/// Draws a selector for DS, ES, FS and GS at the start of a case.
pub fn initial(rng: &mut Rng) -> u16 {
    match rng.u32(0..100) {
        0..=91 => FLAT_DATA,
        92..=98 => one_of(
            &[SEGMENT_LIMITED, SEGMENT_DOWN, SEGMENT_READ_ONLY, FLAT_CODE],
            rng,
        ),
        _ => 0,
    }
}

/// Draws a selector for FS and GS at the start of a case.
pub fn initial_extra(rng: &mut Rng) -> u16 {
    one_of(
        &[
            0,
            FLAT_DATA,
            SEGMENT_LIMITED,
            SEGMENT_LIMITED,
            SEGMENT_DOWN,
            SEGMENT_READ_ONLY,
        ],
        rng,
    )
}

/// Draws a selector for SS: flat, or one that faults.
pub fn stack(rng: &mut Rng) -> u16 {
    match rng.u32(0..100) {
        0..=84 => FLAT_DATA,
        _ => one_of(
            &[
                0,
                3,
                FLAT_CODE,
                FLAT_DATA & !3,
                KERNEL_DATA,
                SEGMENT_READ_ONLY,
                BEYOND_GDT,
                LOCAL,
            ],
            rng,
        ),
    }
}

/// Draws a selector for CS: flat, or one that faults.
pub fn code(rng: &mut Rng) -> u16 {
    match rng.u32(0..100) {
        0..=84 => FLAT_CODE,
        _ => one_of(
            &[
                0,
                3,
                FLAT_DATA,
                KERNEL_CODE,
                KERNEL_CODE | 3,
                BEYOND_GDT,
                LOCAL,
            ],
            rng,
        ),
    }
}

/// Draws a selector for LAR, LSL, VERR and VERW.
pub fn inspected(rng: &mut Rng) -> u16 {
    one_of(
        &[
            0,
            3,
            FLAT_CODE,
            FLAT_DATA,
            FLAT_DATA & !3,
            SEGMENT_LIMITED,
            SEGMENT_DOWN,
            SEGMENT_READ_ONLY,
            KERNEL_CODE,
            KERNEL_DATA,
            BEYOND_GDT,
            LOCAL,
        ],
        rng,
    )
}
