//! Counts of accesses to I/O ports.

use std::fmt;

/// The numbers of reads and writes of each I/O port.
pub struct PortCounts {
    /// The counts, indexed by port number.
    counts: Vec<PortCount>,
}

/// The number of accesses to one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCount {
    /// Reads of any width that began at the port.
    pub reads: u64,
    /// Writes of any width that began at the port.
    pub writes: u64,
}

/// The number of I/O ports that an IA-32 processor can address.
const PORTS: usize = 1 << 16;

impl Default for PortCounts {
    fn default() -> Self {
        Self {
            counts: vec![PortCount::default(); PORTS],
        }
    }
}

impl PortCounts {
    /// Returns the counts of `port` for updating.
    pub fn at(&mut self, port: u16) -> &mut PortCount {
        &mut self.counts[usize::from(port)]
    }

    /// The ports that were accessed, in ascending order.
    pub fn accessed(&self) -> impl Iterator<Item = (u16, PortCount)> {
        self.counts
            .iter()
            .enumerate()
            .filter(|(_, count)| count.total() > 0)
            .map(|(port, count)| (port as u16, *count))
    }
}

impl PortCount {
    /// The sum of reads and writes.
    pub fn total(self) -> u64 {
        self.reads + self.writes
    }
}

impl fmt::Debug for PortCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.accessed()).finish()
    }
}
