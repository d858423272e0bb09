//! [`Listener`]: a published port.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

/// A port of the host's that leads to one of the guest's.
pub(super) struct Listener {
    socket: TcpListener,
    pub(super) guest_port: u16,
    /// Whether connections may wait to be accepted.
    pub(super) ready: bool,
    /// When accepting is tried again that has failed, as when the process has no descriptors left. Nothing else tells of the
    /// connections that wait since then.
    retry: Option<Instant>,
}

/// The time from a failure to accept a connection to the next try.
const RETRY: Duration = Duration::from_millis(100);

impl Listener {
    pub(super) fn bind(host: SocketAddr, guest_port: u16) -> io::Result<Self> {
        let socket = TcpListener::bind(host)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            guest_port,
            ready: true,
            retry: None,
        })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// When [`Self::expire`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.retry.filter(|_| !self.ready)
    }

    /// Sets [`Self::ready`] if it is time to try again.
    pub(super) fn expire(&mut self, now: Instant) {
        self.ready |= self.retry.is_some_and(|retry| retry <= now);
    }

    /// Accepts the next connection. Clears [`Self::ready`] if there is none, or none can be accepted now.
    pub(super) fn accept(&mut self, now: Instant) -> Option<TcpStream> {
        loop {
            match self.socket.accept() {
                Ok((stream, _)) => {
                    self.retry = None;
                    if stream.set_nonblocking(true).is_ok() {
                        return Some(stream);
                    }
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => {
                    self.ready = false;
                    self.retry = match error.kind() {
                        ErrorKind::WouldBlock => None,
                        _ => Some(self.fail(&error, now)),
                    };
                    return None;
                }
            }
        }
    }

    /// Says that connections wait, once until one is accepted, and returns when to try again.
    fn fail(&self, error: &io::Error, now: Instant) -> Instant {
        if self.retry.is_none() {
            log::warn!("connections to a published port have to wait: {error}");
        }
        now + RETRY
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
