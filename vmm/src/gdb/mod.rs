//! The stub for gdb: the machine, looked at and controlled over gdb's remote serial protocol.
//!
//! ```text
//!   gdb ◄─► server (a thread) ─► session: packets (crate gdbstub) ◄─► target ─► Vm
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `address` | where to listen |
//! | `server` | the socket, and the thread that reads from it |
//! | `requests` | what comes from the socket, made fit for gdbstub |
//! | `target` | the machine as gdbstub asks about it: memory, breakpoints, stepping |
//! | `registers` | the table of registers, and the target description made from it |
//! | `monitor` | gdb's `monitor` commands |
//!
//! The machine stands still from when gdb connects until it says `continue`, and runs on when gdb detaches or has gone. What gdb
//! reads and writes is linear memory, through the page tables that are in force. Breakpoints, hardware or software, are the
//! processor's ([`sbe::Debugger::add_breakpoint`]): nothing is written to the guest's memory. Addresses of breakpoints are linear,
//! and EIP is an offset in CS: they differ only where CS has a base.

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
use target::Debugged;

use crate::{console::Console, control::Control, stop::StopReason, vm::Vm};

/// Whether the machine runs before gdb has connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At once.
    Run,
    /// When gdb says so.
    Wait,
}

/// The stub.
pub struct Gdb {
    server: Server,
    start: Start,
    requests: Requests,
}

/// The packet that says so, which gdbstub does not send for a kill.
const OK: &[u8] = b"$OK#9a";

/// A conversation with gdb.
type Session<'v> = GdbStubStateMachine<'static, Debugged<'v>, Wire>;

impl Gdb {
    /// Listens at `address` for whoever wants to debug the machine of `control`.
    ///
    /// # Errors
    /// What the host says about the address.
    pub fn listen(address: &Address, control: Control, start: Start) -> io::Result<Self> {
        Ok(Self {
            server: Server::listen(address, control)?,
            start,
            requests: Requests::default(),
        })
    }

    /// Where it listens; the port is the one that was chosen if that asked for was 0.
    pub fn address(&self) -> &Address {
        self.server.address()
    }

    /// Runs the machine as [`Vm::run`] does, and as gdb wants if it is there. What is intercepted is gdb's then; else this
    /// returns, and may be called again. [`Control::pause`] stops nothing here.
    pub fn run(&mut self, vm: &mut Vm, console: &mut dyn Console) -> StopReason {
        let mut target = Debugged::new(vm);
        let mut session = None;
        loop {
            // What comes behind the end of a session waits until that is dealt with.
            while !matches!(session, Some(Disconnected(_)))
                && let Some(incoming) = self.server.next()
            {
                session = self.take(session, incoming, &mut target);
                // Whoever sends without end keeps nobody from quitting.
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

    /// Hears what has come from the socket.
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

    /// Goes on one step in whatever state the session is.
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
                    // Whether gdb hears it or not, it is the end.
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
                    StopReason::TripleFault
                    | StopReason::Unsupported(_)
                    | StopReason::Internal(_) => {
                        target.over = Some(stop);
                    }
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
                        // gdb waits for this behind vKill; behind k it has gone.
                        stub.borrow_conn().send(OK);
                        Err(StopReason::Quit)
                    }
                    _ => Ok(None),
                }
            }
        }
    }
}

/// Goes on with a session unless something was wrong with the connection or what came from it; then that ends.
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

/// Tells gdb that its interrupt has stopped the machine, if there was one.
fn interrupted<'v>(session: Session<'v>, target: &mut Debugged<'v>) -> Option<Session<'v>> {
    match session {
        CtrlCInterrupt(stub) => {
            let report = SingleThreadStopReason::Signal(Signal::SIGINT);
            heard(stub.interrupt_handled(target, Some(report)), target)
        }
        other => Some(other),
    }
}

/// What gdbstub writes to: bytes are sent in one piece when a packet is complete. Its end is the connection's.
///
/// What cannot be sent ends the connection, but is no error: what gdb has sent before it went, a kill perhaps, is still done.
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

    /// Sends `bytes`, behind what was not sent yet.
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
