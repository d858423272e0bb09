//! Linear addresses: how many there are in each mode, and how messages show them.

use std::fmt;

use mmu::LinearAddr;
use sbe::cpu::Cpu;

/// The width of a processor's registers and addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// The width outside long mode.
    Bits32,
    /// The width in long mode, whatever code executes.
    Bits64,
}

impl Width {
    /// Returns the width in `cpu`'s present mode.
    pub fn of(cpu: &Cpu) -> Self {
        match cpu.is_long() {
            true => Self::Bits64,
            false => Self::Bits32,
        }
    }

    /// Returns whether the `len` bytes at `start` have addresses: below 4 GiB, or in one of the canonical halves.
    pub fn has_range(self, start: LinearAddr, len: u64) -> bool {
        let start = start.get();
        // The last byte of a range, or where an empty one lies.
        let Some(last) = start.checked_add(len.saturating_sub(1)) else {
            return false;
        };
        match self {
            Self::Bits32 => last < 1 << 32,
            Self::Bits64 => {
                let ends = [start, last].map(LinearAddr::new);
                ends.into_iter().all(LinearAddr::is_canonical) && start >> 63 == last >> 63
            }
        }
    }
}

/// A linear address in hexadecimal digits: eight, or sixteen where it has more.
///
/// ```
/// use vmm::{LinearAddr, linear::Linear};
///
/// assert_eq!(Linear(LinearAddr::new(0x40_1000)).to_string(), "00401000");
/// assert_eq!(Linear(LinearAddr::new(0x7fff_1234_5678)).to_string(), "00007fff12345678");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear(pub LinearAddr);

impl fmt::Display for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.0.get();
        match u32::try_from(address) {
            Ok(address) => write!(f, "{address:08x}"),
            Err(_) => write!(f, "{address:016x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_where_addresses_do() {
        for (start, len, bits32, bits64) in [
            (0, 0, true, true),
            (0, 1 << 32, true, true),
            (0xffff_fffe, 2, true, true),
            (0xffff_fffe, 3, false, true),
            (1 << 32, 0, false, true),
            (0x7fff_ffff_fffe, 2, false, true),
            (0x7fff_ffff_fffe, 3, false, false),
            (0x8000_0000_0000, 1, false, false),
            (0xffff_7fff_ffff_ffff, 1, false, false),
            (0xffff_7fff_ffff_ffff, 2, false, false),
            (0xffff_8000_0000_0000, 1 << 47, false, true),
            (0xffff_ffff_ffff_ffff, 1, false, true),
            (0xffff_ffff_ffff_ffff, 2, false, false),
            (0, u64::MAX, false, false),
        ] {
            let start = LinearAddr::new(start);
            for (width, expected) in [(Width::Bits32, bits32), (Width::Bits64, bits64)] {
                assert_eq!(
                    width.has_range(start, len),
                    expected,
                    "{start} {len:#x} {width:?}"
                );
            }
        }
    }
}
