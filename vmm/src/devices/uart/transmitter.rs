//! The transmitter. It is infinitely fast: a character has left before the guest's next access, so that both the holding
//! register and the shift register are always empty, with FIFO and without.

use serde::{Deserialize, Serialize};

/// The transmitter, and the bytes that have left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transmitter {
    sent: Vec<u8>,
    /// The holding register became empty, or its interrupt was enabled while it was, and since then neither IIR has said so
    /// nor a character been written.
    empty: bool,
}

impl Transmitter {
    /// Sends a byte to the peer.
    pub fn send(&mut self, byte: u8) {
        self.sent.push(byte);
    }

    /// Takes the bytes that have left.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sent)
    }

    /// Notes that the holding register has become empty, or that its interrupt has been enabled.
    pub fn set_empty(&mut self) {
        self.empty = true;
    }

    /// Notes that IIR has reported the holding register empty, or that a character is written to it.
    pub fn acknowledge(&mut self) {
        self.empty = false;
    }

    /// Whether there is an interrupt to report.
    pub fn is_pending(&self) -> bool {
        self.empty
    }
}
