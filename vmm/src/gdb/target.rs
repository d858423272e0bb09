//! [`Debugged`]: the machine as gdbstub's target.

use std::{collections::BTreeSet, convert::Infallible, num::NonZeroUsize};

use gdbstub::{
    arch::{Arch, RegId, Registers},
    common::Signal,
    stub::SingleThreadStopReason,
    target::{
        Target, TargetError, TargetResult,
        ext::{
            base::{
                BaseOps,
                single_register_access::{SingleRegisterAccess, SingleRegisterAccessOps},
                singlethread::{
                    SingleThreadBase, SingleThreadResume, SingleThreadResumeOps,
                    SingleThreadSingleStep, SingleThreadSingleStepOps,
                },
            },
            breakpoints::{
                Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint,
                HwWatchpointOps, SwBreakpoint, SwBreakpointOps, WatchKind,
            },
            monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps},
            target_description_xml_override::{
                TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
            },
        },
    },
};
use mmu::{LinearAddr, PAGE_SIZE};
use sbe::{EventSource, GuestEvent, Watched, Watchpoint};

use super::{monitor, registers::Tables};
use crate::{console::Console, stop::StopReason, vm::Vm};

/// The most bytes that one watchpoint may cover.
const MOST_WATCHED: u64 = PAGE_SIZE as u64;
/// Error numbers in answers to gdb, from its File-I/O protocol.
const EFAULT: u8 = 14;
const EINVAL: u8 = 22;

/// The x86 architecture, of 32 or 64 bits, described by the [`Table`](super::registers::Table) of registers.
pub enum X86 {}

/// The values of all registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// One after the other.
    bytes: Vec<u8>,
    /// The linear address of the next instruction.
    ip: u64,
}

/// The number of a register in the table that gdb sees.
#[derive(Clone, Copy, Debug)]
pub struct Number(usize);

impl Arch for X86 {
    type Usize = u64;
    type Registers = Values;
    type BreakpointKind = usize;
    type RegId = Number;
}

impl Registers for Values {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.ip
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.bytes.iter().for_each(|&byte| write_byte(Some(byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.bytes = bytes.to_vec();
        Ok(())
    }
}

impl RegId for Number {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        Some((Self(id), None))
    }
}

/// The way in which the machine goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resume {
    Continue,
    Step,
}

/// A machine, and the breakpoints and watchpoints that gdb has set on it.
pub struct Debugged<'v> {
    pub vm: &'v mut Vm,
    /// The reason why the machine cannot go on, while gdb may still inspect it.
    pub over: Option<StopReason>,
    tables: Tables,
    resume: Resume,
    software: BTreeSet<LinearAddr>,
    hardware: BTreeSet<LinearAddr>,
    watchpoints: Vec<Watchpoint>,
}

impl<'v> Debugged<'v> {
    pub fn new(vm: &'v mut Vm) -> Self {
        let tables = Tables::new(&vm.vcpu().cpu);
        Self {
            vm,
            over: None,
            tables,
            resume: Resume::Continue,
            software: BTreeSet::new(),
            hardware: BTreeSet::new(),
            watchpoints: Vec::new(),
        }
    }

    /// Begins to serve another gdb.
    pub fn begin(&mut self) {
        self.tables.choose(&self.vm.vcpu().cpu);
    }

    /// Continues or steps, as gdb has asked for.
    pub fn go_on(&mut self, console: &mut dyn Console) -> StopReason {
        match self.resume {
            Resume::Continue => self.vm.run(console),
            Resume::Step => self.vm.step(console),
        }
    }

    /// The linear address that gdb has named.
    ///
    /// # Errors
    /// If registers of the width that gdb sees cannot hold it, or it is not canonical.
    fn address(&self, address: u64) -> Result<LinearAddr, TargetError<Infallible>> {
        let address = LinearAddr::new(address);
        match self.tables.width().has_range(address, 1) {
            true => Ok(address),
            false => Err(TargetError::Errno(EINVAL)),
        }
    }

    /// Removes all breakpoints and watchpoints that gdb has set.
    pub fn clear(&mut self) {
        for address in std::mem::take(&mut self.software) {
            self.vm.debugger_mut().remove_breakpoint(address);
        }
        for address in std::mem::take(&mut self.hardware) {
            self.vm.debugger_mut().remove_breakpoint(address);
        }
        for watchpoint in std::mem::take(&mut self.watchpoints) {
            self.vm.debugger_mut().remove_watchpoint(watchpoint);
        }
    }

    /// The report to gdb of a stop after which the machine can go on, or can still be inspected.
    pub fn report(&self, stop: &StopReason) -> SingleThreadStopReason<u64> {
        match stop {
            StopReason::Breakpoint(address) if self.software.contains(address) => {
                SingleThreadStopReason::SwBreak(())
            }
            StopReason::Breakpoint(_) => SingleThreadStopReason::HwBreak(()),
            StopReason::Watchpoint(hit) => SingleThreadStopReason::Watch {
                tid: (),
                kind: kind_of(hit.watchpoint.watched),
                addr: hit.watchpoint.start.get(),
            },
            StopReason::Stepped => SingleThreadStopReason::DoneStep,
            StopReason::Intercepted(event) => SingleThreadStopReason::Signal(signal_of(event)),
            stop if is_failure(stop) => SingleThreadStopReason::Signal(Signal::SIGABRT),
            ended => SingleThreadStopReason::Exited(ended.exit_status()),
        }
    }
}

/// Whether the guest has failed, so that gdb may want to inspect a machine that cannot go on.
pub fn is_failure(stop: &StopReason) -> bool {
    matches!(
        stop,
        StopReason::Halted(_)
            | StopReason::TripleFault(_)
            | StopReason::Unsupported(_)
            | StopReason::Internal(_)
    )
}

/// The signal that a process would get for an event, or a similar one.
fn signal_of(event: &GuestEvent) -> Signal {
    match (event.source, event.vector) {
        (EventSource::External | EventSource::Software, _) => Signal::SIGUSR1,
        (EventSource::Exception, 0 | 9 | 16 | 19) => Signal::SIGFPE,
        (EventSource::Exception, 1 | 3) => Signal::SIGTRAP,
        (EventSource::Exception, 6 | 7) => Signal::SIGILL,
        (EventSource::Exception, 17) => Signal::SIGBUS,
        (EventSource::Exception, _) => Signal::SIGSEGV,
    }
}

fn kind_of(watched: Watched) -> WatchKind {
    match watched {
        Watched::Writes => WatchKind::Write,
        Watched::Reads => WatchKind::Read,
        Watched::Accesses => WatchKind::ReadWrite,
    }
}

/// The watchpoint of `len` bytes, at most [`MOST_WATCHED`].
fn watchpoint(start: u64, len: u64, kind: WatchKind) -> Watchpoint {
    Watchpoint {
        start: LinearAddr::new(start),
        len: len as u32,
        watched: match kind {
            WatchKind::Write => Watched::Writes,
            WatchKind::Read => Watched::Reads,
            WatchKind::ReadWrite => Watched::Accesses,
        },
    }
}

impl Target for Debugged<'_> {
    type Arch = X86;
    type Error = Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, X86, Infallible> {
        BaseOps::SingleThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(
        &mut self,
    ) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadBase for Debugged<'_> {
    fn read_registers(&mut self, values: &mut Values) -> TargetResult<(), Self> {
        let cpu = &self.vm.vcpu().cpu;
        values.bytes = self.tables.shown().read(cpu);
        values.ip = self.tables.shown().ip(cpu);
        Ok(())
    }

    fn write_registers(&mut self, values: &Values) -> TargetResult<(), Self> {
        let written = self
            .tables
            .shown()
            .write(&mut self.vm.vcpu_mut().cpu, &values.bytes);
        written.map_err(|_| TargetError::Errno(EINVAL))
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, (), Self>> {
        Some(self)
    }

    /// Reads up to the first byte that cannot be read.
    fn read_addrs(&mut self, start: u64, data: &mut [u8]) -> TargetResult<usize, Self> {
        let mut done = 0;
        while done < data.len() {
            let Some(address) = start.checked_add(done as u64) else {
                break;
            };
            let address = LinearAddr::new(address);
            let in_page = PAGE_SIZE - address.offset() as usize;
            let part = in_page.min(data.len() - done);
            let read = self.vm.read_memory(address, &mut data[done..done + part]);
            if read.is_err() {
                break;
            }
            done += part;
        }
        match done {
            0 if !data.is_empty() => Err(TargetError::Errno(EFAULT)),
            done => Ok(done),
        }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8]) -> TargetResult<(), Self> {
        let written = self.vm.write_memory(LinearAddr::new(start), data);
        written.map_err(|_| TargetError::Errno(EFAULT))
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl SingleRegisterAccess<()> for Debugged<'_> {
    fn read_register(
        &mut self,
        (): (),
        Number(number): Number,
        out: &mut [u8],
    ) -> TargetResult<usize, Self> {
        let register = self
            .tables
            .shown()
            .get(number)
            .ok_or(TargetError::Errno(EINVAL))?;
        let value = register.read(&self.vm.vcpu().cpu);
        out[..value.len()].copy_from_slice(&value);
        Ok(value.len())
    }

    fn write_register(
        &mut self,
        (): (),
        Number(number): Number,
        value: &[u8],
    ) -> TargetResult<(), Self> {
        let register = self
            .tables
            .shown()
            .get(number)
            .ok_or(TargetError::Errno(EINVAL))?;
        let written = register.write(&mut self.vm.vcpu_mut().cpu, value);
        written.map_err(|_| TargetError::Errno(EINVAL))
    }
}

/// Signals that gdb passes on are ignored: what becomes of an intercepted event is decided by `monitor` commands.
impl SingleThreadResume for Debugged<'_> {
    fn resume(&mut self, _: Option<Signal>) -> Result<(), Infallible> {
        self.resume = Resume::Continue;
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadSingleStep for Debugged<'_> {
    fn step(&mut self, _: Option<Signal>) -> Result<(), Infallible> {
        self.resume = Resume::Step;
        Ok(())
    }
}

impl Breakpoints for Debugged<'_> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

// Setting and removing is idempotent, as gdb asks for (Debugging with GDB, E.2 "Packets", Z).

impl SwBreakpoint for Debugged<'_> {
    fn add_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        let address = self.address(address)?;
        if self.software.insert(address) {
            self.vm.debugger_mut().add_breakpoint(address);
        }
        Ok(true)
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        let address = self.address(address)?;
        if self.software.remove(&address) {
            self.vm.debugger_mut().remove_breakpoint(address);
        }
        Ok(true)
    }
}

impl HwBreakpoint for Debugged<'_> {
    fn add_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        let address = self.address(address)?;
        if self.hardware.insert(address) {
            self.vm.debugger_mut().add_breakpoint(address);
        }
        Ok(true)
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        let address = self.address(address)?;
        if self.hardware.remove(&address) {
            self.vm.debugger_mut().remove_breakpoint(address);
        }
        Ok(true)
    }
}

impl HwWatchpoint for Debugged<'_> {
    fn add_hw_watchpoint(
        &mut self,
        start: u64,
        len: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        self.address(start)?;
        if !(1..=MOST_WATCHED).contains(&len) {
            return Ok(false);
        }
        let watchpoint = watchpoint(start, len, kind);
        if !self.watchpoints.contains(&watchpoint) {
            self.watchpoints.push(watchpoint);
            self.vm.debugger_mut().add_watchpoint(watchpoint);
        }
        Ok(true)
    }

    fn remove_hw_watchpoint(
        &mut self,
        start: u64,
        len: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        if !(1..=MOST_WATCHED).contains(&len) {
            return Ok(true);
        }
        let watchpoint = watchpoint(start, len, kind);
        if let Some(at) = self
            .watchpoints
            .iter()
            .position(|&known| known == watchpoint)
        {
            self.watchpoints.remove(at);
            self.vm.debugger_mut().remove_watchpoint(watchpoint);
        }
        Ok(true)
    }
}

impl TargetDescriptionXmlOverride for Debugged<'_> {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        out: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return Err(TargetError::NonFatal);
        }
        let cpu = &self.vm.vcpu().cpu;
        if offset == 0 {
            self.tables.choose(cpu);
        }
        let xml = self.tables.shown().description(cpu);
        let start = usize::try_from(offset).map_or(xml.len(), |offset| offset.min(xml.len()));
        let len = length.min(out.len()).min(xml.len() - start);
        out[..len].copy_from_slice(&xml.as_bytes()[start..start + len]);
        Ok(len)
    }
}

impl MonitorCmd for Debugged<'_> {
    fn handle_monitor_cmd(
        &mut self,
        command: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> Result<(), Infallible> {
        let answer = monitor::answer(self.vm, &String::from_utf8_lossy(command));
        out.write_raw(answer.as_bytes());
        Ok(())
    }
}
