//! [`Machine`]: a [`Vm`] on a thread of its own.
//!
//! ```text
//!   start ──► running ── pause, breakpoint, watchpoint ──► paused
//!            ▲ ▲  │ └── it stops, or is stopped ──► ended     │
//!            │ │  └──── policy ──► intercepted                │
//!            │ └─────── decide ─────────┘                     │
//!            └───────── resume ───────────────────────────────┘
//! ```
//!
//! A machine that is paused or intercepted stands still: its console is served, the guest executes nothing. The guest's clocks go
//! on all the same. Requests are carried out between two slices of the guest, and nobody waits for a machine that has ended.

use std::{
    any::Any,
    io,
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
};

use mmu::LinearAddr;
use sbe::{Decision, GuestEvent, WatchHit};
use thiserror::Error;

use crate::{console::Console, control::Control, stop::StopReason, vm::Vm};

/// A machine that runs on a thread of its own. Dropping it ends the machine.
#[derive(Debug)]
pub struct Machine {
    control: Control,
    jobs: Sender<Job>,
    thread: Option<JoinHandle<Ended>>,
}

/// An event in the life of a machine.
#[derive(Clone, Debug)]
pub enum MachineEvent {
    /// The guest stands still.
    Paused,
    /// The guest is no longer paused.
    Resumed,
    /// The policy withholds this event from the guest, which stands still until [`Machine::decide`].
    Intercepted(GuestEvent),
    /// The guest stands still, as after a pause, before the instruction at this linear address, which has a breakpoint.
    Breakpoint(LinearAddr),
    /// The guest stands still, as after a pause, behind an access that met a watchpoint.
    Watchpoint(WatchHit),
    /// The machine has ended.
    Stopped(StopReason),
}

/// The error of a request to a machine.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MachineError {
    /// The machine has ended: [`Machine::join`] says why.
    #[error("the machine has ended")]
    Ended,
    /// No intercepted event waits for a decision.
    #[error("no event waits for a decision")]
    NothingIntercepted,
    /// The request came from the machine's own thread, which would wait for itself.
    #[error("called by the machine's own thread")]
    OwnThread,
    /// A device, the console or a closure of [`Machine::inspect`] panicked with this message. The machine is lost.
    #[error("the machine's thread panicked: {0}")]
    Panicked(String),
}

/// The machine, and why it ended.
type Ended = (Vm, StopReason);
type Job = Box<dyn FnOnce(&mut Inside) + Send>;

/// The state of the machine's thread.
struct Inside {
    vm: Vm,
    console: Box<dyn Console + Send>,
    jobs: Receiver<Job>,
    events: Sender<MachineEvent>,
    paused: bool,
    intercepted: bool,
}

impl Machine {
    /// Runs `vm` on a thread of its own. Nothing is lost if nobody receives the events. A machine that was intercepted before,
    /// and perhaps saved and restored, waits for [`Self::decide`].
    ///
    /// # Errors
    /// If the host grants no thread.
    pub fn start(
        vm: Vm,
        console: impl Console + Send + 'static,
    ) -> io::Result<(Self, Receiver<MachineEvent>)> {
        let control = vm.control();
        let intercepted = vm.vcpu().intercepted().is_some();
        let (jobs, jobs_inside) = channel();
        let (events_inside, events) = channel();
        let inside = Inside {
            vm,
            console: Box::new(console),
            jobs: jobs_inside,
            events: events_inside,
            paused: false,
            intercepted,
        };
        let thread = thread::Builder::new()
            .name("machine".into())
            .spawn(move || inside.live())?;
        let machine = Self {
            control,
            jobs,
            thread: Some(thread),
        };
        Ok((machine, events))
    }

    /// Returns the handle that wakes the machine when a device or a console has something new.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Pauses the guest. It stands still when this returns.
    ///
    /// # Errors
    /// If the machine has ended.
    pub fn pause(&self) -> Result<(), MachineError> {
        self.call(|inside| inside.set_paused(true))
    }

    /// Lets a paused guest go on. One that was intercepted waits for the decision, too.
    ///
    /// # Errors
    /// If the machine has ended.
    pub fn resume(&self) -> Result<(), MachineError> {
        self.call(|inside| inside.set_paused(false))
    }

    /// Lets an intercepted guest go on, unless it is paused, and says what becomes of the event.
    ///
    /// # Errors
    /// If the machine has ended, or nothing was intercepted.
    pub fn decide(&self, decision: Decision) -> Result<(), MachineError> {
        self.call(move |inside| inside.decide(decision))?
    }

    /// Calls `look` with the machine, between two slices if the guest is running, and returns its answer.
    ///
    /// # Errors
    /// If the machine has ended.
    pub fn inspect<R: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Vm) -> R + Send + 'static,
    ) -> Result<R, MachineError> {
        self.call(|inside| look(&mut inside.vm))
    }

    /// Ends the machine with [`StopReason::Quit`], without waiting until it has ended.
    pub fn stop(&self) {
        self.control.quit();
    }

    /// Waits until the machine has ended. A guest that stands still does not end by itself.
    ///
    /// # Errors
    /// If its thread panicked.
    pub fn join(mut self) -> Result<(Vm, StopReason), MachineError> {
        self.check_thread()?;
        let Some(thread) = self.thread.take() else {
            return Err(MachineError::Ended);
        };
        thread
            .join()
            .map_err(|payload| MachineError::Panicked(message(&*payload)))
    }

    /// Runs `job` on the machine's thread, and waits for the answer.
    fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Inside) -> R + Send + 'static,
    ) -> Result<R, MachineError> {
        self.check_thread()?;
        let (answer, answered) = channel();
        // Nobody can have gone away: whoever asks waits below.
        let job: Job = Box::new(move |inside| drop(answer.send(job(inside))));
        self.jobs.send(job).map_err(|_| MachineError::Ended)?;
        self.control.call();
        // A thread that ends drops the jobs that it has not done, and with them what answers.
        answered.recv().map_err(|_| MachineError::Ended)
    }

    fn check_thread(&self) -> Result<(), MachineError> {
        if self.is_own_thread() {
            Err(MachineError::OwnThread)
        } else {
            Ok(())
        }
    }

    fn is_own_thread(&self) -> bool {
        let own = self.thread.as_ref().map(|thread| thread.thread().id());
        own == Some(thread::current().id())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.control.quit();
        if !self.is_own_thread()
            && let Some(thread) = self.thread.take()
        {
            // Whoever wants to know of a panic joins.
            drop(thread.join());
        }
    }
}

impl Inside {
    /// Runs the machine to its end.
    fn live(mut self) -> Ended {
        loop {
            while let Ok(job) = self.jobs.try_recv() {
                job(&mut self);
            }
            if let Err(stop) = self.go_on() {
                self.tell(MachineEvent::Stopped(stop.clone()));
                return (self.vm, stop);
            }
        }
    }

    /// Runs the guest, or lets it stand still, until something has happened.
    fn go_on(&mut self) -> Result<(), StopReason> {
        if self.paused || self.intercepted {
            return self.vm.attend(&mut *self.console, None);
        }
        match self.vm.run_until_called(&mut *self.console) {
            None => {}
            Some(StopReason::Paused) => self.set_paused(true),
            Some(StopReason::Breakpoint(address)) => {
                self.paused = true;
                self.tell(MachineEvent::Breakpoint(address));
            }
            Some(StopReason::Watchpoint(hit)) => {
                self.paused = true;
                self.tell(MachineEvent::Watchpoint(hit));
            }
            Some(StopReason::Intercepted(event)) => {
                self.intercepted = true;
                self.tell(MachineEvent::Intercepted(event));
            }
            Some(stop) => return Err(stop),
        }
        Ok(())
    }

    fn set_paused(&mut self, paused: bool) {
        if self.paused != paused {
            self.paused = paused;
            self.tell(if paused {
                MachineEvent::Paused
            } else {
                MachineEvent::Resumed
            });
        }
    }

    fn decide(&mut self, decision: Decision) -> Result<(), MachineError> {
        if !self.intercepted {
            return Err(MachineError::NothingIntercepted);
        }
        self.intercepted = false;
        self.vm.decide(decision);
        Ok(())
    }

    fn tell(&self, event: MachineEvent) {
        // Nobody has to listen.
        let _ = self.events.send(event);
    }
}

/// The message of a panic.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
