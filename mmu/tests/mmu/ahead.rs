//! Slots that are filled before their pages are accessed: as a processor may cache translations, and no others.

use mmu::{Access, Memory, Mmu, Paging, PagingMode, RegionKind, View};

use crate::guest::{
    A, D, DIRECTORY, P, PRIVILEGES, PS, RAM, Supervisor, U, User, W, fault, linear, map, pde_at,
    phys, pte, pte_at, two_level,
};

/// The page that is accessed, and one around it.
const PAGE: u32 = 0x4000_3000;
const AROUND: u32 = 0x4000_5000;
const FRAME: u64 = 0x30_0000;
const OTHER: u64 = 0x30_1000;
const ALL: u64 = P | W | U | A | D;

/// A way to fill the slots of [`AROUND`] ahead, which the machine has mapped by now.
type Fill = fn(&mut Mmu);

/// The page beside it is accessed.
fn around(mmu: &mut Mmu) {
    mmu.read::<u32>(linear(PAGE), User).unwrap();
}

/// A program has faulted there, for lack of a translation, when it wanted to write.
fn after_fault(mmu: &mut Mmu) {
    let slot = pte_at(mmu, AROUND);
    let entry: u32 = mmu.read_phys(slot).unwrap();
    mmu.write_phys(slot, 0u32).unwrap();
    mmu.flush_non_global();
    let faulted = mmu.write(linear(AROUND), User, 0u32);
    assert_eq!(fault(faulted), (AROUND, 0b110));
    mmu.write_phys(slot, entry).unwrap();
    mmu.fill_after_fault();
}

const WAYS: [Fill; 2] = [around, after_fault];

/// The user's read, write and fetch slots that are filled for [`AROUND`].
fn filled(mmu: &Mmu) -> [bool; 3] {
    [Access::Read, Access::Write, Access::Fetch].map(|access| {
        mmu.tlb()
            .slot(View::of(access, User), linear(AROUND).page())
            != 0
    })
}

const NONE: [bool; 3] = [false; 3];
const READ: [bool; 3] = [true, false, false];
const BOTH: [bool; 3] = [true, true, false];

/// A machine that maps [`PAGE`], and [`AROUND`] by `entry`. The page table has been accessed.
fn machine(entry: u64) -> Mmu {
    let mut mmu = two_level();
    map(&mut mmu, PAGE, FRAME, P | U);
    let pde: u32 = mmu.read_phys(pde_at(PAGE)).unwrap();
    mmu.write_phys(pde_at(PAGE), pde | A as u32).unwrap();
    let slot = pte_at(&mut mmu, AROUND);
    mmu.write_phys(slot, entry as u32).unwrap();
    mmu
}

/// What is filled ahead for [`AROUND`] on the machine, in each way.
fn expect(expected: [bool; 3], prepare: impl Fn(&mut Mmu), entry: u64) {
    for fill in WAYS {
        let mut mmu = machine(entry);
        prepare(&mut mmu);
        let before = pte(&mut mmu, AROUND);
        fill(&mut mmu);
        assert_eq!(filled(&mmu), expected, "{entry:#x}");
        assert_eq!(pte(&mut mmu, AROUND), before, "A and D are as they were");
        let supervisor = View::of(Access::Read, Supervisor);
        assert_eq!(mmu.tlb().slot(supervisor, linear(AROUND).page()), 0);
    }
}

#[test]
fn the_entry_decides() {
    for (entry, expected) in [
        (OTHER | ALL, BOTH),
        (OTHER | ALL & !A, NONE),
        (OTHER | ALL & !D, READ),
        (OTHER | ALL & !P, NONE),
        (OTHER | ALL & !W, READ),
        (OTHER | ALL & !U, NONE),
    ] {
        expect(expected, |_| (), entry);
    }
}

#[test]
fn entries_above_the_page_table_count_too() {
    for (forbidden, expected) in [(W, READ), (U, NONE)] {
        let mut mmu = machine(OTHER | ALL);
        let pde: u32 = mmu.read_phys(pde_at(PAGE)).unwrap();
        mmu.write_phys(pde_at(PAGE), pde & !forbidden as u32)
            .unwrap();
        after_fault(&mut mmu);
        assert_eq!(filled(&mmu), expected);
        if forbidden == W {
            mmu.flush_all();
            around(&mut mmu);
            assert_eq!(filled(&mmu), expected);
        }
    }
}

#[test]
fn a_directory_entry_that_was_not_accessed_gives_no_slot() {
    let mut mmu = machine(OTHER | ALL);
    let slot = pde_at(AROUND);
    let pde: u32 = mmu.read_phys(slot).unwrap();
    mmu.write_phys(slot, 0u32).unwrap();
    fault(mmu.write(linear(AROUND), User, 0u32));
    mmu.write_phys(slot, pde & !A as u32).unwrap();
    mmu.fill_after_fault();
    assert_eq!(filled(&mmu), NONE);
    assert_eq!(u64::from(mmu.read_phys::<u32>(slot).unwrap()) & A, 0);
}

#[test]
fn what_the_supervisor_may_write_with_wp_clear_is_not_the_users() {
    let no_wp = |mmu: &mut Mmu| {
        mmu.set_paging(Paging {
            wp: false,
            ..*mmu.paging()
        });
    };
    expect(READ, no_wp, OTHER | ALL & !W);
}

#[test]
fn pages_kept_out_and_frames_in_use_are_left_alone() {
    let kept_out = |mmu: &mut Mmu| mmu.keep_out([linear(AROUND).page()]);
    expect(NONE, kept_out, OTHER | ALL);
    let code = |mmu: &mut Mmu| mmu.mark_code(phys(OTHER).frame());
    expect(READ, code, OTHER | ALL);
    // The page directory is in use as such.
    expect(READ, |_| (), DIRECTORY | ALL);
}

#[test]
fn what_is_no_ram_gets_no_write_slot() {
    let rom = |mmu: &mut Mmu| {
        let memory = mmu.memory();
        memory
            .add_region(phys(RAM)..phys(RAM + 0x1000), RegionKind::Rom)
            .unwrap();
        mmu.snoop();
    };
    expect(READ, rom, RAM | ALL);
    expect(NONE, |_| (), 0xa_0000 | ALL);
    expect(NONE, |_| (), (RAM + 0x1000) | ALL);
}

#[test]
fn a_large_page_fills_nothing_around() {
    let mut mmu = machine(0);
    let pde = (FRAME & !0x3f_ffff) | ALL | PS;
    mmu.write_phys(pde_at(PAGE), pde as u32).unwrap();
    around(&mut mmu);
    assert_eq!(filled(&mmu), NONE);
}

#[test]
fn pages_of_other_groups_and_shared_pages_are_left_alone() {
    let mut mmu = machine(OTHER | ALL);
    let (outside, shared) = (0x4001_0000, 0xc000_3000u32);
    map(&mut mmu, outside, OTHER, ALL);
    map(&mut mmu, shared, FRAME, ALL);
    map(&mut mmu, shared + 0x1000, OTHER, ALL);
    around(&mut mmu);
    mmu.read::<u32>(linear(shared), User).unwrap();
    for page in [outside, shared + 0x1000] {
        for privilege in PRIVILEGES {
            let view = View::of(Access::Read, privilege);
            assert_eq!(mmu.tlb().slot(view, linear(page).page()), 0);
        }
    }
    assert_eq!(filled(&mmu), BOTH);
}

#[test]
fn a_change_of_the_entry_drops_what_was_filled_ahead() {
    for fill in WAYS {
        let mut mmu = machine(OTHER | ALL);
        fill(&mut mmu);
        let slot = pte_at(&mut mmu, AROUND);
        mmu.write_phys(slot, (FRAME | ALL) as u32).unwrap();
        mmu.flush_non_global();
        assert_eq!(filled(&mmu), NONE);
    }
}

#[test]
fn a_store_to_a_page_filled_ahead_is_seen_once_it_is_code() {
    let mut mmu = machine(OTHER | ALL);
    around(&mut mmu);
    mmu.mark_code(phys(OTHER).frame());
    assert_eq!(filled(&mmu), READ);
    let epoch = mmu.code_epoch();
    mmu.write(linear(AROUND), User, 1u32).unwrap();
    assert!(mmu.code_epoch() > epoch);
}

#[test]
fn a_fault_is_followed_once_and_not_beyond_a_flush() {
    let mut mmu = machine(0);
    fault(mmu.read::<u32>(linear(AROUND), User));
    mmu.fill_after_fault();
    map(&mut mmu, AROUND, OTHER, ALL);
    mmu.fill_after_fault();
    assert_eq!(filled(&mmu), NONE);
    mmu.flush_non_global();
    let mut mmu = machine(0);
    fault(mmu.read::<u32>(linear(AROUND), User));
    map(&mut mmu, AROUND, OTHER, ALL);
    mmu.flush_all();
    mmu.fill_after_fault();
    assert_eq!(filled(&mmu), NONE);
}

#[test]
fn a_window_shows_the_page_that_faulted() {
    let mut mmu = machine(OTHER | ALL);
    mmu.tlb_mut().open_window().unwrap();
    let remaps = mmu.tlb().remaps();
    after_fault(&mut mmu);
    assert_eq!(mmu.tlb().remaps(), remaps + 1);
    assert!(
        mmu.tlb_mut()
            .map_in_window(linear(AROUND).page(), Access::Write)
    );
    assert_eq!(mmu.tlb().remaps(), remaps + 1, "it is shown already");
}

/// The low entries of a PAE guest with execute-disable.
#[test]
fn pae_entries_with_and_without_execute_disable() {
    const XD: u64 = 1 << 63;
    for (nxe, entry, expected) in [
        (true, OTHER | ALL | XD, BOTH),
        (true, OTHER | ALL, BOTH),
        (true, OTHER | ALL & !A | XD, NONE),
        (false, OTHER | ALL | XD, NONE),
        (true, OTHER | ALL | (1 << 40), NONE),
    ] {
        let mut mmu = Mmu::new(Memory::new(RAM).unwrap()).unwrap();
        let (pointers, directory, table) = (0x1_0000, 0x1_1000, 0x1_2000u64);
        for (at, value) in [
            (pointers, directory | P),
            (directory, table | P | W | U),
            (table + 3 * 8, FRAME | P | U),
            (table + 5 * 8, entry),
        ] {
            mmu.write_phys(phys(at), value).unwrap();
        }
        mmu.load_pdptes(pointers as u32).unwrap();
        mmu.set_paging(Paging {
            mode: PagingMode::Pae,
            cr3: pointers,
            nxe,
            ..Paging::default()
        });
        mmu.read::<u32>(linear(0x3000), User).unwrap();
        let slots = [Access::Read, Access::Write, Access::Fetch].map(|access| {
            mmu.tlb()
                .slot(View::of(access, User), linear(0x5000).page())
                != 0
        });
        assert_eq!(slots, expected, "{nxe} {entry:#x}");
    }
}
