//! [`Poller`]: waits for the host's sockets, for a wake-up and for a deadline.

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::{EfdFlags, EventFd},
    },
};

/// The owner of a descriptor that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Wake,
    Tcp(u64),
    TcpListener(u64),
    Udp(u64),
    UdpListener(u64),
}

impl Token {
    const KIND_SHIFT: u32 = 56;

    fn encode(self) -> u64 {
        let (kind, id) = match self {
            Self::Wake => (0, 0),
            Self::Tcp(id) => (1, id),
            Self::TcpListener(id) => (2, id),
            Self::Udp(id) => (3, id),
            Self::UdpListener(id) => (4, id),
        };
        kind << Self::KIND_SHIFT | id
    }

    fn decode(data: u64) -> Self {
        let id = data & ((1 << Self::KIND_SHIFT) - 1);
        match data >> Self::KIND_SHIFT {
            1 => Self::Tcp(id),
            2 => Self::TcpListener(id),
            3 => Self::Udp(id),
            4 => Self::UdpListener(id),
            _ => Self::Wake,
        }
    }
}

/// The directions in which a socket has become ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// Wakes a [`crate::Backend`] that waits, from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// Ends the far end's wait, or the next one if it does not wait now.
    pub fn wake(&self) {
        // Nobody reads the counter; it takes 2^64 - 2 calls to fill it.
        let _ = self.0.write(1);
    }
}

/// An epoll instance with an event descriptor in it. Readiness is reported once, when it begins.
pub(crate) struct Poller {
    epoll: Epoll,
    wake: Arc<EventFd>,
    events: Vec<EpollEvent>,
}

impl Poller {
    pub(crate) fn new() -> Result<Self, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = Arc::new(EventFd::from_flags(
            EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
        )?);
        let poller = Self {
            epoll,
            wake,
            events: vec![EpollEvent::empty(); 256],
        };
        poller.add(&poller.wake, Token::Wake)?;
        Ok(poller)
    }

    pub(crate) fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.wake))
    }

    /// Waits for `source` until it is closed.
    pub(crate) fn add(&self, source: impl AsFd, token: Token) -> Result<(), Errno> {
        let flags = EpollFlags::EPOLLET
            | EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP;
        self.epoll
            .add(source, EpollEvent::new(flags, token.encode()))
    }

    /// Waits until something is ready or `timeout` is over, and calls `each` for what is.
    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
        mut each: impl FnMut(Token, Readiness),
    ) -> Result<(), Errno> {
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            // Rounded up, so that the deadline has come.
            Some(timeout) => EpollTimeout::try_from(timeout + Duration::from_micros(999))
                .unwrap_or(EpollTimeout::MAX),
        };
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Err(Errno::EINTR) => 0,
            result => result?,
        };
        let ended = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        for event in &self.events[..count] {
            let flags = event.events();
            let readable = ended | EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
            let readiness = Readiness {
                readable: flags.intersects(readable),
                writable: flags.intersects(ended | EpollFlags::EPOLLOUT),
            };
            each(Token::decode(event.data()), readiness);
        }
        Ok(())
    }
}
