//! [`DirectLinks`]: direct links between pages of programs in address spaces that have windows.
//!
//! A branch to another page is guarded, as a frame may be mapped in several spaces, and the page at the same distance need not be
//! the same frame in all. But mostly it is. So a jump bypasses the guard while this holds: at every *mapping* of the branch's
//! page, that is, every linear page at which it is known to execute, the page at that distance is the frame of the target.
//! Whoever executes a page first in a space adds a mapping, and with it those of all pages that its direct links lead to; a link
//! that does not hold there is undone. When a space with a window loses fetch slots, its mappings of pages that it fetches no
//! longer are removed, and links that do not hold at the others are undone. A branch whose link was undone exits to be linked
//! again, with a guard if need be.
//!
//! A space that has not executed the target yet need not stand in the way: all its mappings are removed, and added again when it
//! executes again.
//!
//! There are few such spaces, and so few mappings.

use crate::translate::buffer::CodeBuffer;
use crate::translate::emit::Link;
use crate::translate::reach::Reach;
use hashbrown::HashMap;
use mmu::{Frame, LinearAddr, Mmu, PAGE_SHIFT, SpaceId, SpaceSet};
use smallvec::SmallVec;

/// Most mappings of a page; with more it gets no direct links.
const MOST_MAPPINGS: usize = 8;
/// The numbers of linear pages: those of 64-bit addresses.
const PAGES: u64 = u64::MAX >> PAGE_SHIFT;
/// Most times that the mappings of a space are removed.
const MOST_REMOVALS: u32 = 4;
/// Most spaces for which that is counted.
const MOST_COUNTED: usize = 256;

/// A linear page at which a code page may be executing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PageMapping {
    space: SpaceId,
    /// Linear page number, one of [`PAGES`].
    page: u64,
}

/// A branch that leads to another page without a guard.
#[derive(Clone, Copy, Debug)]
struct Direct {
    link: Link,
    /// Linear pages from the branch to its target, modulo 2^64.
    distance: u64,
    target: Frame,
}

/// The mappings and direct links of one code page, in code with a window.
#[derive(Default)]
struct Page {
    mappings: SmallVec<[PageMapping; 2]>,
    /// Direct links to other pages.
    outgoing: Vec<Direct>,
}

/// A branch between pages that was just executed.
pub struct Crossing {
    /// The branch.
    pub link: Link,
    /// The frame it is in.
    pub from: Frame,
    /// A linear address in its page.
    pub source: LinearAddr,
    /// The frame it leads to.
    pub to: Frame,
    /// The linear address it leads to.
    pub target: LinearAddr,
    /// Arena offset of the code there.
    pub code: u32,
}

/// All direct links, and the mappings that they rely on.
#[derive(Default)]
pub struct DirectLinks {
    pages: HashMap<Frame, Page>,
    /// The spaces that may have mappings.
    mapped: SpaceSet,
    /// The number of times that the mappings of a space were removed.
    removals: HashMap<SpaceId, u32>,
}

impl PageMapping {
    /// The mapping of a page at `linear` in the present space.
    fn here(mmu: &Mmu, linear: LinearAddr) -> Self {
        Self {
            space: mmu.tlb().space(),
            page: page_number(linear),
        }
    }

    /// The page at a distance.
    fn further(self, distance: u64) -> Self {
        Self {
            page: self.page.wrapping_add(distance) & PAGES,
            ..self
        }
    }

    /// Whether a direct link of the page may lead on to `target`, at a distance. Near the end of a canonical half it may not, as
    /// code there has to be looked up at the page where it executes.
    fn leads_to(self, mmu: &Mmu, target: Frame, distance: u64) -> bool {
        let there = self.further(distance);
        let page = LinearAddr::new(there.page << PAGE_SHIFT).page();
        Reach::of(page) == Reach::ALL && there.shows(mmu, target)
    }

    /// Whether programs fetch from `frame` there.
    fn shows(self, mmu: &Mmu, frame: Frame) -> bool {
        let at = LinearAddr::new(self.page << PAGE_SHIFT);
        mmu.tlb().fetched_in(self.space, at.page()) == Some(frame)
    }
}

impl Page {
    /// Removes the mappings in the spaces of `losses` where programs no longer fetch from `frame`, which is the page's own, and
    /// where it is looked up before it executes again; undoes the links that do not hold at the others.
    fn follow_losses(
        &mut self,
        buffer: &mut CodeBuffer,
        mmu: &Mmu,
        frame: Frame,
        losses: SpaceSet,
    ) {
        let is_lossy = |mapping: &PageMapping| losses.contains(mapping.space);
        self.mappings
            .retain(|mapping| !is_lossy(mapping) || mapping.shows(mmu, frame));
        for mapping in self.mappings.iter().filter(|mapping| is_lossy(mapping)) {
            self.outgoing.retain(|direct| {
                let holds = mapping.leads_to(mmu, direct.target, direct.distance);
                if !holds {
                    buffer.unlink(direct.link);
                }
                holds
            });
        }
    }
}

fn page_number(linear: LinearAddr) -> u64 {
    linear.page().get()
}

impl DirectLinks {
    /// Notes that the present space executes the page in `frame` at `linear`.
    pub fn add_mapping(
        &mut self,
        buffer: &mut CodeBuffer,
        mmu: &Mmu,
        frame: Frame,
        linear: LinearAddr,
    ) {
        self.add(buffer, mmu, frame, PageMapping::here(mmu, linear));
    }

    /// Adds `mapping` to the page in `frame`, and those that follow to the pages that its direct links lead to.
    fn add(&mut self, buffer: &mut CodeBuffer, mmu: &Mmu, frame: Frame, mapping: PageMapping) {
        let mut open = vec![(frame, mapping)];
        while let Some((frame, mapping)) = open.pop() {
            let page = self.pages.entry(frame).or_default();
            if page.mappings.contains(&mapping) {
                continue;
            }
            page.mappings.push(mapping);
            self.mapped.insert(mapping.space);
            let crowded = page.mappings.len() > MOST_MAPPINGS;
            let holds =
                |direct: &Direct| !crowded && mapping.leads_to(mmu, direct.target, direct.distance);
            let (kept, lost): (Vec<Direct>, Vec<Direct>) = std::mem::take(&mut page.outgoing)
                .into_iter()
                .partition(holds);
            open.extend(
                kept.iter()
                    .map(|direct| (direct.target, mapping.further(direct.distance))),
            );
            page.outgoing = kept;
            for direct in lost {
                buffer.unlink(direct.link);
            }
        }
    }

    /// Links a branch directly, if that is right at all mappings of its page. Returns whether it is linked so.
    pub fn connect(&mut self, buffer: &mut CodeBuffer, mmu: &mut Mmu, crossing: Crossing) -> bool {
        let Crossing { link, from, to, .. } = crossing;
        self.add_mapping(buffer, mmu, from, crossing.source);
        let distance = page_number(crossing.target).wrapping_sub(page_number(crossing.source));
        let page = self.pages.entry(from).or_default();
        let crowded = page.mappings.len() > MOST_MAPPINGS;
        let Some(bypass) = link.bypass.filter(|_| !crowded) else {
            return false;
        };
        let elsewhere = |mapping: &PageMapping| !mapping.leads_to(mmu, to, distance);
        let others = page.mappings.iter().copied().filter(elsewhere);
        let others: SmallVec<[SpaceId; 2]> = others.map(|mapping| mapping.space).collect();
        if !self.remove_mappings(mmu, &others) {
            return false;
        }
        let page = self.pages.entry(from).or_default();
        let mappings = page.mappings.clone();
        page.outgoing.push(Direct {
            link,
            distance,
            target: to,
        });
        buffer.redirect(bypass.get(), crossing.code);
        for mapping in mappings {
            self.add(buffer, mmu, to, mapping.further(distance));
        }
        true
    }

    /// Undoes the links that hold no longer since the spaces of `losses` have lost fetch slots or windows.
    pub fn follow_losses(&mut self, buffer: &mut CodeBuffer, mmu: &Mmu, losses: SpaceSet) {
        if !losses.intersects(self.mapped) {
            return;
        }
        self.mapped = SpaceSet::default();
        for (&frame, page) in &mut self.pages {
            page.follow_losses(buffer, mmu, frame, losses);
            for mapping in &page.mappings {
                self.mapped.insert(mapping.space);
            }
        }
    }

    /// Forgets the links of the page in `frame`, whose code is no longer reached. Its mappings stay.
    pub fn forget_links(&mut self, frame: Frame) {
        if let Some(page) = self.pages.get_mut(&frame) {
            page.outgoing.clear();
        }
    }

    /// Forgets all links and mappings.
    pub fn clear(&mut self) {
        self.pages.clear();
        self.mapped = SpaceSet::default();
    }

    /// Removes every mapping of `spaces`: whatever programs there execute next is looked up. Returns whether that was done: not
    /// to the present space, nor to one that it was done to often.
    fn remove_mappings(&mut self, mmu: &mut Mmu, spaces: &[SpaceId]) -> bool {
        if spaces.contains(&mmu.tlb().space()) {
            return false;
        }
        if self.removals.len() > MOST_COUNTED {
            self.removals.clear();
        }
        for &space in spaces {
            let times = self.removals.entry(space).or_default();
            if *times == MOST_REMOVALS {
                return false;
            }
            *times += 1;
            mmu.tlb_mut().forget_user_code(space);
            for page in self.pages.values_mut() {
                page.mappings.retain(|mapping| mapping.space != space);
            }
        }
        true
    }
}
