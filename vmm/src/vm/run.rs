//! The loop that runs a machine.
//!
//! ```text
//!   ┌► advance the board to now ─► exchange input and output ─► run the processor for a slice ─┐
//!   │                                                                                          │
//!   └── wait for deadline or input ◄── HLT ─────────────────────────────────────────────────── ┤
//!                                        reset, debug exit, shutdown, quit, interception: stop ◄┘
//! ```

use std::time::{Duration, Instant};

use log::debug;
use sbe::{Bus, Exit, cpu::eflags};

use super::Vm;
use crate::{
    bus::Stop,
    console::{Channel, Console, Input},
    control::Request,
    ending::Ending,
    stop::StopReason,
};

/// The distance that the machine runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Advance {
    /// Slice after slice, until something stops the machine.
    Slices,
    /// One instruction.
    Step,
}

impl Vm {
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
    ///
    /// [`Control::call`]: crate::Control::call
    pub(crate) fn run_until_called(&mut self, console: &mut dyn Console) -> Option<StopReason> {
        self.advance(console, Advance::Slices)
    }

    /// Serves the console of a machine that stands still between two calls of [`Self::run`]: waits until the console has input or
    /// [`Control::wake`] is called, at most for `timeout` (none: for ever), then takes the input there is. The guest gets it when
    /// it runs. May return early. [`Control::pause`] is left to the next run.
    ///
    /// # Errors
    /// The reason not to run the machine again: the user has quit, or the console failed.
    ///
    /// [`Control::wake`]: crate::Control::wake
    /// [`Control::pause`]: crate::Control::pause
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
