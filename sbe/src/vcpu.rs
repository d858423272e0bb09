//! [`Vcpu`]: one virtual processor, and the loop that runs it.
//!
//! ```text
//!   look up ── events pending? traps, NMI, interrupts (SDM Vol. 3A, 6.9 "Priority among Simultaneous Events")
//!      │
//!   fetch ──── linear page -> frame, through the fetch window; decode cache by guest-physical address
//!      │
//!   execute ── handler; on a fault EIP goes back and the exception is delivered
//! ```

use crate::bus::Bus;
use crate::cpu::control::{CR0_ET, CR0_PE, DR6_BS, DR7_ENABLES};
use crate::cpu::model::CpuModel;
use crate::cpu::regs::ESI;
use crate::cpu::segment::{Attributes, SegReg, Segment, Selector};
use crate::cpu::{Cpu, Pending, eflags};
use crate::debugger::{Debugger, WatchHit, Watchpoint};
use crate::decode::decoder::{self, CodeSize, DecodeError, MAX_LENGTH};
use crate::decode::{Cache, Insn, Key};
use crate::emulate::fpu::HostFpu;
use crate::emulate::{Event, Exec, Interceptor};
use crate::fault::{Fault, Unsupported};
use crate::guest_event::{Decision, GuestEvent};
use crate::policy::Policy;
use crate::translate::{CodePageReport, NoDump, Outcome, Stats, Translator, Windows, is_flat};
use mmu::{Frame, GuestPhys, LinearAddr, MemFault, Mmu, PAGE_SIZE};
use std::path::Path;

/// Linux boot protocol, "32-bit BOOT PROTOCOL": selector of the flat code segment, __BOOT_CS.
const BOOT_CS: Selector = Selector(0x10);
/// Selector of the flat data segment, __BOOT_DS.
const BOOT_DS: Selector = Selector(0x18);

/// Bytes of translated code that there is room for unless said otherwise.
pub const CODE_CACHE: usize = 32 << 20;

/// Polls of translated code that take as long as one instruction of the emulator's.
const EMULATED: u64 = 16;

/// What executes guest code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Engine {
    /// The exact one-instruction emulator, the reference.
    #[default]
    Emulator,
    /// Code translated from the guest's, with the emulator for what is rare.
    Translator,
}

/// Why [`Vcpu::run`] came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The budget is used up.
    Budget,
    /// HLT: the processor waits for an interrupt. With IF clear only an NMI can wake it.
    Halt,
    /// The bus asked the machine to stop.
    Stop,
    /// The policy stopped the processor before anything of this event's delivery has happened, but for the acknowledge cycle
    /// that an external interrupt's vector comes from. See [`Vcpu::decide`].
    Intercept(GuestEvent),
    /// The instruction at this linear address has a breakpoint and is the next to execute. The next run executes it before an
    /// interrupt can come.
    Breakpoint(u32),
    /// The last instruction, or the delivery of an event, met a watchpoint.
    Watchpoint(WatchHit),
    /// Triple fault: the processor entered shutdown.
    Shutdown,
    /// The guest needs something replex does not implement.
    Unsupported(String),
}

/// The page instructions are being fetched from.
#[derive(Clone, Copy)]
struct FetchWindow {
    /// Linear page number; [`FetchWindow::CLOSED`] matches none.
    page: u32,
    /// Base of the code segment.
    base: u32,
    /// Highest EIP within the code segment.
    limit: u32,
    frame: Frame,
    /// Key of the page's first byte.
    key: Key,
    /// Value of [`Mmu::code_epoch`] when `key` was made.
    epoch: u64,
}

impl FetchWindow {
    /// No linear page has this number.
    const CLOSED: u32 = u32::MAX;

    /// A window on nothing.
    fn closed() -> Self {
        Self {
            page: Self::CLOSED,
            base: 0,
            limit: 0,
            frame: Frame::new(0),
            key: Key {
                address: 0,
                written: 0,
            },
            epoch: 0,
        }
    }
}

/// One virtual processor.
pub struct Vcpu {
    /// Architectural state.
    pub cpu: Cpu,
    /// Memory as the processor addresses it.
    pub mmu: Mmu,
    cache: Cache,
    host: HostFpu,
    interceptor: Interceptor,
    debugger: Debugger,
    window: FetchWindow,
    translator: Option<Translator>,
}

impl Vcpu {
    /// A processor after RESET that executes by the emulator.
    ///
    /// # Errors
    /// When the host grants no memory for the code that drives its FPU.
    pub fn new(model: CpuModel, mmu: Mmu) -> std::io::Result<Self> {
        Self::with_engine(model, Engine::Emulator, mmu)
    }

    /// A processor after RESET that executes by `engine`.
    ///
    /// # Errors
    /// When the host grants no memory for the code that drives its FPU, or for translated code.
    pub fn with_engine(model: CpuModel, engine: Engine, mmu: Mmu) -> std::io::Result<Self> {
        Self::with_code_cache(model, engine, CODE_CACHE, mmu)
    }

    /// The same with room for `code_cache` bytes of translated code, 1 MiB to 1 GiB.
    ///
    /// # Errors
    /// As [`Self::with_engine`]; a size out of range.
    pub fn with_code_cache(
        model: CpuModel,
        engine: Engine,
        code_cache: usize,
        mmu: Mmu,
    ) -> std::io::Result<Self> {
        let translator = match engine {
            Engine::Emulator => None,
            Engine::Translator => Some(Translator::new(code_cache)?),
        };
        Ok(Self {
            cpu: Cpu::new(model),
            mmu,
            cache: Cache::new(),
            host: HostFpu::new()?,
            interceptor: Interceptor::default(),
            debugger: Debugger::default(),
            window: FetchWindow::closed(),
            translator,
        })
    }

    /// Sets the registers as the 32-bit boot protocol wants them: protected mode with flat segments, paging and interrupts
    /// off, ESI the physical address of `boot_params` (Linux, Documentation/arch/x86/boot.rst, "32-bit Boot Protocol").
    pub fn set_linux_entry(&mut self, entry: u32, boot_params: u32) {
        let cpu = &mut self.cpu;
        let flat = |selector, attributes| Segment::new(selector, 0, u32::MAX, attributes);
        cpu.segs = [flat(BOOT_DS, Attributes::FLAT_DATA); 6];
        cpu.segs[SegReg::Cs as usize] = flat(BOOT_CS, Attributes::FLAT_CODE);
        cpu.cr0 = CR0_PE | CR0_ET;
        cpu.eflags = eflags::FIXED;
        cpu.eip = entry;
        cpu.regs.set(ESI, boot_params);
        cpu.pending.set(Pending::REFETCH);
    }

    /// What the translator has done so far; `None` without one.
    pub fn translation(&self) -> Option<&Stats> {
        self.translator.as_ref().map(Translator::stats)
    }

    /// Chooses which address spaces get windows. To be called before the first instruction.
    pub fn set_windows(&mut self, windows: Windows) {
        if let Some(translator) = &mut self.translator {
            translator.set_windows(windows);
        }
    }

    /// Has all code checked that the translator emits, before it runs: a violation of what keeps the guest contained ends
    /// the run. To be called before the first instruction.
    pub fn verify_code(&mut self) {
        if let Some(translator) = &mut self.translator {
            translator.verify();
        }
    }

    /// How many pieces of translated code were checked; `None` when none are.
    pub fn verified(&self) -> Option<u64> {
        self.translator.as_ref().and_then(Translator::verified)
    }

    /// Measures from now on how long translated code runs.
    pub fn measure_code(&mut self) {
        if let Some(translator) = &mut self.translator {
            translator.measure();
        }
    }

    /// Tells `perf` of all translated code, by the file `jit-PID.dump` in `folder`. To be called before the first instruction.
    ///
    /// # Errors
    /// What the host says when the file cannot be made; when there is no translator.
    pub fn write_jitdump(&mut self, folder: &Path) -> std::io::Result<()> {
        match &mut self.translator {
            Some(translator) => translator.write_jitdump(folder),
            None => Err(std::io::Error::other(NoDump::NoTranslator)),
        }
    }

    /// Keeps from now on what [`Self::dump_code`] needs. To be called before the first instruction.
    pub fn record_code(&mut self) {
        if let Some(translator) = &mut self.translator {
            translator.record();
        }
    }

    /// The page that holds `address`, a linear one, as code: each instruction that was translated beside what was emitted for
    /// it, as text.
    ///
    /// # Errors
    /// Why there is no such text.
    pub fn dump_code(&self, address: u32) -> Result<String, NoDump> {
        let translator = self.translator.as_ref().ok_or(NoDump::NoTranslator)?;
        let address = LinearAddr::from(address);
        let found = self.mmu.walk(address).map_err(|_| NoDump::NotMapped)?;
        let base = address.get() as u32 - address.offset();
        match translator.dump(found.phys.frame(), base) {
            text if text.is_empty() => Err(NoDump::NothingTranslated),
            text => Ok(text),
        }
    }

    /// The pages of guest code that have translations; `None` without a translator.
    pub fn code_pages(&self) -> Option<Vec<CodePageReport>> {
        self.translator.as_ref().map(Translator::inventory)
    }

    /// Raises the NMI pin.
    pub fn inject_nmi(&mut self) {
        self.cpu.pending.set(Pending::NMI);
    }

    /// Says which interrupts and exceptions are logged (target `irq`, level info, a line each) or make [`Self::run`] return
    /// with [`Exit::Intercept`] before they are delivered.
    pub fn set_policy(&mut self, policy: Policy) {
        self.interceptor.set_policy(policy);
    }

    /// What becomes of which interrupts and exceptions.
    pub fn policy(&self) -> &Policy {
        self.interceptor.policy()
    }

    /// Says whether the bus is told of interrupts and exceptions, port accesses and writes of control registers, by
    /// [`Bus::observe`]. At first it is not.
    pub fn set_observed(&mut self, observed: bool) {
        self.interceptor.set_observed(observed);
    }

    /// The event of the latest [`Exit::Intercept`], until [`Self::run`] is called again.
    pub fn intercepted(&self) -> Option<GuestEvent> {
        self.interceptor.held()
    }

    /// Says what [`Self::run`], when it is called next, does with the event it was stopped for; unless told otherwise it
    /// reflects it. Without such an event nothing is decided.
    pub fn decide(&mut self, decision: Decision) {
        self.interceptor.decide(decision);
    }

    /// Has [`Self::run`] return with [`Exit::Breakpoint`] before an instruction at a linear address is executed, in whatever
    /// address space. The guest's memory stays as it is. A breakpoint may be added several times.
    pub fn add_breakpoint(&mut self, linear: u32) {
        self.debugger.add_breakpoint(linear);
    }

    /// Removes a breakpoint that was added. Returns whether there was one.
    pub fn remove_breakpoint(&mut self, linear: u32) -> bool {
        self.debugger.remove_breakpoint(linear)
    }

    /// Has [`Self::run`] return with [`Exit::Watchpoint`] behind accesses to a range of linear addresses, in whatever address
    /// space: those of memory operands and stacks. Accesses to the pages of the range become as slow as the emulator.
    pub fn add_watchpoint(&mut self, watchpoint: Watchpoint) {
        self.debugger.add_watchpoint(watchpoint);
        self.mmu.keep_out(self.debugger.watched_pages());
    }

    /// Removes a watchpoint that was added. Returns whether there was one.
    pub fn remove_watchpoint(&mut self, watchpoint: Watchpoint) -> bool {
        let removed = self.debugger.remove_watchpoint(watchpoint);
        self.mmu.keep_out(self.debugger.watched_pages());
        removed
    }

    /// Runs up to `budget` instructions and deliveries, behind the one whose breakpoint the processor stands at; translated code
    /// counts its jumps and loops instead.
    pub fn run(&mut self, bus: &mut dyn Bus, budget: u64) -> Exit {
        let (mut cx, cache, window, translator) = self.parts(bus);
        if let Err(exit) = begin(&mut cx) {
            return exit;
        }
        let exit = pass_breakpoint(&mut cx, cache, window).and_then(|()| match translator {
            None => emulate(&mut cx, cache, window, budget),
            Some(translator) => translate(&mut cx, cache, window, translator, budget),
        });
        exit.err().unwrap_or(Exit::Budget)
    }

    /// Executes one instruction (of a repeated string instruction, one iteration), whatever breakpoint it has, or delivers one
    /// event; [`Exit::Budget`] says that it is done. Interrupts on the INTR pin wait meanwhile, unless the processor is in HLT.
    pub fn step(&mut self, bus: &mut dyn Bus) -> Exit {
        let held = self.interceptor.held();
        let (mut cx, cache, window, _) = self.parts(bus);
        if let Err(exit) = begin(&mut cx) {
            return exit;
        }
        let exit = match held {
            // What was decided about it has been done.
            Some(_) => Ok(()),
            None => {
                let here = cx.cpu.linear_eip();
                cx.debugger.stand_at(here);
                // A repeated instruction stops behind an iteration that somebody watches.
                cx.cpu.pending.set(Pending::WATCH);
                next_uninterrupted(&mut cx, cache, window)
            }
        };
        let here = cx.cpu.linear_eip();
        cx.debugger.stand_at(here);
        exit.err().unwrap_or(Exit::Budget)
    }

    /// What an instruction works on, and what finds it.
    fn parts<'a>(
        &'a mut self,
        bus: &'a mut dyn Bus,
    ) -> (
        Exec<'a>,
        &'a mut Cache,
        &'a mut FetchWindow,
        Option<&'a mut Translator>,
    ) {
        let cx = Exec {
            cpu: &mut self.cpu,
            mmu: &mut self.mmu,
            bus,
            host: &mut self.host,
            interceptor: &mut self.interceptor,
            debugger: &mut self.debugger,
        };
        (
            cx,
            &mut self.cache,
            &mut self.window,
            self.translator.as_mut(),
        )
    }
}

/// Takes up what has changed while the processor stood still.
fn begin(cx: &mut Exec<'_>) -> Result<(), Exit> {
    cx.cpu.pending.clear(Pending::BREAK | Pending::WATCH);
    cx.cpu.pending.set(cx.debugger.reasons());
    cx.update_access_checks();
    cx.sample_bus();
    cx.resume().map_err(|fault| exit_of(cx, fault))?;
    let here = cx.cpu.linear_eip();
    cx.debugger.go_on_at(here);
    stop_if_watched(cx)
}

/// Stops behind an access that met a watchpoint.
fn stop_if_watched(cx: &mut Exec<'_>) -> Result<(), Exit> {
    match cx.debugger.take_hit() {
        Some(hit) => Err(Exit::Watchpoint(hit)),
        None => Ok(()),
    }
}

/// Executes the instruction whose breakpoint the processor stands at. An interrupt does not come before it, since its handler
/// would return to the breakpoint.
fn pass_breakpoint(
    cx: &mut Exec<'_>,
    cache: &mut Cache,
    window: &mut FetchWindow,
) -> Result<(), Exit> {
    if !cx.debugger.passes_breakpoint() {
        return Ok(());
    }
    next_uninterrupted(cx, cache, window)?;
    cx.sample_bus();
    Ok(())
}

/// The same as [`next`], but interrupts on the INTR pin wait, unless the processor is in HLT.
fn next_uninterrupted(
    cx: &mut Exec<'_>,
    cache: &mut Cache,
    window: &mut FetchWindow,
) -> Result<(), Exit> {
    if !cx.cpu.pending.has(Pending::HALT) {
        cx.cpu.pending.clear(Pending::INTR);
    }
    next(cx, cache, window)
}

/// Emulates up to `budget` instructions.
fn emulate(
    cx: &mut Exec<'_>,
    cache: &mut Cache,
    window: &mut FetchWindow,
    budget: u64,
) -> Result<(), Exit> {
    let end = cx.cpu.retired.saturating_add(budget);
    while cx.cpu.retired < end {
        next(cx, cache, window)?;
    }
    Ok(())
}

/// Runs translated code where it may run, and emulates one instruction at a time where not.
fn translate(
    cx: &mut Exec<'_>,
    cache: &mut Cache,
    window: &mut FetchWindow,
    translator: &mut Translator,
    budget: u64,
) -> Result<(), Exit> {
    let end = cx.cpu.retired.saturating_add((budget / EMULATED).max(1));
    let mut polls = u32::try_from(budget).unwrap_or(u32::MAX).max(2);
    while cx.cpu.retired < end {
        if may_translate(cx.cpu) {
            let outcome = translator.run(cx, &mut polls);
            if let Some(violation) = translator.violation() {
                return Err(Exit::Unsupported(format!("emitted code: {violation}")));
            }
            if outcome == Outcome::Budget {
                break;
            }
        }
        next(cx, cache, window)?;
    }
    Ok(())
}

/// Nothing has to be looked at between two instructions, and the segments are what translated code expects.
fn may_translate(cpu: &Cpu) -> bool {
    let waiting = cpu.eflags & eflags::IF == 0;
    let always = Pending::REFETCH | Pending::BREAK | Pending::WATCH;
    let ignored = always | if waiting { Pending::INTR } else { 0 };
    cpu.pending.0 & !ignored == 0 && cpu.eflags & (eflags::TF | eflags::RF) == 0 && is_flat(cpu)
}

/// Executes one instruction or delivers one event.
#[inline(always)]
fn next(cx: &mut Exec<'_>, cache: &mut Cache, window: &mut FetchWindow) -> Result<(), Exit> {
    refetch(cx, window);
    if cx.cpu.pending.0 != 0 || cx.cpu.eflags & (eflags::TF | eflags::RF) != 0 {
        step_watched(cx, cache, window)?;
        stop_if_watched(cx)
    } else {
        step(cx, cache, window)
    }
}

/// Closes the window if it is stale.
#[inline(always)]
fn refetch(cx: &mut Exec<'_>, window: &mut FetchWindow) {
    if cx.cpu.pending.has(Pending::REFETCH) {
        window.page = FetchWindow::CLOSED;
        cx.cpu.pending.clear(Pending::REFETCH);
    }
}

/// Executes one instruction and delivers the exception it raises.
#[inline(always)]
fn step(cx: &mut Exec<'_>, cache: &mut Cache, window: &mut FetchWindow) -> Result<(), Exit> {
    let start = cx.cpu.eip;
    match execute(cx, cache, window) {
        Ok(()) => {
            cx.cpu.retired += 1;
            Ok(())
        }
        Err(fault) => fail(cx, start, fault),
    }
}

/// Delivers the exception of the instruction at `start`, with nothing of it done.
#[cold]
fn fail(cx: &mut Exec<'_>, start: u32, fault: Fault) -> Result<(), Exit> {
    // A guest that faults for ever still uses up its budget.
    cx.cpu.retired += 1;
    if fault == Fault::Intercepted {
        return Err(exit_of(cx, fault));
    }
    cx.undo_instruction(start);
    let result = cx.raise_fault(fault);
    result.map_err(|fault| exit_of(cx, fault))
}

fn exit_of(cx: &Exec<'_>, fault: Fault) -> Exit {
    let place = || {
        format!(
            "at {:04x}:{:08x}",
            cx.cpu.seg(SegReg::Cs).selector.0,
            cx.cpu.eip
        )
    };
    match fault {
        Fault::Shutdown => Exit::Shutdown,
        Fault::Intercepted => cx.interceptor.held().map_or(Exit::Budget, Exit::Intercept),
        Fault::Unsupported(what) => Exit::Unsupported(format!("{what} {}", place())),
        Fault::Exception(exception) => {
            Exit::Unsupported(format!("undelivered {exception:?} {}", place()))
        }
    }
}

/// Fetches and executes one instruction. On success EIP is the next instruction's.
#[inline(always)]
fn execute(cx: &mut Exec<'_>, cache: &mut Cache, window: &mut FetchWindow) -> Result<(), Fault> {
    let start = cx.cpu.eip;
    let mut linear = window.base.wrapping_add(start);
    if window.page != linear >> mmu::PAGE_SHIFT || window.epoch != cx.mmu.code_epoch() {
        linear = open_window(cx, window)?;
    }
    let mut key = window.key;
    key.address |= u64::from(linear) % PAGE_SIZE as u64;
    let decoded;
    let insn = match cache.get(key) {
        Some(insn) => insn,
        None => {
            decoded = decode(cx, cache, window, key, linear)?;
            &decoded
        }
    };
    let last = start.wrapping_add(u32::from(insn.len) - 1);
    if last > window.limit || last < start {
        return Err(Fault::gp(0));
    }
    cx.cpu.eip = last.wrapping_add(1);
    (insn.exec)(cx, insn)
}

/// Points the window at the page of CS:EIP and returns the linear address of that.
#[cold]
fn open_window(cx: &mut Exec<'_>, window: &mut FetchWindow) -> Result<u32, Fault> {
    window.page = FetchWindow::CLOSED;
    let cs = *cx.cpu.seg(SegReg::Cs);
    if cx.cpu.eip > cs.limit {
        return Err(Fault::gp(0));
    }
    let linear = cs.base.wrapping_add(cx.cpu.eip);
    let frame = fetch_frame(cx, linear)?;
    let code32 = if cx.cpu.is_code32() { Key::CODE32 } else { 0 };
    *window = FetchWindow {
        page: linear >> mmu::PAGE_SHIFT,
        base: cs.base,
        limit: cs.limit,
        frame,
        key: Key {
            address: frame.base().get() | code32,
            written: cx.mmu.written(frame).get(),
        },
        epoch: cx.mmu.code_epoch(),
    };
    Ok(linear)
}

fn fetch_frame(cx: &mut Exec<'_>, linear: u32) -> Result<Frame, Fault> {
    match cx
        .mmu
        .fetch_page(LinearAddr::from(linear), cx.cpu.privilege())
    {
        Ok(frame) => Ok(frame),
        Err(MemFault::Page(fault)) => Err(fault.into()),
        Err(MemFault::Device) => Err(Fault::Unsupported(Unsupported::FetchFromDevice)),
    }
}

/// Decodes the instruction at `linear`, inside the window's page, and caches it if it lies in one page.
#[cold]
fn decode(
    cx: &mut Exec<'_>,
    cache: &mut Cache,
    window: &mut FetchWindow,
    key: Key,
    linear: u32,
) -> Result<Insn, Fault> {
    if cx.host.is_full() {
        cx.host.clear();
        cache.clear();
    }
    let size = if cx.cpu.is_code32() {
        CodeSize::Bits32
    } else {
        CodeSize::Bits16
    };
    let offset = linear as usize % PAGE_SIZE;
    cx.mmu.mark_code(window.frame);
    let mut bytes = [0; MAX_LENGTH];
    let here = &mut bytes[..MAX_LENGTH.min(PAGE_SIZE - offset)];
    read_code(cx, window.frame, offset, here);
    match decoder::decode(here, size, cx.host) {
        Err(DecodeError::NeedMoreBytes) => decode_across(cx, here, size, linear),
        Ok(insn) => {
            cache.insert(key, insn);
            Ok(insn)
        }
        Err(error) => Err(decode_fault(error)),
    }
}

/// Decodes an instruction that continues on the next page. Such instructions are not cached: the second page may change.
fn decode_across(
    cx: &mut Exec<'_>,
    first: &[u8],
    size: CodeSize,
    linear: u32,
) -> Result<Insn, Fault> {
    let next = linear.wrapping_add(first.len() as u32);
    let frame = match fetch_frame(cx, next) {
        Err(_) if decoder::is_undefined_opcode(first, size) => return Err(Fault::ud()),
        frame => frame?,
    };
    let mut bytes = [0; MAX_LENGTH];
    bytes[..first.len()].copy_from_slice(first);
    read_code(cx, frame, 0, &mut bytes[first.len()..]);
    decoder::decode(&bytes, size, cx.host).map_err(decode_fault)
}

/// Reads instruction bytes, all in one page of memory that was fetched from.
fn read_code(cx: &Exec<'_>, frame: Frame, offset: usize, bytes: &mut [u8]) {
    let start = GuestPhys::new(frame.base().get() + offset as u64);
    if cx.mmu.phys.read(start, bytes).is_err() {
        debug_assert!(false, "frame {frame:?} was fetched from");
    }
}

fn decode_fault(error: DecodeError) -> Fault {
    match error {
        DecodeError::Invalid => Fault::ud(),
        DecodeError::TooLong | DecodeError::NeedMoreBytes => Fault::gp(0),
    }
}

/// One step with everything that can happen between two instructions: traps, interrupts, shadows, breakpoints.
#[cold]
fn step_watched(
    cx: &mut Exec<'_>,
    cache: &mut Cache,
    window: &mut FetchWindow,
) -> Result<(), Exit> {
    match deliver_pending(cx) {
        Ok(Boundary::Clear) => {}
        Ok(Boundary::Delivered) => {
            // A guest that is interrupted for ever still uses up its budget.
            cx.cpu.retired += 1;
            return Ok(());
        }
        Ok(Boundary::Exit(exit)) => return Err(exit),
        Err(fault) => return Err(exit_of(cx, fault)),
    }
    let here = cx.cpu.linear_eip();
    if cx.debugger.stops_at(here) && cx.cpu.eflags & eflags::RF == 0 {
        cx.debugger.stand_at(here);
        return Err(Exit::Breakpoint(here));
    }
    let shadows = cx.cpu.pending.0 & (Pending::SHADOW | Pending::SHADOW_SS);
    cx.cpu.pending.clear(shadows);
    if let Some(hits) = code_breakpoints(cx) {
        cx.cpu.retired += 1;
        return cx.raise_debug(hits).map_err(|fault| exit_of(cx, fault));
    }
    let single_step = cx.cpu.eflags & eflags::TF != 0;
    // RF lasts for one instruction; a fault pushes it set by itself.
    cx.cpu.eflags &= !eflags::RF;
    let delivered = cx.cpu.delivered;
    step(cx, cache, window)?;
    // A fault, or INT n, has cleared TF on the way to its handler: no trap.
    if single_step && cx.cpu.delivered == delivered {
        cx.cpu.debug_hits |= DR6_BS;
        cx.cpu.pending.set(Pending::DEBUG_TRAP);
    }
    Ok(())
}

enum Boundary {
    /// Nothing to deliver: execute the next instruction.
    Clear,
    /// An event was delivered; look again.
    Delivered,
    Exit(Exit),
}

/// Delivers the event of highest priority.
fn deliver_pending(cx: &mut Exec<'_>) -> Result<Boundary, Fault> {
    let pending = cx.cpu.pending;
    if pending.has(Pending::STOP) {
        cx.cpu.pending.clear(Pending::STOP);
        return Ok(Boundary::Exit(Exit::Stop));
    }
    if pending.has(Pending::DEBUG_TRAP) && !pending.has(Pending::SHADOW_SS) {
        cx.cpu.pending.clear(Pending::DEBUG_TRAP);
        let hits = std::mem::take(&mut cx.cpu.debug_hits);
        cx.raise_debug(hits)?;
        return Ok(Boundary::Delivered);
    }
    if pending.has(Pending::NMI) && !pending.has(Pending::SHADOW_SS) && !cx.cpu.nmi_blocked {
        cx.cpu.pending.clear(Pending::NMI);
        cx.deliver(Event::Nmi)?;
        return Ok(Boundary::Delivered);
    }
    let interruptible =
        cx.cpu.eflags & eflags::IF != 0 && !pending.has(Pending::SHADOW | Pending::SHADOW_SS);
    if pending.has(Pending::INTR) && interruptible {
        let vector = cx.bus.acknowledge();
        cx.sample_bus();
        cx.deliver(Event::External(vector))?;
        return Ok(Boundary::Delivered);
    }
    if pending.has(Pending::HALT) {
        cx.cpu.pending.clear(Pending::SHADOW | Pending::SHADOW_SS);
        return Ok(Boundary::Exit(Exit::Halt));
    }
    Ok(Boundary::Clear)
}

/// DR6 bits of the instruction breakpoints at EIP (SDM Vol. 3B, 17.3.1.1 "Instruction-Breakpoint Exception Condition").
fn code_breakpoints(cx: &Exec<'_>) -> Option<u32> {
    let cpu = &*cx.cpu;
    if cpu.dr[7] & DR7_ENABLES == 0 || cpu.eflags & eflags::RF != 0 {
        return None;
    }
    let linear = cpu.linear_eip();
    let hits = (0..4).fold(0, |hits, index| {
        let enabled = cpu.dr[7] >> (2 * index) & 3 != 0;
        let executes = cpu.dr[7] >> (16 + 4 * index) & 3 == 0;
        if enabled && executes && cpu.dr[index] == linear {
            hits | 1 << index
        } else {
            hits
        }
    });
    (hits != 0).then_some(hits)
}
