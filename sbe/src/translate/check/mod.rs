//! [`Checker`]: a proof for each emitted fragment that it does nothing but what translated code may do.
//!
//! The code is decoded again, and each instruction is interpreted on abstract values. The checker knows nothing of the emitter,
//! only where the fragment and the trampolines lie. The rules ([`Rule`]), in short:
//!
//! * Every byte is executed as part of one instruction only; branches lead to instructions of the fragment, to trampolines whose
//!   contracts are met, and to other fragments.
//! * Memory is accessed in the context, in a table at a proven index, in the guest's RAM by way of a slot for just that address
//!   and size, or in a window; the stack is used by PUSH, POP, CALL and RET only, and is level where control leaves.
//! * Instructions have no effect but on registers and that memory, and raise no exception.
//! * Wherever control may leave, the guest's registers have the width of its code, and R13 to R15, the page and the tables are as
//!   they are between guest instructions.
//! * With 48-bit linear addresses, where accesses may fault: wherever one may, the guest's instruction can begin anew.
//!
//! | file | has |
//! |---|---|
//! | `widths` | widths of addresses and code |
//! | `registers` | numbers of registers |
//! | `value` | abstract values: sums of named parts |
//! | `state` | the values of registers, stack and context between two instructions |
//! | `step` | the effect of an instruction on a state |
//! | `memory` | the memory that may be accessed |
//! | `allowed` | the instructions that may occur |
//! | `flow` | disassembled code, in the order in which it is checked |
//! | `walk` | all paths through a fragment, and out of it |
//! | `contract` | what trampolines need and give |
//! | `rule` | the rules |
//! | `verifier` | the checker as the code buffer uses it |
//!
//! A new form of access is a new [`memory::Location`]; a new trampoline is a line of [`Contract::of`](contract::Contract); a new
//! way to form a value is a case of [`step::Stepper::step`].

mod allowed;
mod contract;
mod flow;
#[macro_use]
mod memory;
mod registers;
mod rule;
mod state;
mod step;
mod value;
mod verifier;
mod walk;
mod widths;

use super::fault_map::FaultMap;
use super::trampoline::Trampolines;
use contract::Contracts;
use hashbrown::HashSet;
use mmu::LinearWidth;
pub use rule::{Rule, Violation};
pub use verifier::Verifier;
pub use walk::FragmentEntry;
use walk::{Around, FragmentEntries, Sites};

/// The checker of fragments, which remembers where they can be entered and patched.
pub struct Checker {
    contracts: Contracts,
    entries: FragmentEntries,
    sites: Sites,
    /// Arena offsets of the ends of 64-bit operands.
    numbers: HashSet<u32>,
    fragments: u64,
    /// The width of linear addresses.
    tables: LinearWidth,
}

impl Checker {
    /// Creates a checker of code that uses `trampolines`.
    pub fn new(trampolines: &Trampolines) -> Self {
        Self {
            contracts: contract::all(trampolines),
            entries: FragmentEntries::new(),
            sites: Sites::new(),
            numbers: HashSet::new(),
            fragments: 0,
            tables: trampolines.width(),
        }
    }

    /// The number of fragments that were found to obey all rules.
    pub fn fragments(&self) -> u64 {
        self.fragments
    }

    /// Checks a fragment whose sections lie at the arena offsets `origins`, and whose instructions `fault_map` has.
    ///
    /// # Errors
    /// The rule that it violates.
    pub fn fragment(
        &mut self,
        code: [&[u8]; 2],
        origins: [u32; 2],
        entry: FragmentEntry,
        fault_map: &FaultMap,
    ) -> Result<(), Violation> {
        let around = Around {
            contracts: &self.contracts,
            entries: &self.entries,
            fault_map,
            tables: self.tables,
        };
        let found = walk::fragment(around, code, origins, entry)?;
        self.sites.extend(found.sites);
        self.numbers.extend(found.numbers);
        self.entries.insert(origins[0], entry);
        self.fragments += 1;
        Ok(())
    }

    /// Checks that the branch that ends at arena offset `after` may be redirected to `target`.
    ///
    /// # Errors
    /// A violation, if it may not.
    pub fn link(&self, after: u32, target: u32) -> Result<(), Violation> {
        let may = self.sites.get(&after).is_some_and(|site| {
            site.original == target
                || site.may_enter(&self.entries, self.tables, target)
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

    /// Checks that a 64-bit operand that may have any value ends at arena offset `after`.
    ///
    /// # Errors
    /// A violation, if none does.
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

    /// Forgets all fragments.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.sites.clear();
        self.numbers.clear();
    }
}

#[cfg(test)]
mod tests;
