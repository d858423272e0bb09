//! Names of emitted code, for `perf`.

use super::engine::{Groups, PageKey, Translator};
use crate::emulate::Exec;
use mmu::{Access, LinearAddr, View};

impl Translator {
    /// Tells `perf` of the fragment just emitted at `origins`, if that is wanted.
    pub(super) fn name_code(
        &mut self,
        cx: &Exec<'_>,
        (frame, mode): PageKey,
        (offset, groups): (u32, Groups),
        origins: [u32; 2],
    ) {
        let Some(jitdump) = &mut self.jitdump else {
            return;
        };
        let eip = LinearAddr::from(self.context.eip);
        let view = View::of(Access::Fetch, mode.privilege());
        let base = match cx.mmu.tlb().frame(view, eip.page()) {
            Some(here) if here == frame => eip.get() - u64::from(eip.offset()),
            _ => frame.base().get(),
        };
        let plain = if groups == Groups::No { " plain" } else { "" };
        let name = format!("{mode:?} {:08x}{plain}", base + u64::from(offset));
        let Ok(code) = self.emitter.asm.finish() else {
            return;
        };
        for ((code, origin), kind) in code.into_iter().zip(origins).zip(["", " cold"]) {
            let address = self.arena.address_of(origin);
            let written = jitdump.add(&format!("{name}{kind}"), address, code);
            if let Err(error) = written {
                log::warn!("jitdump: {error}; perf is told nothing more");
                self.jitdump = None;
                return;
            }
        }
    }
}
