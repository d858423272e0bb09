//! [`Places`]: what lies where in the arena, by name.

use super::listing::Listing;
use super::trampoline::{Trampoline, Trampolines};
use std::collections::BTreeMap;

/// Names of arena offsets.
pub struct Places {
    /// First offset of each place, the offset behind it, and its name.
    places: BTreeMap<u32, (u32, String)>,
}

impl Places {
    /// The trampolines.
    pub fn new(trampolines: &Trampolines) -> Self {
        let named = Trampoline::all().map(|trampoline| {
            let at = trampolines.at(trampoline);
            (at, (at + 1, trampoline.to_string()))
        });
        Self {
            places: named.collect(),
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
