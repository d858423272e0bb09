//! Scanning and translating pages, entry by entry, when emitted code asks for them.

use super::engine::{Groups, PageKey, Site, Translator};
use super::entries::TableId;
use super::fragment::{self, Fragment, Source, TAIL_BYTES, Tail, Translated};
use super::links::unlink;
use super::listing::Listing;
use super::mode::Mode;
use super::page::{CodePage, Entry};
use crate::decode::decoder::MAX_LENGTH;
use crate::emulate::Exec;
use hashbrown::HashMap;
use mmu::{Access, Frame, LinearAddr, PAGE_SIZE, View};
use std::time::Instant;

impl Translator {
    /// Where the code at `offset` of a page is, translated now if it must be.
    pub(super) fn entry(&mut self, cx: &mut Exec<'_>, key: PageKey, offset: u32) -> Entry {
        let Some(table) = self.page(cx, key) else {
            return Entry::Emulate;
        };
        match self.tables.get(table, offset) {
            0 => self.translate(cx, key, offset, Groups::Yes),
            known if known == self.runtime.emulate => Entry::Emulate,
            known => Entry::Code(known),
        }
    }

    /// The same in a variant without groups.
    pub(super) fn plain_entry(&mut self, cx: &mut Exec<'_>, key: PageKey, offset: u16) -> Entry {
        if self.page(cx, key).is_none() {
            return Entry::Emulate;
        }
        let variants = self.pages.get(&key).map(|page| &page.plain);
        let known = variants.and_then(|known| known.iter().find(|(at, _)| *at == offset));
        match known {
            Some(&(_, code)) => Entry::Code(code),
            None => self.translate(cx, key, offset.into(), Groups::No),
        }
    }

    /// The entry table of the code page of `key`, with translations of what is in it now only.
    pub(super) fn page(&mut self, cx: &mut Exec<'_>, key: PageKey) -> Option<TableId> {
        let (frame, _) = key;
        let written = cx.mmu.written(frame);
        if !self.pages.contains_key(&key) {
            let table = match self.tables.allocate() {
                Some(table) => table,
                None => {
                    self.clear(cx);
                    self.tables.allocate()?
                }
            };
            cx.mmu.mark_code(frame);
            self.stats.pages += 1;
            let page = CodePage::new(table, written, cx.mmu.code_bytes(frame));
            self.pages.insert(key, page);
        }
        let page = self.pages.get_mut(&key)?;
        if page.hidden || page.written != written {
            cx.mmu.mark_code(frame);
            let bytes = cx.mmu.code_bytes(frame);
            let tail = page.tail.as_ref().map(|tail| {
                cx.mmu.mark_code(tail.frame);
                note_head(&mut self.heads, tail.frame, key);
                first_bytes(cx, tail.frame)
            });
            self.tables.reset(page.table);
            if page.revalidate(written, &bytes, tail) {
                self.stats.revalidated += 1;
                for &(offset, entry) in page.entries() {
                    let code = match entry {
                        Entry::Code(code) => code,
                        Entry::Emulate | Entry::EmulateOnce => self.runtime.emulate,
                    };
                    self.tables.set(page.table, offset.into(), code);
                }
            } else {
                self.stats.changed += 1;
                self.stats.pages += 1;
                // Code slots still lead to its table, but links to what it was must not.
                let homes = std::mem::take(&mut page.homes);
                let incoming = std::mem::take(&mut page.incoming);
                *page = CodePage::new(page.table, written, bytes);
                page.homes = homes;
                for link in incoming {
                    unlink(&mut self.arena, &mut self.verifier, link);
                }
            }
        }
        cx.mmu.memory().mark_executed(frame);
        page.executed = cx.mmu.memory().executed(frame);
        Some(page.table)
    }

    pub(super) fn translate(
        &mut self,
        cx: &mut Exec<'_>,
        key: PageKey,
        offset: u32,
        groups: Groups,
    ) -> Entry {
        self.find_tail(cx, key, offset);
        self.sweep(cx);
        self.emit(cx, key, offset, groups)
    }

    /// Translates what is known of the page.
    pub(super) fn emit(
        &mut self,
        cx: &mut Exec<'_>,
        key: PageKey,
        offset: u32,
        groups: Groups,
    ) -> Entry {
        let start = Instant::now();
        let first_site = self.sites.len() as u32;
        let Some(page) = self.pages.get_mut(&key) else {
            return Entry::Emulate;
        };
        let source = Source {
            page: page.bytes(),
            tail: page.tail.as_ref(),
            mode: key.1,
            groups: groups == Groups::Yes && key.1 != Mode::Windowed,
            stops: self.stops.offsets(),
        };
        let before = self.arena.used();
        let origins = self.arena.next();
        let translated = fragment::translate(
            &mut self.arena,
            &mut self.emitter,
            &source,
            offset,
            first_site,
        );
        let (entry, end) = match translated {
            Ok(Translated::Fragment(fragment)) => {
                let Fragment {
                    entry,
                    branches,
                    end,
                } = fragment;
                let sites = branches.into_iter().map(|link| Site { page: key, link });
                self.sites.extend(sites);
                page.listings
                    .extend(self.emitter.take_marks().map(|marks| Listing {
                        at: offset,
                        groups: groups == Groups::Yes,
                        start: origins,
                        end: self.arena.next(),
                        marks,
                    }));
                self.restarts.add(&self.emitter.restarts);
                self.stats.fragments += 1;
                self.stats.guest_bytes += u64::from(end - offset);
                let verified = self
                    .emitter
                    .asm
                    .finish()
                    .is_ok_and(|code| self.verifier.fragment(code, origins, key.1, offset));
                if verified {
                    (Entry::Code(entry), end)
                } else {
                    (Entry::Emulate, end)
                }
            }
            Ok(Translated::Emulate) => (Entry::Emulate, emulated_end(offset)),
            Ok(Translated::Incomplete) => return Entry::EmulateOnce,
            Ok(Translated::Full) => {
                self.make_room(cx);
                self.page(cx, key);
                return self.translate(cx, key, offset, groups);
            }
            Err(error) => {
                log::error!("translation of {:?}+{offset:#x}: {error}", key.0);
                (Entry::Emulate, emulated_end(offset))
            }
        };
        page.scan(offset, end);
        if let (Groups::No, Entry::Code(code)) = (groups, entry) {
            page.plain.push((offset as u16, code));
        } else {
            page.add(offset, entry);
            let code = match entry {
                Entry::Code(code) => code,
                Entry::Emulate | Entry::EmulateOnce => self.runtime.emulate,
            };
            self.tables.set(page.table, offset, code);
        }
        if let Entry::Code(_) = entry {
            self.name_code(cx, key, (offset, groups), origins);
        }
        self.stats.host_bytes += (self.arena.used() - before) as u64;
        self.stats.translating += start.elapsed();
        entry
    }

    /// Finds out what follows the page where EIP is, if an instruction at `offset` may reach there and the processor has fetched
    /// from there.
    fn find_tail(&mut self, cx: &mut Exec<'_>, key: PageKey, offset: u32) {
        let (_, mode) = key;
        let reaches = offset as usize > PAGE_SIZE - MAX_LENGTH;
        let Some(page) = self.pages.get_mut(&key).filter(|_| reaches) else {
            return;
        };
        let next = LinearAddr::from((self.context.eip | (PAGE_SIZE as u32 - 1)).wrapping_add(1));
        let view = View::of(Access::Fetch, mode.privilege());
        let Some(frame) = cx.mmu.cached_frame(view, next) else {
            return;
        };
        if page.tail.is_some() {
            return;
        }
        cx.mmu.mark_code(frame);
        note_head(&mut self.heads, frame, key);
        page.tail = Some(Tail {
            frame,
            bytes: first_bytes(cx, frame),
            host: cx.mmu.slot(view, next).wrapping_add(next.get()),
        });
    }
}

/// Remembers that an instruction of page `key` goes on in `frame`.
pub(super) fn note_head(heads: &mut HashMap<Frame, Vec<PageKey>>, frame: Frame, key: PageKey) {
    let keys = heads.entry(frame).or_default();
    if !keys.contains(&key) {
        keys.push(key);
    }
}

/// What an instruction that begins in the page before can have of `frame`.
fn first_bytes(cx: &Exec<'_>, frame: Frame) -> [u8; TAIL_BYTES] {
    let page = cx.mmu.code_bytes(frame);
    std::array::from_fn(|index| page[index])
}

/// End of the bytes that decide whether the instruction at `offset` is the emulator's.
fn emulated_end(offset: u32) -> u32 {
    (offset + MAX_LENGTH as u32).min(PAGE_SIZE as u32)
}
