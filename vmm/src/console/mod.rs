//! Consoles: the host side of the machine's serial ports.

mod pipe;
mod write;

use std::{io, os::fd::BorrowedFd};

pub use pipe::{Line, ReadError, SCREEN, Terminal, pipe};
pub use write::write_all;

/// A console: the host side of the serial ports and the debug console.
pub trait Console {
    /// Takes the input that is there for COM1, at most `room` bytes, without waiting. More than that waits in the machine.
    ///
    /// # Errors
    /// The host's error of reading; the machine then stops.
    fn input(&mut self, room: usize) -> io::Result<Input>;

    /// Takes bytes that the guest has sent out of `channel`. May wait for a slow receiver, and the guest waits with it.
    ///
    /// # Errors
    /// The host's error of writing; the machine then stops.
    fn output(&mut self, channel: Channel, bytes: &[u8]) -> io::Result<()>;

    /// The file descriptor that becomes readable when [`Self::input`] has something new, for which an idle machine waits.
    /// Input that the last call left for want of room is not new. `None` if there is nothing to wait for at present, or if
    /// [`crate::Control::wake`] is called instead.
    fn ready(&self) -> Option<BorrowedFd<'_>>;
}

/// Input from the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Bytes for the guest, perhaps none.
    Bytes(Vec<u8>),
    /// A break on COM1's line, which Linux takes as SysRq.
    Break,
    /// The wish to see the statistics.
    ShowStats,
    /// The wish to switch the machine off.
    Quit,
}

/// The source of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// COM1, the guest's console.
    Com1,
    /// COM2.
    Com2,
    /// The debug console, port 0xe9.
    Debug,
    /// The monitor itself, in answer to [`Input::ShowStats`].
    Monitor,
}
