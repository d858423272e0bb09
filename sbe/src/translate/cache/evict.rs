//! Eviction: when the buffer is full, the pages executed least recently go.
//!
//! Emitted code finds pages without the engine, so the engine does not see which pages execute. From time to time all code slots
//! are cleared: then each page that is still in use is looked up once more, and gets a new timestamp.

use super::page::CodePage;
use super::{CodeCache, Destination, Request};
use crate::emulate::Exec;
use crate::translate::listing::Variant;
use crate::translate::mode::PageKey;
use mmu::LinearAddr;

/// Hundredths of the buffer that are filled between two times that the code slots are cleared.
const STEP: usize = 12;
/// Hundredths of the buffer that the pages that stay may fill.
const KEPT: usize = 50;

/// The fill of the buffer when the code slots were cleared last.
#[derive(Default)]
pub struct Aging {
    /// Hundredths of the buffer that were in use then.
    used: usize,
}

impl CodeCache {
    /// Clears the code slots, so that live pages are stamped again at their next lookup, if enough code was emitted since the
    /// last time.
    pub(super) fn age(&mut self, cx: &mut Exec<'_>) {
        let used = self.buffer.percent_used();
        if used >= self.aging.used + STEP {
            self.aging = Aging { used };
            cx.mmu.tlb_mut().clear_code();
            self.unlink_incoming();
            self.dropped_returns = true;
        }
    }

    /// Empties the buffer and translates anew the entries of the pages executed last, as far as there is room for them.
    pub(super) fn make_room(&mut self, cx: &mut Exec<'_>, eip: LinearAddr) {
        let mut pages = self.pages.take_pages();
        pages.retain(|(_, page)| !page.is_stale());
        pages.sort_unstable_by_key(|(_, page)| page.executed());
        self.clear(cx);
        while self.buffer.percent_used() < KEPT {
            let Some((key, page)) = pages.pop() else {
                break;
            };
            self.keep(cx, key, &page, eip);
        }
        self.stats.evicted += pages.len() as u64;
        self.aging = Aging {
            used: self.buffer.percent_used(),
        };
    }

    /// Translates the entries of `page` anew.
    fn keep(&mut self, cx: &mut Exec<'_>, key: PageKey, page: &CodePage, eip: LinearAddr) {
        if !self.pages.insert_again(key, page) {
            return;
        }
        for &(offset, destination) in page.entries() {
            if matches!(destination, Destination::Code(_)) {
                let request = Request {
                    key,
                    offset: offset.into(),
                    variant: Variant::Grouped,
                    eip,
                };
                self.emit(cx, request);
            }
        }
    }
}
