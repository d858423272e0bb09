//! Canonical addresses (SDM Vol. 1, 3.3.7.1 "Canonical Addressing").

use mmu::LinearAddr;

/// Whether `address` is canonical: its upper bits are copies of the highest that linear addresses have.
#[inline(always)]
pub fn is_canonical(address: u64) -> bool {
    LinearAddr::new(address).is_canonical()
}

/// Whether the first and the last of `size` bytes at `address` have canonical addresses.
#[inline(always)]
pub fn is_canonical_span(address: u64, size: u32) -> bool {
    is_canonical(address) && is_canonical(address.wrapping_add(u64::from(size) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_address_space_is_not_canonical() {
        const LOW_END: u64 = 0x0000_8000_0000_0000;
        const HIGH_START: u64 = 0xffff_8000_0000_0000;
        for address in [0, LOW_END - 1, HIGH_START, u64::MAX] {
            assert!(is_canonical(address), "{address:#x}");
        }
        for address in [LOW_END, HIGH_START - 1, 1 << 63, 0xff << 48] {
            assert!(!is_canonical(address), "{address:#x}");
        }
        assert!(is_canonical_span(LOW_END - 8, 8) && !is_canonical_span(LOW_END - 7, 8));
        assert!(!is_canonical_span(HIGH_START - 1, 8));
        assert!(is_canonical_span(u64::MAX, 8), "wraps");
    }
}
