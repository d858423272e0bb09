//! [`Verifier`]: the checker as the engine uses it.

use super::{Checker, Violation};
use crate::translate::mode::Mode;
use crate::translate::trampoline::Trampolines;

/// Checks all that is emitted, if it is wanted; remembers what was wrong.
#[derive(Default)]
pub struct Verifier {
    checker: Option<Checker>,
    violation: Option<Violation>,
}

impl Verifier {
    /// One that checks what is emitted from now on, for code that uses `trampolines`.
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

    /// How many fragments have been found to obey all rules; `None` when they are not checked.
    pub fn fragments(&self) -> Option<u64> {
        self.checker.as_ref().map(Checker::fragments)
    }

    /// Whether the fragment may run: see [`Checker::fragment`].
    pub fn fragment(&mut self, code: [&[u8]; 2], origins: [u32; 2], mode: Mode, at: u32) -> bool {
        let checked = self
            .checker
            .as_mut()
            .map(|checker| checker.fragment(code, origins, mode, at));
        self.note(checked)
    }

    /// Whether a branch may be led to `target`: see [`Checker::link`].
    pub fn link(&mut self, after: u32, target: u32) -> bool {
        let checked = self
            .checker
            .as_ref()
            .map(|checker| checker.link(after, target));
        self.note(checked)
    }

    /// Whether the number that ends at arena offset `after` may be replaced: see [`Checker::number`].
    pub fn number(&mut self, after: u32) -> bool {
        let checked = self.checker.as_ref().map(|checker| checker.number(after));
        self.note(checked)
    }

    /// All fragments are gone.
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
