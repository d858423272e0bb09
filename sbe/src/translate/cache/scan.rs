//! Scanning and translating pages, entry by entry, when emitted code asks for them.

use super::{CodeCache, Destination, Request};
use crate::decode::decoder::MAX_LENGTH;
use crate::emulate::Exec;
use crate::translate::fragment::{GuestCode, TAIL_BYTES, Tail, Translated};
use crate::translate::listing::{Listing, Variant};
use crate::translate::mode::PageKey;
use crate::translate::reach::Reach;
use mmu::{Access, Frame, LinearAddr, PAGE_SIZE, Timestamp, View};

impl CodeCache {
    /// The destination of the wanted code, which is translated now if it must be.
    pub(super) fn destination(&mut self, cx: &mut Exec<'_>, request: Request) -> Destination {
        if !self.update_page(cx, request.key) {
            return Destination::Emulate;
        }
        let Request {
            key,
            offset,
            variant,
            eip,
        } = request;
        self.narrow(cx, key, eip);
        match self.pages.destination(key, offset, variant) {
            Some(known) => known,
            None => self.translate(cx, request),
        }
    }

    /// Makes sure that there is a page for `key` and that its translations hold. Returns whether there is.
    fn update_page(&mut self, cx: &mut Exec<'_>, key: PageKey) -> bool {
        let frame = key.frame;
        let written = cx.mmu.written(frame);
        match self.pages.get(key) {
            None => {
                if self.pages.is_full() {
                    self.clear(cx);
                }
                cx.mmu.mark_code(frame);
                self.stats.pages += 1;
                self.pages.insert(key, written, cx.mmu.code_bytes(frame));
            }
            Some(page) if !page.is_current(written) => self.revalidate(cx, key, written),
            Some(_) => {}
        }
        let Some(page) = self.pages.get_mut(key) else {
            return false;
        };
        cx.mmu.memory().mark_executed(frame);
        page.set_executed(cx.mmu.memory().executed(frame));
        true
    }

    /// Rejects the translations of the page of `key` if they may have branches that lead too far where it is about to execute:
    /// those of 32-bit code never do.
    fn narrow(&mut self, cx: &mut Exec<'_>, key: PageKey, eip: LinearAddr) {
        if !key.mode.is_64() {
            return;
        }
        let reach = Reach::of(eip.page());
        let page = self.pages.get_mut(key);
        if page.is_some_and(|page| page.narrow(reach)) {
            self.reject(key);
            self.update_page(cx, key);
        }
    }

    /// Compares the page of `key`, last written at `written`, with what was scanned.
    fn revalidate(&mut self, cx: &mut Exec<'_>, key: PageKey, written: Timestamp) {
        cx.mmu.mark_code(key.frame);
        let bytes = cx.mmu.code_bytes(key.frame);
        let tail = self.pages.get(key).and_then(|page| page.tail());
        let tail = tail.map(|tail| tail.frame).map(|frame| {
            cx.mmu.mark_code(frame);
            self.pages.note_crossing(key, frame);
            first_bytes(cx, frame)
        });
        if self.pages.revalidate(key, written, &bytes, tail) {
            self.stats.revalidated += 1;
            return;
        }
        self.stats.changed += 1;
        self.stats.pages += 1;
        self.records.forget(key);
        if key.mode.is_windowed() {
            self.direct.forget_links(key.frame);
        }
        for link in self.pages.rescan(key, written, bytes) {
            self.buffer.unlink(link);
        }
    }

    /// Translates the wanted code.
    fn translate(&mut self, cx: &mut Exec<'_>, request: Request) -> Destination {
        self.find_tail(cx, request);
        self.age(cx);
        self.emit(cx, request)
    }

    /// Translates the wanted code from the known bytes of its page and tail.
    pub(super) fn emit(&mut self, cx: &mut Exec<'_>, request: Request) -> Destination {
        let Request {
            key,
            offset,
            variant,
            ..
        } = request;
        let start = self.stats.translating.begin();
        let Some(page) = self.pages.get(key) else {
            return Destination::Emulate;
        };
        let code = GuestCode {
            page: page.bytes(),
            tail: page.tail(),
            mode: key.mode,
            level: cx.cpu.model.level(),
            groups: variant == Variant::Grouped,
            breakpoints: self.breakpoints.get(),
            reach: page.reach(),
        };
        let before = self.buffer.used();
        let origins = self.buffer.next();
        let translated = self.buffer.translate(&mut self.emitter, &code, key, offset);
        let (destination, end) = match translated {
            Ok(Translated::Fragment(fragment)) => {
                self.stats.fragments += 1;
                self.stats.guest_bytes += u64::from(fragment.end - offset);
                self.record_fragment(cx, request, origins);
                (Destination::Code(fragment.entry), fragment.end)
            }
            Ok(Translated::Emulate) => (Destination::Emulate, emulated_end(offset)),
            Ok(Translated::Incomplete) => return Destination::EmulateOnce,
            Ok(Translated::Full) => {
                self.make_room(cx, request.eip);
                self.update_page(cx, key);
                return self.translate(cx, request);
            }
            Err(error) => {
                log::error!("translation of {:?}+{offset:#x}: {error}", key.frame);
                (Destination::Emulate, emulated_end(offset))
            }
        };
        self.pages.add(key, (offset, end), variant, destination);
        self.stats.host_bytes += (self.buffer.used() - before) as u64;
        self.stats.translating.end(start);
        destination
    }

    /// Records the fragment just emitted at the arena offsets `origins`, for dumps and `perf`.
    fn record_fragment(&mut self, cx: &Exec<'_>, request: Request, origins: [u32; 2]) {
        let Request {
            key,
            offset,
            variant,
            eip,
        } = request;
        if let Some(marks) = self.emitter.take_marks() {
            let listing = Listing {
                at: offset,
                variant,
                start: origins,
                end: self.buffer.next(),
                marks,
            };
            self.records.add(key, listing);
        }
        if self.records.names_code() {
            let view = View::of(Access::Fetch, key.mode.privilege());
            let base = match cx.mmu.tlb().frame(view, eip.page()) {
                Some(here) if here == key.frame => eip.get() - u64::from(eip.offset()),
                _ => key.frame.base().get(),
            };
            let suffix = if variant == Variant::Plain {
                " plain"
            } else {
                ""
            };
            let name = format!("{:?} {:08x}{suffix}", key.mode, base + u64::from(offset));
            let addresses = origins.map(|origin| self.buffer.address_of(origin));
            self.records.name(&name, &mut self.emitter.asm, addresses);
        }
    }

    /// Finds out what follows the page at EIP, if an instruction at the wanted offset may reach there and the processor has
    /// fetched from there.
    fn find_tail(&mut self, cx: &mut Exec<'_>, request: Request) {
        let Request {
            key, offset, eip, ..
        } = request;
        let reaches = offset as usize > PAGE_SIZE - MAX_LENGTH;
        let unknown = self
            .pages
            .get(key)
            .is_some_and(|page| page.tail().is_none());
        if !reaches || !unknown {
            return;
        }
        let last = eip.get() | (PAGE_SIZE as u64 - 1);
        if !key.mode.is_64() && last == u64::from(u32::MAX) {
            // The code segment ends here, even if all offsets are in it.
            return;
        }
        let next = LinearAddr::new(last.wrapping_add(1));
        let view = View::of(Access::Fetch, key.mode.privilege());
        let Some(frame) = cx.mmu.tlb().frame(view, next.page()) else {
            return;
        };
        cx.mmu.mark_code(frame);
        self.pages.note_crossing(key, frame);
        if let Some(page) = self.pages.get_mut(key) {
            page.set_tail(Tail {
                frame,
                bytes: first_bytes(cx, frame),
                host: cx
                    .mmu
                    .tlb()
                    .slot(view, next.page())
                    .wrapping_add(next.get()),
            });
        }
    }
}

/// The bytes of `frame` that an instruction which begins in the page before can have.
fn first_bytes(cx: &Exec<'_>, frame: Frame) -> [u8; TAIL_BYTES] {
    let page = cx.mmu.code_bytes(frame);
    std::array::from_fn(|index| page[index])
}

/// The end of the bytes that decide whether the emulator has to execute the instruction at `offset`.
fn emulated_end(offset: u32) -> u32 {
    (offset + MAX_LENGTH as u32).min(PAGE_SIZE as u32)
}
