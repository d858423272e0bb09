//! A checker of emitted code: it proves of each fragment that what translated code may do is all it can do.
//!
//! What was emitted is decoded again, and each instruction is followed on values that stand for all there can be. Nothing of
//! the emitter is asked, only where the fragment and the trampolines lie. The rules ([`Rule`]), in short:
//!
//! * Every byte is executed as one instruction at most; branches lead to instructions of the fragment, to trampolines that
//!   find what they need, to other fragments.
//! * Memory is the context, a table at a proven index, the guest's by way of a slot for just that address and size, or a
//!   window; the stack is used by PUSH, POP, CALL and RET only, and is at its level where control leaves.
//! * Instructions have no effect but on registers and that memory, and raise no exception.
//! * Wherever control may leave, the guest's registers have 32 bits, and R13 to R15 are what they always are.
//!
//! | file | has |
//! |---|---|
//! | `value` | what registers hold: sums of named parts |
//! | `state` | what is known between two instructions |
//! | `step` | what an instruction does to that |
//! | `memory` | what memory may be accessed |
//! | `allowed` | which instructions may be there |
//! | `flow` | instructions in the order they are looked at |
//! | `walk` | all ways through a fragment, and out of it |
//! | `contract` | what trampolines need and give |
//! | `rule` | the rules |
//! | `verifier` | the checker as the engine uses it |
//!
//! A new form of access is a new [`memory::Location`]; a new trampoline is a line of [`Contract::of`](contract::Contract); a new way to form a value is
//! a case of [`step::Stepper::step`].

mod allowed;
mod contract;
mod flow;
#[macro_use]
mod memory;
mod rule;
mod state;
mod step;
mod value;
mod verifier;
mod walk;

use super::trampoline::Trampolines;
use crate::translate::mode::Mode;
use contract::Contracts;
use hashbrown::HashSet;
pub use rule::{Rule, Violation};
pub use verifier::Verifier;
use walk::{Around, FragmentEntries, FragmentEntry, Sites};

/// Checks fragments, and keeps account of where they may lead.
pub struct Checker {
    contracts: Contracts,
    entries: FragmentEntries,
    sites: Sites,
    /// Arena offsets behind 64-bit numbers.
    numbers: HashSet<u32>,
    fragments: u64,
}

impl Checker {
    /// A checker of code that uses `trampolines`.
    pub fn new(trampolines: &Trampolines) -> Self {
        Self {
            contracts: contract::all(trampolines),
            entries: FragmentEntries::new(),
            sites: Sites::new(),
            numbers: HashSet::new(),
            fragments: 0,
        }
    }

    /// How many fragments have been found to obey all rules.
    pub fn fragments(&self) -> u64 {
        self.fragments
    }

    /// Checks a fragment whose sections lie at the arena offsets `origins`, made of code at offset `at` of a page, executed in
    /// `mode`.
    ///
    /// # Errors
    /// What it violates.
    pub fn fragment(
        &mut self,
        code: [&[u8]; 2],
        origins: [u32; 2],
        mode: Mode,
        at: u32,
    ) -> Result<(), Violation> {
        let around = Around {
            contracts: &self.contracts,
            entries: &self.entries,
        };
        let entry = FragmentEntry { at, mode };
        let found = walk::fragment(around, code, origins, entry)?;
        self.sites.extend(found.sites);
        self.numbers.extend(found.numbers);
        self.entries.insert(origins[0], entry);
        self.fragments += 1;
        Ok(())
    }

    /// Checks that the branch that ends at arena offset `after` may lead to `target` from now on.
    ///
    /// # Errors
    /// When it may not.
    pub fn link(&self, after: u32, target: u32) -> Result<(), Violation> {
        let may = self.sites.get(&after).is_some_and(|site| {
            site.original == target
                || site.may_enter(&self.entries, target)
                || site.may_leave(&self.contracts, target)
        });
        if may {
            return Ok(());
        }
        Err(Violation {
            offset: after,
            instruction: format!("link to {target:#x}"),
            rule: Rule::Target,
        })
    }

    /// Checks that a 64-bit number ends at arena offset `after`, which may be any.
    ///
    /// # Errors
    /// When none does.
    pub fn number(&self, after: u32) -> Result<(), Violation> {
        if self.numbers.contains(&after) {
            return Ok(());
        }
        Err(Violation {
            offset: after,
            instruction: "a number".into(),
            rule: Rule::Number,
        })
    }

    /// All fragments are gone.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.sites.clear();
        self.numbers.clear();
    }
}

#[cfg(test)]
mod tests;
