//! [`Gdb`]: the stub by which gdb inspects and controls the machine, over gdb's remote serial protocol.
//!
//! ```text
//!   gdb ◄─► server (a thread) ─► session: packets (crate gdbstub) ◄─► target ─► Vm
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `address` | where to listen |
//! | `server` | the socket, and the thread that reads from it |
//! | `requests` | what comes from the socket, with requests that gdbstub mishandles cut |
//! | `target` | the machine as gdbstub asks about it: memory, breakpoints, stepping |
//! | `registers` | the tables of registers, and the target descriptions made from them |
//! | `monitor` | gdb's `monitor` commands |
//!
//! The machine stands still from the moment gdb connects until it says `continue`, and runs on when gdb detaches or disconnects.
//! gdb reads and writes linear memory, through the page tables in force. Breakpoints, hardware or software, are the processor's
//! ([`sbe::Debugger::add_breakpoint`]): nothing is written to the guest's memory. Their addresses are linear, as are those of gdb's
//! `eip` and of all it reads and writes. So breakpoints, watchpoints, `stepi`, `x/i $pc` and `jump` work in every mode and segment,
//! and where the segments have base 0 everything does. Where they have not, or code is of 16 bits, gdb cannot follow return
//! addresses, which are offsets in CS: `backtrace`, `finish` and `next` are of no use there, but a breakpoint at
//! `*($cs_base + *(unsigned short *)$esp_linear)` stops behind a near call of 16 bits.
//!
//! A processor in long mode has registers of 64 bits, and the target description says `i386:x86-64` there, whatever the code.
//!
//! Code of 16 bits is disassembled as such if gdb connects in it. As gdb reads a target description once, it has to be told of
//! a change:
//! `unset tdesc filename` makes it read again, and with a symbol file `set architecture i8086`, `i386` or `i386:x86-64` has to follow.
//! `$cs_bits` says which.

mod address;
mod monitor;
mod registers;
mod requests;
mod server;
mod target;

use std::{convert::Infallible, io, time::Duration};

use gdbstub::{
    common::Signal,
    conn::Connection,
    stub::{
        DisconnectReason, GdbStub, GdbStubError, SingleThreadStopReason,
        state_machine::GdbStubStateMachine::{self, CtrlCInterrupt, Disconnected, Idle, Running},
    },
};
use log::{debug, warn};

pub use address::{Address, NotAnAddress};
use requests::{PACKET, Requests};
use server::{Incoming, Server, Stream};
use target::{Debugged, is_failure};

use crate::{console::Console, control::Control, stop::StopReason, threads::Threads, vm::Vm};

/// Whether the machine runs before gdb has connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The machine runs at once.
    Run,
    /// The machine waits until gdb says `continue`.
    Wait,
}

/// The gdb stub of one machine.
pub struct Gdb {
    server: Server,
    start: Start,
    requests: Requests,
}

/// The packet `OK`, which gdbstub does not send in answer to a kill.
const OK: &[u8] = b"$OK#9a";

/// A conversation with gdb.
type Session<'v> = GdbStubStateMachine<'static, Debugged<'v>, Wire>;

impl Gdb {
    /// Listens at `address` for a gdb that debugs the machine of `control`.
    ///
    /// # Errors
    /// If the host does not let this process listen there.
    pub fn listen(address: &Address, control: Control, start: Start) -> io::Result<Self> {
        Self::with_threads(address, control, start, &Threads::default())
    }

    /// Listens as [`Self::listen`] does, by a thread that begins as `threads` says.
    ///
    /// # Errors
    /// As [`Self::listen`], and if the thread cannot begin.
    pub fn with_threads(
        address: &Address,
        control: Control,
        start: Start,
        threads: &Threads,
    ) -> io::Result<Self> {
        Ok(Self {
            server: Server::listen(address, control, threads)?,
            start,
            requests: Requests::default(),
        })
    }

    /// The address that the stub listens at, with the port that the host chose if port 0 was asked for.
    pub fn address(&self) -> &Address {
        self.server.address()
    }

    /// Runs the machine as [`Vm::run`] does, under the control of gdb while one is connected. Intercepted events go to that gdb;
    /// without one this returns, and may be called again. [`Control::pause`] does not stop the machine here.
    pub fn run(&mut self, vm: &mut Vm, console: &mut dyn Console) -> StopReason {
        let mut target = Debugged::new(vm);
        let mut session = None;
        loop {
            // Input after the end of a session waits until that end has been dealt with.
            while !matches!(session, Some(Disconnected(_)))
                && let Some(incoming) = self.server.next()
            {
                session = self.take(session, incoming, &mut target);
                // A client that sends without end does not keep the user from quitting.
                if let Err(stop) = target.vm.attend(console, Some(Duration::ZERO)) {
                    return stop;
                }
            }
            session = match self.go_on(session, &mut target, console) {
                Ok(session) => session,
                Err(stop) => return stop,
            };
        }
    }

    /// Passes to the session what has come from the socket.
    fn take<'v>(
        &mut self,
        session: Option<Session<'v>>,
        incoming: Incoming,
        target: &mut Debugged<'v>,
    ) -> Option<Session<'v>> {
        match incoming {
            Incoming::Connected(stream) => {
                self.start = Start::Run;
                self.requests = Requests::default();
                target.begin();
                let stub = GdbStub::builder(Wire::new(stream))
                    .packet_buffer_size(PACKET)
                    .build()
                    .ok()?
                    .run_state_machine(target);
                heard(stub, target)
            }
            Incoming::Bytes(bytes) => {
                let bytes = bytes.into_iter().flat_map(|byte| self.requests.take(byte));
                bytes.fold(session, |session, byte| {
                    let heard_byte = match session? {
                        Idle(stub) => stub.incoming_data(target, byte),
                        Running(stub) => stub.incoming_data(target, byte),
                        other => Ok(other),
                    };
                    interrupted(heard(heard_byte, target)?, target)
                })
            }
            Incoming::Closed => {
                target.clear();
                None
            }
        }
    }

    /// Takes the next step that the state of the session calls for.
    fn go_on<'v>(
        &self,
        session: Option<Session<'v>>,
        target: &mut Debugged<'v>,
        console: &mut dyn Console,
    ) -> Result<Option<Session<'v>>, StopReason> {
        match session {
            None if self.start == Start::Wait => target.vm.attend(console, None).map(|()| None),
            None if target.over.is_some() => Err(target.over.take().unwrap_or(StopReason::Quit)),
            None => match target.vm.run(console) {
                StopReason::Paused => Ok(None),
                stop => Err(stop),
            },
            Some(Idle(stub)) => match target.vm.attend(console, None) {
                Ok(()) => Ok(Some(Idle(stub))),
                Err(stop) => Err(stop),
            },
            Some(Running(stub)) => {
                if let Some(stop) = target.over.take() {
                    let report = SingleThreadStopReason::Exited(stop.exit_status());
                    // Whether or not gdb receives the report, the session ends.
                    let _ = stub.report_stop(target, report);
                    return Err(stop);
                }
                let stop = target.go_on(console);
                if matches!(stop, StopReason::Paused) {
                    return Ok(Some(Running(stub)));
                }
                debug!("gdb is told: {stop}");
                let report = target.report(&stop);
                let session = heard(stub.report_stop(target, report), target);
                match stop {
                    stop if is_failure(&stop) => target.over = Some(stop),
                    _ if matches!(report, SingleThreadStopReason::Exited(_)) => return Err(stop),
                    _ => {}
                }
                Ok(session)
            }
            Some(other @ CtrlCInterrupt(_)) => Ok(interrupted(other, target)),
            Some(Disconnected(mut stub)) => {
                target.clear();
                match stub.get_reason() {
                    DisconnectReason::Kill => {
                        // gdb waits for this after vKill; after k it has disconnected.
                        stub.borrow_conn().send(OK);
                        Err(StopReason::Quit)
                    }
                    _ => Ok(None),
                }
            }
        }
    }
}

/// Returns the session, or ends it if there was an error of the connection or in what came from it.
fn heard<'v>(
    result: Result<Session<'v>, GdbStubError<Infallible, Infallible>>,
    target: &mut Debugged<'v>,
) -> Option<Session<'v>> {
    result
        .inspect_err(|error| {
            warn!("gdb: {error}; the connection ends");
            target.clear();
        })
        .ok()
}

/// Tells gdb that its interrupt has stopped the machine, if there was an interrupt.
fn interrupted<'v>(session: Session<'v>, target: &mut Debugged<'v>) -> Option<Session<'v>> {
    match session {
        CtrlCInterrupt(stub) => {
            let report = SingleThreadStopReason::Signal(Signal::SIGINT);
            heard(stub.interrupt_handled(target, Some(report)), target)
        }
        other => Some(other),
    }
}

/// The connection as gdbstub writes to it: a packet is sent in one piece when it is complete. Dropping it closes the connection.
///
/// A failure to send closes the connection, but is no error for gdbstub: what gdb sent before it disconnected, a kill perhaps, is
/// still done.
struct Wire {
    stream: Stream,
    unsent: Vec<u8>,
}

impl Wire {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            unsent: Vec::new(),
        }
    }

    /// Sends all unsent bytes, then `bytes`.
    fn send(&mut self, bytes: &[u8]) {
        self.unsent.extend(bytes);
        if let Err(error) = self.stream.write_all(&std::mem::take(&mut self.unsent)) {
            debug!("gdb: {error}");
            self.stream.close();
        }
    }
}

impl Connection for Wire {
    type Error = Infallible;

    fn write(&mut self, byte: u8) -> Result<(), Infallible> {
        self.unsent.push(byte);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        self.send(&[]);
        Ok(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stream.close();
    }
}
