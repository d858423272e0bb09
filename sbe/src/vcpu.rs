//! [`Vcpu`]: one virtual processor, and the loop that runs it.
//!
//! ```text
//!   look up ── events pending? traps, NMI, interrupts: boundary.rs
//!      │
//!   fetch ──── linear page -> frame, through the fetch window; decode cache by guest-physical address: fetch.rs
//!      │
//!   execute ── handler; on a fault EIP goes back and the exception is delivered
//! ```

mod boundary;
mod fetch;
mod state;

pub use state::VcpuState;

use crate::bus::Bus;
use crate::cpu::control::{CR0_ET, CR0_PE};
use crate::cpu::model::CpuModel;
use crate::cpu::regs::ESI;
use crate::cpu::segment::{Attributes, SegReg, Segment, Selector};
use crate::cpu::{Cpu, Pending, eflags};
use crate::debugger::{Debugger, WatchHit, Watchpoint};
use crate::emulate::{Cache, Exec, Interceptor};
use crate::fault::Fault;
use crate::guest_event::{Decision, GuestEvent};
use crate::host_fpu::HostFpu;
use crate::policy::Policy;
use crate::translate::{CodePageReport, NoDump, Outcome, Stats, Translator, Windows, is_flat};
use boundary::step_watched;
use fetch::{FetchWindow, execute, refetch};
use mmu::{LinearAddr, Mmu};
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
