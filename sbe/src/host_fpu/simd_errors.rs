//! SIMD floating-point exceptions (SDM Vol. 1, 11.5 "SSE, SSE2, and SSE3 Exceptions").
//!
//! The host runs every instruction with all exceptions masked, which gives the masked results and the flags. When the guest
//! left an exception unmasked that was raised, the results are dropped and MXCSR gets the flags the processor would set:
//!
//! * Invalid, denormal and divide-by-zero are found before the computation; if one of them is unmasked, nothing is computed
//!   in any element, and overflow, underflow and precision are not reported (11.5.3).
//! * Masked underflow means tiny *and* inexact, unmasked underflow tiny alone (Vol. 1, 4.9.1.5). A tiny exact result shows
//!   in a second run with flush-to-zero, which reports every tiny result.
//! * Beside an unmasked overflow or underflow, PE says whether rounding with an unbounded exponent is inexact
//!   ([`super::precision`]), or whether a masked one occurred in another element.

use super::frame::StubFrame;
use super::precision::Denormals;
use super::unit::{HostFpu, Template};
use crate::cpu::fpu::{
    MXCSR_DAZ, MXCSR_DE, MXCSR_FLAGS, MXCSR_FTZ, MXCSR_IE, MXCSR_MASKS, MXCSR_MASKS_SHIFT,
    MXCSR_OE, MXCSR_PE, MXCSR_UE, MXCSR_ZE,
};

/// The exceptions that are found before the computation.
const BEFORE: u32 = MXCSR_IE | MXCSR_DE | MXCSR_ZE;
/// Exceptions of results out of the format's range.
const RANGE: u32 = MXCSR_OE | MXCSR_UE;

/// The outcome of a SIMD instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The frame holds the results; raise these flags of MXCSR.
    Done(u32),
    /// An unmasked exception: no results; raise these flags of MXCSR.
    Unmasked(u32),
    /// The host did not execute it.
    Refused,
}

/// Runs `template` on `frame` under the guest's `mxcsr`. The frame's own MXCSR is without meaning afterwards.
pub fn run(host: &HostFpu, template: &Template, frame: &mut StubFrame, mxcsr: u32) -> Outcome {
    let unmasked = !(mxcsr >> MXCSR_MASKS_SHIFT) & MXCSR_FLAGS;
    let start = (unmasked & RANGE != 0).then(|| frame.clone());
    match (run_masked(host, template, frame, mxcsr, unmasked), start) {
        (Outcome::Unmasked(raised), Some(start)) if raised & unmasked & RANGE != 0 => {
            Outcome::Unmasked(with_precision(raised, unmasked, template, &start, mxcsr))
        }
        (outcome, _) => outcome,
    }
}

/// Runs `template` as [`run`] does, but reports the PE of the masked response.
fn run_masked(
    host: &HostFpu,
    template: &Template,
    frame: &mut StubFrame,
    mxcsr: u32,
    unmasked: u32,
) -> Outcome {
    if unmasked & MXCSR_UE == 0 {
        return run_with(host, template, frame, mxcsr, |raised| {
            judge(raised, unmasked)
        });
    }
    // Flush-to-zero has no effect while underflow is unmasked (SDM Vol. 1, 10.2.3.3 "Flush-To-Zero").
    let mut flushed = frame.clone();
    let tiny = match run_with(
        host,
        template,
        &mut flushed,
        mxcsr | MXCSR_FTZ,
        Outcome::Done,
    ) {
        Outcome::Done(raised) => raised & MXCSR_UE,
        other => return other,
    };
    run_with(host, template, frame, mxcsr & !MXCSR_FTZ, |raised| {
        judge(raised | tiny, unmasked)
    })
}

/// `raised` with the PE of an unmasked overflow or underflow. `start` holds the operands.
fn with_precision(
    raised: u32,
    unmasked: u32,
    template: &Template,
    start: &StubFrame,
    mxcsr: u32,
) -> u32 {
    let Some(rounding) = template.facts.rounding else {
        return raised;
    };
    let denormals = if mxcsr & MXCSR_DAZ == 0 {
        Denormals::Kept
    } else {
        Denormals::Zeros
    };
    let masked_range = raised & !unmasked & RANGE != 0;
    if masked_range || rounding.is_inexact(start, denormals) {
        raised | MXCSR_PE
    } else {
        raised & !MXCSR_PE
    }
}

fn run_with(
    host: &HostFpu,
    template: &Template,
    frame: &mut StubFrame,
    mxcsr: u32,
    judge: impl FnOnce(u32) -> Outcome,
) -> Outcome {
    frame.image.set_mxcsr(mxcsr & !MXCSR_FLAGS | MXCSR_MASKS);
    if !host.run(template, frame) {
        return Outcome::Refused;
    }
    judge(frame.image.mxcsr() & MXCSR_FLAGS)
}

fn judge(raised: u32, unmasked: u32) -> Outcome {
    if raised & unmasked & BEFORE != 0 {
        Outcome::Unmasked(raised & BEFORE)
    } else if raised & unmasked != 0 {
        Outcome::Unmasked(raised)
    } else {
        Outcome::Done(raised)
    }
}
