//! [`Places`]: what lies where in the arena, by name.

use super::context::AccessKind;
use super::listing::Listing;
use super::runtime::Runtime;
use crate::cpu::segment::SegReg;
use std::collections::BTreeMap;

/// Names of arena offsets.
pub struct Places {
    /// First offset of each place, the offset behind it, and its name.
    places: BTreeMap<u32, (u32, String)>,
}

impl Places {
    /// The pieces of `runtime`.
    pub fn new(runtime: &Runtime) -> Self {
        let named = [
            (runtime.forward, "forward"),
            (runtime.mismatch, "mismatch"),
            (runtime.emulate, "emulate"),
            (runtime.emulate_at, "emulate_at"),
            (runtime.budget_at, "budget_at"),
            (runtime.link, "link"),
            (runtime.cross, "cross"),
            (runtime.sysenter, "sysenter"),
            (runtime.sysexit, "sysexit"),
            (runtime.jump, "jump"),
            (runtime.load_fpu, "load_fpu"),
            (runtime.landing, "landing"),
        ];
        let named = named.map(|(at, name)| (at, name.to_owned()));
        let segments = SegReg::ALL.map(|register| {
            let name = format!("load_{register:?}").to_lowercase();
            (runtime.load_segment(register), name)
        });
        let misses = AccessKind::all().map(|kind| {
            let verb = if kind.writes() { "write" } else { "read" };
            let name = format!("miss_{verb}_{}", kind.size());
            (runtime.miss(kind), name)
        });
        let all = named.into_iter().chain(segments).chain(misses);
        Self {
            places: all.map(|(at, name)| (at, (at + 1, name))).collect(),
        }
    }

    /// Adds the usually executed code of `listing`, the only one that is entered from elsewhere; its name begins with `page`.
    pub fn add(&mut self, page: &str, listing: &Listing) {
        let name = format!("{page}{}", listing.name());
        self.places.insert(listing.start[0], (listing.end[0], name));
    }

    /// The name of arena offset `at`.
    pub fn name(&self, at: u32) -> String {
        match self.places.range(..=at).next_back() {
            Some((start, (_, name))) if *start == at => name.clone(),
            Some((start, (end, name))) if at < *end => format!("{name}+{:x}", at - start),
            _ => format!("arena+{at:x}"),
        }
    }
}
