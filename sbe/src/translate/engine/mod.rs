//! [`Translator`]: the loop around emitted code.

mod exchange;
mod misses;

use super::cache::CodeCache;
use super::context::{Context, NOWHERE, Reason};
use super::mode::Mode;
use super::origin::Origin;
use super::segments::{KnownSegments, spans_all};
use super::setup::Setup;
use super::signal::are_windows_possible;
use super::stack::{HostStack, MOST_POLLS};
use super::trampoline::Trampoline;
use super::windows::{WindowPolicy, Windows};
use crate::cpu::fpu::MXCSR_INIT;
use crate::cpu::regs::ESP;
use crate::cpu::segment::{Bounds, SegReg};
use crate::cpu::{Cpu, eflags};
use crate::emulate::Exec;
use mmu::{LinearAddr, LinearWidth, PAGE_SIZE, Privilege};
use std::io;

/// The outcome of a run of translated code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The emulator has to execute the instruction at EIP.
    Emulate,
    /// The budget of polls is used up.
    Budget,
}

/// The translator of one processor: translated code, and what it runs with.
pub struct Translator {
    cache: CodeCache,
    context: Box<Context>,
    stack: HostStack,
    segments: KnownSegments,
    windows: WindowPolicy,
    /// The width of linear addresses.
    width: LinearWidth,
    /// Whether the code of each privilege that was executed last is 64-bit code: supervisor's, user's.
    ran_64: [bool; 2],
    /// Whether the code that executes is 64-bit code.
    is_64: bool,
    /// The bytes of the instruction that the emulator has to execute, if they have changed since emitted code began it.
    fetched: Option<Vec<u8>>,
}

impl Translator {
    /// Creates a translator with nothing translated. The host must have BMI2; for 48-bit addresses it must let its faults be handled
    /// ([`can_handle_faults`](super::can_handle_faults)).
    ///
    /// # Errors
    /// The host's, where it grants no memory for code; a size out of range.
    pub fn new(setup: Setup) -> io::Result<Self> {
        let width = setup.width;
        let possible = setup.windows != Windows::Never && are_windows_possible();
        let windows = if possible {
            setup.windows
        } else {
            Windows::Never
        };
        let cache = CodeCache::new(setup)?;
        let stack = HostStack::new(cache.trampoline(Trampoline::ReturnUnderflow));
        let mut context = Box::new(Context::default());
        context.host_mxcsr = MXCSR_INIT;
        context.set_masks();
        context.entries = cache.entries().wrapping_neg();
        stack.reset(&mut context);
        Ok(Self {
            cache,
            context,
            stack,
            segments: KnownSegments::default(),
            windows: WindowPolicy::new(windows),
            width,
            ran_64: [false; 2],
            is_64: false,
            fetched: None,
        })
    }

    /// The guest's code as translated so far.
    pub fn cache(&self) -> &CodeCache {
        &self.cache
    }

    /// Makes the checker examine a system call: see
    /// [`CodeBuffer::check_system_call`](super::buffer::CodeBuffer::check_system_call).
    #[cfg(test)]
    pub fn check_system_call(&mut self) {
        self.cache.check_system_call();
    }

    /// Runs translated code from EIP on until the emulator or the caller has to act. `polls` counts down with loops, calls and
    /// indirect jumps.
    pub fn run(&mut self, cx: &mut Exec<'_>, polls: &mut u32) -> Outcome {
        if cx.cpu.cpl == 3 {
            let opened = self.windows.before_program(cx.mmu);
            self.cache.stats_mut().windows += u64::from(opened);
        }
        cx.mmu.snoop();
        self.follow_width(cx);
        self.cache.follow(cx);
        self.load(cx);
        self.context.pointer = Origin::NONE.into();
        let mut target = self.cache.trampoline(Trampoline::Dispatch);
        let outcome = loop {
            if self.cache.verifier().violation().is_some() {
                break Outcome::Emulate;
            }
            self.settle_window(cx);
            self.execute(target, polls);
            let reason = self.context.reason();
            if reason == Reason::Budget && *polls == 0 {
                self.end_slice(cx);
                self.go_back();
                break Outcome::Budget;
            }
            match self.after_exit(cx, reason) {
                Some(next) => target = next,
                None => break Outcome::Emulate,
            }
        };
        self.store(cx);
        self.cache.stats_mut().remaps = cx.mmu.tlb().remaps();
        outcome
    }

    /// The bytes from EIP on that the emulator has to take for those of the instruction, if that is not what lies there now.
    pub fn take_fetched(&mut self) -> Option<Vec<u8>> {
        self.fetched.take()
    }

    /// Runs emitted code at the host address `target` until it exits.
    fn execute(&mut self, target: u64, polls: &mut u32) {
        let granted = (*polls).min(MOST_POLLS);
        self.context.polls = granted;
        if self.cache.take_dropped_returns() {
            self.stack.reset(&mut self.context);
        }
        self.stack.make_room(&mut self.context);
        self.cache.run(&mut self.context, target);
        *polls -= granted - self.context.polls;
    }

    /// Makes sure that a program finds nothing in its window that its page tables have lost. While the kernel runs, this is put
    /// off: the ways from it to a program that emitted code has are SYSEXIT and SYSRET, which are then the emulator's.
    fn settle_window(&mut self, cx: &mut Exec<'_>) {
        if cx.mmu.tlb().is_window_settled() {
            return;
        }
        match self.mode() {
            Mode::Supervisor | Mode::Supervisor64 => {
                self.context.sysexit_usable = 0;
                self.context.sysret_usable = 0;
            }
            Mode::User | Mode::Windowed | Mode::User64 | Mode::Windowed64 => {
                cx.mmu.tlb_mut().settle_window()
            }
        }
    }

    /// Serves an exit of emitted code. Returns the host address at which it continues; `None` when the emulator has to
    /// execute the instruction at EIP.
    fn after_exit(&mut self, cx: &mut Exec<'_>, reason: Reason) -> Option<u64> {
        let exits = &mut self.cache.stats_mut().exits;
        match reason {
            Reason::Emulate => {
                exits.emulate += 1;
                None
            }
            Reason::Lookup => {
                exits.lookup += 1;
                self.leave_fpu();
                if self.go_back() {
                    return None;
                }
                let eip = LinearAddr::new(self.context.eip);
                let mode = self.mode_at(cx, eip);
                self.cache.lookup(cx, eip, mode)
            }
            Reason::Link => {
                exits.link += 1;
                self.leave_fpu();
                let eip = LinearAddr::new(self.context.eip);
                self.cache.link(cx, self.context.site, eip)
            }
            Reason::LinkAcross => {
                exits.link += 1;
                self.leave_fpu();
                let source = LinearAddr::new(self.context.page);
                let eip = LinearAddr::new(self.context.eip);
                let mode = self.mode_at(cx, eip);
                let site = self.context.site;
                self.cache.link_across(cx, site, [source, eip], mode)
            }
            Reason::LoadFpu => {
                exits.load_fpu += 1;
                self.load_fpu(cx)
            }
            Reason::Miss => {
                exits.miss += 1;
                self.fill(cx)
            }
            Reason::WindowFault => {
                exits.window += 1;
                self.window_fault(cx)
            }
            Reason::Budget => {
                self.leave_fpu();
                Some(self.cache.trampoline(Trampoline::Dispatch))
            }
        }
    }

    /// Voids what was found for code of the other width at the same linear addresses: code slots and host return addresses.
    fn follow_width(&mut self, cx: &mut Exec<'_>) {
        let is_64 = cx.cpu.is_code64();
        let level = usize::from(cx.cpu.cpl == 3);
        self.is_64 = is_64;
        if std::mem::replace(&mut self.ran_64[level], is_64) != is_64 {
            cx.mmu.tlb_mut().clear_code();
            self.cache.drop_returns();
        }
    }

    /// Goes back from a target that is not canonical to the indirect branch that led there, if one did. Returns whether the target
    /// is not canonical.
    fn go_back(&mut self) -> bool {
        if LinearAddr::new(self.context.eip).is_canonical() {
            return false;
        }
        if let Some(origin) = Origin::from_bits(self.context.pointer as u32) {
            let page = self.context.page & !(PAGE_SIZE as u64 - 1);
            self.context.eip = page + u64::from(origin.offset);
            let rsp = &mut self.context.regs[usize::from(ESP)];
            *rsp = rsp.wrapping_sub(origin.popped.into());
        }
        true
    }

    /// Accounts for a budget that is used up.
    fn end_slice(&mut self, cx: &mut Exec<'_>) {
        self.cache.stats_mut().exits.budget += 1;
        if self.mode().privilege() == Privilege::User {
            let opened = self.windows.after_slice(cx.mmu);
            self.cache.stats_mut().windows += u64::from(opened);
        }
    }

    /// The mode in which emitted code runs.
    fn mode(&self) -> Mode {
        let has_window = !matches!(self.context.window, 0 | NOWHERE);
        match (self.context.cpl, self.is_64) {
            (0, true) => Mode::Supervisor64,
            (0, false) => Mode::Supervisor,
            (_, true) if has_window => Mode::Windowed64,
            (_, true) => Mode::User64,
            (_, false) if has_window && self.width == LinearWidth::Bits32 => Mode::Windowed,
            (_, false) => Mode::User,
        }
    }

    /// The mode in which code at `eip` runs. A window does not show pages that all spaces share, and the code there is shared by
    /// spaces that have windows and others.
    fn mode_at(&self, cx: &Exec<'_>, eip: LinearAddr) -> Mode {
        let is_shared = cx.mmu.tlb().is_shared(eip.page());
        match self.mode() {
            Mode::Windowed if is_shared => Mode::User,
            Mode::Windowed64 if is_shared => Mode::User64,
            mode => mode,
        }
    }

    /// Leaves the FPU's state in the context until emitted code asks for it.
    fn leave_fpu(&mut self) {
        self.context.fpu_live = 0;
    }
}

/// Whether emitted code may run: 64-bit code, or code for which CS, DS, ES and SS are flat and 32 bits wide.
pub fn is_flat(cpu: &Cpu) -> bool {
    if cpu.is_code64() {
        return matches!(cpu.cpl, 0 | 3);
    }
    let cs = cpu.seg(SegReg::Cs);
    cpu.is_protected()
        && !(cpu.model.has_long_mode() && has_upper_halves(cpu))
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

/// Whether registers that 32-bit code can name have values in their upper halves, which that code keeps.
fn has_upper_halves(cpu: &Cpu) -> bool {
    (0..8).any(|number| cpu.regs.get64(number) >> u32::BITS != 0)
}
