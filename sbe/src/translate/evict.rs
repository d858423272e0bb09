//! Eviction: when the arena is full, the pages executed least recently go.
//!
//! Emitted code finds pages without the engine, so the engine does not see which execute. From time to time all code slots
//! are emptied: then each page that is still in use is looked up once more, and gets a new stamp.

use super::engine::{Groups, PageKey, Translator};
use super::page::{CodePage, Entry};
use super::scan::note_head;
use crate::emulate::Exec;

/// Hundredths of the arena that are filled between two times that pages have to show themselves.
const SWEEP: usize = 12;
/// Hundredths of the arena that may be in use by the pages that stay.
const KEPT: usize = 50;

impl Translator {
    /// Makes the pages in use show themselves, if enough code was emitted since the last time.
    pub(super) fn sweep(&mut self, cx: &mut Exec<'_>) {
        if self.arena.percent_used() >= self.swept + SWEEP {
            self.swept = self.arena.percent_used();
            cx.mmu.tlb_mut().clear_code();
            self.unlink_all();
            self.stack.reset(&mut self.context);
        }
    }

    /// Empties the arena and translates anew the entries of the pages executed last, as far as there is room for them.
    pub(super) fn make_room(&mut self, cx: &mut Exec<'_>) {
        let mut pages: Vec<(PageKey, CodePage)> = self.pages.drain().collect();
        pages.retain(|(_, page)| !page.hidden);
        pages.sort_unstable_by_key(|(_, page)| page.executed);
        self.clear(cx);
        while self.arena.percent_used() < KEPT {
            let Some((key, page)) = pages.pop() else {
                break;
            };
            self.keep(cx, key, &page);
        }
        self.stats.evicted += pages.len() as u64;
        self.swept = self.arena.percent_used();
    }

    /// Translates the entries of `page` anew.
    fn keep(&mut self, cx: &mut Exec<'_>, key: PageKey, page: &CodePage) {
        let Some(table) = self.tables.allocate() else {
            return;
        };
        if let Some(tail) = &page.tail {
            note_head(&mut self.heads, tail.frame, key);
        }
        self.pages.insert(key, page.rescanned(table));
        for &(offset, entry) in page.entries() {
            if matches!(entry, Entry::Code(_)) {
                self.emit(cx, key, offset.into(), Groups::Yes);
            }
        }
    }
}
