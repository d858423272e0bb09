//! What a program finds in memory.

/// Bytes of a page.
pub const PAGE: u32 = 0x1000;

/// Contents of memory, in the order in which they are written.
#[derive(Default)]
pub struct Contents {
    /// Physical addresses and bytes.
    pub pieces: Vec<(u32, Vec<u8>)>,
}

impl Contents {
    /// Adds `bytes` at `address`.
    pub fn place(&mut self, address: u32, bytes: impl Into<Vec<u8>>) {
        self.pieces.push((address, bytes.into()));
    }
}
