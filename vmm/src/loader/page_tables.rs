//! Page tables that map addresses to themselves, with which a 64-bit kernel is entered (SDM Vol. 3A, 4.5 "4-Level Paging and 5-Level
//! Paging").
//!
//! ```text
//!  0        PML4       an entry for each 512 GiB
//!  0x1000   PDPTs      an entry for each GiB
//!  …        PDs        an entry for each 2 MiB, a large page
//! ```

/// An entry that is present, and can be written.
const TABLE: u64 = 0b11;
/// An entry of a page directory that maps 2 MiB, which are present and can be written.
const LARGE_PAGE: u64 = 1 << 7 | TABLE;
const PAGE: u64 = 4096;
const ENTRIES: u64 = 512;

/// Returns the length in bytes of tables that map the lowest `gib` GiB.
pub(super) fn len(gib: u64) -> u64 {
    (1 + gib.div_ceil(ENTRIES) + gib) * PAGE
}

/// Makes the tables that map the lowest `gib` GiB, at most 256 TiB, for guest-physical `at`, where a page begins.
pub(super) fn identity(at: u64, gib: u64) -> Vec<u64> {
    let pointers = gib.div_ceil(ENTRIES);
    let pointers_at = at + PAGE;
    let directories_at = pointers_at + pointers * PAGE;
    let mut entries = Vec::new();
    let mut level = |level: &mut dyn Iterator<Item = u64>| {
        entries.extend(level);
        entries.resize(entries.len().next_multiple_of(ENTRIES as usize), 0);
    };
    level(&mut (0..pointers).map(|table| (pointers_at + table * PAGE) | TABLE));
    level(&mut (0..gib).map(|table| (directories_at + table * PAGE) | TABLE));
    level(&mut (0..gib * ENTRIES).map(|page| page << 21 | LARGE_PAGE));
    entries
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT: u64 = 0x1_2000;

    /// Walks tables at `AT` as the manual says. None where an address is not mapped.
    fn walk(entries: &[u64], address: u64) -> Option<u64> {
        let mut table = AT;
        for shift in [39, 30, 21] {
            let entry = entries[((table - AT) / 8 + (address >> shift) % 512) as usize];
            table = entry & 0xf_ffff_ffff_f000;
            match (entry & 1, shift) {
                (0, _) => return None,
                (_, 21) => return Some(table + address % (1 << 21)),
                // No large pages of other sizes.
                _ => assert_eq!(entry & LARGE_PAGE, TABLE),
            }
        }
        None
    }

    #[test]
    fn the_tables_of_4_gib_have_six_pages() {
        assert_eq!(len(4), 0x6000);
        let entries = identity(AT, 4);
        assert_eq!(entries.len() * 8, 0x6000);
        assert_eq!(entries[0], AT + 0x1003);
        assert_eq!(
            entries[512..517],
            [0x1_4003, 0x1_5003, 0x1_6003, 0x1_7003, 0]
        );
        assert_eq!(entries[1024..1026], [0x83, 0x20_0083]);
        assert_eq!(entries[3071], 0xffe0_0083);
        assert_eq!(walk(&entries, 0xffff_ffff), Some(0xffff_ffff));
        assert_eq!(walk(&entries, 1 << 32), None);
    }

    proptest! {
        #[test]
        fn what_is_mapped_is_itself(gib in 1..1030u64, address in 0..1031u64 << 30) {
            let entries = identity(AT, gib);
            prop_assert_eq!(entries.len() as u64 * 8, len(gib));
            let expected = (address < gib << 30).then_some(address);
            prop_assert_eq!(walk(&entries, address), expected);
        }
    }
}
