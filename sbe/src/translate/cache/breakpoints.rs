//! [`BreakpointOffsets`]: the offsets at which instructions are left to the emulator, which knows their linear addresses, as they
//! may have breakpoints.
//!
//! A translation does not know where it is mapped. So what counts is the offset in the page: in all pages, an instruction
//! that begins at the offset of a breakpoint is left to the emulator.

use super::CodeCache;
use super::page::CodePage;
use crate::debugger::Debugger;
use crate::emulate::Exec;
use crate::translate::mode::PageKey;

/// The offsets of breakpoints that the translations heed.
#[derive(Default)]
pub struct BreakpointOffsets {
    /// The offsets, sorted, each once.
    offsets: Vec<u16>,
    /// Value of [`Debugger::changes`] when they were taken over.
    changes: u64,
}

impl BreakpointOffsets {
    /// The offsets, sorted.
    pub fn get(&self) -> &[u16] {
        &self.offsets
    }

    /// Takes over the breakpoints of `debugger`. Returns the offsets that have come or gone.
    fn follow(&mut self, debugger: &Debugger) -> Vec<u16> {
        if self.changes == debugger.changes() {
            return Vec::new();
        }
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

/// Whether a breakpoint that comes or goes at offset `at` makes the translations of `page` stale: of code that executes there, or
/// that ends there.
fn concerns(page: &CodePage, at: u16) -> bool {
    page.is_scanned(at) || at.checked_sub(1).is_some_and(|at| page.is_scanned(at))
}

impl CodeCache {
    /// Invalidates the translations that breakpoints, or their removal, make stale.
    pub(super) fn follow_breakpoints(&mut self, cx: &Exec<'_>) {
        let changed = self.breakpoints.follow(cx.debugger);
        if changed.is_empty() {
            return;
        }
        let stale: Vec<PageKey> = self
            .pages
            .iter()
            .filter(|(_, page)| changed.iter().any(|&at| concerns(page, at)))
            .map(|(key, _)| key)
            .collect();
        for key in stale {
            self.reject(key);
            self.dropped_returns = true;
        }
    }
}
