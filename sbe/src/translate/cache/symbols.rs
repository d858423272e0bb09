//! [`Symbols`]: names of arena offsets, for dumps.

use crate::translate::listing::Listing;
use crate::translate::trampoline::{Trampoline, Trampolines};
use std::collections::BTreeMap;

/// Named ranges of arena offsets.
pub struct Symbols {
    /// Ends and names of ranges, by the offset of their start.
    ranges: BTreeMap<u32, (u32, String)>,
}

impl Symbols {
    /// The names of the trampolines.
    pub fn new(trampolines: &Trampolines) -> Self {
        let named = Trampoline::all().map(|trampoline| {
            let at = trampolines.at(trampoline);
            (at, (at + 1, trampoline.to_string()))
        });
        Self {
            ranges: named.collect(),
        }
    }

    /// Adds the hot section of `listing`, the only one that is entered from elsewhere; its name begins with `page`.
    pub fn add(&mut self, page: &str, listing: &Listing) {
        let name = format!("{page}{}", listing.name());
        self.ranges.insert(listing.start[0], (listing.end[0], name));
    }

    /// The name of arena offset `at`.
    pub fn name(&self, at: u32) -> String {
        match self.ranges.range(..=at).next_back() {
            Some((start, (_, name))) if *start == at => name.clone(),
            Some((start, (end, name))) if at < *end => format!("{name}+{:x}", at - start),
            _ => format!("arena+{at:x}"),
        }
    }
}
