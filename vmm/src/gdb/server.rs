//! [`Server`]: the socket, and the thread that reads from it. One gdb at a time is served; others wait until it disconnects.
//!
//! ```text
//!   accept ─► Connected ─► read ─► Bytes … ─► Closed ─► accept …        this thread
//!                 └──────────────┴───────────────┴─► channel, Control::pause ─► the machine's thread
//! ```

use std::{
    fs, io,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileTypeExt,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};

use super::address::Address;
use crate::{
    control::Control,
    threads::{ThreadKind, Threads},
};

/// The most bytes that are read at once.
const CHUNK: usize = 4096;
/// The most items that wait for the machine's thread; then the reading thread waits, and so does gdb.
const QUEUE: usize = 64;
/// The longest time for which gdb may leave an answer unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a failure to accept a connection, in milliseconds.
const ACCEPT_PAUSE: u8 = 100;

/// Something that has come from the socket.
pub enum Incoming {
    /// gdb has connected; answers go to this stream.
    Connected(Stream),
    /// gdb has sent these bytes.
    Bytes(Vec<u8>),
    /// gdb has disconnected.
    Closed,
}

/// A socket that listens for gdb, until it is dropped.
pub struct Server {
    /// `None` while this is being dropped.
    incoming: Option<Receiver<Incoming>>,
    /// The address, with the port that the host chose.
    address: Address,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `address`. By `control`, the machine is paused for everything that comes.
    ///
    /// # Errors
    /// If the host does not let this process listen there.
    pub fn listen(address: &Address, control: Control, threads: &Threads) -> io::Result<Self> {
        let listener = Listener::bind(address)?;
        let address = listener.address()?;
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
        let (sender, incoming) = sync_channel(QUEUE);
        let reader = Reader {
            listener,
            stop: Arc::clone(&stop),
            sender,
            control,
        };
        let thread = threads.start(ThreadKind::Gdb, move || reader.run())?;
        Ok(Self {
            incoming: Some(incoming),
            address,
            stop,
            thread: Some(thread),
        })
    }

    /// The address that the server listens at.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Takes the next item that has come, if there is one.
    pub fn next(&self) -> Option<Incoming> {
        self.incoming.as_ref()?.try_recv().ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only if the counter is at its maximum, and then the thread wakes too.
        let _ = self.stop.write(1);
        // A thread that waits for room in the channel wakes as well.
        self.incoming = None;
        if let Some(thread) = self.thread.take() {
            // The thread has no reason to panic, and there is nobody to report a panic to.
            let _ = thread.join();
        }
    }
}

/// The thread that reads.
struct Reader {
    listener: Listener,
    stop: Arc<EventFd>,
    sender: SyncSender<Incoming>,
    control: Control,
}

impl Reader {
    fn run(&self) {
        while self.wait(self.listener.fd()) {
            match self.listener.accept() {
                Ok(stream) => self.serve(stream),
                // Without a pause it would fail again at once if this process has no file descriptors left.
                Err(error) => {
                    log::warn!("gdb: {error}");
                    self.rest();
                }
            }
        }
    }

    /// Passes on what comes from `stream`, until it ends.
    fn serve(&self, mut stream: Stream) {
        match stream.try_clone() {
            Ok(writer) => self.pass_on(Incoming::Connected(writer)),
            Err(error) => return log::warn!("gdb: {error}"),
        }
        let mut chunk = [0; CHUNK];
        while self.wait(stream.fd()) {
            match stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(len) => self.pass_on(Incoming::Bytes(chunk[..len].to_vec())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.pass_on(Incoming::Closed);
    }

    fn pass_on(&self, incoming: Incoming) {
        // Fails only while the server is being dropped.
        let _ = self.sender.send(incoming);
        self.control.pause();
    }

    /// Waits for [`ACCEPT_PAUSE`], or until the server is dropped.
    fn rest(&self) {
        let mut fds = [PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)];
        // The next wait finds out why this one ended.
        let _ = poll(&mut fds, ACCEPT_PAUSE);
    }

    /// Waits until `fd` is readable. Returns false if the server is being dropped.
    fn wait(&self, fd: BorrowedFd<'_>) -> bool {
        let mut fds = [fd, self.stop.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(_) => return false,
                Ok(_) => return fds[1].revents() == Some(PollFlags::empty()),
            }
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    /// A Unix socket and its path; dropping the listener removes the file.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => TcpListener::bind(address).map(Self::Tcp),
            Address::Unix(path) => {
                remove_stale(path);
                let listener = UnixListener::bind(path)?;
                Ok(Self::Unix(listener, path.clone()))
            }
        }
    }

    fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Self::Unix(_, path) => Ok(Address::Unix(path.clone())),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }

    fn accept(&self) -> io::Result<Stream> {
        let stream = match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
                Stream::Tcp(stream)
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept()?;
                stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
                Stream::Unix(stream)
            }
        };
        Ok(stream)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // Fails if somebody has removed the file before.
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes the socket that a killed process has left. A file of another kind refuses connections too, and stays.
fn remove_stale(path: &Path) {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = || {
        UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    if is_socket && refused() {
        // If that fails, binding says why.
        let _ = fs::remove_file(path);
    }
}

/// A connection to gdb.
pub enum Stream {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A connection over a Unix socket.
    Unix(UnixStream),
}

impl Stream {
    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// If gdb has disconnected or does not read.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// Closes the connection, for the thread that reads from it too.
    pub fn close(&self) {
        // Fails if the connection has ended before.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(std::net::Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(std::net::Shutdown::Both),
        };
    }
}
