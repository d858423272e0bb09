//! The machine: memory, processors, and their board.
//!
//! | file | what it holds |
//! |---|---|
//! | `config` | the choices that make a machine, and how it starts |
//! | `error` | why one could not be made |
//! | `run` | the loop that runs it |

mod config;
mod error;
mod run;

use std::sync::Arc;

use mmu::{Memory, Mmu};
use sbe::{Debugger, Decision, EventSource, Policy, Vcpu, Vector};

use crate::{
    board::{Board, BoardState, BoardStateError},
    bus::{AttachError, Device, Resources},
    clock::{Clock, host_time_of_day},
    control::Control,
    devices::{self, Backends},
    kmod::{self, ShadowStats},
    loader::{BootSource, EntryPoint, LoadError, Rom, place, rom},
    pace::Pace,
    polling::Polling,
    stats::{Exits, Stats},
    trace::{Filter, Sink, Trace},
};

pub use config::{Start, VmConfig};
pub use error::VmError;

/// A virtual machine.
pub struct Vm {
    memory: Arc<Memory>,
    /// The processors: one, for now.
    vcpus: Vec<Vcpu>,
    control: Control,
    board: Board,
    backends: Backends,
    pace: Pace,
    /// How long a halted processor looks for interrupts before its thread sleeps.
    polling: Polling,
    exits: Exits,
    /// The vector of an external interrupt that is withheld from the guest.
    swallowed: Option<u8>,
    running: u64,
    halted: u64,
}

/// The processor that the machine starts with.
const BOOT_PROCESSOR: usize = 0;

impl Vm {
    /// Creates a machine with `source` in its memory, about to execute the kernel's first instruction.
    ///
    /// # Errors
    /// See [`VmError`].
    pub fn boot(config: &VmConfig, source: &BootSource<'_>) -> Result<Self, VmError> {
        Self::power_on(config, &[], &Start::Kernel(*source))
    }

    /// Creates a machine with `roms` in its memory, about to execute its first instruction.
    ///
    /// ```
    /// use vmm::{Start, StopReason, Vm, VmConfig, console::pipe, loader::Rom};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let rom = Rom {
    ///     address: 0xffff_fff0, // the reset vector
    ///     bytes: &[
    ///         0xb0, 42, // mov al, 42
    ///         0xe6, 0xf4, // out 0xf4, al  ; ends the machine
    ///     ],
    /// };
    /// let mut vm = Vm::power_on(&VmConfig::default(), &[rom], &Start::default())?;
    /// let (mut line, _) = pipe()?;
    /// assert!(matches!(vm.run(&mut line), StopReason::DebugExit(42)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`VmError`].
    pub fn power_on(
        config: &VmConfig,
        roms: &[Rom<'_>],
        start: &Start<'_>,
    ) -> Result<Self, VmError> {
        let width = config.vcpu.model.paging_model().linear_width;
        let memory = Memory::for_width(config.memory, width)?;
        let placed = rom::place(&memory, roms)?;
        let entry = match start {
            Start::Kernel(source) => place(&memory.guest_ram(), &placed, source)?,
            Start::Entry(entry) => {
                let address = entry.address();
                match placed.iter().any(|rom| rom.contains(&address.into())) {
                    true => EntryPoint::Chosen(*entry),
                    false => return Err(LoadError::NothingAtEntry { address }.into()),
                }
            }
        };
        let mut vcpu = Self::processor(config, &memory)?;
        entry.enter(&mut vcpu)?;
        Self::new(memory, vcpu)
    }

    /// A processor on `memory` after RESET.
    pub(crate) fn processor(config: &VmConfig, memory: &Arc<Memory>) -> Result<Vcpu, VmError> {
        let model = config.vcpu.model.paging_model();
        let mut mmu = Mmu::with_model(Arc::clone(memory), model)?;
        if let Some(kmod) = kmod::open(&config.kmod, &config.vcpu, memory)? {
            mmu.tlb_mut().use_kmod(kmod);
        }
        Ok(Vcpu::new(&config.vcpu, mmu)?)
    }

    /// A machine of these parts and a PC's devices, just switched on.
    pub(crate) fn new(memory: Arc<Memory>, vcpu: Vcpu) -> Result<Self, VmError> {
        let (board, backends) = devices::pc(Clock::host(), host_time_of_day(), Arc::clone(&memory));
        Ok(Self {
            memory,
            vcpus: vec![vcpu],
            control: Control::new().map_err(VmError::Control)?,
            board,
            backends,
            pace: Pace::default(),
            polling: Polling::default(),
            exits: Exits::default(),
            swallowed: None,
            running: 0,
            halted: 0,
        })
    }

    /// Attaches a device. It may come at any time, but most guests look for devices only when they start.
    ///
    /// # Errors
    /// If a region, a line or the name is not free. Nothing is then attached.
    pub fn attach(
        &mut self,
        resources: Resources,
        device: impl Device + 'static,
    ) -> Result<(), AttachError> {
        self.attach_boxed(&resources, Box::new(device))
    }

    pub(crate) fn attach_boxed(
        &mut self,
        resources: &Resources,
        device: Box<dyn Device>,
    ) -> Result<(), AttachError> {
        self.board.attach(resources, device)
    }

    /// Detaches the device called `name`, if there is one. Its lines fall, and nobody answers in its regions any more.
    pub fn detach(&mut self, name: &str) -> Option<Box<dyn Device>> {
        self.board.detach(name)
    }

    /// Returns the handle by which other threads pause, wake and end this machine.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The breakpoints and watchpoints, to add and remove some: [`Self::run`] returns [`Breakpoint`] or [`Watchpoint`] at them.
    ///
    /// [`Breakpoint`]: crate::StopReason::Breakpoint
    /// [`Watchpoint`]: crate::StopReason::Watchpoint
    pub fn debugger_mut(&mut self) -> &mut Debugger {
        self.vcpu_mut().debugger_mut()
    }

    /// Sets the policy: which interrupts and exceptions are logged (target `irq`, level info, a line each), and which stop the
    /// machine with [`StopReason::Intercepted`] before the guest sees them.
    ///
    /// [`StopReason::Intercepted`]: crate::StopReason::Intercepted
    pub fn set_policy(&mut self, policy: Policy) {
        for vcpu in &mut self.vcpus {
            vcpu.set_policy(policy.clone());
        }
    }

    /// Requests an interrupt with `vector` as the INTR pin does, but not by the interrupt controllers: the guest gets it when it
    /// accepts interrupts. Vector 2 is NMI.
    pub fn inject(&mut self, vector: u8) {
        match Vector::Nmi as u8 == vector {
            true => self.vcpu_mut().inject_nmi(),
            false => self.board.inject(vector),
        }
    }

    /// The board.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The memory.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    pub(crate) fn vcpus(&self) -> impl Iterator<Item = &Vcpu> {
        self.vcpus.iter()
    }

    /// Vector of an external interrupt that the guest is not going to get.
    pub(crate) fn swallowed(&self) -> Option<u8> {
        self.swallowed
    }

    /// Takes over the state of another machine's board.
    pub(crate) fn restore_board(
        &mut self,
        board: BoardState,
        swallowed: Option<u8>,
    ) -> Result<(), BoardStateError> {
        self.swallowed = swallowed;
        self.board.restore(board)
    }

    /// Decides what becomes of the intercepted event when the machine runs on; without a decision the guest gets it. If an
    /// external interrupt is swallowed, the machine signals its end to the interrupt controllers, since no handler will.
    pub fn decide(&mut self, decision: Decision) {
        let external = self
            .vcpu()
            .intercepted()
            .filter(|event| event.source == EventSource::External);
        self.swallowed = match decision {
            Decision::Swallow => external.map(|event| event.vector),
            Decision::Reflect | Decision::Change { .. } => None,
        };
        self.vcpu_mut().decide(decision);
    }

    /// Sends the events that `filter` admits to `sink`, in place of any earlier one: interrupts and exceptions as they are
    /// delivered, writes of control registers and accesses to I/O ports.
    pub fn trace(&mut self, filter: Filter, sink: Box<dyn Sink>) {
        self.board.set_trace(Trace::new(filter, sink));
        for vcpu in &mut self.vcpus {
            vcpu.set_observed(true);
        }
    }

    /// Statistics of what the machine has done so far.
    pub fn stats(&self) -> Stats {
        let counts = self.board.counts();
        Stats {
            instructions: self.vcpu().cpu.retired,
            time: self.board.now(),
            running: self.running,
            halted: self.halted,
            exits: self.exits,
            interrupts: counts.interrupts,
            timer: self.board.timer_stats(),
            mmio: counts.mmio,
            ports: counts.ports.accessed().collect(),
            connected: self.board.connected_ports().collect(),
            translation: self.vcpu().translation().cloned(),
            shadow: ShadowStats::new(self.vcpu().mmu.tlb().kmod()),
        }
    }

    /// The processor.
    pub fn vcpu(&self) -> &Vcpu {
        &self.vcpus[BOOT_PROCESSOR]
    }

    /// The processor, for changing its state.
    pub(crate) fn vcpu_mut(&mut self) -> &mut Vcpu {
        &mut self.vcpus[BOOT_PROCESSOR]
    }

    /// The processor, and the board that it runs on.
    fn vcpu_and_board(&mut self) -> (&mut Vcpu, &mut Board) {
        (&mut self.vcpus[BOOT_PROCESSOR], &mut self.board)
    }
}
