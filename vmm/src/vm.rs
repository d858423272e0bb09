//! The machine: memory, processors, their board, and the loop that runs them.
//!
//! ```text
//!   ┌► advance the board to now ─► exchange input and output ─► run the processor for a slice ─┐
//!   │                                                                                          │
//!   └── wait for deadline or input ◄── HLT ─────────────────────────────────────────────────── ┤
//!                                        reset, debug exit, shutdown, quit, interception: stop ◄┘
//! ```

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use log::debug;
use mmu::{Memory, MemoryError, Mmu};
use sbe::{
    Bus, CpuModel, Debugger, Decision, EventSource, Exit, Policy, Vcpu, VcpuConfig, VcpuError,
    Vector, cpu::eflags,
};
use thiserror::Error;

use crate::{
    board::{Board, BoardState, BoardStateError},
    bus::{AttachError, Device, Resources, Stop},
    clock::{Clock, host_time_of_day},
    console::{Channel, Console, Input},
    control::{Control, Request},
    devices::{self, Backends},
    ending::Ending,
    kmod::{self, KmodConfig, KmodRefusal, ShadowStats},
    loader::{BootSource, Entry, EntryPoint, LoadError, Mode, Rom, place, rom},
    pace::Pace,
    polling::Polling,
    stats::{Exits, Stats},
    stop::StopReason,
    trace::{Filter, Sink, Trace},
};

/// The choices that make a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmConfig {
    /// The size of RAM in bytes.
    pub memory: u64,
    /// The processor.
    pub vcpu: VcpuConfig,
    /// The use of the host's kernel module.
    pub kmod: KmodConfig,
}

impl Default for VmConfig {
    /// 256 MiB of RAM, the default processor, and the kernel module where it can be opened.
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            vcpu: VcpuConfig::default(),
            kmod: KmodConfig::default(),
        }
    }
}

/// The beginning of a machine's run.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// A kernel, by the protocol that it is made for.
    Kernel(BootSource<'a>),
    /// A place in one of the ROMs.
    Entry(Entry),
}

impl Start<'_> {
    /// The processor model for it, unless there is reason for another: the default one, or the one with 64-bit mode for a kernel
    /// that needs it.
    pub fn default_model(&self) -> CpuModel {
        match self {
            Self::Kernel(source) if source.kernel.image().mode == Mode::Long => CpuModel::X86_64,
            _ => CpuModel::default(),
        }
    }
}

impl Default for Start<'_> {
    /// The reset vector.
    fn default() -> Self {
        Self::Entry(Entry::default())
    }
}

/// The error of making a machine.
#[derive(Debug, Error)]
pub enum VmError {
    /// The host did not grant the memory, or its size is out of range.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The processor could not be made.
    #[error("processor: {0}")]
    Processor(VcpuError),
    /// The host did not grant the eventfd by which other threads wake the machine.
    #[error("eventfd: {0}")]
    Control(io::Error),
    /// The host's kernel module is required and cannot be used.
    #[error(transparent)]
    Kmod(#[from] KmodRefusal),
    /// The kernel or a ROM does not fit.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl From<VcpuError> for VmError {
    fn from(error: VcpuError) -> Self {
        Self::Processor(error)
    }
}

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

/// The distance that the machine runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Advance {
    /// Slice after slice, until something stops the machine.
    Slices,
    /// One instruction.
    Step,
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
        let memory = Memory::new(config.memory)?;
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

    /// Runs the machine until it stops, and can be called again where [`StopReason`] says that the machine can go on. All output
    /// of the guest has then been handed to `console`. The guest's clocks do not stop with the machine, but of the timer's ticks
    /// meanwhile it gets one at most.
    pub fn run(&mut self, console: &mut dyn Console) -> StopReason {
        self.run_by(console, Advance::Slices)
    }

    /// Executes one instruction, whatever breakpoint it has, or delivers one event, and returns [`StopReason::Stepped`], unless
    /// one of the other reasons of [`Self::run`] comes first. A halted processor waits for an interrupt; else interrupts wait.
    pub fn step(&mut self, console: &mut dyn Console) -> StopReason {
        self.run_by(console, Advance::Step)
    }

    /// Runs the machine until it stops, or until [`Control::call`], and then returns no reason.
    pub(crate) fn run_until_called(&mut self, console: &mut dyn Console) -> Option<StopReason> {
        self.advance(console, Advance::Slices)
    }

    /// The breakpoints and watchpoints, to add and remove some: [`Self::run`] returns [`StopReason::Breakpoint`] or
    /// [`StopReason::Watchpoint`] at them.
    pub fn debugger_mut(&mut self) -> &mut Debugger {
        self.vcpu_mut().debugger_mut()
    }

    /// Serves the console of a machine that stands still between two calls of [`Self::run`]: waits until the console has input or
    /// [`Control::wake`] is called, at most for `timeout` (none: for ever), then takes the input there is. The guest gets it when
    /// it runs. May return early. [`Control::pause`] is left to the next run.
    ///
    /// # Errors
    /// The reason not to run the machine again: the user has quit, or the console failed.
    pub fn attend(
        &mut self,
        console: &mut dyn Console,
        timeout: Option<Duration>,
    ) -> Result<(), StopReason> {
        // Devices stand still, too, so that their descriptors are not read.
        self.control
            .wait(console.ready(), timeout)
            .map_err(StopReason::console)?;
        if self.control.is_quitting() {
            return Err(StopReason::Quit);
        }
        self.exchange(console)
    }

    /// Sets the policy: which interrupts and exceptions are logged (target `irq`, level info, a line each), and which stop the
    /// machine with [`StopReason::Intercepted`] before the guest sees them.
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

    fn run_by(&mut self, console: &mut dyn Console, by: Advance) -> StopReason {
        loop {
            if let Some(stop) = self.advance(console, by) {
                debug!("stopped: {stop}");
                return stop;
            }
        }
    }

    fn advance(&mut self, console: &mut dyn Console, by: Advance) -> Option<StopReason> {
        self.board.advance_paused();
        let stop = self.run_until_stop(console, by);
        if let Some(stop) = stop.as_ref().filter(|stop| stop.is_end()) {
            self.board.trace_end(stop);
        }
        // The pause begins here: what the machine was late before is owed.
        self.board.advance();
        match self.deliver_output(console) {
            Ok(()) => stop,
            Err(error) => Some(error),
        }
    }

    fn run_until_stop(&mut self, console: &mut dyn Console, by: Advance) -> Option<StopReason> {
        loop {
            match self.control.take() {
                None => {}
                Some(Request::Call) => return None,
                Some(Request::Pause) => return Some(StopReason::Paused),
                Some(Request::Quit) => return Some(StopReason::Quit),
            }
            if let Err(stop) = self.run_once(console, by) {
                return Some(stop);
            }
        }
    }

    /// Goes round the loop once.
    fn run_once(&mut self, console: &mut dyn Console, by: Advance) -> Result<(), StopReason> {
        self.board.advance();
        self.exchange(console)?;
        if let Some(vector) = self.swallowed.take() {
            self.board.end_service(vector);
        }
        let exit = match by {
            Advance::Slices => self.run_slice(),
            Advance::Step => {
                let (vcpu, board) = self.vcpu_and_board();
                vcpu.step(board)
            }
        };
        self.board.pause_trace();
        match exit {
            Exit::Budget if by == Advance::Step => return Err(StopReason::Stepped),
            Exit::Budget => self.exits.budget += 1,
            Exit::Halt => {
                self.exits.halt += 1;
                self.halt(console)?;
            }
            Exit::Stop => {
                self.exits.stop += 1;
                if let Some(stop) = self.board.stop() {
                    return Err(self.stop_reason(stop));
                }
            }
            Exit::Intercept(event) => {
                self.exits.intercept += 1;
                return Err(StopReason::Intercepted(event));
            }
            Exit::Breakpoint(address) => return Err(StopReason::Breakpoint(address)),
            Exit::Watchpoint(hit) => return Err(StopReason::Watchpoint(hit)),
            Exit::Shutdown(fault) => return Err(self.ending().by_shutdown(fault)),
            Exit::Unsupported(what) => return Err(StopReason::Unsupported(what)),
            Exit::Internal(what) => return Err(StopReason::Internal(what)),
        }
        Ok(())
    }

    fn run_slice(&mut self) -> Exit {
        let start = self.board.now();
        let deadline = self.board.next_deadline();
        let budget = self
            .pace
            .budget(deadline.map(|deadline| deadline.saturating_sub(start)));
        let (vcpu, board) = self.vcpu_and_board();
        let exit = vcpu.run(board, budget);
        let elapsed = self.board.now() - start;
        self.running += elapsed;
        if matches!(exit, Exit::Budget) {
            self.pace.adjust(budget, elapsed);
        }
        exit
    }

    /// Waits until the board may have an interrupt, a device or the user has input, or another thread makes a request.
    fn halt(&mut self, console: &mut dyn Console) -> Result<(), StopReason> {
        // Nothing on the board raises NMI, and none was injected: the processor would not have halted.
        if self.vcpu().cpu.eflags & eflags::IF == 0 {
            return Err(self.ending().by_halt());
        }
        self.exchange(console)?;
        if self.is_work_there() {
            return Ok(());
        }
        let polling = self.polling;
        let (begin, start) = (Instant::now(), self.board.now());
        if !polling.look(begin, || self.is_work_there()) {
            self.sleep(console)?;
        }
        self.polling.adapt(begin.elapsed());
        self.halted += self.board.now() - start;
        Ok(())
    }

    /// Looks for something that ends a halt.
    fn is_work_there(&mut self) -> bool {
        let (vcpu, board) = self.vcpu_and_board();
        board.advance();
        // The next run, too, looks at what devices have stored.
        board.intr() || board.stop_requested() || vcpu.has_stores_to_watch()
    }

    /// Waits until the time of the board's next event, for a device, for the user or for another thread.
    fn sleep(&mut self, console: &mut dyn Console) -> Result<(), StopReason> {
        let now = self.board.now();
        let timeout = self
            .board
            .next_deadline()
            .map(|deadline| Duration::from_nanos(deadline.saturating_sub(now)));
        let inputs = console.ready().into_iter().chain(self.board.wakeups());
        self.control
            .wait(inputs, timeout)
            .map_err(StopReason::console)
    }

    /// Hands output to the host and input to the guest.
    fn exchange(&mut self, console: &mut dyn Console) -> Result<(), StopReason> {
        self.deliver_output(console)?;
        loop {
            let room = self.backends.com1.room();
            match console.input(room).map_err(StopReason::console)? {
                Input::Bytes(bytes) if bytes.is_empty() => return Ok(()),
                Input::Bytes(bytes) => {
                    self.backends.com1.send(&bytes);
                    self.board.advance_devices();
                    return Ok(());
                }
                Input::Break => {
                    self.backends.com1.send_break();
                    self.board.advance_devices();
                }
                Input::ShowStats => console
                    .output(Channel::Monitor, self.stats().to_string().as_bytes())
                    .map_err(StopReason::console)?,
                Input::Quit => return Err(StopReason::Quit),
            }
        }
    }

    fn deliver_output(&mut self, console: &mut dyn Console) -> Result<(), StopReason> {
        for (channel, bytes) in [
            (Channel::Com1, self.backends.com1.take_transmitted()),
            (Channel::Com2, self.backends.com2.take_transmitted()),
            (Channel::Debug, self.backends.debug.take_output()),
        ] {
            if !bytes.is_empty() {
                console
                    .output(channel, &bytes)
                    .map_err(StopReason::console)?;
            }
        }
        Ok(())
    }

    fn stop_reason(&self, stop: Stop) -> StopReason {
        match stop {
            Stop::DebugExit(value) => StopReason::DebugExit(value),
            Stop::PowerOff => StopReason::PowerOff,
            Stop::Reset => self.ending().by_reset(),
        }
    }

    /// The state in which the guest leaves the machine.
    fn ending(&self) -> Ending<'_> {
        Ending {
            cpu: &self.vcpu().cpu,
            masks: self.board.chipset().masks(),
            memory: &self.memory,
        }
    }
}
