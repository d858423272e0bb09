//! [`Listener`]: a published port.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, BorrowedFd},
};

/// A port of the host's that leads to one of the guest's.
pub(super) struct Listener {
    socket: TcpListener,
    pub(super) guest_port: u16,
    /// Whether connections may wait to be accepted.
    pub(super) ready: bool,
}

impl Listener {
    pub(super) fn bind(host: SocketAddr, guest_port: u16) -> io::Result<Self> {
        let socket = TcpListener::bind(host)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            guest_port,
            ready: true,
        })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts the next connection. Clears [`Self::ready`] if there is none.
    pub(super) fn accept(&mut self) -> Option<TcpStream> {
        loop {
            match self.socket.accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => return Some(stream),
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock {
                        log::warn!(
                            "a connection to a published port could not be accepted: {error}"
                        );
                    }
                    self.ready = false;
                    return None;
                }
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
