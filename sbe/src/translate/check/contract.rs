//! [`Contract`]: the needs of a trampoline, which the code that enters it has to meet, and its effects, which that code can rely on.

use super::registers::{R8, R9};
use super::rule::{Need, Rule};
use super::state::State;
use super::value::Values;
use super::widths::Widths;
use crate::cpu::segment::SegReg;
use crate::translate::context::AccessKind;
use crate::translate::trampoline::{Trampoline, Trampolines};
use hashbrown::HashMap;
use mmu::{LinearWidth, PAGE_SIZE};

/// The way in which a trampoline is entered, and its effect when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    /// Entered by a jump, or by the guest's call; it does not return.
    Jump,
    /// Entered like `Jump`; it counts a poll.
    PolledJump,
    /// Called; on return the host's unit holds the guest's FPU state.
    LoadsFpu,
    /// Called; on return a segment register is loaded.
    LoadsSegment,
    /// Called; on return RCX holds a slot for the address in R8.
    FindsSlot(AccessKind),
}

/// The contract of a trampoline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contract {
    /// The way in which the trampoline is entered.
    pub linkage: Linkage,
    /// The needs of the trampoline.
    pub needs: &'static [Need],
}

/// Contracts of all trampolines that fragments may enter, by arena offset.
pub type Contracts = HashMap<u32, Contract>;

/// The contracts of `trampolines`.
pub fn all(trampolines: &Trampolines) -> Contracts {
    Trampoline::all()
        .filter(|&trampoline| is_entered(trampoline, trampolines.width()))
        .filter_map(|trampoline| Some((trampolines.at(trampoline), Contract::of(trampoline)?)))
        .collect()
}

/// Whether fragments may enter a trampoline with linear addresses of the width `tables`. Of 48 bits, a look at the GDT may fault,
/// and the code of a trampoline has no place in the fault map.
fn is_entered(trampoline: Trampoline, tables: LinearWidth) -> bool {
    match trampoline {
        Trampoline::LoadSegment(_) => tables == LinearWidth::Bits32,
        Trampoline::Syscall | Trampoline::Sysret | Trampoline::WriteMsr => {
            tables == LinearWidth::Bits48
        }
        _ => true,
    }
}

impl Need {
    /// Whether `state` meets the need.
    pub fn met(self, values: &Values, widths: Widths, state: &State) -> bool {
        let (r8, r9) = (state.registers[R8], state.registers[R9]);
        match self {
            Self::Word8 => widths.fits(values, r8),
            Self::Inverted8 => widths.fits(values, values.not(r8)),
            Self::Word9 => values.is_word(r9),
            Self::Offset9 => values.most(r9) < PAGE_SIZE as u64,
            Self::Long => widths.is_64(),
            Self::Linkage => false,
        }
    }
}

impl Contract {
    /// The contract of `trampoline`; `None` where fragments may not enter it.
    fn of(trampoline: Trampoline) -> Option<Self> {
        use Need::{Inverted8, Long, Offset9, Word8, Word9};
        use Trampoline::*;
        let (linkage, needs): (_, &'static [Need]) = match trampoline {
            DirectDispatch | Dispatch | Emulate => (Linkage::Jump, &[Word8]),
            PolledDispatch => (Linkage::PolledJump, &[Word8]),
            ReturnMismatch => (Linkage::Jump, &[Inverted8]),
            EmulateAt | BudgetAt | Sysenter | Sysexit => (Linkage::Jump, &[Offset9]),
            Syscall | WriteMsr => (Linkage::Jump, &[Long, Word8, Offset9]),
            Sysret => (Linkage::Jump, &[Long, Offset9]),
            Link => (Linkage::Jump, &[Word8, Offset9]),
            LinkAcross => (Linkage::Jump, &[Word8, Word9]),
            LoadFpu => (Linkage::LoadsFpu, &[Offset9]),
            LoadSegment(SegReg::Es | SegReg::Ds | SegReg::Fs | SegReg::Gs) => {
                (Linkage::LoadsSegment, &[Word8, Offset9])
            }
            Miss(kind) => (Linkage::FindsSlot(kind), &[Word8, Offset9]),
            Lookup | Exit | Enter | ReturnUnderflow | WindowFault => return None,
            LoadSegment(SegReg::Cs | SegReg::Ss) => return None,
        };
        Some(Self { linkage, needs })
    }

    /// Whether code continues behind a call of the trampoline.
    pub fn returns(&self) -> bool {
        !matches!(self.linkage, Linkage::Jump | Linkage::PolledJump)
    }

    /// Checks that `state` meets all needs.
    pub fn check(&self, values: &Values, widths: Widths, state: &State) -> Result<(), Rule> {
        let unmet = |need: &&Need| !need.met(values, widths, state);
        match self.needs.iter().find(unmet) {
            Some(&need) => Err(Rule::Contract(need)),
            None => Ok(()),
        }
    }
}
