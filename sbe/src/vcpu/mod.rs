//! [`Vcpu`]: one virtual processor.
//!
//! ```text
//!   run ────── emulated instructions, or translated code: run.rs
//!      │
//!   look up ── events pending? traps, NMI, interrupts: boundary.rs
//!      │
//!   fetch ──── linear page -> frame, by the page fetched from last; decode cache by guest-physical address: fetch.rs
//!      │
//!   execute ── handler; on a fault EIP goes back and the exception is delivered: step.rs
//! ```
//!
//! [`VcpuConfig`] (config.rs) is what a processor is made from, entry.rs sets the registers it starts with, [`Exit`] (exit.rs)
//! why it stops running.

mod boundary;
mod config;
mod entry;
mod exit;
mod fetch;
mod run;
mod state;
mod step;

use crate::bus::Bus;
use crate::cpu::{Cpu, Pending};
use crate::debugger::Debugger;
use crate::emulate::Cache;
use crate::emulate::{Exec, Interceptor};
use crate::guest_event::{Decision, GuestEvent};
use crate::host_fpu::HostFpu;
use crate::policy::Policy;
use crate::translate::{
    CodeCache, CodePageReport, JitDump, NoDump, Setup, Stats, Translator, can_handle_faults,
};
use fetch::FetchPage;
use mmu::{LinearAddr, LinearWidth, Mmu};
use run::{begin, emulate, end, next_uninterrupted, pass_breakpoint, translate};
use std::io;

pub use config::{Engine, NoWindows, VcpuConfig, VcpuError};
pub use exit::Exit;
pub use state::VcpuState;

/// One virtual processor.
pub struct Vcpu {
    /// Architectural state.
    pub cpu: Cpu,
    /// Memory as the processor addresses it.
    pub mmu: Mmu,
    cache: Cache,
    host: HostFpu,
    interceptor: Interceptor,
    undelivered: Vec<GuestEvent>,
    debugger: Debugger,
    page: FetchPage,
    translator: Option<Translator>,
}

impl Vcpu {
    /// A processor after RESET.
    ///
    /// # Errors
    /// See [`VcpuError`].
    pub fn new(config: &VcpuConfig, mmu: Mmu) -> Result<Self, VcpuError> {
        if *mmu.model() != config.model.paging_model() {
            return Err(VcpuError::OtherMmu);
        }
        if let Some(extension) = config.model.level().missing_on_host() {
            return Err(VcpuError::Missing {
                model: config.model.name(),
                extension,
            });
        }
        Ok(Self {
            cpu: Cpu::new(config.model),
            mmu,
            cache: Cache::new(),
            host: HostFpu::new()?,
            interceptor: Interceptor::default(),
            undelivered: Vec::new(),
            debugger: Debugger::default(),
            page: FetchPage::none(),
            translator: translator(config)?,
        })
    }

    /// The translator's counts so far; `None` without a translator.
    pub fn translation(&self) -> Option<&Stats> {
        self.code_cache().map(CodeCache::stats)
    }

    /// The number of fragments of translated code that passed their check; `None` if code is not checked.
    pub fn verified(&self) -> Option<u64> {
        self.code_cache()?.verifier().fragments()
    }

    /// The text of the code page that holds `address`: each translated instruction beside the code emitted for it. Needs
    /// [`VcpuConfig::record_code`].
    ///
    /// # Errors
    /// Why there is no such text.
    pub fn dump_code(&self, address: LinearAddr) -> Result<String, NoDump> {
        let cache = self.code_cache().ok_or(NoDump::NoTranslator)?;
        let found = self.mmu.walk(address).map_err(|_| NoDump::NotMapped)?;
        let base = address.get() - u64::from(address.offset());
        match cache.dump(found.phys.frame(), base, self.cpu.model.level()) {
            text if text.is_empty() => Err(NoDump::NothingTranslated),
            text => Ok(text),
        }
    }

    /// The pages of guest code that have translations; `None` without a translator.
    pub fn code_pages(&self) -> Option<Vec<CodePageReport>> {
        self.code_cache().map(CodeCache::inventory)
    }

    fn code_cache(&self) -> Option<&CodeCache> {
        self.translator.as_ref().map(Translator::cache)
    }

    /// Raises the NMI pin.
    pub fn inject_nmi(&mut self) {
        self.cpu.pending.set(Pending::NMI);
    }

    /// Sets the policy: which interrupts and exceptions are logged (target `irq`, level info, a line each) or make
    /// [`Self::run`] return [`Exit::Intercept`] before they are delivered.
    pub fn set_policy(&mut self, policy: Policy) {
        self.interceptor.set_policy(policy);
    }

    /// The policy that decides what becomes of interrupts and exceptions.
    pub fn policy(&self) -> &Policy {
        self.interceptor.policy()
    }

    /// Sets whether [`Bus::observe`] is called for interrupts, exceptions, port accesses and writes of control registers. At
    /// first it is not.
    pub fn set_observed(&mut self, observed: bool) {
        self.interceptor.set_observed(observed);
    }

    /// The event of the latest [`Exit::Intercept`], until [`Self::run`] is called again.
    pub fn intercepted(&self) -> Option<GuestEvent> {
        self.interceptor.held()
    }

    /// Sets what the next [`Self::run`] does with the event that the processor was stopped for: unless this is called, it
    /// reflects the event. Without such an event the call has no effect.
    pub fn decide(&mut self, decision: Decision) {
        self.interceptor.decide(decision);
    }

    /// The breakpoints and watchpoints.
    pub fn debugger(&self) -> &Debugger {
        &self.debugger
    }

    /// The breakpoints and watchpoints, to add and remove some. The next run heeds them.
    pub fn debugger_mut(&mut self) -> &mut Debugger {
        &mut self.debugger
    }

    /// Whether others have stored to memory, or changed its map, since the processor last looked, while it has watchpoints: the
    /// next run finds out whether a store hit one.
    pub fn has_stores_to_watch(&self) -> bool {
        self.cpu.pending.has(Pending::WATCH) && self.mmu.has_news()
    }

    /// Runs up to `budget` instructions and deliveries, after the one whose breakpoint the processor stands at. Translated code
    /// counts its jumps and loops instead.
    pub fn run(&mut self, bus: &mut dyn Bus, budget: u64) -> Exit {
        let (mut cx, cache, page, translator) = self.parts(bus);
        let begun = begin(&mut cx).and_then(|()| pass_breakpoint(&mut cx, cache, page));
        let ran = begun.and_then(|()| match translator {
            None => emulate(&mut cx, cache, page, budget),
            Some(translator) => translate(&mut cx, cache, page, translator, budget),
        });
        let exit = end(&mut cx, ran);
        self.mmu.rest();
        exit.err().unwrap_or(Exit::Budget)
    }

    /// Executes one instruction (of a repeated string instruction, one iteration), even if it has a breakpoint, or delivers one
    /// event, and then returns [`Exit::Budget`]. Interrupts on the INTR pin wait meanwhile, unless the processor is in HLT.
    pub fn step(&mut self, bus: &mut dyn Bus) -> Exit {
        let held = self.interceptor.held();
        let (mut cx, cache, page, _) = self.parts(bus);
        let exit = begin(&mut cx).and_then(|()| {
            let here = cx.cpu.linear_eip();
            cx.debugger.stand_at(here);
            if held.is_some() {
                // `begin` has done what was decided about it.
                return Ok(());
            }
            // Makes a repeated instruction stop after one iteration.
            cx.cpu.pending.set(Pending::WATCH);
            let exit = next_uninterrupted(&mut cx, cache, page);
            let here = cx.cpu.linear_eip();
            cx.debugger.stand_at(here);
            exit
        });
        self.mmu.rest();
        exit.err().unwrap_or(Exit::Budget)
    }

    /// The parts that instructions work on, and those that find the next instruction.
    fn parts<'a>(
        &'a mut self,
        bus: &'a mut dyn Bus,
    ) -> (
        Exec<'a>,
        &'a mut Cache,
        &'a mut FetchPage,
        Option<&'a mut Translator>,
    ) {
        let cx = Exec {
            cpu: &mut self.cpu,
            mmu: &mut self.mmu,
            bus,
            host: &mut self.host,
            interceptor: &mut self.interceptor,
            undelivered: &mut self.undelivered,
            debugger: &mut self.debugger,
        };
        (
            cx,
            &mut self.cache,
            &mut self.page,
            self.translator.as_mut(),
        )
    }
}

/// The translator, where `config` wants it.
fn translator(config: &VcpuConfig) -> Result<Option<Translator>, VcpuError> {
    let jitdump = config.jitdump.as_deref();
    if config.engine == Engine::Emulator {
        return match jitdump {
            None => Ok(None),
            Some(_) => Err(VcpuError::Jitdump(io::Error::other(NoDump::NoTranslator))),
        };
    }
    // Emitted code computes addresses by SHRX and RORX, which leave the guest's flags alone.
    if !is_x86_feature_detected!("bmi2") {
        return Err(VcpuError::NoBmi2);
    }
    let width = config.model.paging_model().linear_width;
    if width == LinearWidth::Bits48 && !can_handle_faults() {
        return Err(VcpuError::NoFaults);
    }
    let setup = Setup {
        width,
        code_cache: config.code_cache,
        windows: config.windows,
        verify: config.verify_code,
        record: config.record_code,
        measure: config.measure_code,
        jitdump: jitdump
            .map(JitDump::create)
            .transpose()
            .map_err(VcpuError::Jitdump)?,
    };
    Ok(Some(Translator::new(setup)?))
}

#[cfg(test)]
mod tests;
