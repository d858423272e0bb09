//! Linear addresses: how many there are in each mode, and how messages show them.

use std::fmt;

use mmu::LinearAddr;
use sbe::cpu::Cpu;

/// IA32_EFER.LMA: the processor is in long mode (SDM Vol. 3A, 2.2.1 "Extended Feature Enable Register").
const EFER_LMA: u64 = 1 << 10;
/// First address that is not canonical: from here on, up to the negative of this, there are none (SDM Vol. 1, 3.3.7.1 "Canonical
/// Addressing", of 48 bits).
const LOW_END: u64 = 1 << 47;

/// The width of a processor's registers and addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Outside long mode.
    Bits32,
    /// In long mode, whatever the code that it executes.
    Bits64,
}

impl Width {
    /// Returns the width in `cpu`'s present mode.
    pub fn of(cpu: &Cpu) -> Self {
        match cpu.efer & EFER_LMA {
            0 => Self::Bits32,
            _ => Self::Bits64,
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
            Self::Bits64 => last < LOW_END || start >= LOW_END.wrapping_neg(),
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
