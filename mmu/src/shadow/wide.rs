//! [`WideWindow`]: a shadow of 48-bit linear addresses, with a window for each *unit* of 4 GiB in which pages are used, and a
//! directory that tells where these windows are.
//!
//! ```text
//!   base ─► directory: 2^32 words                one unit: ┌ guard ─┬────── 4 GiB ──────┬ guard ┐
//!           word n = host address - linear address         │ 4 GiB  │ page 0, page 1 …  │ 8 GiB │
//!                    in the unit n                         └────────┴───────────────────┴───────┘
//! ```
//!
//! The upper half of an address finds the word, which is added to the address. The word holds for all operands that begin at one
//! of the distances [`REACH`] from there: they lie in the unit's window or its guards, which are inaccessible. Words of other units
//! lead to addresses that are not canonical, or are inaccessible themselves; both fault.

use std::io;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use smallvec::SmallVec;

use super::window::{MOST_MAPPINGS, MOST_MORE};
use super::{Extent, LINEAR_PAGES, Shadow, Window};
use crate::addr::{LinearAddr, LinearPage, LinearWidth, PAGE_SHIFT, PAGE_SIZE};
use crate::layout;
use crate::mapping::{Mapping, Protection};
use crate::memory::Memory;

/// log2 of the bytes of a unit.
const UNIT_SHIFT: u32 = 32;
const _: () = assert!(LINEAR_PAGES == 1 << (UNIT_SHIFT - PAGE_SHIFT));
/// Bytes of the guard before a unit.
const BEFORE: usize = 4 << 30;
/// Bytes of the guard behind a unit.
const BEHIND: usize = 8 << 30;
/// Bytes of host addresses of a unit.
const UNIT_BYTES: usize = BEFORE + (1 << UNIT_SHIFT) + BEHIND;
/// The distances in bytes from an address to others that are in the window or the guards of its unit with all operands that begin
/// there: those that a displacement and a sign-extended or zero-extended doubleword add.
pub const REACH: RangeInclusive<i64> = -(BEFORE as i64)..=(BEHIND - PAGE_SIZE) as i64;

/// Most units of a shadow. A program has one or two for itself, one for libraries and one for its stack.
const MOST_UNITS: usize = 16;

/// Bytes of the directory.
const DIRECTORY_BYTES: usize = size_of::<u64>() << (u64::BITS - UNIT_SHIFT);
const _: () = assert!(layout::fits_windows(UNIT_BYTES) && layout::fits_windows(DIRECTORY_BYTES));
/// Words of a page of the directory.
const WORDS: usize = PAGE_SIZE / size_of::<u64>();

/// The word of a unit without a window: added to an address below 2^47, or to one in [`REACH`] of it, it gives one that is
/// not canonical.
const NOWHERE: u64 = 1 << 63;

/// A window for each unit in use.
#[derive(Debug)]
pub(crate) struct WideWindow {
    memory: Arc<Memory>,
    directory: Mapping,
    units: Vec<Unit>,
    /// No further units are added: there are as many as there may be, or the host has refused addresses.
    is_full: bool,
}

#[derive(Debug)]
struct Unit {
    /// The upper half of the linear addresses.
    number: u32,
    /// The place of the first page's slots in the tables, in units.
    place: u32,
    window: Window,
}

impl WideWindow {
    /// Creates a shadow on `memory` that shows nothing and has no units.
    ///
    /// # Errors
    /// The host's error if it grants no address space.
    pub(crate) fn new(memory: Arc<Memory>) -> io::Result<Self> {
        Ok(Self {
            memory,
            directory: layout::map_window(DIRECTORY_BYTES)?,
            units: Vec::new(),
            is_full: false,
        })
    }

    fn unit(&self, number: u32) -> Option<&Unit> {
        self.units.iter().find(|unit| unit.number == number)
    }

    /// Adds a unit, of which the table has no other's slots.
    fn add(&mut self, number: u32, place: u32) -> io::Result<()> {
        let mapping = layout::map_window(UNIT_BYTES)?;
        let window = Window::over(mapping, BEFORE, Arc::clone(&self.memory));
        let word = window.base().wrapping_sub(u64::from(number) << UNIT_SHIFT);
        self.open_page(number)?;
        self.set_word(number, word);
        let unit = Unit {
            number,
            place,
            window,
        };
        self.units.push(unit);
        Ok(())
    }

    /// Makes the page of the directory that has a unit's word accessible, unless it is.
    fn open_page(&mut self, number: u32) -> io::Result<()> {
        let page = number as usize / WORDS;
        let is_open = |unit: &Unit| unit.number as usize / WORDS == page;
        if self.units.iter().any(is_open) {
            return Ok(());
        }
        let bytes = page * PAGE_SIZE..(page + 1) * PAGE_SIZE;
        self.directory.protect(bytes, Protection::ReadWrite)?;
        for word in page * WORDS..(page + 1) * WORDS {
            self.set_word(word as u32, NOWHERE);
        }
        Ok(())
    }

    /// Sets a word in a page of the directory that is accessible.
    fn set_word(&mut self, number: u32, word: u64) {
        let words = self.directory.start().cast::<u64>();
        // SAFETY: the directory has 2^32 words, and this one's page was made readable and writable by `open_page`. Nobody has a
        // reference to it; emitted code reads it on the thread that this runs on.
        unsafe { words.add(number as usize).write(word) };
    }
}

/// The number of the unit of a page.
fn number_of(page: LinearPage) -> u32 {
    (page.base().get() >> UNIT_SHIFT) as u32
}

impl Shadow for WideWindow {
    fn base(&self) -> u64 {
        self.directory.start().as_ptr().expose_provenance() as u64
    }

    fn host(&self, linear: LinearAddr) -> Option<u64> {
        let unit = self.unit(number_of(linear.page()))?;
        Some(unit.window.base() + u64::from(linear.get() as u32))
    }

    fn linear(&self, host: u64) -> Option<LinearAddr> {
        self.units.iter().find_map(|unit| {
            let offset = host.wrapping_sub(unit.window.base());
            let first = u64::from(unit.number) << UNIT_SHIFT;
            (offset >> UNIT_SHIFT == 0).then(|| LinearAddr::new(first + offset))
        })
    }

    fn admit(&mut self, page: LinearPage) -> bool {
        let number = number_of(page);
        if self.unit(number).is_some() {
            return true;
        }
        if self.is_full || !LinearWidth::Bits48.is_own(page) {
            return false;
        }
        let place = LinearWidth::Bits48.index(page) / LINEAR_PAGES;
        if self.units.iter().any(|unit| unit.place == place) {
            return false;
        }
        if self.units.len() == MOST_UNITS {
            self.is_full = true;
        } else if let Err(error) = self.add(number, place) {
            log::debug!("no window for addresses from {number:#x}00000000 on: {error}");
            self.is_full = true;
        }
        !self.is_full
    }

    fn is_crowded(&self) -> bool {
        self.is_full && self.units.iter().any(|unit| unit.window.count() == 0)
    }

    fn show(&mut self, extent: Extent) -> io::Result<u64> {
        let mut calls = 0;
        if self.count() + MOST_MORE > MOST_MAPPINGS {
            let all = 0..u32::MAX;
            calls += self.hide(&[all]);
        }
        let place = extent.page / LINEAR_PAGES;
        let Some(unit) = self.units.iter_mut().find(|unit| unit.place == place) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let page = extent.page % LINEAR_PAGES;
        Ok(calls + unit.window.show(Extent { page, ..extent })?)
    }

    fn hide(&mut self, pages: &[Range<u32>]) -> u64 {
        let hide = |unit: &mut Unit| {
            let first = unit.place * LINEAR_PAGES;
            let part = |pages: &Range<u32>| {
                let offset = |page: u32| page.saturating_sub(first).min(LINEAR_PAGES);
                offset(pages.start)..offset(pages.end)
            };
            let parts = pages.iter().map(part).filter(|part| !part.is_empty());
            let parts: SmallVec<[Range<u32>; 4]> = parts.collect();
            unit.window.hide(&parts)
        };
        self.units.iter_mut().map(hide).sum()
    }

    fn count(&self) -> usize {
        self.units.iter().map(|unit| unit.window.count()).sum()
    }

    fn shows_slots(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::addr::Frame;

    fn shadow() -> WideWindow {
        WideWindow::new(Memory::new(1 << 20).unwrap()).unwrap()
    }

    fn page(addr: u64) -> LinearPage {
        LinearAddr::new(addr).page()
    }

    /// The word at the upper half of an address, if its page is accessible.
    fn word(shadow: &WideWindow, addr: u64) -> Option<u64> {
        let number = addr >> UNIT_SHIFT;
        let is_open = |unit: &Unit| u64::from(unit.number) / WORDS as u64 == number / WORDS as u64;
        shadow.units.iter().any(is_open).then(|| {
            let words = shadow.directory.start().cast::<u64>();
            // SAFETY: a unit of this page of the directory was added, so it is readable.
            unsafe { words.add(number as usize).read() }
        })
    }

    /// Addresses of programs, many near the ends of units.
    fn addresses() -> impl Strategy<Value = u64> {
        let near = (0..1u64 << 15, -0x2000..0x2000i64)
            .prop_map(|(unit, offset)| (unit << UNIT_SHIFT).wrapping_add_signed(offset));
        prop_oneof![0..1u64 << 47, near].prop_map(|addr| addr & ((1 << 47) - 1))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn words_lead_to_windows_or_nowhere(
            admitted in prop::collection::vec(addresses(), 1..6),
            (addr, reach) in (addresses(), REACH),
        ) {
            let mut shadow = shadow();
            for &addr in &admitted {
                shadow.admit(page(addr));
            }
            for addr in admitted.into_iter().chain([addr, !addr, addr | 1 << 60]) {
                let linear = LinearAddr::new(addr);
                let Some(word) = word(&shadow, addr) else {
                    prop_assert_eq!(shadow.host(linear), None);
                    continue;
                };
                let host = addr.wrapping_add(word);
                let reached = host.wrapping_add_signed(reach);
                match shadow.unit(number_of(linear.page())) {
                    Some(unit) => {
                        prop_assert_eq!(shadow.host(linear), Some(host));
                        prop_assert_eq!(shadow.linear(host), Some(linear));
                        let offset = reached.wrapping_sub(unit.window.base() - BEFORE as u64);
                        prop_assert!(offset + 64 <= UNIT_BYTES as u64);
                    }
                    None => prop_assert!(!LinearAddr::new(reached).is_canonical()),
                }
            }
        }
    }

    #[test]
    fn units_share_no_slots_and_are_programs() {
        let mut shadow = shadow();
        shadow.admit(page(0x5555_5555_4000));
        for other in [0xffff_8880_0000_0000, 0x5455_5555_4000] {
            assert!(!shadow.admit(page(other)));
            assert_eq!(shadow.host(LinearAddr::new(other)), None);
        }
        assert_eq!((shadow.units.len(), shadow.is_full), (1, false));
        assert!(shadow.admit(page(0x5556_5555_4000)));
    }

    #[test]
    fn units_are_bounded() {
        let mut shadow = shadow();
        for unit in 0..MOST_UNITS as u64 {
            shadow.admit(page(unit << UNIT_SHIFT));
            shadow.admit(page(unit << UNIT_SHIFT | 0x1000));
        }
        assert!(!shadow.is_crowded());
        for unit in 0..100 {
            shadow.admit(page(unit << UNIT_SHIFT));
        }
        assert_eq!(
            (shadow.units.len(), shadow.is_crowded()),
            (MOST_UNITS, true)
        );
    }

    #[test]
    fn pages_are_hidden_in_all_units_and_in_these_only() {
        let mut shadow = shadow();
        let addrs = [0x5555_ffff_f000, 0x5556_0000_0000, 0x40_0000];
        let place = |addr| LinearWidth::Bits48.index(page(addr));
        let show = |shadow: &mut WideWindow| {
            for addr in addrs {
                shadow.admit(page(addr));
                let extent = Extent {
                    page: place(addr),
                    frame: Frame::new(3),
                    pages: 1,
                    writable: true,
                };
                shadow.show(extent).unwrap();
            }
        };
        show(&mut shadow);
        assert_eq!(shadow.count(), 6);
        let first = place(addrs[0]);
        let (around, below, all) = (first - 5..first + 5, 0..first, 0..u32::MAX);
        assert_eq!(shadow.hide(&[around]), 2);
        assert_eq!(shadow.count(), 2);
        show(&mut shadow);
        assert_eq!(shadow.hide(&[below]), 1);
        assert_eq!(shadow.hide(&[all]), 2);
        assert_eq!(shadow.count(), 0);
    }
}
