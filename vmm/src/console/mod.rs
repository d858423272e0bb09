//! What is at the other end of the machine's serial cables.

mod pipe;

use std::{io, os::fd::BorrowedFd};

pub use pipe::{Line, ReadError, SCREEN, Terminal, pipe};

/// The host side of the serial ports and the debug console.
pub trait Console {
    /// Takes input for COM1 that is there now, at most `room` bytes, without waiting.
    ///
    /// # Errors
    /// Whatever keeps the host from reading; the machine then stops.
    fn input(&mut self, room: usize) -> io::Result<Input>;

    /// Takes what the guest sent out of `channel`. May wait for a slow receiver: the guest waits, too.
    ///
    /// # Errors
    /// Whatever keeps the host from writing; the machine then stops.
    fn output(&mut self, channel: Channel, bytes: &[u8]) -> io::Result<()>;

    /// What is readable when [`Self::input`] has something to give: a machine with nothing to do waits for that. What the last
    /// call left for want of room does not count. `None`: there is nothing to wait for at present, or [`crate::Control::wake`]
    /// tells of it.
    fn ready(&self) -> Option<BorrowedFd<'_>>;
}

/// What the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Bytes for the guest, perhaps none.
    Bytes(Vec<u8>),
    /// To see the statistics.
    ShowStats,
    /// To switch the machine off.
    Quit,
}

/// Where output comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// COM1, the guest's console.
    Com1,
    /// COM2.
    Com2,
    /// The debug console, port E9h.
    Debug,
    /// The monitor itself, answering [`Input::ShowStats`].
    Monitor,
}
