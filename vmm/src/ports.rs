//! Counting accesses to I/O ports.

use std::fmt;

/// How often each port was read and written.
pub struct PortCounts {
    /// Indexed by port number.
    counts: Vec<PortCount>,
}

/// Accesses to one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCount {
    /// Reads of any width that began at the port.
    pub reads: u64,
    /// Writes of any width that began at the port.
    pub writes: u64,
}

/// Number of I/O ports an IA-32 processor can address.
const PORTS: usize = 1 << 16;

impl Default for PortCounts {
    fn default() -> Self {
        Self {
            counts: vec![PortCount::default(); PORTS],
        }
    }
}

impl PortCounts {
    /// The counts of `port`, to be changed.
    pub fn at(&mut self, port: u16) -> &mut PortCount {
        &mut self.counts[usize::from(port)]
    }

    /// The ports that were accessed, in order.
    pub fn accessed(&self) -> impl Iterator<Item = (u16, PortCount)> {
        self.counts
            .iter()
            .enumerate()
            .filter(|(_, count)| count.total() > 0)
            .map(|(port, count)| (port as u16, *count))
    }
}

impl PortCount {
    /// Reads and writes together.
    pub fn total(self) -> u64 {
        self.reads + self.writes
    }
}

impl fmt::Debug for PortCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.accessed()).finish()
    }
}
