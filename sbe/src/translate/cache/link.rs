//! Linking: branches are redirected straight to the code of their targets when they exit for that the first time.

use super::direct::Crossing;
use super::page::CodePage;
use super::{CodeCache, Destination, Request};
use crate::emulate::Exec;
use crate::translate::buffer::Site;
use crate::translate::emit::{Target, entry_bytes};
use crate::translate::listing::Variant;
use crate::translate::mode::{Mode, PageKey};
use crate::translate::trampoline::Trampoline;
use mmu::{Access, LinearAddr, View};

impl CodeCache {
    /// Links the branch of `site`, which leads to `eip` in its own page. Returns the host address of the code there; `None` when
    /// the emulator has to execute the instruction.
    pub fn link(&mut self, cx: &mut Exec<'_>, site: u32, eip: LinearAddr) -> Option<u64> {
        let Site { page: key, link } = self.buffer.site(site)?;
        let (offset, variant) = match link.target {
            Target::Inside(offset) => (offset.into(), Variant::Grouped),
            Target::Plain(offset) => (offset.into(), Variant::Plain),
            Target::Outside => return None,
        };
        let cleared = self.stats.cleared;
        let request = Request {
            key,
            offset,
            variant,
            eip,
        };
        let destination = self.destination(cx, request);
        // Translating may have emptied the buffer, and removed the branch with it.
        if self.stats.cleared == cleared {
            self.stats.links += 1;
            match destination {
                Destination::Code(code) => {
                    let inside = code + entry_bytes(self.buffer.trampolines().width());
                    self.buffer.redirect(link.jump, inside);
                }
                Destination::Emulate => self.buffer.redirect_to(link.exit, Trampoline::EmulateAt),
                Destination::EmulateOnce => {}
            }
        }
        self.after_lookup(cx, key, eip, destination)
    }

    /// Links the branch of `site`, which leads from the page of `source` to `target` in another, where code executes in `mode`.
    /// Returns the host address of the code there; `None` when the emulator has to execute the instruction.
    pub fn link_across(
        &mut self,
        cx: &mut Exec<'_>,
        site: u32,
        [source, target]: [LinearAddr; 2],
        mode: Mode,
    ) -> Option<u64> {
        let site = self.buffer.site(site)?;
        let cleared = self.stats.cleared;
        let code = self.lookup(cx, target, mode)?;
        if self.stats.cleared == cleared {
            self.stats.links += 1;
            self.connect(cx, site, [source, target], mode);
        }
        Some(code)
    }

    /// Links a branch to `target`, which was just looked up.
    fn connect(
        &mut self,
        cx: &mut Exec<'_>,
        Site { page: from, link }: Site,
        [source, target]: [LinearAddr; 2],
        mode: Mode,
    ) {
        if mode != from.mode {
            // Code of one mode is not linked to that of another.
            return self
                .buffer
                .redirect_to(link.exit, Trampoline::DirectDispatch);
        }
        // Both translations hold in all address spaces until one of them is dropped, of which the epoch tells.
        let has_aliases = self.pages.get(from).is_none_or(CodePage::has_aliases);
        let pages = [source, target].map(LinearAddr::page);
        let shared = !has_aliases && pages.into_iter().all(|page| cx.mmu.tlb().is_shared(page));
        let view = View::of(Access::Fetch, mode.privilege());
        let linkable = shared || link.guard.is_some();
        let frame = cx.mmu.tlb().frame(view, target.page()).filter(|_| linkable);
        let key = frame.map(|frame| PageKey { frame, mode });
        let entry = key.and_then(|key| self.pages.entry(key, target.offset()));
        let (Some(key), Some((word, code))) = (key, entry) else {
            return self
                .buffer
                .redirect_to(link.jump, Trampoline::DirectDispatch);
        };
        if let Some(page) = self.pages.get_mut(key) {
            page.add_incoming(link);
        }
        self.buffer.redirect(link.jump, code);
        if let Some(guard) = link.guard {
            self.buffer.set_guard(guard.get(), word.wrapping_neg());
            self.buffer
                .redirect_to(link.exit, Trampoline::DirectDispatch);
        }
        if mode.is_windowed() {
            let crossing = Crossing {
                link,
                from: from.frame,
                source,
                to: key.frame,
                target,
                code,
            };
            let linked = self.direct.connect(&mut self.buffer, cx.mmu, crossing);
            self.stats.direct += u64::from(linked);
        }
    }
}
