//! Direct links between pages of programs in address spaces that have windows.
//!
//! A branch to another page is guarded, as a frame may be mapped in several spaces, and what is so many pages behind it need not
//! be the same frame in all. But mostly it is. So a branch is led directly to its target while this holds: wherever the page is
//! known to execute, its *homes*, that distance leads to the frame of the target. Whoever executes a page first in a space makes
//! that a home, and with it what its direct links lead to; a link that does not hold there is undone. When a space with a window
//! loses a translation for fetches, all are. What is undone asks to be linked again, with a guard if that is what it takes.
//!
//! A space that has not executed the target yet need not stand in the way: its pages *move out*, and are looked up anew when it
//! executes again.
//!
//! There are few such spaces, which is what keeps the homes few.

use super::engine::{PageKey, Translator};
use super::fragment::Link;
use super::links::{patch, unlink};
use super::mode::Mode;
use crate::emulate::Exec;
use mmu::{Frame, LinearAddr, PAGE_SHIFT, SpaceId};
use smallvec::SmallVec;

/// Homes of a page at most; with more it gets no direct links.
const MOST_HOMES: usize = 8;
/// Times that the pages of a space move out.
const MOST_MOVES: u32 = 4;
/// Spaces for which that is counted.
const MOST_COUNTED: usize = 256;

/// A linear page at which a code page may be executing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    space: SpaceId,
    /// Linear page number.
    page: u32,
}

/// A branch that leads to another page directly.
#[derive(Clone, Copy, Debug)]
pub struct Direct {
    link: Link,
    /// How many linear pages further its target is, modulo their number.
    distance: u32,
    target: Frame,
}

impl Home {
    /// Whether programs there fetch from frame `target` at the linear page `distance` pages further.
    fn leads_to(&self, cx: &Exec<'_>, distance: u32, target: Frame) -> bool {
        let at = LinearAddr::from(self.page.wrapping_add(distance) << PAGE_SHIFT);
        cx.mmu.tlb().fetched_in(self.space, at.page()) == Some(target)
    }
}

impl Translator {
    /// The present space executes the page of `key` at `linear`.
    pub(super) fn settle(&mut self, cx: &Exec<'_>, key: PageKey, linear: LinearAddr) {
        let space = cx.mmu.tlb().space();
        let page = linear.get() as u32 >> PAGE_SHIFT;
        self.add_home(cx, key, Home { space, page });
    }

    /// Makes `home` one of the page, and all that its direct links lead to one of theirs.
    fn add_home(&mut self, cx: &Exec<'_>, key: PageKey, home: Home) {
        let mut open = vec![(key, home)];
        while let Some((key, home)) = open.pop() {
            let Some(page) = self.pages.get_mut(&key) else {
                continue;
            };
            if page.homes.contains(&home) {
                continue;
            }
            let (frame, _) = key;
            page.homes.retain(|home| home.leads_to(cx, 0, frame));
            page.homes.push(home);
            let crowded = page.homes.len() > MOST_HOMES;
            let holds =
                |direct: &Direct| !crowded && home.leads_to(cx, direct.distance, direct.target);
            let (kept, lost): (Vec<Direct>, Vec<Direct>) = std::mem::take(&mut page.outgoing)
                .into_iter()
                .partition(holds);
            open.extend(kept.iter().map(|direct| {
                let page = home.page.wrapping_add(direct.distance);
                ((direct.target, Mode::Windowed), Home { page, ..home })
            }));
            page.outgoing = kept;
            for direct in lost {
                unlink(&mut self.arena, &mut self.verifier, direct.link);
            }
        }
    }

    /// Leads `link` of the page of `key`, which executes at `source` and leads to `target` in frame `frame`, directly to the code
    /// at arena offset `entry`, if that is right wherever the page executes.
    pub(super) fn connect(
        &mut self,
        cx: &mut Exec<'_>,
        (key, link): (PageKey, Link),
        (source, target): (LinearAddr, LinearAddr),
        frame: Frame,
        entry: u32,
    ) {
        self.settle(cx, key, source);
        let number = |linear: LinearAddr| linear.get() as u32 >> PAGE_SHIFT;
        let distance = number(target).wrapping_sub(number(source));
        let (Some(direct), Some(page)) = (link.direct, self.pages.get_mut(&key)) else {
            return;
        };
        let others: SmallVec<[Home; 2]> = page
            .homes
            .iter()
            .copied()
            .filter(|home| !home.leads_to(cx, distance, frame))
            .collect();
        if page.homes.len() > MOST_HOMES || !self.move_out(cx, &others) {
            return;
        }
        let Some(page) = self.pages.get_mut(&key) else {
            return;
        };
        let homes = page.homes.clone();
        page.outgoing.push(Direct {
            link,
            distance,
            target: frame,
        });
        self.stats.direct += 1;
        patch(&mut self.arena, &mut self.verifier, direct, entry);
        for home in homes {
            let page = home.page.wrapping_add(distance);
            self.add_home(cx, (frame, Mode::Windowed), Home { page, ..home });
        }
    }

    /// Makes all direct links ask again.
    pub(super) fn ask_all_again(&mut self) {
        let pages = self.pages.values_mut();
        let links: Vec<Direct> = pages.flat_map(|page| page.outgoing.drain(..)).collect();
        for direct in links {
            unlink(&mut self.arena, &mut self.verifier, direct.link);
        }
    }

    /// Lets no page be at home in the spaces of `homes` any more, which are not the present one. Whatever programs there execute
    /// next is looked up. Returns whether that was done: not for a space that it was done to often.
    fn move_out(&mut self, cx: &mut Exec<'_>, homes: &[Home]) -> bool {
        let present = cx.mmu.tlb().space();
        if homes.iter().any(|home| home.space == present) {
            return false;
        }
        if self.moved_out.len() > MOST_COUNTED {
            self.moved_out.clear();
        }
        for &Home { space, .. } in homes {
            let times = self.moved_out.entry(space).or_default();
            if *times == MOST_MOVES {
                return false;
            }
            *times += 1;
            cx.mmu.tlb_mut().forget_user_code(space);
            for page in self.pages.values_mut() {
                page.homes.retain(|home| home.space != space);
            }
        }
        true
    }
}
