//! Breakpoints in translated code: an instruction that may have one is the emulator's, which knows its linear address.
//!
//! A translation does not know where it is mapped. So what counts is the offset in the page: in all pages, an instruction
//! that begins at the offset of a breakpoint is left to the emulator.

use super::engine::{PageKey, Translator};
use super::page::CodePage;
use crate::debugger::Debugger;
use crate::emulate::Exec;

/// The offsets of breakpoints that the translations heed.
#[derive(Default)]
pub struct Stops {
    /// Sorted, each once.
    offsets: Vec<u16>,
    /// Value of [`Debugger::changes`] when they were taken over.
    changes: u64,
}

impl Stops {
    /// The offsets, sorted.
    pub fn offsets(&self) -> &[u16] {
        &self.offsets
    }

    /// Takes over the breakpoints of `debugger`. Returns the offsets that have come or gone.
    fn follow(&mut self, debugger: &Debugger) -> Vec<u16> {
        self.changes = debugger.changes();
        let breakpoints = debugger.breakpoints().iter();
        let mut offsets: Vec<u16> = breakpoints.map(|linear| linear.offset() as u16).collect();
        offsets.sort_unstable();
        offsets.dedup();
        let old = std::mem::replace(&mut self.offsets, offsets);
        let gone = old.iter().filter(|at| !self.offsets.contains(at));
        let new = self.offsets.iter().filter(|at| !old.contains(at));
        gone.chain(new).copied().collect()
    }
}

impl Translator {
    /// Voids the translations that breakpoints, or their removal, make stale: of code that executes at their offsets, and of
    /// code that ends there.
    pub(super) fn follow_breakpoints(&mut self, cx: &Exec<'_>) {
        if cx.debugger.changes() == self.stops.changes {
            return;
        }
        let changed = self.stops.follow(cx.debugger);
        let concerns = |page: &CodePage, at: u16| {
            page.is_scanned(at) || at.checked_sub(1).is_some_and(|at| page.is_scanned(at))
        };
        let stale: Vec<PageKey> = self
            .pages
            .iter()
            .filter(|(_, page)| changed.iter().any(|&at| concerns(page, at)))
            .map(|(&key, _)| key)
            .collect();
        for key in stale {
            self.hide(key);
            if let Some(page) = self.pages.get_mut(&key) {
                page.void = true;
            }
            self.stack.reset(&mut self.context);
        }
    }
}
