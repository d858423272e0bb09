//! [`Translator`]: the pages translated so far, and what connects them to the run loop.

use super::arena::Arena;
use super::check::{Verifier, Violation};
use super::context::{AccessKind, Context, Reason};
use super::dump::Dump;
use super::emit::{Emitter, FIXED_FLAGS};
use super::entries::{EntryTables, TableId};
use super::fragment::{self, Fragment, Link, Source, TAIL_BYTES, Tail, Translated};
use super::jitdump::JitDump;
use super::links::unlink;
use super::listing::Listing;
use super::mode::Mode;
use super::page::{CodePage, Entry};
use super::places::Places;
use super::restarts::Restarts;
use super::runtime::Runtime;
use super::segments::{KnownSegments, segment_base, spans_all};
use super::signal::are_windows_possible;
use super::stack::{HostStack, MOST_POLLS};
use super::stats::Stats;
use super::windows::{WindowPolicy, Windows};
use crate::cpu::control::{CR0_EM, CR0_TS, CR4_OSFXSR, CR4_TSD};
use crate::cpu::fpu::{FCW_INIT, MXCSR_INIT};
use crate::cpu::segment::{Bounds, SegReg};
use crate::cpu::{Cpu, Pending, eflags};
use crate::decode::decoder::MAX_LENGTH;
use crate::emulate::Exec;
use crate::emulate::sysenter::selectors;
use hashbrown::HashMap;
use mmu::{Access, Frame, LinearAddr, PAGE_SHIFT, PAGE_SIZE, Privilege, SpaceId, View};
use std::io;
use std::path::Path;
use std::time::Instant;

/// The six exception masks of the x87 control word.
const EXCEPTION_MASKS: u16 = 0x3F;

/// log2 of the bytes of an entry table's words: what the page's address is scaled by in code slots.
pub(super) const ENTRY_SHIFT: u32 = 2;

/// What emitted code left to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The emulator has to execute the instruction at EIP.
    Emulate,
    /// The budget of polls is used up.
    Budget,
}

/// Which code page: what lies in a frame, executed in a mode.
pub(super) type PageKey = (Frame, Mode);

/// Whether accesses of a fragment may be grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Groups {
    Yes,
    No,
}

/// A branch that may be linked.
#[derive(Clone, Copy)]
pub(super) struct Site {
    pub(super) page: PageKey,
    pub(super) link: Link,
}

/// Translated code of one processor.
pub struct Translator {
    pub(super) arena: Arena,
    pub(super) runtime: Runtime,
    pub(super) emitter: Emitter,
    pub(super) context: Box<Context>,
    pub(super) stack: HostStack,
    pub(super) tables: EntryTables,
    pub(super) pages: HashMap<PageKey, CodePage>,
    /// For frames that instructions go on in: the pages they begin in.
    pub(super) heads: HashMap<Frame, Vec<PageKey>>,
    pub(super) sites: Vec<Site>,
    pub(super) restarts: Restarts,
    pub(super) policy: WindowPolicy,
    /// How often the pages of a space had to move out: see `direct`.
    pub(super) moved_out: HashMap<SpaceId, u32>,
    pub(super) epochs: Epochs,
    /// Counts look-ups of pages.
    clock: u64,
    /// Part of the arena that was in use when pages were last made to show themselves, in hundredths.
    pub(super) swept: usize,
    segments: KnownSegments,
    pub(super) verifier: Verifier,
    pub(super) jitdump: Option<JitDump>,
    pub(super) stats: Stats,
}

/// Under which circumstances emitted code ran last: return addresses on its stack hold under the same only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Epochs {
    fetch: [u64; 2],
    shared: u64,
    windowed: u64,
    code: u64,
}

impl Epochs {
    pub(super) fn now(cx: &Exec<'_>) -> Self {
        Self {
            fetch: [
                cx.mmu.fetch_epoch(Privilege::Supervisor),
                cx.mmu.fetch_epoch(Privilege::User),
            ],
            shared: cx.mmu.shared_fetch_epoch(),
            windowed: cx.mmu.windowed_fetch_epoch(),
            code: cx.mmu.code_epoch(),
        }
    }
}

/// In the order of the context's tables.
const PRIVILEGES: [Privilege; 2] = [Privilege::Supervisor, Privilege::User];

impl Translator {
    /// A translator with nothing translated and room for `code_cache` bytes of code.
    ///
    /// # Errors
    /// What the host says when it grants no memory for code; a size out of range; a processor without BMI2.
    pub fn new(code_cache: usize) -> io::Result<Self> {
        // SHRX and RORX address memory without touching flags.
        if !std::arch::is_x86_feature_detected!("bmi2") {
            let what = "the translator needs a processor with BMI2";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        let mut arena = Arena::new(code_cache)?;
        let runtime = Runtime::emit(&mut arena)?;
        let stack = HostStack::new(arena.address_of(runtime.underflow));
        let mut context = Box::new(Context::default());
        context.host_mxcsr = MXCSR_INIT;
        stack.reset(&mut context);
        let mut translator = Self {
            emitter: Emitter::new(runtime),
            arena,
            runtime,
            context,
            stack,
            tables: EntryTables::new()?,
            pages: HashMap::new(),
            heads: HashMap::new(),
            sites: Vec::new(),
            restarts: Restarts::default(),
            policy: WindowPolicy::new(Windows::Never),
            moved_out: HashMap::new(),
            epochs: Epochs::default(),
            clock: 0,
            swept: 0,
            segments: KnownSegments::default(),
            verifier: Verifier::default(),
            jitdump: None,
            stats: Stats::default(),
        };
        translator.set_windows(Windows::default());
        Ok(translator)
    }

    /// What has been done so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Chooses which address spaces get windows; none where the host does not let emitted code use them.
    pub fn set_windows(&mut self, windows: Windows) {
        let possible = windows != Windows::Never && are_windows_possible();
        let windows = if possible { windows } else { Windows::Never };
        self.policy = WindowPolicy::new(windows);
    }

    /// Has everything checked that is emitted from now on: to be called before anything runs.
    pub fn verify(&mut self) {
        self.verifier = Verifier::new(&self.runtime);
    }

    /// How many fragments were checked; `None` when none are.
    pub fn verified(&self) -> Option<u64> {
        self.verifier.fragments()
    }

    /// What was emitted and must not run; nothing runs after it.
    pub fn violation(&self) -> Option<&Violation> {
        self.verifier.violation()
    }

    /// Measures from now on how long emitted code runs.
    pub fn measure(&mut self) {
        self.stats.executing.get_or_insert_default();
    }

    /// Tells `perf` of all code emitted from now on, by a file in `folder`: to be called before anything runs.
    ///
    /// # Errors
    /// What the host says when the file cannot be made.
    pub fn write_jitdump(&mut self, folder: &Path) -> io::Result<()> {
        self.jitdump = Some(JitDump::create(folder)?);
        Ok(())
    }

    /// Keeps from now on what [`Self::dump`] needs: to be called before anything runs.
    pub fn record(&mut self) {
        self.emitter.record();
    }

    /// The code page in `frame`, at linear address `base`, beside what was emitted for it, as text; empty if nothing was.
    pub fn dump(&self, frame: Frame, base: u32) -> String {
        let mut text = String::new();
        for mode in Mode::ALL {
            let key = (frame, mode);
            let page = self.pages.get(&key);
            if let Some(page) = page.filter(|page| !page.entries().is_empty()) {
                let between = if text.is_empty() { "" } else { "\n" };
                let frame = frame.get();
                text += &format!("{between}page {base:08x}, frame {frame:x}, {mode:?}\n");
                text += &Dump::of(&self.arena, &self.places(key), page, base);
            }
        }
        text
    }

    /// What lies where in the arena, seen from the page of `key`.
    fn places(&self, key: PageKey) -> Places {
        let mut places = Places::new(&self.runtime);
        for (&(frame, mode), page) in &self.pages {
            let prefix = match (frame, mode) == key {
                true => String::new(),
                false => format!("{:x}", frame.get()),
            };
            for listing in &page.listings {
                places.add(&prefix, listing);
            }
        }
        places
    }

    /// Runs translated code from EIP on until something else has to be done. `polls` counts down with loops, calls and
    /// indirect jumps.
    pub fn run(&mut self, cx: &mut Exec<'_>, polls: &mut u32) -> Outcome {
        if cx.cpu.cpl == 3 {
            self.stats.windows += u64::from(self.policy.before_program(cx.mmu));
        }
        self.follow_changes(cx);
        self.load(cx);
        let mut target = self.arena.address_of(self.runtime.forward);
        let outcome = loop {
            if self.violation().is_some() {
                break Outcome::Emulate;
            }
            let granted = (*polls).min(MOST_POLLS);
            self.context.polls = granted;
            self.stack.make_room(&mut self.context);
            self.execute(target);
            *polls -= granted - self.context.polls;
            let next = match self.context.reason() {
                Reason::Emulate => {
                    self.stats.exits.emulate += 1;
                    None
                }
                Reason::Lookup => {
                    self.stats.exits.lookup += 1;
                    self.lookup(cx)
                }
                Reason::Link => {
                    self.stats.exits.link += 1;
                    self.link(cx)
                }
                Reason::Cross => {
                    self.stats.exits.link += 1;
                    self.cross(cx)
                }
                Reason::LoadFpu => {
                    self.stats.exits.load_fpu += 1;
                    self.load_fpu(cx)
                }
                Reason::Miss => {
                    self.stats.exits.miss += 1;
                    self.fill(cx)
                }
                Reason::Window => {
                    self.stats.exits.window += 1;
                    self.window_fault(cx)
                }
                Reason::Budget if *polls > 0 => {
                    self.leave_fpu();
                    Some(self.arena.address_of(self.runtime.forward))
                }
                Reason::Budget => {
                    self.stats.exits.budget += 1;
                    if self.mode() != Mode::Supervisor {
                        self.stats.windows += u64::from(self.policy.after_slice(cx.mmu));
                    }
                    break Outcome::Budget;
                }
            };
            match next {
                Some(next) => target = next,
                None => break Outcome::Emulate,
            }
        };
        self.store(cx);
        outcome
    }

    /// Runs emitted code at `target` until it leaves.
    fn execute(&mut self, target: u64) {
        let start = self.stats.executing.map(|_| Instant::now());
        self.runtime.run(&mut self.arena, &mut self.context, target);
        if let (Some(total), Some(start)) = (&mut self.stats.executing, start) {
            *total += start.elapsed();
        }
    }

    /// Voids what stores to code pages and changed mappings have made stale.
    fn follow_changes(&mut self, cx: &mut Exec<'_>) {
        let now = Epochs::now(cx);
        if now == self.epochs {
            return;
        }
        if now.code != self.epochs.code {
            for frame in cx.mmu.take_code_writes() {
                for mode in Mode::ALL {
                    self.hide((frame, mode));
                }
                for head in self.heads.remove(&frame).unwrap_or_default() {
                    self.hide(head);
                }
            }
        }
        if now.shared != self.epochs.shared {
            self.unlink_all();
        }
        if now.windowed != self.epochs.windowed {
            self.ask_all_again();
        }
        self.stack.reset(&mut self.context);
        self.epochs = now;
    }

    /// Leads everything that goes to a page through a look-up again.
    fn hide(&mut self, key: PageKey) {
        if let Some(page) = self.pages.get_mut(&key) {
            page.hidden = true;
            self.tables.reset(page.table);
            for link in std::mem::take(&mut page.incoming) {
                unlink(&mut self.arena, &mut self.verifier, link);
            }
        }
    }

    /// Takes over the processor's state.
    fn load(&mut self, cx: &mut Exec<'_>) {
        self.segments.learn(cx, &mut self.context);
        let cpu = &*cx.cpu;
        let context = &mut *self.context;
        self.stack.change_level(context, cpu.cpl.into());
        for number in 0..8 {
            context.regs[usize::from(number)] = cpu.regs.get(number).into();
        }
        context.set_flags(cpu.eflags);
        context.interrupt_flag = cpu.eflags & eflags::IF;
        context.direction_flag = cpu.eflags & eflags::DF;
        let elsewhere = eflags::STATUS | eflags::IF | eflags::DF | eflags::FIXED;
        context.eflags_delta = cpu.eflags & !elsewhere;
        context.eflags_fixed = cpu.eflags & FIXED_FLAGS;
        context.no_interrupt = (!cpu.pending.has(Pending::INTR)).into();
        context.eip = cpu.eip;
        // Shifts count by R13 before a page is known.
        context.page = PAGE_SHIFT.into();
        context.tables = PRIVILEGES.map(|privilege| {
            let table = cx.mmu.tlb_table(View::of(Access::Read, privilege));
            table.expose_provenance() as u64
        });
        context.window = cx.mmu.window().unwrap_or(0);
        context.table = context.tables[usize::from(cpu.cpl == 3)];
        context.level_changed = 0;
        for (selector, segment) in context.selectors.iter_mut().zip(&cpu.segs) {
            *selector = segment.selector.0.into();
        }
        context.loaded = [0; 6];
        load_system_registers(context, cpu);
        (context.fs_base, context.fs_usable) = segment_base(cpu.seg(SegReg::Fs));
        (context.gs_base, context.gs_usable) = segment_base(cpu.seg(SegReg::Gs));
        context.fpu_live = 0;
        context.fpu_loadable = 0;
    }

    /// Gives the processor its state back.
    fn store(&mut self, cx: &mut Exec<'_>) {
        self.store_fpu(cx);
        self.segments.store(cx, &self.context);
        let context = &*self.context;
        if context.level_changed != 0 {
            // ESP and EIP are set below.
            cx.enter_flat(context.cpl as u8, 0, 0);
        }
        for number in 0..8 {
            cx.cpu
                .regs
                .set(number, context.regs[usize::from(number)] as u32);
        }
        let kept = cx.cpu.eflags & !(eflags::IF | eflags::DF);
        let eflags = kept | context.interrupt_flag | context.direction_flag;
        cx.cpu.eflags = context.merge_flags(eflags);
        cx.cpu.eip = context.eip;
    }

    /// Gives the processor the FPU state that emitted code left in the context.
    fn store_fpu(&mut self, cx: &mut Exec<'_>) {
        if self.context.fpu_saved != 0 {
            self.context.fpu_saved = 0;
            cx.cpu.fpu.take_registers(&self.context.fpu.0);
        }
    }

    /// The mode in which emitted code runs.
    pub(super) fn mode(&self) -> Mode {
        match (self.context.cpl, self.context.window) {
            (0, _) => Mode::Supervisor,
            (_, 0) => Mode::User,
            _ => Mode::Windowed,
        }
    }

    /// The FPU's state stays in the context until emitted code asks for it.
    pub(super) fn leave_fpu(&mut self) {
        self.context.fpu_live = 0;
    }

    /// Has the guest's FPU state loaded on the way in, if its instructions can run without an exception.
    fn load_fpu(&mut self, cx: &mut Exec<'_>) -> Option<u64> {
        if !may_run_on_host(cx.cpu) {
            return None;
        }
        self.context.fpu.0.copy_from_slice(cx.cpu.fpu.as_bytes());
        self.context.fpu_loadable = 1;
        self.context.fpu_live = 1;
        Some(self.context.resume)
    }

    /// Fills the slot that emitted code missed; `None` when the emulator has to make the access.
    fn fill(&mut self, cx: &mut Exec<'_>) -> Option<u64> {
        let kind = AccessKind::from_number(self.context.access);
        let (address, size) = (self.context.address, kind.size());
        let crosses = address % PAGE_SIZE as u32 > PAGE_SIZE as u32 - size;
        // Some instructions fault for a misaligned operand of 16 bytes.
        if crosses || !kind.may_be_misaligned() && address % size != 0 {
            return None;
        }
        let linear = LinearAddr::from(address);
        let privilege = self.mode().privilege();
        let drops = cx.mmu.drops();
        let (access, made) = if kind.writes() {
            (Access::Write, cx.mmu.prepare_write(linear, size, privilege))
        } else {
            let read = cx.mmu.read::<u8>(linear, privilege);
            (Access::Read, read.map(|_| ()))
        };
        made.ok()?;
        self.context.slot = cx.mmu.slot(View::of(access, privilege), linear);
        // The walk may have written page tables, and those may be code; or dropped what a group relies on.
        let dropped = cx.mmu.drops() != drops;
        if self.context.slot == 0 || dropped || Epochs::now(cx) != self.epochs {
            return None;
        }
        // What enters R8.
        let eip = std::mem::replace(&mut self.context.eip, address);
        debug_assert_eq!(eip >> PAGE_SHIFT, self.context.page as u32 >> PAGE_SHIFT);
        Some(self.context.resume)
    }

    /// Makes the code for EIP known; `None` when the emulator has to execute the instruction there.
    pub(super) fn lookup(&mut self, cx: &mut Exec<'_>) -> Option<u64> {
        self.leave_fpu();
        let (eip, mode) = (LinearAddr::from(self.context.eip), self.mode());
        let frame = cx.mmu.fetch_page(eip, mode.privilege()).ok()?;
        let entry = self.entry(cx, (frame, mode), eip.offset());
        let table = self.pages.get(&(frame, mode))?.table;
        let page = u64::from(self.context.eip & !(PAGE_SIZE as u32 - 1)) << ENTRY_SHIFT;
        let slot = self.tables.address_of(table).wrapping_sub(page);
        cx.mmu.set_code_slot(eip, mode.privilege(), slot);
        if mode == Mode::Windowed {
            self.settle(cx, (frame, mode), eip);
        }
        self.after_changes(cx, entry)
    }

    /// Host address of an entry just looked up.
    pub(super) fn after_changes(&mut self, cx: &mut Exec<'_>, entry: Entry) -> Option<u64> {
        // Fetching may have changed what is fetched from.
        self.follow_changes(cx);
        match entry {
            Entry::Code(code) => Some(self.arena.address_of(code)),
            Entry::Emulate | Entry::EmulateOnce => None,
        }
    }

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
    fn page(&mut self, cx: &mut Exec<'_>, key: PageKey) -> Option<TableId> {
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
                *page = CodePage::new(page.table, written, bytes);
            }
        }
        self.clock += 1;
        page.executed = self.clock;
        Some(page.table)
    }

    fn translate(&mut self, cx: &mut Exec<'_>, key: PageKey, offset: u32, groups: Groups) -> Entry {
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

    /// Forgets all translations.
    pub(super) fn clear(&mut self, cx: &mut Exec<'_>) {
        self.stats.cleared += 1;
        cx.mmu.clear_code_slots();
        self.pages.clear();
        self.heads.clear();
        self.tables.clear();
        self.sites.clear();
        self.restarts.clear();
        self.verifier.clear();
        self.arena.truncate(self.runtime.end);
        self.stack.reset(&mut self.context);
        self.swept = 0;
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

/// Whether x87, MMX and SSE instructions execute without any exception: available, all exceptions masked.
fn may_run_on_host(cpu: &Cpu) -> bool {
    cpu.cr0 & (CR0_EM | CR0_TS) == 0
        && cpu.cr4 & CR4_OSFXSR != 0
        && !cpu.fpu.has_pending_x87_error()
        && cpu.fpu.fcw() & FCW_INIT & EXCEPTION_MASKS == EXCEPTION_MASKS
        && cpu.fpu.mxcsr() & MXCSR_INIT == MXCSR_INIT
}

/// What SYSENTER, SYSEXIT and RDTSC need.
fn load_system_registers(context: &mut Context, cpu: &Cpu) {
    let all_ones_if = |condition: bool| u64::from(condition).wrapping_neg();
    let has_selector = cpu.sysenter_cs & 0xFFFC != 0;
    context.sysenter_usable = all_ones_if(has_selector);
    // With AC set, accesses of CPL 3 may have to be checked for alignment.
    context.sysexit_usable = all_ones_if(has_selector && cpu.eflags & eflags::AC == 0);
    context.sysenter_esp = cpu.sysenter_esp;
    context.sysenter_eip = cpu.sysenter_eip;
    context.flat_selectors = [0, 3].map(|level| {
        let (code, stack) = selectors(cpu.sysenter_cs, level);
        [code.0.into(), stack.0.into()]
    });
    context.tsc_usable = (cpu.cr4 & CR4_TSD == 0).into();
    context.tsc_offset = cpu.tsc_offset;
}

/// Whether emitted code, which takes CS, DS, ES and SS for flat and 32 bits wide, may run.
pub fn is_flat(cpu: &Cpu) -> bool {
    let cs = cpu.seg(SegReg::Cs);
    cpu.is_protected()
        && matches!(cpu.cpl, 0 | 3)
        && cpu.eflags & eflags::VM == 0
        && cs.base == 0
        && cs.limit == u32::MAX
        && cs.attributes.is_big()
        && cs.read == Bounds::ALL
        && cpu.seg(SegReg::Ss).attributes.is_big()
        && [SegReg::Ds, SegReg::Es, SegReg::Ss].into_iter().all(|reg| {
            let segment = cpu.seg(reg);
            segment.base == 0 && spans_all(segment)
        })
}
