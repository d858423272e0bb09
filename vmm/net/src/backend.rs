//! [`Backend`]: the far end of a guest's cable.

use std::io;

use crate::{poller::Waker, wire::Wire};

/// The far end of a guest's cable. Its owner calls [`Self::wait`] and [`Self::turn`] in a loop, on a thread of its own.
pub trait Backend: Send {
    /// Returns a handle that ends [`Self::wait`] from other threads: for when the guest has sent, or has room again.
    fn waker(&self) -> Waker;

    /// The largest IP packet that the guest may send, in bytes.
    fn mtu(&self) -> u16;

    /// Lowers what [`Self::mtu`] returns for a guest whose card cannot take such packets.
    fn limit_mtu(&mut self, _: u16) {}

    /// Whether frames of the guest may come without checksums of TCP and UDP.
    fn ignores_checksums(&self) -> bool;

    /// Whether the cable leads anywhere. This can change in [`Self::turn`].
    fn is_up(&self) -> bool {
        true
    }

    /// Waits until there is something to do in [`Self::turn`].
    ///
    /// # Errors
    /// If the host cannot wait for the sockets.
    fn wait(&mut self) -> io::Result<()>;

    /// Takes frames from the guest and sends it what there is for it, as far as the wire has room.
    fn turn(&mut self, wire: &mut dyn Wire);

    /// Forgets the guest of before, as when the guest is reset.
    fn reset(&mut self) {}
}
