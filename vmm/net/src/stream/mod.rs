//! [`Stream`]: a cable that ends at another program's Unix socket, such as passt's, by the protocol of QEMU's
//! `-netdev stream` (QEMU documentation, Network options).

mod frames;

use std::{
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::errno::Errno;
use thiserror::Error;

use self::frames::{BadLength, Input};
use crate::{
    backend::Backend,
    checksum::Checksum,
    config::Config,
    poller::{Poller, Readiness, Token, Waker},
    wire::Wire,
};

/// The bytes of the guest's frames that are gathered before they are written.
const GATHERED: usize = 128 << 10;

/// The number of times that frames are passed on in both directions before the owner is asked again.
const BATCH: usize = 16;

/// The error of a cable that leads nowhere.
#[derive(Debug, Error)]
pub enum StreamError {
    /// Nobody listens at the socket.
    #[error("cannot connect to {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
    /// The host has no descriptors left to wait for the socket.
    #[error("cannot wait for the socket")]
    Poller(#[source] Errno),
}

/// The reason why a cable that was plugged in leads nowhere any more.
#[derive(Debug, Error)]
enum Unplugged {
    #[error("the other side has closed the connection")]
    Closed,
    #[error("the other side breaks the protocol: {0}")]
    Protocol(BadLength),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A cable that ends at another program's Unix socket.
///
/// When the other side closes the connection, or breaks the protocol, the link is down for good: the guest's frames are
/// dropped.
pub struct Stream {
    path: PathBuf,
    socket: UnixStream,
    poller: Poller,
    ready: Readiness,
    up: bool,
    /// Whether there is more to do at once.
    busy: bool,
    input: Input,
    /// The guest's frames that are to be written, and how much of them was.
    output: Vec<u8>,
    written: usize,
    frame: Vec<u8>,
}

impl Stream {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// If nobody listens there, or the host has no descriptors left.
    pub fn connect(path: &Path) -> Result<Self, StreamError> {
        let connected = UnixStream::connect(path).and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        let socket = connected.map_err(|source| StreamError::Connect {
            path: path.into(),
            source,
        })?;
        let poller = Poller::new().map_err(StreamError::Poller)?;
        poller
            .add(&socket, Token::Tcp(0))
            .map_err(StreamError::Poller)?;
        Ok(Self {
            path: path.into(),
            socket,
            poller,
            ready: Readiness::default(),
            up: true,
            busy: true,
            input: Input::default(),
            output: Vec::new(),
            written: 0,
            frame: Vec::new(),
        })
    }

    /// Writes frames of the guest's, and returns whether any were there and are written.
    fn write(&mut self, wire: &mut dyn Wire) -> Result<bool, Unplugged> {
        while self.output.len() < GATHERED && wire.receive(&mut self.frame) {
            // The other side would take the length of what is no frame as a broken stream.
            if frames::LENGTHS.contains(&self.frame.len()) {
                frames::push(&self.frame, &mut self.output);
            }
        }
        if self.output.is_empty() {
            return Ok(false);
        }
        while self.ready.writable {
            match self.socket.write(&self.output[self.written..]) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.ready.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    return Err(Unplugged::Closed);
                }
                Err(error) => return Err(error.into()),
            }
            if self.written == self.output.len() {
                self.output.clear();
                self.written = 0;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sends the guest frames as far as it has room, and returns whether there may be more for which it has.
    fn read(&mut self, wire: &mut dyn Wire) -> Result<bool, Unplugged> {
        // A connection that is closed is seen even while the guest has no room.
        while self.input.has_frame().map_err(Unplugged::Protocol)? {
            if !wire.has_room() {
                return Ok(false);
            }
            if let Some(frame) = self.input.next().map_err(Unplugged::Protocol)? {
                wire.send(frame, Checksum::Complete);
            }
        }
        match self.ready.readable {
            true => self.fill(),
            false => Ok(false),
        }
    }

    fn fill(&mut self) -> Result<bool, Unplugged> {
        let socket = &mut self.socket;
        match self.input.fill(|room| socket.read(room)) {
            Ok(0) => return Err(Unplugged::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.ready.readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return Err(Unplugged::Closed);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    fn pass(&mut self, wire: &mut dyn Wire) -> Result<bool, Unplugged> {
        let written = self.write(wire)?;
        Ok(self.read(wire)? || written)
    }

    fn unplug(&mut self, why: &Unplugged) {
        self.up = false;
        self.input = Input::default();
        self.output = Vec::new();
        let path = self.path.display();
        log::error!("{path}: {why}; the guest's link is down");
    }
}

impl Backend for Stream {
    fn waker(&self) -> Waker {
        self.poller.waker()
    }

    fn mtu(&self) -> u16 {
        Config::DEFAULT_MTU
    }

    fn ignores_checksums(&self) -> bool {
        false
    }

    fn is_up(&self) -> bool {
        self.up
    }

    fn wait(&mut self) -> io::Result<()> {
        let timeout = self.busy.then_some(Duration::ZERO);
        let ready = &mut self.ready;
        let waited = self.poller.wait(timeout, |token, now| {
            if token != Token::Wake {
                ready.readable |= now.readable;
                ready.writable |= now.writable;
            }
        });
        Ok(waited?)
    }

    fn turn(&mut self, wire: &mut dyn Wire) {
        self.busy = false;
        for _ in 0..BATCH {
            let passed = match self.up {
                true => self.pass(wire),
                false => Ok(wire.receive(&mut self.frame)),
            };
            match passed {
                Ok(true) => {}
                Ok(false) => return,
                Err(why) => self.unplug(&why),
            }
        }
        self.busy = true;
    }
}
