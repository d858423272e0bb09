//! [`Stale`]: which pages the processor may know by entries that have changed since, so that they must be flushed before they are
//! accessed (SDM Vol. 3A, 4.10.4 Invalidation of TLBs and Paging-Structure Caches).
//!
//! A processor may cache every present translation, used or not, and every present entry that leads to another structure. So a
//! change of either is stale until something flushes it; what was not present before is not.

use super::format::P;
use super::model::{Model, Walk};

/// The pages' walks at one time.
pub struct Snapshot(Vec<Walk>);

/// What must be flushed before a page may be accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// The entries above page tables that the processor caches.
    Structures,
    /// The page.
    Page,
    /// The page, by something that flushes global pages, too.
    GlobalPage,
}

/// What may be stale of a page.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    page: bool,
    global: bool,
    structures: bool,
}

/// The state of each page.
pub struct Stale {
    pages: Vec<u64>,
    states: Vec<State>,
}

impl Stale {
    /// Creates the state of `pages` after everything was flushed.
    pub fn new(pages: Vec<u64>) -> Self {
        let states = vec![State::default(); pages.len()];
        Self { pages, states }
    }

    /// Walks for all pages.
    pub fn snapshot(&self, model: &Model) -> Snapshot {
        Snapshot(self.pages.iter().map(|&page| model.walk(page)).collect())
    }

    /// Follows a change of entries that leads from one set of walks to another.
    pub fn changed(&mut self, before: &Snapshot, after: &Snapshot) {
        for (state, (old, new)) in self.states.iter_mut().zip(before.0.iter().zip(&after.0)) {
            let present = old.entries().all(|entry| entry.value & P != 0);
            if old.leaf().is_some() && present && differs(old, new) {
                state.page = true;
                state.global |= is_global(old);
            }
            // What lies behind an entry that is not present is not cached, whatever it is.
            let cached = old.uppers().take_while(|entry| entry.value & P != 0);
            let mut now = new.uppers();
            if cached.map(Some).any(|entry| entry != now.next()) {
                state.structures = true;
            }
        }
    }

    /// Follows a load of CR3 that leads from one set of walks to another: what is not global is flushed.
    pub fn loaded_cr3(&mut self, before: &Snapshot, after: &Snapshot) {
        for (state, (old, new)) in self.states.iter_mut().zip(before.0.iter().zip(&after.0)) {
            state.global |= is_global(old) && differs(old, new);
            state.page = state.global;
            state.structures = false;
        }
    }

    /// Follows INVLPG of a page.
    pub fn invalidated(&mut self, page: u64) {
        for state in &mut self.states {
            state.structures = false;
        }
        if let Some(index) = self.pages.iter().position(|&one| one == page) {
            self.states[index] = State::default();
        }
    }

    /// Follows a change of CR4.PGE or CR0.PG: everything is flushed.
    pub fn flushed(&mut self) {
        self.states.fill(State::default());
    }

    /// What the page needs.
    pub fn need(&self, page: u64) -> Need {
        let Some(index) = self.pages.iter().position(|&one| one == page) else {
            return Need::Nothing;
        };
        match self.states[index] {
            State { global: true, .. } => Need::GlobalPage,
            State { page: true, .. } => Need::Page,
            State {
                structures: true, ..
            } => Need::Structures,
            _ => Need::Nothing,
        }
    }
}

fn is_global(walk: &Walk) -> bool {
    walk.result.is_ok_and(|page| page.global)
}

/// Whether a translation that was cached by `old` may behave otherwise than `new`. Entries above the page's own may lie elsewhere, as
/// long as they are equal; in that one bits are set.
fn differs(old: &Walk, new: &Walk) -> bool {
    let values = |walk: &Walk| walk.entries().map(|entry| entry.value).collect::<Vec<_>>();
    old.result != new.result || old.leaf() != new.leaf() || values(old) != values(new)
}
