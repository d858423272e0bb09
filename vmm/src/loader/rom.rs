//! [`Rom`]: bytes that are in memory when the machine is switched on.

use std::ops::Range;

use mmu::{GuestPhys, Memory, PAGE_SIZE, RegionKind};

use super::{LoadError, layout::overlap};

/// An image at an address of guest-physical memory. Where the machine has RAM it is put into RAM, so that the guest may overwrite
/// it; everywhere else it is read-only memory. The rest of its last page, and of its first, reads as ones, like erased flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rom<'a> {
    /// Guest-physical address of the first byte.
    pub address: u32,
    /// The contents, which end at 4 GiB at most.
    pub bytes: &'a [u8],
}

impl Rom<'_> {
    /// Returns the range of guest-physical addresses.
    fn range(&self) -> Range<u64> {
        let start = u64::from(self.address);
        start..start + self.bytes.len() as u64
    }
}

/// Puts `roms` into `memory` and returns their ranges.
///
/// # Errors
/// If one is empty, does not end below 4 GiB, or overlaps another.
pub(crate) fn place(memory: &Memory, roms: &[Rom<'_>]) -> Result<Vec<Range<u64>>, LoadError> {
    let mut placed: Vec<Range<u64>> = Vec::new();
    for rom in roms {
        let (address, range) = (rom.address, rom.range());
        if range.is_empty() {
            return Err(LoadError::RomEmpty { address });
        }
        if range.end > 1 << 32 {
            let len = rom.bytes.len();
            return Err(LoadError::RomEnd { address, len });
        }
        if let Some(other) = placed.iter().find(|other| overlap(other, &range)) {
            let other = other.start as u32;
            return Err(LoadError::RomOverlap { address, other });
        }
        map(memory, &range);
        let written = memory.write(GuestPhys::new(range.start), rom.bytes);
        written.expect("its pages are memory");
        placed.push(range);
    }
    Ok(placed)
}

/// Makes read-only memory of all pages of `range` that are no memory yet.
fn map(memory: &Memory, range: &Range<u64>) {
    let page = PAGE_SIZE as u64;
    let pages = range.start / page * page..range.end.next_multiple_of(page);
    let mut start = pages.start;
    while start < pages.end {
        let run = (start..pages.end).step_by(PAGE_SIZE);
        let mut run = run.take_while(|&at| memory.region(GuestPhys::new(at)) == RegionKind::Device);
        let Some(last) = run.by_ref().last() else {
            start += page;
            continue;
        };
        let added = start..last + page;
        let addresses = GuestPhys::new(added.start)..GuestPhys::new(added.end);
        let mapped = memory.add_region(addresses, RegionKind::Rom);
        mapped.expect("no region lies there");
        for edge in [added.start, last] {
            let erased = memory.write(GuestPhys::new(edge), &[0xff; PAGE_SIZE]);
            erased.expect("it has been mapped");
        }
        start = added.end;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    const RAM: u64 = 2 << 20;

    fn memory() -> Arc<Memory> {
        Memory::new(RAM).unwrap()
    }

    fn bytes<const N: usize>(memory: &Memory, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        memory.read(GuestPhys::new(at), &mut bytes).unwrap();
        bytes
    }

    fn kind(memory: &Memory, at: u64) -> RegionKind {
        memory.region(GuestPhys::new(at))
    }

    #[test]
    fn a_rom_is_read_only_and_what_surrounds_it_is_erased() {
        let memory = memory();
        let rom = Rom {
            address: 0xffff_fff0,
            bytes: &[1; 16],
        };
        place(&memory, &[rom]).unwrap();
        assert_eq!(bytes(&memory, 0xffff_ffee), [0xff, 0xff, 1, 1]);
        assert_eq!(kind(&memory, 0xffff_f000), RegionKind::Rom);
        assert_eq!(kind(&memory, 0xffff_efff), RegionKind::Device);
        memory.store::<u8>(GuestPhys::new(0xffff_fff0), 2).unwrap();
        assert_eq!(bytes(&memory, 0xffff_fff0), [1], "a store is ignored");
    }

    #[test]
    fn an_image_in_ram_can_be_written_and_may_reach_beyond_it() {
        let memory = memory();
        let rom = Rom {
            address: RAM as u32 - 2,
            bytes: &[1, 2, 3, 4],
        };
        place(&memory, &[rom]).unwrap();
        assert_eq!(bytes(&memory, RAM - 3), [0, 1, 2, 3, 4, 0xff]);
        memory
            .store::<u16>(GuestPhys::new(RAM - 1), 0x0909)
            .unwrap();
        assert_eq!(bytes(&memory, RAM - 2), [1, 9, 3, 4], "RAM ends in between");
    }

    #[test]
    fn a_rom_below_1_mib_fills_the_hole_of_the_pc() {
        let memory = memory();
        let rom = vec![7; 0x6_0001];
        let rom = Rom {
            address: 0x9_ffff,
            bytes: &rom,
        };
        place(&memory, &[rom]).unwrap();
        for (at, expected) in [
            (0x9_f000, RegionKind::Ram),
            (0xa_0000, RegionKind::Rom),
            (0xb_f000, RegionKind::Rom),
            (0xf_f000, RegionKind::Rom),
            (0x10_0000, RegionKind::Ram),
        ] {
            assert_eq!(kind(&memory, at), expected, "{at:#x}");
        }
        assert_eq!(bytes(&memory, 0xa_0000 - 2), [0, 7, 7]);
        assert_eq!(bytes(&memory, 0xf_ffff), [7, 0]);
    }

    #[test]
    fn several_roms_may_share_a_page_but_no_byte() {
        let at = |address| Rom {
            address,
            bytes: &[5, 6],
        };
        let memory = memory();
        place(
            &memory,
            &[at(0xf000_0000), at(0xf000_0003), at(0xf000_0ffe)],
        )
        .unwrap();
        assert_eq!(bytes(&memory, 0xf000_0000), [5, 6, 0xff, 5, 6, 0xff]);
        assert_eq!(bytes(&memory, 0xf000_0ffe), [5, 6]);
        let error = place(&self::memory(), &[at(0xf000_0000), at(0xf000_0001)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ROM at 0xf0000001 overlaps the ROM at 0xf0000000"
        );
    }

    #[test]
    fn a_rom_has_bytes_and_ends_at_4_gib() {
        let error = |address, bytes| {
            place(&memory(), &[Rom { address, bytes }])
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            error(0xffff_ffff, &[0; 2]),
            "ROM at 0xffffffff: 2 bytes reach beyond 4 GiB"
        );
        assert_eq!(error(0xf000_0000, &[]), "ROM at 0xf0000000 is empty");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn roms_anywhere_are_placed_or_refused(
            roms in proptest::collection::vec(
                (prop_oneof![any::<u32>(), 0x9_0000..0x11_0000u32, 0x1f_0000..0x21_0000u32, 0xffff_0000..=u32::MAX], 0..9000usize),
                1..5,
            ),
        ) {
            let contents: Vec<_> = roms.iter().enumerate().map(|(i, &(_, len))| vec![i as u8 + 1; len]).collect();
            let roms: Vec<_> = roms
                .iter()
                .zip(&contents)
                .map(|(&(address, _), bytes)| Rom { address, bytes })
                .collect();
            let memory = memory();
            if place(&memory, &roms).is_ok() {
                for rom in roms {
                    let mut read = vec![0; rom.bytes.len()];
                    memory.read(GuestPhys::new(rom.address.into()), &mut read).unwrap();
                    prop_assert!(read == rom.bytes);
                }
            }
        }
    }
}
