//! [`Flow`]: one connection: a socket of smoltcp's towards the guest, a socket of the host's, and the bytes between them.
//!
//! ```text
//! guest ── segments ── tcp::Socket ── receive buffer ──► write ── TcpStream ── peer
//!                                 ◄── send buffer ── read ──
//! ```
//!
//! The buffers are all that is kept. While the peer takes nothing the receive buffer fills and the guest's window closes;
//! while the guest takes nothing the send buffer fills and the host's kernel keeps the rest.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use smoltcp::{
    iface::{SocketHandle, SocketSet},
    socket::tcp::{Socket, SocketBuffer, State},
    time::Duration as WireDuration,
};
use socket2::SockRef;

use super::stack::{Remote, Stack};
use crate::{frame::Egress, poller::Readiness};

/// The time after which the guest has not answered a connection from outside.
const CONNECT_TIMEOUT: WireDuration = WireDuration::from_secs(60);

/// The state of a flow after it has been attended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The flow waits for the guest, the peer or a timer.
    Waits,
    /// The flow has something to send for which the guest has no room.
    Blocked,
    /// The flow is over.
    Over,
}

/// The parts of a flow: the end that the guest sees, where its frames go, the host's socket, and the size of each buffer.
pub(super) type Parts = (SocketAddr, Remote, TcpStream, usize);

/// A connection that is open, or was.
pub(super) struct Flow {
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    stream: TcpStream,
    remote: Remote,
    /// What the host's socket is, as far as known.
    ready: Readiness,
    /// The peer has finished sending.
    peer_finished: bool,
    /// The guest has finished sending.
    guest_finished: bool,
    /// The host's socket has been told that the guest has finished.
    shut: bool,
    /// The host's socket has failed: the guest's is reset, and nothing moves any more.
    broken: bool,
}

impl Flow {
    /// The flow that answers the guest's first segment, which is in `packet`. Returns nothing if that opens no connection.
    pub(super) fn answer(
        packet: &[u8],
        parts: Parts,
        stack: &mut Stack,
        now: Instant,
        egress: &mut Egress<'_>,
    ) -> Option<Self> {
        let destination = parts.0;
        let mut flow = Self::new(parts);
        flow.socket().listen(destination).ok()?;
        flow.segment(packet, stack, now, egress);
        (flow.socket().state() == State::SynReceived).then_some(flow)
    }

    /// The flow of a connection from outside to the guest's port.
    pub(super) fn open(guest: SocketAddr, parts: Parts, stack: &mut Stack) -> Option<Self> {
        let outside = parts.0;
        let mut flow = Self::new(parts);
        let context = stack.interface.context();
        flow.socket().connect(context, guest, outside).ok()?;
        flow.socket().set_timeout(Some(CONNECT_TIMEOUT));
        Some(flow)
    }

    /// The host's socket.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn new((_, remote, stream, buffer): Parts) -> Self {
        let buffer = || SocketBuffer::new(vec![0; buffer]);
        let mut socket = Socket::new(buffer(), buffer());
        // Whoever writes to the other socket has decided what belongs together; acknowledgements are sent once for each
        // batch of segments anyway.
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Self {
            sockets,
            handle,
            stream,
            remote,
            ready: Readiness {
                readable: true,
                writable: true,
            },
            peer_finished: false,
            guest_finished: false,
            shut: false,
            broken: false,
        }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Takes a segment of the guest's.
    pub(super) fn segment(
        &mut self,
        packet: &[u8],
        stack: &mut Stack,
        now: Instant,
        egress: &mut Egress<'_>,
    ) {
        stack.ingress(packet, self.remote, &mut self.sockets, now, egress);
        let state = self.socket().state();
        self.guest_finished |= matches!(
            state,
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
        );
        if state == State::Established {
            self.socket().set_timeout(None);
        }
    }

    /// Notes the directions in which the host's socket has become ready.
    pub(super) fn on_ready(&mut self, ready: Readiness) {
        self.ready.readable |= ready.readable;
        self.ready.writable |= ready.writable;
    }

    /// Moves bytes and segments as far as they go.
    pub(super) fn pump(
        &mut self,
        stack: &mut Stack,
        now: Instant,
        egress: &mut Egress<'_>,
    ) -> Progress {
        loop {
            let mut moved = self.write_to_peer();
            moved |= self.read_from_peer();
            while egress.has_room() && stack.egress(self.remote, &mut self.sockets, now, egress) {
                moved = true;
            }
            if !egress.has_room() {
                return Progress::Blocked;
            }
            if !moved {
                break;
            }
        }
        if self.is_over() {
            Progress::Over
        } else {
            Progress::Waits
        }
    }

    /// When [`Self::pump`] is due though nothing happens.
    pub(super) fn deadline(&self, stack: &mut Stack, now: Instant) -> Option<Instant> {
        stack.deadline(&self.sockets, now)
    }

    /// Writes to the peer what the guest has sent, then the end of it. Returns whether the guest's window has grown.
    fn write_to_peer(&mut self) -> bool {
        let socket: &mut Socket<'_> = self.sockets.get_mut(self.handle);
        let mut moved = false;
        while self.ready.writable && !self.broken && socket.can_recv() {
            let stream = &mut self.stream;
            let written = socket.recv(|data| match stream.write(data) {
                Ok(len) => (len, Ok(())),
                Err(error) => (0, Err(error)),
            });
            match written {
                Ok(Ok(())) => moved = true,
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => {
                    self.ready.writable = false
                }
                Ok(Err(_)) | Err(_) => {
                    self.broken = true;
                    socket.abort();
                    moved = true;
                }
            }
        }
        if self.guest_finished && !self.shut && !socket.can_recv() {
            self.shut = true;
            // A peer that is gone is noticed by reading.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        moved
    }

    /// Reads what the peer has sent, then the end of it, for the guest. Returns whether there is something to send.
    fn read_from_peer(&mut self) -> bool {
        let socket: &mut Socket<'_> = self.sockets.get_mut(self.handle);
        let mut moved = false;
        while self.ready.readable && !self.broken && !self.peer_finished && socket.can_send() {
            let stream = &mut self.stream;
            let read = socket.send(|room| match stream.read(room) {
                Ok(len) => (len, Ok(len)),
                Err(error) => (0, Err(error)),
            });
            match read {
                Ok(Ok(0)) => {
                    self.peer_finished = true;
                    socket.close();
                    moved = true;
                }
                Ok(Ok(_)) => moved = true,
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => {
                    self.ready.readable = false
                }
                Ok(Err(_)) | Err(_) => {
                    self.broken = true;
                    socket.abort();
                    moved = true;
                }
            }
        }
        moved
    }

    /// Whether both sides have ended the connection, or one has broken it off; then the other learns of it.
    fn is_over(&mut self) -> bool {
        let socket: &mut Socket<'_> = self.sockets.get_mut(self.handle);
        let finished = self.peer_finished && self.guest_finished;
        match socket.state() {
            // Segments do not get lost on the way, so nobody waits for a repeated FIN.
            State::TimeWait | State::Closed if finished => self.shut,
            State::Closed => {
                let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)); // closing it resets the connection
                true
            }
            _ => false,
        }
    }
}

/// Begins to connect a socket of the host's.
pub(super) fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let domain = socket2::Domain::for_address(target);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}
