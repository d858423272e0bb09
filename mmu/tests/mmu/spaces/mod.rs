//! Address spaces: a switch keeps their slots, and own slots follow the page tables with the next flush.

mod code_slots;

use std::collections::BTreeSet;

use mmu::{Access, Attribute, Frame, GuestPhys, Memory, Mmu, Paging, PagingMode, Privilege, View};
use vm_memory::{Bytes, GuestAddress};

use crate::guest::{
    A, D, DIRECTORY, P, PRIVILEGES, PS, RAM, Supervisor, U, User, W, fault, linear, map, pde_at,
    phys, pte_at, read32, two_level, unpaged,
};

const PAGE: u32 = 0x4000_3000;
/// A page that the same page table maps as [`PAGE`].
const NEIGHBOUR: u32 = 0x4000_5000;
const SHARED: u32 = 0xc000_3000;
const OLD: u64 = 0x30_0000;
const NEW: u64 = 0x30_1000;

/// A directory of its own for each number below 1024, all empty but for the first.
fn directory(number: u64) -> u64 {
    if number == 0 {
        DIRECTORY
    } else {
        0x40_0000 + number * 0x1000
    }
}

/// Enters the space of `directory`: MOV to CR3.
fn enter(mmu: &mut Mmu, directory: u64) {
    mmu.set_paging(Paging {
        cr3: directory,
        ..*mmu.paging()
    });
    mmu.flush_non_global();
}

/// A machine whose `count` first directories have the entry for [`PAGE`] in common, where [`OLD`] is mapped. The pages hold
/// their addresses.
fn sharing_a_table(count: u64) -> Mmu {
    let mut mmu = two_level();
    for frame in [OLD, NEW] {
        mmu.write_phys(phys(frame), frame as u32).unwrap();
    }
    map(&mut mmu, PAGE, OLD, P | W | U);
    let pde: u32 = mmu.read_phys(pde_at(PAGE)).unwrap();
    for number in 1..count {
        let slot = directory(number) + (pde_at(PAGE).get() - DIRECTORY);
        mmu.write_phys(phys(slot), pde).unwrap();
    }
    mmu
}

fn is_cached(mmu: &Mmu, page: u32) -> bool {
    let view = View::of(Access::Read, Supervisor);
    mmu.tlb().frame(view, linear(page).page()).is_some()
}

fn table(mmu: &mut Mmu) -> Frame {
    pte_at(mmu, PAGE).frame()
}

#[test]
fn a_space_finds_its_own_slots_again() {
    let mut mmu = sharing_a_table(2);
    map(&mut mmu, SHARED, OLD, P | W | U);
    read32(&mut mmu, PAGE);
    read32(&mut mmu, SHARED);
    enter(&mut mmu, directory(1));
    assert!(!is_cached(&mmu, PAGE) && !is_cached(&mmu, SHARED));
    enter(&mut mmu, directory(0));
    assert!(is_cached(&mmu, PAGE));
    assert!(!is_cached(&mmu, SHARED), "not global");
    mmu.invlpg(linear(PAGE));
    assert!(is_cached(&mmu, PAGE));
    mmu.flush_all();
    assert!(!is_cached(&mmu, PAGE));
}

#[test]
fn low_bits_of_cr3_do_not_tell_spaces_apart() {
    let mut mmu = sharing_a_table(1);
    read32(&mut mmu, PAGE);
    enter(&mut mmu, directory(0) | 0x18);
    assert!(is_cached(&mmu, PAGE));
}

#[test]
fn a_change_of_the_rules_drops_the_slots_of_all_spaces() {
    let mut mmu = sharing_a_table(2);
    for number in [0, 1] {
        enter(&mut mmu, directory(number));
        read32(&mut mmu, PAGE);
    }
    mmu.set_paging(Paging {
        wp: false,
        ..*mmu.paging()
    });
    for number in [0, 1] {
        assert!(!is_cached(&mmu, PAGE));
        enter(&mut mmu, directory(number));
    }
}

/// Ways to store an entry.
type Store = fn(&mut Mmu, GuestPhys, u32);

/// Address at which the page tables are mapped in [`every_store_to_an_entry_counts_with_the_next_flush`].
const WINDOW: u32 = 0x5000_0000;

const STORES: [Store; 6] = [
    |mmu, addr, value| mmu.write_phys(addr, value).unwrap(),
    |mmu, addr, value| {
        mmu.memory().store(addr, value).unwrap();
        mmu.snoop();
    },
    |mmu, addr, value| {
        mmu.memory().write(addr, &value.to_le_bytes()).unwrap();
        mmu.snoop();
    },
    |mmu, addr, value| {
        let bytes = value.to_le_bytes();
        let to = GuestAddress(addr.get());
        mmu.memory().guest_ram().write_slice(&bytes, to).unwrap();
        mmu.snoop();
    },
    |mmu, addr, value| {
        let at = linear(WINDOW | addr.offset());
        mmu.write(at, Supervisor, value).unwrap();
    },
    |mmu, addr, value| {
        let at = linear(WINDOW | addr.offset());
        mmu.prepare(at, 4, Access::Write, User).unwrap();
        if !mmu.tlb_mut().fill_run(at, User, value, 1) {
            mmu.write(at, User, value).unwrap();
        }
    },
];

#[test]
fn every_store_to_an_entry_counts_with_the_next_flush() {
    for store in STORES {
        for number in [0, 1] {
            let mut mmu = sharing_a_table(2);
            let entry = pte_at(&mut mmu, PAGE);
            map(&mut mmu, WINDOW, entry.frame().base().get(), P | W | U);
            // The window is open for stores before the table comes into use.
            for privilege in PRIVILEGES {
                mmu.write(linear(WINDOW + 0xff8), privilege, 0u32).unwrap();
            }
            for number in [1, 0, 1] {
                enter(&mut mmu, directory(number));
                assert_eq!(read32(&mut mmu, PAGE), OLD as u32);
                mmu.write(linear(PAGE), User, OLD as u32).unwrap();
                mmu.fetch_page(linear(PAGE), User).unwrap();
            }
            enter(&mut mmu, directory(0));
            store(&mut mmu, entry, (NEW | P | W | U) as u32);
            enter(&mut mmu, directory(number));
            assert_eq!(read32(&mut mmu, PAGE), NEW as u32);
            enter(&mut mmu, directory(0));
            store(&mut mmu, entry, 0);
            enter(&mut mmu, directory(number));
            assert_eq!(fault(mmu.read::<u32>(linear(PAGE), User)), (PAGE, 0b100));
        }
    }
}

#[test]
fn a_store_drops_what_its_entry_maps_and_no_more() {
    let mut mmu = sharing_a_table(1);
    for page in [NEIGHBOUR, PAGE + 0x40_0000] {
        map(&mut mmu, page, OLD, P | W | U);
    }
    let fill = |mmu: &mut Mmu| {
        for page in [PAGE, NEIGHBOUR, PAGE + 0x40_0000] {
            read32(mmu, page);
        }
    };
    let cached = |mmu: &Mmu| [PAGE, NEIGHBOUR, PAGE + 0x40_0000].map(|page| is_cached(mmu, page));
    fill(&mut mmu);
    map(&mut mmu, PAGE, NEW, P);
    assert_eq!(cached(&mmu), [false, true, true]);
    fill(&mut mmu);
    let pde: u32 = mmu.read_phys(pde_at(PAGE)).unwrap();
    mmu.write_phys(pde_at(PAGE), pde).unwrap();
    assert_eq!(cached(&mmu), [false, false, true]);
}

#[test]
fn accessed_and_dirty_bits_set_by_the_walker_drop_nothing() {
    let mut mmu = sharing_a_table(1);
    map(&mut mmu, NEIGHBOUR, NEW, P | W | U);
    read32(&mut mmu, PAGE);
    let entry = pte_at(&mut mmu, NEIGHBOUR);
    for _ in 0..20 {
        mmu.write(linear(NEIGHBOUR), Supervisor, 1u32).unwrap();
        assert_eq!(mmu.read_phys::<u32>(entry).unwrap() as u64 & (A | D), A | D);
        assert!(is_cached(&mmu, PAGE));
    }
    assert!(mmu.memory().has(entry.frame(), Attribute::PageTable));
}

#[test]
fn a_page_table_that_is_written_is_unsync_until_it_stays_unchanged() {
    let mut mmu = sharing_a_table(1);
    let frame = table(&mut mmu);
    let other = pte_at(&mut mmu, NEIGHBOUR);
    let is_write_tracked = |mmu: &Mmu| mmu.memory().has(frame, Attribute::PageTable);
    assert!(!is_write_tracked(&mmu));
    for _ in 0..2 {
        read32(&mut mmu, PAGE);
        assert!(is_write_tracked(&mmu));
        for value in 0..100u32 {
            mmu.write_phys(other, value << 12).unwrap();
            assert!(!is_write_tracked(&mmu) && is_cached(&mmu, PAGE));
        }
        mmu.flush_non_global();
        assert!(!is_write_tracked(&mmu) && is_cached(&mmu, PAGE));
        for _ in 0..2 {
            assert!(!is_write_tracked(&mmu));
            mmu.flush_non_global();
        }
        assert!(is_write_tracked(&mmu) && is_cached(&mmu, PAGE));
    }
    mmu.flush_all();
    assert!(!is_write_tracked(&mmu));
}

#[test]
fn a_directory_that_is_written_in_bulk_is_not_tracked_until_it_is_used_again() {
    let mut mmu = sharing_a_table(1);
    let frame = pde_at(PAGE).frame();
    let other = pde_at(PAGE + 0x40_0000);
    let is_write_tracked = |mmu: &Mmu| mmu.memory().has(frame, Attribute::PageTable);
    for _ in 0..2 {
        read32(&mut mmu, PAGE);
        assert!(is_write_tracked(&mmu));
        for _ in 0..8 {
            mmu.write_phys(other, 0u32).unwrap();
            assert!(is_write_tracked(&mmu) && is_cached(&mmu, PAGE));
        }
        mmu.write_phys(other, 0u32).unwrap();
        assert!(!is_write_tracked(&mmu) && !is_cached(&mmu, PAGE));
    }
}

/// Ways to flush the translation of [`PAGE`].
const FLUSHES: [fn(&mut Mmu); 4] = [
    |mmu| mmu.invlpg(linear(PAGE + 0xfff)),
    |mmu| mmu.flush_non_global(),
    |mmu| {
        enter(mmu, directory(1));
        enter(mmu, directory(0));
    },
    |mmu| mmu.flush_all(),
];

#[test]
fn a_flush_catches_up_with_all_stores() {
    for flush in FLUSHES {
        let mut mmu = sharing_a_table(2);
        read32(&mut mmu, PAGE);
        // Of two stores in a row the second goes unseen.
        for new in [0, NEW, OLD, NEW] {
            map(&mut mmu, PAGE, OLD, P | W | U);
            map(&mut mmu, PAGE, new, if new == 0 { 0 } else { P | W | U });
            flush(&mut mmu);
            match new {
                0 => assert_eq!(fault(mmu.read::<u32>(linear(PAGE), User)), (PAGE, 0b100)),
                new => assert_eq!(read32(&mut mmu, PAGE), new as u32),
            }
        }
    }
}

#[test]
fn a_page_fault_drops_the_slots_of_unsync_tables() {
    let mut mmu = sharing_a_table(1);
    read32(&mut mmu, PAGE);
    map(&mut mmu, PAGE, OLD, P);
    read32(&mut mmu, PAGE);
    map(&mut mmu, PAGE, NEW, P);
    assert_eq!(
        fault(mmu.write(linear(PAGE), User, 0u32)),
        (PAGE, 0b111),
        "no user page"
    );
    assert_eq!(read32(&mut mmu, PAGE), NEW as u32);
}

/// A slot made while the table is unsync comes from an entry that is in no copy until the walk notes it.
#[test]
fn an_entry_that_changes_back_leaves_no_slot_of_what_it_was_between() {
    let mut mmu = sharing_a_table(1);
    read32(&mut mmu, PAGE);
    map(&mut mmu, PAGE, OLD, P | W | U | A | D);
    mmu.fetch_page(linear(PAGE), User).unwrap();
    map(&mut mmu, PAGE, NEW, P | W | U | A | D);
    // The read slot is new, the fetch slot old.
    assert_eq!(read32(&mut mmu, PAGE), NEW as u32);
    let fetched = mmu
        .tlb()
        .frame(View::of(Access::Fetch, User), linear(PAGE).page());
    assert_eq!(fetched, None);
    map(&mut mmu, PAGE, OLD, P | W | U | A | D);
    mmu.flush_non_global();
    assert_eq!(read32(&mut mmu, PAGE), OLD as u32);
}

#[test]
fn the_count_of_unsync_tables_is_no_limit() {
    const TABLES: u32 = 300;
    let nth = |index: u32| 0x1000_3000 + (index << 22);
    let mut mmu = two_level();
    for index in 0..TABLES {
        map(&mut mmu, nth(index), OLD, P | W);
        read32(&mut mmu, nth(index));
        map(&mut mmu, nth(index), OLD, P | W);
        read32(&mut mmu, nth(index));
        map(&mut mmu, nth(index), NEW, P | W);
    }
    mmu.flush_non_global();
    for index in 0..TABLES {
        let frame = mmu.walk(linear(nth(index))).unwrap().phys.frame();
        let cached = mmu.tlb().frame(
            View::of(Access::Read, Supervisor),
            linear(nth(index)).page(),
        );
        assert!(cached.is_none_or(|cached| cached == frame), "{index}");
    }
}

#[test]
fn entries_that_cannot_be_tracked_are_walked_each_time() {
    let rom = phys(0xf_0000);
    let entry = GuestPhys::new(rom.get() + u64::from(PAGE >> 12 & 0x3ff) * 4);
    let mut mmu = two_level();
    for frame in [OLD, NEW] {
        mmu.write_phys(phys(frame), frame as u32).unwrap();
    }
    let pde = (rom.get() | P | W | U) as u32;
    for page in [PAGE, SHARED] {
        mmu.write_phys(pde_at(page), pde).unwrap();
    }
    for frame in [OLD, NEW] {
        let value = (frame | P | A | D) as u32;
        mmu.memory().write(entry, &value.to_le_bytes()).unwrap();
        mmu.snoop();
        assert_eq!(read32(&mut mmu, PAGE), frame as u32);
        assert!(!is_cached(&mmu, PAGE));
        assert!(!mmu.memory().has(rom.frame(), Attribute::PageTable));
    }
    read32(&mut mmu, SHARED);
    assert!(is_cached(&mmu, SHARED));
}

#[test]
fn a_directory_outside_memory_is_harmless() {
    for cr3 in [0xa_0000, RAM as u32, 0xffff_f000] {
        let mut mmu = sharing_a_table(1);
        enter(&mut mmu, cr3.into());
        // All ones without PSE: a table at the end of the address space, and there a page.
        mmu.set_paging(Paging {
            pse: false,
            ..*mmu.paging()
        });
        assert_eq!(
            mmu.read::<u32>(linear(PAGE), User),
            Err(mmu::MemFault::Device)
        );
        assert!(!is_cached(&mmu, PAGE));
    }
}

/// A page with whose entry the directory maps itself.
const ITSELF: u32 = 0x7fc0_0000;

#[test]
fn a_directory_that_maps_itself_is_a_page_table_too() {
    let mut mmu = sharing_a_table(1);
    mmu.write_phys(pde_at(ITSELF), (DIRECTORY | P | W | U) as u32)
        .unwrap();
    // The addresses of the directory seen as a page, and of the page table of PAGE.
    let seen = ITSELF | ITSELF >> 10;
    let seen_table = ITSELF | PAGE >> 10 & 0x3f_f000;
    mmu.write(linear(seen + 0xff8), Supervisor, 0u32).unwrap();
    assert_eq!(read32(&mut mmu, PAGE), OLD as u32);
    let at = linear(seen_table + (PAGE >> 12 & 0x3ff) * 4);
    mmu.write(at, Supervisor, (NEW | P | W) as u32).unwrap();
    assert_eq!(read32(&mut mmu, PAGE), NEW as u32);
    assert!(is_cached(&mmu, seen_table));
    let at = linear(seen + (PAGE >> 22) * 4);
    mmu.write(at, Supervisor, 0u32).unwrap();
    assert!(!is_cached(&mmu, PAGE) && !is_cached(&mmu, seen_table));
    assert_eq!(fault(mmu.read::<u32>(linear(PAGE), User)), (PAGE, 0b100));
    assert_eq!(
        fault(mmu.read::<u32>(linear(seen_table), Supervisor)),
        (seen_table, 0)
    );
}

#[test]
fn a_store_that_unmaps_its_own_page_leaves_no_slot() {
    let mut mmu = two_level();
    let entry = pte_at(&mut mmu, PAGE);
    map(&mut mmu, PAGE, entry.frame().base().get(), P | W | D);
    let at = linear(PAGE | entry.offset());
    mmu.write(at, Supervisor, 0u32).unwrap();
    assert!(!is_cached(&mmu, PAGE));
    assert_eq!(fault(mmu.read::<u32>(at, Supervisor)).1, 0);
}

#[test]
fn the_count_of_uses_of_a_table_is_no_limit() {
    const ENTRIES: u32 = 40;
    let nth = |index: u32| linear(0x1000_3000 + (index << 22));
    let mut mmu = sharing_a_table(1);
    let pde: u32 = mmu.read_phys(pde_at(PAGE)).unwrap();
    for index in 0..ENTRIES {
        let slot = pde_at(nth(index).get() as u32);
        mmu.write_phys(slot, pde).unwrap();
    }
    for (old, new) in [(OLD, NEW), (NEW, OLD)] {
        for index in 0..ENTRIES {
            assert_eq!(mmu.read(nth(index), User), Ok(old as u32));
        }
        map(&mut mmu, PAGE, new, P | W | U);
        mmu.flush_non_global();
        for index in 0..ENTRIES {
            assert_eq!(mmu.read(nth(index), User), Ok(new as u32));
        }
    }
}

#[test]
fn the_count_of_spaces_is_no_limit() {
    const SPACES: u64 = 150;
    let mut mmu = sharing_a_table(SPACES);
    for (old, new) in [(OLD, NEW), (NEW, OLD)] {
        for number in 0..SPACES {
            enter(&mut mmu, directory(number));
            assert_eq!(read32(&mut mmu, PAGE), old as u32);
        }
        map(&mut mmu, PAGE, new, P | W | U);
        for number in 0..SPACES {
            enter(&mut mmu, directory(number));
            assert_eq!(read32(&mut mmu, PAGE), new as u32);
        }
    }
}

#[test]
fn an_ended_process_leaves_its_tables_to_the_next() {
    const PROCESSES: u64 = 200;
    let mut mmu = sharing_a_table(1);
    let parent = read32(&mut mmu, PAGE);
    let mut indexes = BTreeSet::from([mmu.tlb().space().index()]);
    for number in 1..=PROCESSES {
        let slot = directory(number) + (pde_at(PAGE).get() - DIRECTORY);
        mmu.write_phys(phys(slot), (P | W | PS) as u32).unwrap();
        enter(&mut mmu, directory(number));
        read32(&mut mmu, PAGE);
        indexes.insert(mmu.tlb().space().index());
        // It ends: its parent clears the directory.
        enter(&mut mmu, directory(0));
        mmu.write_phys(phys(slot), 0u32).unwrap();
        assert!(is_cached(&mmu, PAGE));
        assert_eq!(read32(&mut mmu, PAGE), parent);
    }
    assert!(indexes.len() <= 3, "{indexes:?}");
}

#[test]
fn a_displaced_space_leaves_nothing_behind_that_a_store_drops() {
    const KEPT: u64 = 128;
    let mut mmu = sharing_a_table(1);
    let entry = pte_at(&mut mmu, PAGE);
    read32(&mut mmu, PAGE);
    for number in 1..=KEPT {
        let slot = directory(number) + (pde_at(PAGE).get() - DIRECTORY);
        mmu.write_phys(phys(slot), (P | W | PS) as u32).unwrap();
        enter(&mut mmu, directory(number));
        read32(&mut mmu, PAGE);
    }
    mmu.write_phys(entry, 0u32).unwrap();
    assert!(!mmu.memory().has(entry.frame(), Attribute::PageTable));
    for number in 1..=KEPT {
        enter(&mut mmu, directory(number));
        assert!(is_cached(&mmu, PAGE), "{number}");
    }
}

#[test]
fn an_entry_that_changes_for_writes_only_keeps_the_slots_of_reads() {
    const SOFT: u64 = 0x200;
    const ALL: u64 = P | W | U | A | D;
    for (before, after, reads, writes) in [
        (OLD | ALL, OLD | ALL & !W, true, false),
        (OLD | ALL, OLD | ALL & !(W | D) | SOFT, true, false),
        (OLD | ALL, OLD | ALL & !D, true, false),
        (OLD | ALL, OLD | ALL | SOFT, true, false),
        (OLD | ALL & !W, OLD | ALL, true, false),
        (OLD | ALL, OLD | ALL & !(W | A), false, false),
        (OLD | ALL, OLD | ALL & !(W | P), false, false),
        (OLD | ALL, OLD | ALL & !(W | U), false, false),
        (OLD | ALL, NEW | ALL & !W, false, false),
        (OLD | ALL, OLD | ALL, true, true),
    ] {
        let mut mmu = sharing_a_table(1);
        let pages = [PAGE, NEIGHBOUR];
        for page in pages {
            map(&mut mmu, page, before, 0);
        }
        for page in pages {
            for privilege in PRIVILEGES {
                mmu.read::<u32>(linear(page), privilege).unwrap();
                mmu.fetch_page(linear(page), privilege).unwrap();
            }
        }
        // A store makes the page table unsync.
        map(&mut mmu, PAGE + 0x10_0000, OLD, P | W | U);
        for page in pages {
            map(&mut mmu, page, after, 0);
        }
        mmu.flush_non_global();
        let slots = |access| {
            let view = |privilege| View::of(access, privilege);
            let slot = |page, privilege| mmu.tlb().slot(view(privilege), linear(page).page());
            pages.map(|page| PRIVILEGES.map(|privilege| slot(page, privilege) != 0))
        };
        assert_eq!(
            slots(Access::Read),
            [[reads; 2]; 2],
            "{before:#x} {after:#x}"
        );
        assert_eq!(
            slots(Access::Fetch),
            [[reads; 2]; 2],
            "{before:#x} {after:#x}"
        );
        assert_eq!(
            slots(Access::Write),
            [[writes; 2]; 2],
            "{before:#x} {after:#x}"
        );
    }
}

#[test]
fn a_large_page_goes_with_its_entry() {
    let mut mmu = two_level();
    let large = 0x1000_0000;
    let (old, new) = (0x40_0000u64, 0x80_0000u64);
    let offsets = [0, 0x1000, 0x20_0000, 0x3f_f000];
    for base in [old, new] {
        for offset in offsets {
            let at = phys(base + u64::from(offset));
            mmu.write_phys(at, base as u32).unwrap();
        }
    }
    for base in [old, new] {
        mmu.write_phys(pde_at(large), (base | P | W | PS) as u32)
            .unwrap();
        for offset in offsets {
            assert_eq!(read32(&mut mmu, large + offset), base as u32);
        }
    }
}

#[test]
fn a_frame_with_code_and_a_page_table_is_write_tracked_for_both() {
    let mut mmu = sharing_a_table(1);
    let entry = pte_at(&mut mmu, PAGE);
    map(&mut mmu, WINDOW, entry.frame().base().get(), P | W);
    read32(&mut mmu, PAGE);
    mmu.write(linear(WINDOW), Supervisor, 0u32).unwrap();
    mmu.mark_code(entry.frame());
    let epoch = mmu.code_epoch();
    let at = linear(WINDOW | entry.offset());
    mmu.write(at, Supervisor, (NEW | P) as u32).unwrap();
    assert_eq!(mmu.code_epoch(), epoch + 1);
    mmu.invlpg(linear(PAGE));
    assert_eq!(read32(&mut mmu, PAGE), NEW as u32);
    mmu.write(at, Supervisor, (OLD | P) as u32).unwrap();
    mmu.invlpg(linear(PAGE));
    assert_eq!(read32(&mut mmu, PAGE), OLD as u32);
}

#[test]
fn pointer_registers_make_the_space() {
    const POINTERS: u32 = 0x1000;
    let mut mmu = unpaged();
    let pointers = |table: u64, directory: u64| {
        move |mmu: &mut Mmu| {
            let slot = phys(table + 8);
            mmu.write_phys(slot, directory | P).unwrap();
        }
    };
    // Entry 0 of each directory is a page of 2 MiB.
    mmu.write_phys(phys(0x3000), 0x20_0083u64).unwrap();
    mmu.write_phys(phys(0x4000), 0x40_0083u64).unwrap();
    mmu.write_phys(phys(0x20_3000), 2u32).unwrap();
    mmu.write_phys(phys(0x40_3000), 4u32).unwrap();
    pointers(POINTERS.into(), 0x3000)(&mut mmu);
    pointers(0x1020, 0x4000)(&mut mmu);
    pointers(0x1040, 0x3000)(&mut mmu);
    let enter = |mmu: &mut Mmu, cr3: u32| {
        mmu.load_pdptes(cr3).unwrap();
        mmu.set_paging(Paging {
            mode: PagingMode::Pae,
            cr3: cr3.into(),
            ..Paging::default()
        });
        mmu.flush_non_global();
    };
    enter(&mut mmu, POINTERS);
    assert_eq!(read32(&mut mmu, PAGE & 0x401f_ffff), 2);
    enter(&mut mmu, 0x1020);
    assert!(!is_cached(&mmu, PAGE));
    assert_eq!(read32(&mut mmu, PAGE), 4);
    enter(&mut mmu, 0x1040);
    assert!(is_cached(&mmu, PAGE), "other table, same pointers");
    assert_eq!(read32(&mut mmu, PAGE), 2);
    pointers(0x1040, 0x4000)(&mut mmu);
    assert_eq!(read32(&mut mmu, PAGE), 2, "the registers count");
    enter(&mut mmu, 0x1040);
    assert_eq!(read32(&mut mmu, PAGE), 4);
}

#[test]
fn page_tables_at_the_end_of_much_memory_are_tracked() {
    const MUCH: u64 = 3 << 30;
    let mut mmu = Mmu::new(Memory::new(MUCH).unwrap()).unwrap();
    let (directory, table) = (MUCH - 0x1000, MUCH - 0x2000);
    let entry = phys(table + u64::from(PAGE >> 12 & 0x3ff) * 4);
    mmu.write_phys(
        phys(directory + u64::from(PAGE >> 22) * 4),
        (table | P | W) as u32,
    )
    .unwrap();
    mmu.set_paging(Paging {
        mode: PagingMode::TwoLevel,
        cr3: directory,
        ..Paging::default()
    });
    for frame in [MUCH - 0x3000, OLD] {
        mmu.write_phys(phys(frame), frame as u32).unwrap();
        mmu.write_phys(entry, (frame | P) as u32).unwrap();
        assert_eq!(read32(&mut mmu, PAGE), frame as u32);
        assert!(is_cached(&mmu, PAGE));
    }
}
