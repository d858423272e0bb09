//! Translations that the TLB keeps, and those that flushes drop.

use mmu::{Access, Frame, MemFault, Mmu, Paging, Privilege, View};

use crate::guest::{
    A, D, DIRECTORY, G, P, PRIVILEGES, PS, Supervisor, U, User, W, fault, linear, map, pde_at,
    phys, pte, read32, two_level,
};

/// A page whose translations are kept until the guest flushes them.
const PAGE: u32 = 0xc000_3000;
const OLD: u64 = 0x30_0000;
const NEW: u64 = 0x30_1000;
const OLD_VALUE: u32 = 0x01d0_01d0;
const NEW_VALUE: u32 = 0x2e11_2e11;

/// A page whose translations follow the page tables.
const OWN: u32 = 0x4000_3000;

fn slot(mmu: &Mmu, view: View, page: u32) -> u64 {
    let table = mmu.tlb().base(view);
    // SAFETY: the table has a slot for each of the 2^20 linear pages.
    let read = unsafe { table.add(page as usize >> 12).read() };
    assert_eq!(read, mmu.tlb().slot(view, linear(page).page()));
    read
}

/// A machine with [`PAGE`] mapped to [`OLD`], read once, and then mapped to [`NEW`] with no flush.
fn remapped(flags: u64) -> Mmu {
    let mut mmu = two_level();
    mmu.write_phys(phys(OLD), OLD_VALUE).unwrap();
    mmu.write_phys(phys(NEW), NEW_VALUE).unwrap();
    map(&mut mmu, PAGE, OLD, flags);
    assert_eq!(read32(&mut mmu, PAGE), OLD_VALUE);
    map(&mut mmu, PAGE, NEW, flags);
    mmu
}

#[test]
fn a_translation_is_kept_until_invlpg() {
    let mut mmu = remapped(P | W);
    assert_eq!(read32(&mut mmu, PAGE), OLD_VALUE);
    mmu.invlpg(linear(PAGE ^ 0x1000));
    assert_eq!(read32(&mut mmu, PAGE), OLD_VALUE, "invlpg of another page");
    mmu.invlpg(linear(PAGE + 0xfff));
    assert_eq!(read32(&mut mmu, PAGE), NEW_VALUE);
}

#[test]
fn flushes_respect_the_global_bit() {
    for (flags, survives) in [(P, false), (P | G, true)] {
        let mut mmu = remapped(flags);
        mmu.flush_non_global();
        assert_eq!(
            read32(&mut mmu, PAGE),
            if survives { OLD_VALUE } else { NEW_VALUE }
        );
        let mut mmu = remapped(flags);
        mmu.flush_all();
        assert_eq!(read32(&mut mmu, PAGE), NEW_VALUE);
        let mut mmu = remapped(flags);
        mmu.invlpg(linear(PAGE));
        assert_eq!(read32(&mut mmu, PAGE), NEW_VALUE);
    }
}

#[test]
fn the_global_bit_needs_pge() {
    let mut mmu = remapped(P | G);
    mmu.set_paging(Paging {
        pge: false,
        ..*mmu.paging()
    });
    map(&mut mmu, PAGE, OLD, P | G);
    assert_eq!(read32(&mut mmu, PAGE), OLD_VALUE);
    map(&mut mmu, PAGE, NEW, P | G);
    mmu.flush_non_global();
    assert_eq!(read32(&mut mmu, PAGE), NEW_VALUE);
}

#[test]
fn a_page_that_was_global_is_flushed_after_it_became_local() {
    let mut mmu = remapped(P | G);
    mmu.invlpg(linear(PAGE));
    map(&mut mmu, PAGE, OLD, P);
    assert_eq!(read32(&mut mmu, PAGE), OLD_VALUE);
    map(&mut mmu, PAGE, NEW, P);
    mmu.flush_non_global();
    assert_eq!(read32(&mut mmu, PAGE), NEW_VALUE);
}

#[test]
fn invlpg_drops_every_piece_of_a_large_page() {
    let mut mmu = two_level();
    let (old, new) = (0x40_0000, 0x80_0000);
    let offsets = [0, 0x1000, 0x20_0000, 0x3f_fffc];
    for offset in offsets {
        mmu.write_phys(phys(old + u64::from(offset)), OLD_VALUE)
            .unwrap();
        mmu.write_phys(phys(new + u64::from(offset)), NEW_VALUE)
            .unwrap();
    }
    let large = 0xc040_0000;
    mmu.write_phys(pde_at(large), (old | P | W | PS | G) as u32)
        .unwrap();
    for offset in offsets {
        assert_eq!(read32(&mut mmu, large + offset), OLD_VALUE);
        mmu.write(linear(large + offset), Supervisor, OLD_VALUE)
            .unwrap();
        mmu.fetch_page(linear(large + offset), Supervisor).unwrap();
    }
    mmu.write_phys(pde_at(large), (new | P | W | PS | G) as u32)
        .unwrap();
    assert_eq!(read32(&mut mmu, large), OLD_VALUE);
    mmu.invlpg(linear(large + 0x12_3456));
    for offset in offsets {
        assert_eq!(read32(&mut mmu, large + offset), NEW_VALUE);
        let frame = mmu.fetch_page(linear(large + offset), Supervisor).unwrap();
        assert_eq!(frame, phys(new + u64::from(offset)).frame());
        mmu.write(linear(large + offset), Supervisor, 0u32).unwrap();
        assert_eq!(mmu.read_phys::<u32>(phys(new + u64::from(offset))), Ok(0));
    }
}

#[test]
fn the_first_write_to_a_clean_page_sets_the_dirty_bit() {
    let mut mmu = two_level();
    map(&mut mmu, PAGE, OLD, P | W);
    read32(&mut mmu, PAGE);
    assert_eq!(pte(&mut mmu, PAGE) & (A | D), A);
    mmu.write(linear(PAGE), Supervisor, 1u8).unwrap();
    assert_eq!(pte(&mut mmu, PAGE) & (A | D), A | D);
}

#[test]
fn an_access_at_one_privilege_does_not_open_the_page_to_the_other() {
    let mut mmu = two_level();
    map(&mut mmu, PAGE, OLD, P | W);
    read32(&mut mmu, PAGE);
    mmu.write(linear(PAGE), Supervisor, 1u32).unwrap();
    assert_eq!(fault(mmu.read::<u32>(linear(PAGE), User)), (PAGE, 0b101));
    assert_eq!(fault(mmu.write(linear(PAGE), User, 1u32)), (PAGE, 0b111));
    assert_eq!(fault(mmu.fetch_page(linear(PAGE), User)), (PAGE, 0b101));
}

#[test]
fn write_protect_counts_at_once() {
    let mut mmu = two_level();
    map(&mut mmu, PAGE, OLD, P);
    mmu.set_paging(Paging {
        wp: false,
        ..*mmu.paging()
    });
    mmu.write(linear(PAGE), Supervisor, 1u32).unwrap();
    mmu.set_paging(Paging {
        wp: true,
        ..*mmu.paging()
    });
    assert_eq!(
        fault(mmu.write(linear(PAGE), Supervisor, 2u32)),
        (PAGE, 0b011)
    );
    assert_eq!(read32(&mut mmu, PAGE), 1);
}

#[test]
fn a_new_cr3_alone_flushes_nothing() {
    let mut mmu = remapped(P);
    mmu.set_paging(Paging {
        cr3: DIRECTORY + 0x1000,
        ..*mmu.paging()
    });
    assert_eq!(read32(&mut mmu, PAGE), OLD_VALUE);
    mmu.flush_non_global();
    assert_eq!(fault(mmu.read::<u32>(linear(PAGE), Supervisor)), (PAGE, 0));
}

#[test]
fn a_page_fault_drops_the_translation_of_its_page() {
    let mut mmu = remapped(P | U);
    assert_eq!(fault(mmu.write(linear(PAGE), User, 1u32)), (PAGE, 0b111));
    assert_eq!(read32(&mut mmu, PAGE), NEW_VALUE);
}

#[test]
fn a_write_to_a_remapped_page_is_read_back() {
    let mut mmu = remapped(P | W);
    assert_eq!(read32(&mut mmu, PAGE), OLD_VALUE);
    mmu.write(linear(PAGE), Supervisor, 7u32).unwrap();
    assert_eq!(
        read32(&mut mmu, PAGE),
        7,
        "write and read agree on the frame"
    );
}

/// More pages than the list of filled slots holds.
const MANY: u32 = 20_000;

#[test]
fn flushes_hold_after_more_fills_than_are_listed() {
    for base in [0x1000_0000, 0xd000_0000] {
        let nth = |page: u32| linear(base + page * 0x1000);
        for flags in [P | W | U, P | W | U | G] {
            for flush in [Mmu::flush_all, Mmu::flush_non_global] {
                let mut mmu = two_level();
                mmu.write_phys(phys(OLD), OLD_VALUE).unwrap();
                mmu.write_phys(phys(NEW), NEW_VALUE).unwrap();
                for round in [OLD, NEW] {
                    for page in 0..MANY {
                        map(&mut mmu, base + page * 0x1000, round, flags);
                    }
                    flush(&mut mmu);
                    if flags & G != 0 {
                        mmu.flush_all();
                    }
                    let expected = if round == OLD { OLD_VALUE } else { NEW_VALUE };
                    for page in 0..MANY {
                        assert_eq!(mmu.read(nth(page), User), Ok(expected));
                    }
                }
            }
        }
    }
}

#[test]
fn every_view_is_filled_by_its_own_access() {
    for page in [PAGE, OWN] {
        for privilege in PRIVILEGES {
            let mut mmu = two_level();
            map(&mut mmu, page, OLD, P | W | U);
            let slots = |mmu: &Mmu| {
                [Access::Read, Access::Write, Access::Fetch]
                    .map(|access| slot(mmu, View::of(access, privilege), page))
            };
            assert_eq!(slots(&mmu), [0; 3]);
            mmu.read::<u8>(linear(page), privilege).unwrap();
            let read = slots(&mmu)[0];
            assert_eq!(read & 0xfff, mmu::SLOT_PRESENT);
            assert_eq!(slots(&mmu), [read, 0, 0]);
            mmu.write(linear(page), privilege, 1u8).unwrap();
            assert_eq!(slots(&mmu), [read, read, 0]);
            assert_eq!(
                mmu.fetch_page(linear(page), privilege),
                Ok(Frame::new(OLD >> 12))
            );
            assert_eq!(slots(&mmu), [read; 3]);
        }
    }
}

#[test]
fn a_read_opens_a_page_for_writes_that_change_no_bit() {
    let written = |flags: u64, privilege: Privilege, wp: bool, prepare: &dyn Fn(&mut Mmu)| {
        let mut mmu = two_level();
        mmu.set_paging(Paging {
            wp,
            ..*mmu.paging()
        });
        map(&mut mmu, OWN, OLD, flags);
        prepare(&mut mmu);
        mmu.read::<u8>(linear(OWN), privilege).unwrap();
        let before = pte(&mut mmu, OWN);
        assert_eq!(before & D, flags & D, "a read sets no D");
        slot(&mmu, View::of(Access::Write, privilege), OWN) != 0
    };
    let nothing: &dyn Fn(&mut Mmu) = &|_| ();
    assert!(written(P | W | U | D, User, true, nothing));
    assert!(written(P | W | D, Supervisor, true, nothing));
    assert!(written(P | D, Supervisor, false, nothing));
    assert!(!written(P | W | U, User, true, nothing), "D is clear");
    assert!(!written(P | U | D, User, false, nothing), "read-only");
    assert!(
        !written(P | D, Supervisor, true, nothing),
        "write-protected"
    );
    let code: &dyn Fn(&mut Mmu) = &|mmu| mmu.mark_code(phys(OLD).frame());
    assert!(!written(P | W | U | D, User, true, code), "code");
}

#[test]
fn devices_are_never_cached() {
    let mut mmu = two_level();
    map(&mut mmu, PAGE, 0xa_0000, P | W);
    for _ in 0..2 {
        assert_eq!(
            mmu.read::<u8>(linear(PAGE), Supervisor),
            Err(MemFault::Device)
        );
        assert_eq!(
            mmu.write(linear(PAGE), Supervisor, 1u8),
            Err(MemFault::Device)
        );
        assert_eq!(
            mmu.fetch_page(linear(PAGE), Supervisor),
            Err(MemFault::Device)
        );
        assert_eq!(
            mmu.prepare(linear(PAGE), 1, Access::Write, Supervisor),
            Err(MemFault::Device)
        );
    }
}

#[test]
fn pages_kept_out_are_accessed_without_slots() {
    const BESIDE: u32 = OWN + 0x1000;
    let mut mmu = two_level();
    for (page, frame) in [(PAGE, OLD), (OWN, OLD), (BESIDE, NEW)] {
        map(&mut mmu, page, frame, P | W | U);
        assert_eq!(mmu.write(linear(page), User, 1_u32), Ok(()));
        assert!(
            mmu.tlb()
                .frame(View::of(Access::Write, User), linear(page).page())
                .is_some()
        );
    }
    mmu.keep_out([PAGE, OWN].map(|page| linear(page).page()));
    for (page, has_slots) in [(PAGE, false), (OWN, false), (BESIDE, true)] {
        assert_eq!(mmu.write(linear(page), User, 2_u32), Ok(()));
        assert_eq!(mmu.read(linear(page), User), Ok(2_u32));
        assert!(mmu.fetch_page(linear(page), User).is_ok());
        for (access, expected) in [
            (Access::Read, has_slots),
            (Access::Write, has_slots),
            (Access::Fetch, true),
        ] {
            let frame = mmu.tlb().frame(View::of(access, User), linear(page).page());
            assert_eq!(frame.is_some(), expected, "{page:08x} {access:?}");
        }
    }
    mmu.keep_out([]);
    assert_eq!(mmu.write(linear(PAGE), User, 3_u32), Ok(()));
    assert!(
        mmu.tlb()
            .frame(View::of(Access::Write, User), linear(PAGE).page())
            .is_some()
    );
}
