//! Segment selectors that a user program may try, with the answers of both sides known to agree.
//!
//! A case that is *local* uses the LDT: most of its selectors name segments there that can be loaded.

use super::layout::{FLAT_CODE, FLAT_DATA, SEGMENT_DOWN, SEGMENT_LIMITED, SEGMENT_READ_ONLY};
use super::mode::Mode;
use super::segments::{LocalTable, Segment};
use super::values::percent;
use fastrand::Rng;

/// Ring-0 32-bit code of Linux's GDT (arch/x86/include/asm/segment.h).
const KERNEL_CODE: u16 = 0x08;
/// Ring-0 data.
const KERNEL_DATA: u16 = 0x18;
/// Beyond the limit of the GDT.
const BEYOND_GDT: u16 = 0xfff8;
/// An empty entry of the LDT.
const EMPTY_LOCAL: u16 = 0x0f;
/// Beyond the limit of the LDT.
const BEYOND_LDT: u16 = 0x7ff7;

/// The selectors of a case.
#[derive(Clone, Copy, Debug)]
pub struct Selectors<'t> {
    /// The mode of the case.
    pub mode: Mode,
    /// The LDT.
    pub segments: &'t LocalTable,
    /// Whether the case uses it.
    pub local: bool,
}

impl Selectors<'_> {
    /// Draws a selector of the LDT with chance `likely`, in percent, if the case uses it: mostly one that is `wanted`.
    fn local(&self, likely: u32, rng: &mut Rng, wanted: fn(&Segment) -> bool) -> Option<u16> {
        if !self.local || !percent(rng, likely) {
            return None;
        }
        if percent(rng, 92) {
            self.segments.draw(rng, wanted)
        } else {
            self.segments.draw(rng, |_| true)
        }
    }

    /// Draws a selector for DS, ES, FS and GS.
    pub fn data(&self, rng: &mut Rng) -> u16 {
        self.local(75, rng, Segment::is_data)
            .unwrap_or_else(|| data(rng))
    }

    /// Draws a selector for SS: flat, of the LDT, or one that faults.
    pub fn stack(&self, rng: &mut Rng) -> u16 {
        self.local(75, rng, Segment::is_stack)
            .unwrap_or_else(|| stack(rng))
    }

    /// Draws a selector for CS: flat, of the LDT, or one that faults. 64-bit code stays in the flat segment: those of the LDT are
    /// compatibility mode's.
    pub fn code(&self, rng: &mut Rng) -> u16 {
        if self.mode.is_64() {
            return code(self.mode, rng);
        }
        self.local(75, rng, Segment::is_code)
            .unwrap_or_else(|| code(self.mode, rng))
    }

    /// Draws a selector for LAR, LSL, VERR and VERW.
    pub fn inspected(&self, rng: &mut Rng) -> u16 {
        if percent(rng, 30)
            && let Some(selector) = self.segments.draw(rng, |_| true)
        {
            return selector;
        }
        inspected(rng)
    }

    /// Draws the selectors for DS, ES, FS, GS and SS at the start of a case, all of which can be loaded.
    pub fn initial(&self, rng: &mut Rng) -> [u16; 5] {
        if !self.local && self.mode.is_64() {
            let [ds, es, fs, gs] = std::array::from_fn(|_| initial_extra(rng));
            return [ds, es, fs, gs, FLAT_DATA];
        }
        if !self.local {
            let [ds, es] = [initial(rng), initial(rng)];
            let [fs, gs] = [initial_extra(rng), initial_extra(rng)];
            return [ds, es, fs, gs, FLAT_DATA];
        }
        // Few in some cases: translated code wants DS, ES and SS flat.
        let share = if percent(rng, 30) { 8 } else { 65 };
        let mut draw = |share, wanted: fn(&Segment) -> bool| {
            let local = percent(rng, share).then(|| self.segments.draw(rng, wanted));
            local.flatten().unwrap_or(FLAT_DATA)
        };
        [
            draw(share, Segment::is_data),
            draw(share, Segment::is_data),
            draw(65, Segment::is_data),
            draw(40, Segment::is_data),
            draw(share, Segment::is_stack),
        ]
    }

    /// Draws the selector for CS at the start of a case.
    pub fn initial_code(&self, rng: &mut Rng, wanted: impl Fn(&Segment) -> bool) -> u16 {
        if self.local
            && !self.mode.is_64()
            && percent(rng, 60)
            && let Some(selector) = self
                .segments
                .draw(rng, |segment| segment.is_code() && wanted(segment))
        {
            return selector;
        }
        self.mode.flat_code()
    }
}

fn one_of(list: &[u16], rng: &mut Rng) -> u16 {
    list[rng.usize(..list.len())]
}

/// Draws a selector for DS, ES, FS and GS.
fn data(rng: &mut Rng) -> u16 {
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
            &[
                KERNEL_CODE,
                KERNEL_DATA,
                BEYOND_GDT,
                EMPTY_LOCAL,
                BEYOND_LDT,
                KERNEL_DATA | 3,
            ],
            rng,
        ),
    }
}

/// Draws a selector for DS, ES, FS and GS at the start of a case.
fn initial(rng: &mut Rng) -> u16 {
    match rng.u32(0..100) {
        0..=91 => FLAT_DATA,
        92..=98 => one_of(
            &[SEGMENT_LIMITED, SEGMENT_DOWN, SEGMENT_READ_ONLY, FLAT_CODE],
            rng,
        ),
        _ => 0,
    }
}

/// Draws a selector for FS and GS at the start of a case, and for DS and ES of 64-bit code.
fn initial_extra(rng: &mut Rng) -> u16 {
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
fn stack(rng: &mut Rng) -> u16 {
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
                EMPTY_LOCAL,
                BEYOND_LDT,
            ],
            rng,
        ),
    }
}

/// Draws a selector for CS: flat, or one that faults.
fn code(mode: Mode, rng: &mut Rng) -> u16 {
    match rng.u32(0..100) {
        0..=84 => mode.flat_code(),
        _ => one_of(
            &[
                0,
                3,
                FLAT_DATA,
                KERNEL_CODE,
                KERNEL_CODE | 3,
                BEYOND_GDT,
                EMPTY_LOCAL,
                BEYOND_LDT,
            ],
            rng,
        ),
    }
}

/// Draws a selector for LAR, LSL, VERR and VERW.
fn inspected(rng: &mut Rng) -> u16 {
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
            EMPTY_LOCAL,
            BEYOND_LDT,
        ],
        rng,
    )
}
