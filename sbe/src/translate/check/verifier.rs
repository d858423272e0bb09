//! [`Verifier`]: the checker as the code buffer uses it: on demand, and remembering the first violation.

use super::{Checker, FragmentEntry, Violation};
use crate::translate::fault_map::FaultMap;
use crate::translate::trampoline::Trampolines;

/// Checks everything that is emitted, if that is wanted, and remembers the first violation.
#[derive(Default)]
pub struct Verifier {
    checker: Option<Checker>,
    violation: Option<Violation>,
}

impl Verifier {
    /// Creates a verifier that does check, for code that uses `trampolines`.
    pub fn new(trampolines: &Trampolines) -> Self {
        Self {
            checker: Some(Checker::new(trampolines)),
            violation: None,
        }
    }

    /// The first violation.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// The number of fragments that were found to obey all rules; `None` when none are checked.
    pub fn fragments(&self) -> Option<u64> {
        self.checker.as_ref().map(Checker::fragments)
    }

    /// Checks a fragment: see [`Checker::fragment`]. Returns whether it may run.
    pub fn fragment(
        &mut self,
        code: [&[u8]; 2],
        origins: [u32; 2],
        entry: FragmentEntry,
        fault_map: &FaultMap,
    ) -> bool {
        let checked = self
            .checker
            .as_mut()
            .map(|checker| checker.fragment(code, origins, entry, fault_map));
        self.note(checked)
    }

    /// Checks a link: see [`Checker::link`]. Returns whether the branch may be redirected.
    pub fn link(&mut self, after: u32, target: u32) -> bool {
        let checked = self
            .checker
            .as_ref()
            .map(|checker| checker.link(after, target));
        self.note(checked)
    }

    /// Checks an operand: see [`Checker::number`]. Returns whether it may be replaced.
    pub fn number(&mut self, after: u32) -> bool {
        let checked = self.checker.as_ref().map(|checker| checker.number(after));
        self.note(checked)
    }

    /// Forgets all fragments.
    pub fn clear(&mut self) {
        if let Some(checker) = &mut self.checker {
            checker.clear();
        }
    }

    fn note(&mut self, checked: Option<Result<(), Violation>>) -> bool {
        let Some(Err(violation)) = checked else {
            return true;
        };
        log::error!("emitted code: {violation}");
        self.violation.get_or_insert(violation);
        false
    }
}
