//! [`Translator`]: the pages translated so far, and what connects them to the run loop.

use super::arena::Arena;
use super::check::{Verifier, Violation};
use super::context::{AccessKind, Context, NOWHERE, Reason};
use super::dump::Dump;
use super::emit::Emitter;
use super::entries::EntryTables;
use super::fragment::Link;
use super::jitdump::JitDump;
use super::links::unlink;
use super::mode::Mode;
use super::page::{CodePage, Entry};
use super::places::Places;
use super::restarts::Restarts;
use super::runtime::Runtime;
use super::segments::{KnownSegments, spans_all};
use super::signal::are_windows_possible;
use super::stack::{HostStack, MOST_POLLS};
use super::stats::Stats;
use super::stops::Stops;
use super::windows::{WindowPolicy, Windows};
use crate::cpu::fpu::MXCSR_INIT;
use crate::cpu::segment::{Bounds, SegReg};
use crate::cpu::{Cpu, eflags};
use crate::emulate::Exec;
use hashbrown::HashMap;
use mmu::{Access, Frame, LinearAddr, PAGE_SHIFT, PAGE_SIZE, Privilege, SpaceId, View};
use std::io;
use std::path::Path;
use std::time::Instant;

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
    /// Part of the arena that was in use when pages were last made to show themselves, in hundredths.
    pub(super) swept: usize,
    pub(super) segments: KnownSegments,
    pub(super) stops: Stops,
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
pub(super) const PRIVILEGES: [Privilege; 2] = [Privilege::Supervisor, Privilege::User];

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
            swept: 0,
            segments: KnownSegments::default(),
            stops: Stops::default(),
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
        cx.mmu.snoop();
        self.follow_breakpoints(cx);
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
    pub(super) fn hide(&mut self, key: PageKey) {
        if let Some(page) = self.pages.get_mut(&key) {
            page.hidden = true;
            self.tables.reset(page.table);
            for link in std::mem::take(&mut page.incoming) {
                unlink(&mut self.arena, &mut self.verifier, link);
            }
        }
    }

    /// The mode in which emitted code runs.
    pub(super) fn mode(&self) -> Mode {
        match (self.context.cpl, self.context.window) {
            (0, _) => Mode::Supervisor,
            (_, 0 | NOWHERE) => Mode::User,
            _ => Mode::Windowed,
        }
    }

    /// The mode in which code at `eip` runs. A window does not show pages that all spaces share, and what is known of code there
    /// is shared by spaces that have windows and others.
    pub(super) fn mode_at(&self, cx: &Exec<'_>, eip: LinearAddr) -> Mode {
        match self.mode() {
            Mode::Windowed if cx.mmu.is_shared(eip) => Mode::User,
            mode => mode,
        }
    }

    /// The FPU's state stays in the context until emitted code asks for it.
    pub(super) fn leave_fpu(&mut self) {
        self.context.fpu_live = 0;
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
        let access = match kind.writes() {
            true => Access::Write,
            false => Access::Read,
        };
        cx.mmu.prepare(linear, size, access, privilege).ok()?;
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
        let eip = LinearAddr::from(self.context.eip);
        let mode = self.mode_at(cx, eip);
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
