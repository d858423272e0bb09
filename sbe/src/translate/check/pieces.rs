//! [`Pieces`]: what the fixed pieces of the runtime need and give.

use super::rule::{Need, Rule};
use super::state::{R8, R9, State};
use super::value::Values;
use crate::cpu::segment::SegReg;
use crate::translate::context::AccessKind;
use crate::translate::runtime::Runtime;
use hashbrown::HashMap;
use mmu::PAGE_SIZE;

/// How a fixed piece is entered, and what holds when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By a jump, or by the guest's call; it goes on elsewhere.
    Jump,
    /// As `Jump`, and it counts a poll.
    JumpPolled,
    /// By a call; the host's unit has the guest's FPU state then.
    LoadsFpu,
    /// By a call; a segment register is loaded then.
    LoadsSegment,
    /// By a call; RCX has a slot for the address in R8 then.
    Finds(AccessKind),
}

/// A fixed piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// How it is entered.
    pub way: Way,
    /// What it needs.
    pub needs: &'static [Need],
}

/// All that emitted code may enter, by arena offset.
pub type Pieces = HashMap<u32, Piece>;

/// The pieces of `runtime`.
pub fn of(runtime: &Runtime) -> Pieces {
    use Need::{Inverted8, Offset9, Word8, Word9};
    let jumps: [(u32, &'static [Need]); 9] = [
        (runtime.forward, &[Word8]),
        (runtime.mismatch, &[Inverted8]),
        (runtime.emulate, &[Word8]),
        (runtime.emulate_at, &[Offset9]),
        (runtime.budget_at, &[Offset9]),
        (runtime.link, &[Word8, Offset9]),
        (runtime.cross, &[Word8, Word9]),
        (runtime.sysenter, &[Offset9]),
        (runtime.sysexit, &[Offset9]),
    ];
    let segments = [SegReg::Es, SegReg::Ds, SegReg::Fs, SegReg::Gs]
        .map(|register| (runtime.load_segment(register), Way::LoadsSegment));
    let misses = AccessKind::all().map(|kind| (runtime.miss(kind), Way::Finds(kind)));
    let jumps = jumps.map(|(at, needs)| (at, Way::Jump, needs));
    let calls = segments.into_iter().chain(misses);
    let calls = calls.map(|(at, way)| (at, way, [Word8, Offset9].as_slice()));
    let others = [
        (runtime.jump, Way::JumpPolled, [Word8].as_slice()),
        (runtime.load_fpu, Way::LoadsFpu, &[Offset9]),
    ];
    jumps
        .into_iter()
        .chain(calls)
        .chain(others)
        .map(|(at, way, needs)| (at, Piece { way, needs }))
        .collect()
}

impl Need {
    /// Whether `state` has it.
    pub fn met(self, values: &Values, state: &State) -> bool {
        let (r8, r9) = (state.registers[R8], state.registers[R9]);
        match self {
            Self::Word8 => values.is_word(r8),
            Self::Inverted8 => values.is_word(values.not(r8)),
            Self::Word9 => values.is_word(r9),
            Self::Offset9 => values.most(r9) < PAGE_SIZE as u64,
            Self::Way => false,
        }
    }
}

impl Piece {
    /// Whether code goes on behind a call of it.
    pub fn returns(&self) -> bool {
        !matches!(self.way, Way::Jump | Way::JumpPolled)
    }

    /// Checks that `state` has what it needs.
    pub fn check(&self, values: &Values, state: &State) -> Result<(), Rule> {
        match self.needs.iter().find(|need| !need.met(values, state)) {
            Some(&need) => Err(Rule::Contract(need)),
            None => Ok(()),
        }
    }
}
