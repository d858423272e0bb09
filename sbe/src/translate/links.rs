//! Links: branches that lead straight to the code of their targets, and how that is undone.

use super::arena::Arena;
use super::check::Verifier;
use super::emit::{ENTRY_BYTES, Target};
use super::engine::{ENTRY_SHIFT, Site, Translator};
use super::fragment::Link;
use super::mode::Mode;
use super::page::Entry;
use super::trampoline::Trampoline;
use crate::emulate::Exec;
use mmu::{Access, LinearAddr, View};

impl Translator {
    /// Connects the branch that just asked for it to its target.
    pub(super) fn link(&mut self, cx: &mut Exec<'_>) -> Option<u64> {
        self.leave_fpu();
        let Site { page, link } = *self.sites.get(self.context.site as usize)?;
        let cleared = self.stats.cleared;
        let entry = match link.target {
            Target::Inside(offset) => self.entry(cx, page, offset.into()),
            Target::Plain(offset) => self.plain_entry(cx, page, offset),
            Target::Outside => return None,
        };
        // Translating may have emptied the arena, and the branch with it.
        if self.stats.cleared == cleared {
            self.stats.links += 1;
            match entry {
                Entry::Code(code) => patch(
                    &mut self.arena,
                    &mut self.verifier,
                    link.after,
                    code + ENTRY_BYTES,
                ),
                Entry::Emulate => patch(
                    &mut self.arena,
                    &mut self.verifier,
                    link.left,
                    self.trampolines.at(Trampoline::EmulateAt),
                ),
                Entry::EmulateOnce => {}
            }
        }
        self.after_changes(cx, entry)
    }

    /// Connects the branch to another page that just asked for it to its target.
    pub(super) fn cross(&mut self, cx: &mut Exec<'_>) -> Option<u64> {
        let site = *self.sites.get(self.context.site as usize)?;
        let cleared = self.stats.cleared;
        let source = LinearAddr::from(self.context.page as u32);
        let target = LinearAddr::from(self.context.eip);
        let code = self.lookup(cx)?;
        if self.stats.cleared != cleared {
            return Some(code);
        }
        self.stats.links += 1;
        // Both translations hold in all address spaces until one of them is dropped, of which the epoch tells.
        let direct = cx.mmu.is_shared(source) && cx.mmu.is_shared(target);
        let mode = self.mode_at(cx, target);
        let frame = cx
            .mmu
            .cached_frame(View::of(Access::Fetch, mode.privilege()), target);
        let link = site.link;
        if mode != site.page.1 {
            // Code of one mode is not linked to that of another.
            self.redirect(link.left, self.trampolines.at(Trampoline::Dispatch));
            return Some(code);
        }
        let page = frame.and_then(|frame| self.pages.get_mut(&(frame, mode)));
        let page = page.filter(|_| direct || link.guard.is_some());
        let Some(page) = page else {
            self.redirect(link.after, self.trampolines.at(Trampoline::Dispatch));
            return Some(code);
        };
        page.incoming.push(link);
        let table = page.table;
        let entry = self.tables.get(table, target.offset());
        self.redirect(link.after, entry);
        if let Some(guard) = link.guard {
            let word = self.tables.address_of(table) + (u64::from(target.offset()) << ENTRY_SHIFT);
            guard_by(
                &mut self.arena,
                &mut self.verifier,
                guard,
                word.wrapping_neg(),
            );
            self.redirect(link.left, self.trampolines.at(Trampoline::Dispatch));
        }
        if let (Mode::Windowed, Some(frame)) = (mode, frame) {
            self.connect(cx, (site.page, link), (source, target), frame, entry);
        }
        Some(code)
    }

    /// Leads the branch that ends at arena offset `after` to `target`.
    fn redirect(&mut self, after: u32, target: u32) {
        patch(&mut self.arena, &mut self.verifier, after, target);
    }

    /// Leads all branches to other pages through the dispatcher.
    pub(super) fn unlink_all(&mut self) {
        for page in self.pages.values_mut() {
            for link in std::mem::take(&mut page.incoming) {
                unlink(&mut self.arena, &mut self.verifier, link);
            }
        }
    }
}

/// Leads the branch that ends at arena offset `after` to `target`.
pub(super) fn patch(arena: &mut Arena, verifier: &mut Verifier, after: u32, target: u32) {
    if !verifier.link(after, target) {
        return;
    }
    let distance = i64::from(target) - i64::from(after);
    arena.patch(after - size_of::<i32>() as u32, distance as i32);
}

/// Lets a branch to another page ask for its link again.
pub(super) fn unlink(arena: &mut Arena, verifier: &mut Verifier, link: Link) {
    let Some(ask) = link.ask else { return };
    if let Some(direct) = link.direct {
        patch(arena, verifier, direct, link.check);
    }
    match link.guard {
        Some(guard) => {
            // No entry has this address.
            guard_by(arena, verifier, guard, 0);
            patch(arena, verifier, link.left, ask);
        }
        None => patch(arena, verifier, link.after, ask),
    }
}

/// Replaces the number that ends at arena offset `guard`.
fn guard_by(arena: &mut Arena, verifier: &mut Verifier, guard: u32, number: u64) {
    if verifier.number(guard) {
        arena.patch64(guard - size_of::<u64>() as u32, number);
    }
}
