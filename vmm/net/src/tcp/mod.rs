//! TCP: each connection ends at the gateway, which has another one, by a socket of the host's, to the peer.
//!
//! A connection of the guest's is answered when the host's is there: until then its first segment is kept. If the peer
//! refuses, so does the gateway; if the host knows no way, the guest is told by ICMP.

mod flow;
mod listener;
mod phy;
mod stack;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    io::{self, ErrorKind},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use smoltcp::{
    iface::SocketSet,
    wire::{EthernetAddress, TcpPacket},
};

use self::{
    flow::{Flow, Progress, connect},
    listener::Listener,
    stack::{Remote, Stack},
};
use crate::{
    addresses::{GATEWAY, GUEST},
    context::Context,
    frame::{Datagram, ethertype},
    icmp::{self, Unreachable},
    poller::{Poller, Readiness, Token},
};

/// The number of connections that are open at once.
const MAX_CONNECTIONS: usize = 512;

/// The size in bytes of each of a connection's two buffers while there are few connections, and while there are many.
const BUFFER: usize = 256 << 10;
const SMALL_BUFFER: usize = 64 << 10;
/// The number of connections that are few. So all buffers together have 88 MiB at most.
const FEW: usize = 64;

/// The gateway's ports from which connections from outside come.
const OUTSIDE_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

/// The shortest time until a connection is attended to though nothing happens.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// The guest's end of a connection, and the end that it sees on the other side.
type Ends = (SocketAddr, SocketAddr);

/// A connection.
struct Connection {
    ends: Ends,
    phase: Phase,
    /// Whether the connection is in the queue of those to be attended to.
    queued: bool,
    deadline: Option<Instant>,
}

/// The phase of a connection.
enum Phase {
    /// The host's socket is not connected yet.
    Connecting {
        stream: TcpStream,
        remote: Remote,
        /// The guest's first segment, in its IP packet.
        syn: Vec<u8>,
    },
    /// Both ends are there.
    Open(Box<Flow>),
}

/// All connections, and the published ports.
pub(crate) struct Tcp {
    stack: Stack,
    connections: HashMap<u64, Connection>,
    by_ends: HashMap<Ends, u64>,
    queue: VecDeque<u64>,
    deadlines: BTreeSet<(Instant, u64)>,
    listeners: Vec<Listener>,
    next_id: u64,
    next_port: u16,
}

impl Tcp {
    pub(crate) fn new(mtu: u16) -> Self {
        Self {
            stack: Stack::new(mtu),
            connections: HashMap::new(),
            by_ends: HashMap::new(),
            queue: VecDeque::new(),
            deadlines: BTreeSet::new(),
            listeners: Vec::new(),
            next_id: 0,
            next_port: *OUTSIDE_PORTS.start(),
        }
    }

    /// Sets the largest IP packet in bytes.
    pub(crate) fn set_mtu(&mut self, mtu: u16) {
        self.stack = Stack::new(mtu);
    }

    /// Opens a port of the host's that leads to the guest's, and returns its address.
    pub(crate) fn publish(
        &mut self,
        host: SocketAddr,
        guest_port: u16,
        poller: &Poller,
    ) -> io::Result<SocketAddr> {
        let listener = Listener::bind(host, guest_port)?;
        let address = listener.address()?;
        poller.add(&listener, Token::TcpListener(self.listeners.len() as u64))?;
        self.listeners.push(listener);
        Ok(address)
    }

    /// Takes a segment of the guest's. `target` is where the destination leads on the host, if anywhere.
    pub(crate) fn segment(
        &mut self,
        datagram: &Datagram<'_>,
        target: impl FnOnce(SocketAddr) -> Option<SocketAddr>,
        cx: &mut Context<'_>,
    ) {
        let Ok(segment) = TcpPacket::new_checked(datagram.payload) else {
            return;
        };
        let guest = SocketAddr::new(datagram.source, segment.src_port());
        let destination = SocketAddr::new(datagram.destination, segment.dst_port());
        if let Some(&id) = self.by_ends.get(&(guest, destination)) {
            return self.continue_connection(id, datagram, segment.rst(), cx);
        }
        let opens = segment.syn() && !segment.ack() && !segment.rst() && guest.port() != 0;
        match opens.then(|| target(destination)).flatten() {
            Some(target) if self.connections.len() < MAX_CONNECTIONS => {
                match self.begin((guest, destination), target, datagram, cx) {
                    Ok(()) => {}
                    Err(error) => self.refuse(datagram, &error, cx),
                }
            }
            _ => self.reset(datagram, cx),
        }
    }

    fn continue_connection(
        &mut self,
        id: u64,
        datagram: &Datagram<'_>,
        resets: bool,
        cx: &mut Context<'_>,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        match &mut connection.phase {
            Phase::Open(flow) => {
                flow.segment(datagram.packet, &mut self.stack, cx.now, &mut cx.egress);
                self.enqueue(id);
            }
            Phase::Connecting { .. } if resets => self.close(id),
            Phase::Connecting { .. } => {} // the first segment again
        }
    }

    /// Begins to connect to the target for the guest's first segment.
    fn begin(
        &mut self,
        ends: Ends,
        target: SocketAddr,
        datagram: &Datagram<'_>,
        cx: &Context<'_>,
    ) -> io::Result<()> {
        let stream = connect(target)?;
        let phase = Phase::Connecting {
            stream,
            remote: remote(datagram),
            syn: datagram.packet.to_vec(),
        };
        self.insert(ends, phase, cx)
    }

    fn insert(&mut self, ends: Ends, phase: Phase, cx: &Context<'_>) -> io::Result<()> {
        let id = self.next_id;
        self.next_id += 1;
        match &phase {
            Phase::Connecting { stream, .. } => cx.watch(stream, Token::Tcp(id))?,
            Phase::Open(flow) => cx.watch(flow.stream(), Token::Tcp(id))?,
        }
        let connection = Connection {
            ends,
            phase,
            queued: false,
            deadline: None,
        };
        self.connections.insert(id, connection);
        self.by_ends.insert(ends, id);
        self.enqueue(id);
        Ok(())
    }

    /// Answers a segment that belongs to no connection, and may open none, with a reset.
    fn reset(&mut self, datagram: &Datagram<'_>, cx: &mut Context<'_>) {
        let mut none = SocketSet::new(Vec::new());
        self.stack.ingress(
            datagram.packet,
            remote(datagram),
            &mut none,
            cx.now,
            &mut cx.egress,
        );
    }

    /// Tells the guest that its connection could not be made.
    fn refuse(&mut self, datagram: &Datagram<'_>, error: &io::Error, cx: &mut Context<'_>) {
        match error.kind() {
            ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::AddrNotAvailable => {
                icmp::unreachable(&mut cx.egress, Unreachable::Host, &datagram.into());
            }
            ErrorKind::TimedOut => {} // so the guest's own time has run out
            _ => self.reset(datagram, cx),
        }
    }

    /// Notes that a connection's socket has become ready.
    pub(crate) fn on_ready(&mut self, id: u64, ready: Readiness) {
        if let Some(connection) = self.connections.get_mut(&id) {
            if let Phase::Open(flow) = &mut connection.phase {
                flow.on_ready(ready);
            }
            self.enqueue(id);
        }
    }

    /// Notes that connections wait at a published port.
    pub(crate) fn on_listener_ready(&mut self, id: u64) {
        if let Some(listener) = self.listeners.get_mut(id as usize) {
            listener.ready = true;
        }
    }

    /// Moves bytes and segments of all connections that are ready, as far as the guest has room.
    pub(crate) fn run(&mut self, guest_mac: EthernetAddress, cx: &mut Context<'_>) {
        self.expire(cx.now);
        loop {
            self.accept(guest_mac, cx);
            while let Some(id) = self.queue.pop_front() {
                let Some(connection) = self.connections.get_mut(&id) else {
                    continue;
                };
                connection.queued = false;
                match self.attend(id, cx) {
                    Progress::Waits => self.set_deadline(id, cx.now),
                    Progress::Over => self.close(id),
                    Progress::Blocked => return self.enqueue(id),
                }
            }
            // Connections that have ended make room for those that wait to be accepted.
            if !self.can_accept() {
                return;
            }
        }
    }

    /// When [`Self::run`] is due though nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let connections = self.deadlines.first().map(|&(deadline, _)| deadline);
        let listeners = self.listeners.iter().filter_map(Listener::deadline);
        listeners.chain(connections).min()
    }

    /// Breaks off all connections.
    pub(crate) fn reset_all(&mut self) {
        self.connections.clear();
        self.by_ends.clear();
        self.queue.clear();
        self.deadlines.clear();
    }

    fn attend(&mut self, id: u64, cx: &mut Context<'_>) -> Progress {
        let Some(connection) = self.connections.get_mut(&id) else {
            return Progress::Over;
        };
        match &mut connection.phase {
            Phase::Open(flow) => flow.pump(&mut self.stack, cx.now, &mut cx.egress),
            Phase::Connecting { .. } if !cx.egress.has_room() => Progress::Blocked,
            Phase::Connecting { stream, .. } => match is_connected(stream) {
                Ok(false) => Progress::Waits,
                Ok(true) => self.answer(id, cx),
                Err(error) => self.fail(id, &error, cx),
            },
        }
    }

    /// Answers the guest's first segment: the peer is there.
    fn answer(&mut self, id: u64, cx: &mut Context<'_>) -> Progress {
        let buffer = self.buffer_size();
        let Some(mut connection) = self.connections.remove(&id) else {
            return Progress::Over;
        };
        let Phase::Connecting {
            stream,
            remote,
            syn,
        } = connection.phase
        else {
            return Progress::Over;
        };
        let parts = (connection.ends.1, remote, stream, buffer);
        let Some(flow) = Flow::answer(&syn, parts, &mut self.stack, cx.now, &mut cx.egress) else {
            self.by_ends.remove(&connection.ends);
            return Progress::Over;
        };
        connection.phase = Phase::Open(Box::new(flow));
        self.connections.insert(id, connection);
        self.attend(id, cx)
    }

    /// Refuses the guest's first segment: the peer cannot be reached.
    fn fail(&mut self, id: u64, error: &io::Error, cx: &mut Context<'_>) -> Progress {
        if let Some(Connection {
            phase: Phase::Connecting { remote, syn, .. },
            ..
        }) = self.connections.get_mut(&id)
        {
            let (remote, syn) = (*remote, std::mem::take(syn));
            if let Some(datagram) = Datagram::parse(remote.mac, ethertype(remote.address), &syn) {
                self.refuse(&datagram, error, cx);
            }
        }
        Progress::Over
    }

    /// Whether connections may wait to be accepted for which there is room.
    fn can_accept(&self) -> bool {
        let waiting = self.listeners.iter().any(|listener| listener.ready);
        waiting && self.connections.len() < MAX_CONNECTIONS
    }

    /// Accepts connections to published ports.
    fn accept(&mut self, guest_mac: EthernetAddress, cx: &Context<'_>) {
        for number in 0..self.listeners.len() {
            while self.listeners[number].ready && self.connections.len() < MAX_CONNECTIONS {
                let guest_port = self.listeners[number].guest_port;
                if let Some(stream) = self.listeners[number].accept(cx.now)
                    && let Err(error) = self.connect_guest((guest_mac, guest_port), stream, cx)
                {
                    log::warn!("a connection to a published port was dropped: {error}");
                }
            }
        }
    }

    fn connect_guest(
        &mut self,
        (mac, guest_port): (EthernetAddress, u16),
        stream: TcpStream,
        cx: &Context<'_>,
    ) -> io::Result<()> {
        let guest = SocketAddr::new(GUEST.into(), guest_port);
        let remote = Remote {
            mac,
            address: guest.ip(),
        };
        let ends = self.outside_ends(guest);
        let parts = (ends.1, remote, stream, self.buffer_size());
        match Flow::open(guest, parts, &mut self.stack) {
            Some(flow) => self.insert(ends, Phase::Open(Box::new(flow)), cx),
            None => Ok(()),
        }
    }

    /// The ends of a new connection from outside: there are more ports than connections.
    fn outside_ends(&mut self, guest: SocketAddr) -> Ends {
        loop {
            let ends = (guest, SocketAddr::new(GATEWAY.into(), self.next_port));
            self.next_port = if self.next_port == *OUTSIDE_PORTS.end() {
                *OUTSIDE_PORTS.start()
            } else {
                self.next_port + 1
            };
            if !self.by_ends.contains_key(&ends) {
                return ends;
            }
        }
    }

    fn buffer_size(&self) -> usize {
        if self.connections.len() <= FEW {
            BUFFER
        } else {
            SMALL_BUFFER
        }
    }

    fn enqueue(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !connection.queued
        {
            connection.queued = true;
            self.queue.push_back(id);
        }
    }

    fn close(&mut self, id: u64) {
        if let Some(connection) = self.connections.remove(&id) {
            self.by_ends.remove(&connection.ends);
            if let Some(deadline) = connection.deadline {
                self.deadlines.remove(&(deadline, id));
            }
        }
    }

    fn set_deadline(&mut self, id: u64, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if let Some(deadline) = connection.deadline.take() {
            self.deadlines.remove(&(deadline, id));
        }
        if let Phase::Open(flow) = &connection.phase
            && let Some(deadline) = flow.deadline(&mut self.stack, now)
        {
            // A deadline that has passed already is looked at again a little later, not at once for ever.
            let deadline = deadline.max(now + SHORTEST_WAIT);
            connection.deadline = Some(deadline);
            self.deadlines.insert((deadline, id));
        }
    }

    /// Queues the connections whose deadlines have passed, and has listeners try again.
    fn expire(&mut self, now: Instant) {
        for listener in &mut self.listeners {
            listener.expire(now);
        }
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.deadline = None;
            }
            self.enqueue(id);
        }
    }
}

fn remote(datagram: &Datagram<'_>) -> Remote {
    Remote {
        mac: datagram.mac,
        address: datagram.source,
    }
}

/// Whether a socket that is being connected is.
fn is_connected(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}
