//! 4-level paging: canonical addresses, the ends of their halves, and pages that share a slot.

use mmu::{
    Access, LinearAddr, LinearFault, LinearWidth, MemFault, Memory, Mmu, NoTranslation, PAGE_SIZE,
    Paging, PagingMode, PagingModel, View,
};

use crate::guest::{D, G, P, PRIVILEGES, PS, RAM, Supervisor, U, User, W, phys};

const TOP: u64 = 0x1_0000;
/// Where structures below the top one are made, one after the other.
const STRUCTURES: u64 = 0x1_1000;
const ALL: u64 = P | W | U;

/// A machine in 4-level paging with an empty top structure.
struct Guest {
    mmu: Mmu,
    made: u64,
}

impl Guest {
    fn new() -> Self {
        let memory = Memory::for_width(RAM, LinearWidth::Bits48).unwrap();
        let mut mmu = Mmu::with_model(memory, PagingModel::X86_64).unwrap();
        mmu.set_paging(paging(TOP));
        Self { mmu, made: 0 }
    }

    /// The address of the entry for `addr` at a level. Makes the structures above it.
    fn entry(&mut self, addr: u64, level: u32) -> u64 {
        let at =
            |structure: u64, level: u32| structure + (addr >> (12 + 9 * (level - 1)) & 0x1ff) * 8;
        let mut structure = TOP;
        for upper in (level + 1..=4).rev() {
            let slot = phys(at(structure, upper));
            let mut entry: u64 = self.mmu.read_phys(slot).unwrap();
            if entry & P == 0 {
                entry = (STRUCTURES + self.made * PAGE_SIZE as u64) | ALL;
                self.made += 1;
                self.mmu.write_phys(slot, entry).unwrap();
            }
            structure = entry & 0xf_ffff_f000;
        }
        at(structure, level)
    }

    fn map(&mut self, addr: u64, entry: u64) {
        let slot = phys(self.entry(addr, 1));
        self.mmu.write_phys(slot, entry).unwrap();
    }

    fn is_cached(&self, addr: u64) -> bool {
        PRIVILEGES.into_iter().any(|who| {
            let view = View::of(Access::Read, who);
            self.mmu.tlb().slot(view, at(addr).page()) != 0
        })
    }
}

fn at(addr: u64) -> LinearAddr {
    LinearAddr::new(addr)
}

fn paging(cr3: u64) -> Paging {
    Paging {
        mode: PagingMode::FourLevel,
        pge: true,
        wp: true,
        nxe: true,
        cr3,
        ..Paging::default()
    }
}

#[test]
fn addresses_that_are_not_canonical_fault_as_such_whatever_is_cached() {
    let mut guest = Guest::new();
    for (addr, strays) in [
        (
            0x7fff_ffff_f000,
            [
                0x8000_7fff_ffff_f000,
                0xffff_7fff_ffff_f000,
                0x0001_7fff_ffff_f000,
            ],
        ),
        (
            0xffff_8000_0000_0000,
            [
                0x0000_8000_0000_0000,
                0x7fff_8000_0000_0000,
                0xfffe_8000_0000_0000,
            ],
        ),
    ] {
        guest.map(addr, 0x5000 | ALL);
        for who in PRIVILEGES {
            guest.mmu.write(at(addr), who, 7u64).unwrap();
            assert!(guest.mmu.fetch_page(at(addr), who).is_ok());
            for stray in strays.map(at) {
                let mmu = &mut guest.mmu;
                assert!(!stray.is_canonical() && at(addr).is_canonical());
                assert_eq!(mmu.read::<u64>(stray, who), Err(MemFault::NonCanonical));
                assert_eq!(mmu.write(stray, who, 0u64), Err(MemFault::NonCanonical));
                assert_eq!(mmu.fetch_page(stray, who), Err(MemFault::NonCanonical));
                assert_eq!(
                    mmu.prepare(stray, 8, Access::Write, who),
                    Err(MemFault::NonCanonical)
                );
                assert_eq!(
                    mmu.translate(stray, 8, Access::Read, who),
                    Err(LinearFault::NonCanonical)
                );
                assert_eq!(mmu.walk(stray).unwrap_err(), NoTranslation::NonCanonical);
                assert!(!mmu.tlb().load_bytes(stray, who, &mut [0; 8]));
            }
            assert_eq!(guest.mmu.read(at(addr), who), Ok(7u64));
        }
    }
}

#[test]
fn an_access_across_the_end_of_a_half_is_not_canonical_and_one_across_2_to_the_64_wraps() {
    let mut guest = Guest::new();
    guest.map(0x7fff_ffff_f000, 0x5000 | ALL);
    guest.map(0xffff_ffff_ffff_f000, 0x6000 | ALL);
    guest.map(0, 0x7000 | ALL);
    let mmu = &mut guest.mmu;
    let end = at(0x7fff_ffff_fffc);
    assert_eq!(mmu.read::<u64>(end, User), Err(MemFault::NonCanonical));
    assert_eq!(mmu.write(end, User, 1u64), Err(MemFault::NonCanonical));
    assert_eq!(mmu.read::<u32>(end, User), Ok(0));
    // Before a page fault in the first page, too.
    mmu.write_phys(phys(TOP + 0xff * 8), 0u64).unwrap();
    mmu.flush_all();
    assert_eq!(mmu.read::<u64>(end, User), Err(MemFault::NonCanonical));
    assert!(matches!(mmu.read::<u32>(end, User), Err(MemFault::Page(_))));
    assert_eq!(
        mmu.read::<u64>(at(0xffff_7fff_ffff_fffc), User),
        Err(MemFault::NonCanonical),
        "it ends in the upper half"
    );
    mmu.write(at(0xffff_ffff_ffff_fffc), User, 0x1122_3344_5566_7788u64)
        .unwrap();
    assert_eq!(mmu.read_phys(phys(0x6ffc)), Ok(0x5566_7788u32));
    assert_eq!(mmu.read_phys(phys(0x7000)), Ok(0x1122_3344u32));
}

#[test]
fn a_fault_has_all_bits_of_the_address() {
    let mut guest = Guest::new();
    for addr in [0x7fff_dead_beef, 0xffff_c900_0000_0123] {
        let Err(MemFault::Page(fault)) = guest.mmu.write(at(addr), User, 0u8) else {
            panic!("the page is absent")
        };
        assert_eq!((fault.addr, fault.code.bits()), (at(addr), 0x6));
    }
}

#[test]
fn pages_that_share_a_slot_take_turns() {
    let mut guest = Guest::new();
    // They differ in bits 40 and 46.
    let pages = [0x5555_5555_4000, 0x5455_5555_4000, 0x1455_5555_4000u64];
    for (page, frame) in pages.into_iter().zip([0x40, 0x41, 0x42u64]) {
        guest.map(page, frame << 12 | ALL);
    }
    for round in 0..3u64 {
        for page in pages {
            let value = page + round;
            guest.mmu.write(at(page + 0x18), User, value).unwrap();
            assert!(guest.is_cached(page));
            let others = pages.into_iter().filter(|other| *other != page);
            assert!(others.into_iter().all(|other| !guest.is_cached(other)));
        }
        for page in pages {
            assert_eq!(guest.mmu.read(at(page + 0x18), User), Ok(page + round));
        }
    }
}

#[test]
fn large_pages_of_both_sizes_reach_all_their_bytes() {
    let mut guest = Guest::new();
    let (gib, mib) = (0xffff_8880_0000_0000, 0xffff_ffff_8100_0000u64);
    let slot = phys(guest.entry(gib, 3));
    guest.mmu.write_phys(slot, ALL | PS | G).unwrap();
    let slot = phys(guest.entry(mib, 2));
    guest
        .mmu
        .write_phys(slot, 0x20_0000 | ALL | PS | G)
        .unwrap();
    for offset in [0x10_0000, 0x1f_fff8, 0x3f_f000, RAM - 8] {
        guest
            .mmu
            .write(at(gib + offset), Supervisor, offset)
            .unwrap();
        assert_eq!(guest.mmu.read_phys(phys(offset)), Ok(offset));
    }
    assert_eq!(
        guest.mmu.read(at(mib + 0x1f_f000), Supervisor),
        Ok(0x3f_f000u64)
    );
    assert_eq!(
        guest.mmu.read::<u64>(at(gib + RAM), Supervisor),
        Err(MemFault::Device)
    );
    let found = guest.mmu.explain(at(gib + 0x1234)).to_string();
    assert!(
        found.contains("linear ffff888000001234, paging 4-level"),
        "{found}"
    );
    assert!(found.contains("page of 1048576 KiB"), "{found}");
    // INVLPG of any address drops the page, however many slots were made of it.
    let slot = phys(guest.entry(gib, 3));
    guest.mmu.write_phys(slot, 0u64).unwrap();
    guest.mmu.invlpg(at(gib + 0x3fff_ffff));
    assert!(matches!(
        guest.mmu.read::<u64>(at(gib + 0x10_0000), Supervisor),
        Err(MemFault::Page(_))
    ));
    assert!(guest.is_cached(mib + 0x1f_f000), "another large page");
}

#[test]
fn a_store_to_an_entry_of_any_level_is_followed_in_the_lower_half() {
    const PAGE: u64 = 0x5555_5555_4000;
    for level in 1..=4 {
        let mut guest = Guest::new();
        guest.map(PAGE, 0x40_000 | ALL);
        guest.mmu.write(at(PAGE), User, 1u32).unwrap();
        assert!(guest.is_cached(PAGE));
        let slot = phys(guest.entry(PAGE, level));
        guest.mmu.write_phys(slot, 0u64).unwrap();
        assert!(!guest.is_cached(PAGE), "level {level}");
        let fault = guest.mmu.read::<u32>(at(PAGE), User);
        assert!(matches!(fault, Err(MemFault::Page(_))), "level {level}");
    }
}

#[test]
fn processes_find_their_slots_again_and_share_the_kernels() {
    const PAGE: u64 = 0x7fff_0000_1000;
    const KERNEL: u64 = 0xffff_ffff_8000_0000;
    let mut guest = Guest::new();
    guest.map(PAGE, 0x40_000 | ALL);
    guest.map(KERNEL, 0x41_000 | ALL | G | D);
    const OTHER: u64 = 0x80_000;
    let kernel: u64 = guest.mmu.read_phys(phys(TOP + 0x1ff * 8)).unwrap();
    guest
        .mmu
        .write_phys(phys(OTHER + 0x1ff * 8), kernel)
        .unwrap();
    let enter = |guest: &mut Guest, cr3| {
        guest.mmu.set_paging(paging(cr3));
        guest.mmu.flush_non_global();
    };
    for addr in [PAGE, KERNEL] {
        guest.mmu.read::<u64>(at(addr), Supervisor).unwrap();
    }
    enter(&mut guest, OTHER);
    assert!(!guest.is_cached(PAGE) && guest.is_cached(KERNEL));
    assert!(matches!(
        guest.mmu.read::<u64>(at(PAGE), Supervisor),
        Err(MemFault::Page(_))
    ));
    // The low bits are not part of the address.
    enter(&mut guest, TOP | 0xff8);
    assert!(guest.is_cached(PAGE) && guest.is_cached(KERNEL));
}

#[test]
fn a_processor_with_48_bits_has_the_older_modes_too() {
    let mut guest = Guest::new();
    let directory = 0x9_0000u64;
    guest
        .mmu
        .write_phys(phys(directory + 0x300 * 4), 0x40_0087u32)
        .unwrap();
    guest.mmu.write_phys(phys(directory), 0x87u32).unwrap();
    guest.mmu.set_paging(Paging {
        mode: PagingMode::TwoLevel,
        pse: true,
        cr3: directory,
        ..Paging::default()
    });
    let mmu = &mut guest.mmu;
    mmu.write(at(0xc000_1000), User, 5u32).unwrap();
    assert_eq!(mmu.read_phys(phys(0x40_1000)), Ok(5u32));
    // The upper half of an address is nothing.
    assert_eq!(mmu.read(at(0xffff_1234_c000_1000), User), Ok(5u32));
    assert_eq!(mmu.read(at(0xffff_1234_c000_1000), User), Ok(5u32));
    mmu.set_paging(Paging::default());
    assert_eq!(mmu.read(at(0x1_0040_1000), Supervisor), Ok(5u32));
}

#[test]
#[should_panic = "48-bit linear addresses"]
fn a_processor_with_32_bits_has_no_4_level_paging() {
    let mut mmu = Mmu::new(Memory::new(RAM).unwrap()).unwrap();
    mmu.set_paging(paging(TOP));
}
