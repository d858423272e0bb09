//! [`Wire`]: the cable between a guest's network card and the gateway.

/// The guest's end of the Ethernet, as the gateway sees it: a pair of bounded queues.
///
/// The gateway takes and sends frames only while [`Self::has_room`], so that neither side needs memory without bound: a
/// guest that does not take its frames is sent no more, and its own frames wait.
pub trait Wire {
    /// Takes the next Ethernet frame that the guest has sent, without its frame check sequence. It replaces
    /// the contents of `frame`. Returns whether there was one.
    fn receive(&mut self, frame: &mut Vec<u8>) -> bool;

    /// Whether the guest can take one more frame. When this returns `false`, whoever owns the gateway calls
    /// [`crate::Waker::wake`] as soon as there is room again.
    fn has_room(&mut self) -> bool;

    /// Sends an Ethernet frame, without its frame check sequence, to the guest. There is room for it.
    fn send(&mut self, frame: &[u8]);
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

    fn send(&mut self, _: &[u8]) {}
}
