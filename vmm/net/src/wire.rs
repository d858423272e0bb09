//! [`Wire`]: the cable between a guest's network card and its far end.

use crate::checksum::Checksum;

/// The guest's end of the Ethernet, as the far end sees it: a pair of bounded queues.
///
/// The far end takes and sends frames only while [`Self::has_room`], so that neither side needs memory without bound: a
/// guest that does not take its frames is sent no more, and its own frames wait.
pub trait Wire {
    /// Takes the next Ethernet frame that the guest has sent, without its frame check sequence. It replaces
    /// the contents of `frame`. Returns whether there was one.
    fn receive(&mut self, frame: &mut Vec<u8>) -> bool;

    /// Whether the guest can take one more frame. When this returns `false`, whoever owns the far end calls
    /// [`crate::Waker::wake`] as soon as there is room again.
    fn has_room(&mut self) -> bool;

    /// Sends an Ethernet frame, without its frame check sequence, to the guest. There is room for it. A receiver that cannot
    /// take it with a partial checksum completes that (see [`Checksum::complete`]).
    fn send(&mut self, frame: &mut [u8], checksum: Checksum);
}

/// A wire with nobody at the other end.
pub(crate) struct Unplugged;

impl Wire for Unplugged {
    fn receive(&mut self, _: &mut Vec<u8>) -> bool {
        false
    }

    fn has_room(&mut self) -> bool {
        false
    }

    fn send(&mut self, _: &mut [u8], _: Checksum) {}
}
