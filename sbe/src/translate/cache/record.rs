//! [`Records`]: records of emitted code for people: listings for dumps, and names for `perf`.

use crate::translate::asm::Asm;
use crate::translate::jitdump::JitDump;
use crate::translate::listing::Listing;
use crate::translate::mode::PageKey;
use hashbrown::HashMap;

/// Listings of fragments by page, where dumps are wanted, and the file that `perf` reads.
pub struct Records {
    listings: HashMap<PageKey, Vec<Listing>>,
    jitdump: Option<JitDump>,
}

impl Records {
    /// Creates records without listings, and with the file by which `perf` is told of code, if there is one.
    pub fn new(jitdump: Option<JitDump>) -> Self {
        Self {
            listings: HashMap::new(),
            jitdump,
        }
    }

    /// Whether `perf` is told of emitted code.
    pub fn names_code(&self) -> bool {
        self.jitdump.is_some()
    }

    /// Adds the listing of a fragment of the page of `key`.
    pub fn add(&mut self, key: PageKey, listing: Listing) {
        self.listings.entry(key).or_default().push(listing);
    }

    /// The listings of the page of `key`, in the order in which its fragments were emitted.
    pub fn listings(&self, key: PageKey) -> &[Listing] {
        self.listings.get(&key).map_or(&[], Vec::as_slice)
    }

    /// All listings, by page.
    pub fn all_listings(&self) -> impl Iterator<Item = (PageKey, &Listing)> {
        let pages = self.listings.iter();
        pages.flat_map(|(&key, listings)| listings.iter().map(move |listing| (key, listing)))
    }

    /// Tells `perf` of the fragment that `asm` holds, whose sections execute at the host addresses `addresses`.
    pub fn name(&mut self, name: &str, asm: &mut Asm, addresses: [u64; 2]) {
        let Some(jitdump) = &mut self.jitdump else {
            return;
        };
        let Ok(code) = asm.finish() else {
            return;
        };
        for ((code, address), section) in code.into_iter().zip(addresses).zip(["", " cold"]) {
            let written = jitdump.add(&format!("{name}{section}"), address, code);
            if let Err(error) = written {
                log::warn!("jitdump: {error}; perf is told nothing more");
                self.jitdump = None;
                return;
            }
        }
    }

    /// Removes the listings of the page of `key`, whose code is no longer reached.
    pub fn forget(&mut self, key: PageKey) {
        self.listings.remove(&key);
    }

    /// Removes all listings.
    pub fn clear(&mut self) {
        self.listings.clear();
    }
}
