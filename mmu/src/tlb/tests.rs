//! Tests of the TLB's limits, and of the reverse map.

use super::*;
use crate::shadow::MANY_MAPPINGS;

const FLUSHES: [fn(&mut Tlb); 2] = [|tlb| tlb.flush_all(|_| ()), Tlb::flush_non_global];

fn tlb() -> Tlb {
    Tlb::new(Memory::new(1 << 20).unwrap(), SpaceKey::Unpaged).unwrap()
}

/// Fills one slot in every host page of every table: the most memory that a space can make them take.
fn fill_everywhere(tlb: &mut Tlb) {
    for number in (0..LinearPage::COUNT as u32).step_by(512) {
        let fill = TlbEntry {
            page: LinearPage::truncated(number),
            frame: Frame::new(0),
            page_size: PageSize::KIB_4,
            global: true,
        };
        for privilege in [Privilege::Supervisor, Privilege::User] {
            for access in [Access::Read, Access::Write, Access::Fetch] {
                tlb.fill(fill, access, privilege);
            }
            assert!(tlb.set_code(fill.page, privilege, 1));
        }
    }
}

#[test]
fn a_flush_bounds_the_memory_of_the_tables() {
    let table_bytes = LinearPage::COUNT * size_of::<u64>();
    for flush in FLUSHES {
        let mut tlb = tlb();
        fill_everywhere(&mut tlb);
        assert_eq!(tlb.tables.resident(), View::ALL.len() * table_bytes);
        for directory in 0..4 {
            tlb.enter(SpaceKey::Directory(directory));
            fill_everywhere(&mut tlb);
        }
        assert!(tlb.tables.resident() > 4 * RESIDENT_LIMIT);
        flush(&mut tlb);
        assert!(tlb.tables.resident() <= RESIDENT_LIMIT);
    }
}

#[test]
fn spaces_without_slots_give_their_memory_back_first() {
    let mut tlb = tlb();
    let slot = |tlb: &Tlb| tlb.slot(View::of(Access::Read, Privilege::User), fill(0).page);
    fn fill(number: u64) -> TlbEntry {
        TlbEntry {
            page: LinearPage::truncated(5),
            frame: Frame::new(number),
            page_size: PageSize::KIB_4,
            global: false,
        }
    }
    tlb.enter(SpaceKey::Directory(1));
    tlb.fill(fill(1), Access::Read, Privilege::User);
    let filled = slot(&tlb);
    for directory in [2, 3] {
        tlb.enter(SpaceKey::Directory(directory));
        fill_everywhere(&mut tlb);
        let ended = tlb.spaces.current().space;
        tlb.enter(SpaceKey::Directory(4));
        tlb.empty_space(ended);
    }
    tlb.flush_shared();
    tlb.tables.release(PartId::Shared);
    assert!(tlb.tables.resident() > RESIDENT_LIMIT);
    tlb.flush_non_global();
    assert!(tlb.tables.resident() <= RESIDENT_LIMIT);
    tlb.enter(SpaceKey::Directory(1));
    assert_eq!(slot(&tlb), filled);
}

#[test]
fn memory_given_back_is_empty_slots() {
    let mut tlb = tlb();
    fill_everywhere(&mut tlb);
    for id in [PartId::Own(0), PartId::Shared] {
        tlb.tables.release(id);
    }
    assert_eq!(tlb.tables.resident(), 0);
    for number in 0..LinearPage::COUNT as u32 {
        for view in View::ALL {
            assert_eq!(tlb.slot(view, LinearPage::truncated(number)), 0);
        }
    }
}

#[test]
fn more_spaces_than_are_kept_displace_the_oldest() {
    let mut tlb = tlb();
    let fill = |number| TlbEntry {
        page: LinearPage::truncated(5),
        frame: Frame::new(number),
        page_size: PageSize::KIB_4,
        global: false,
    };
    let found = |tlb: &Tlb| tlb.frame(View::of(Access::Read, Privilege::User), fill(0).page);
    for number in 0..200 {
        tlb.enter(SpaceKey::Directory(number));
        assert_eq!(found(&tlb), None);
        tlb.fill(fill(number.into()), Access::Read, Privilege::User);
        tlb.enter(SpaceKey::Directory(0));
        assert_eq!(
            found(&tlb),
            Some(Frame::new(0)),
            "space 0 is never the oldest"
        );
    }
    let kept = |number: &u32| tlb.spaces.find(SpaceKey::Directory(*number)).is_some();
    let kept: Vec<u32> = (0..200).filter(kept).collect();
    assert_eq!(kept[0], 0);
    assert_eq!(kept[1..], (73..200).collect::<Vec<u32>>());
    for number in kept {
        tlb.enter(SpaceKey::Directory(number));
        assert_eq!(found(&tlb), Some(Frame::new(number.into())));
    }
}

#[test]
fn a_frame_with_many_writers_has_no_write_slot_once_they_are_dropped() {
    let frame = Frame::new(7);
    let mut tlb = tlb();
    let pages = [1, 2, 3, 0xc_0001, 4, 0xf_ffff, 5].map(LinearPage::truncated);
    for directory in 0..3 {
        tlb.enter(SpaceKey::Directory(directory));
        for page in pages {
            let fill = TlbEntry {
                page,
                frame,
                page_size: PageSize::KIB_4,
                global: true,
            };
            tlb.fill(fill, Access::Write, Privilege::User);
            tlb.fill(fill, Access::Write, Privilege::Supervisor);
        }
    }
    let write_slots = |tlb: &mut Tlb| {
        let mut filled = 0;
        for directory in 0..3 {
            tlb.enter(SpaceKey::Directory(directory));
            for page in pages {
                let slot = |view: &View| tlb.slot(*view, page) != 0;
                filled += ViewSet::WRITE.iter().filter(slot).count();
            }
        }
        filled
    };
    assert!(write_slots(&mut tlb) > 0);
    tlb.drop_write_slots(frame);
    assert_eq!(write_slots(&mut tlb), 0);
}

#[test]
fn windows_leave_the_host_mappings() {
    let _many = MANY_MAPPINGS.lock();
    let mut tlb = tlb();
    for directory in 0..6 {
        tlb.enter(SpaceKey::Directory(directory));
        for number in 0..16 << 10 {
            let fill = TlbEntry {
                page: LinearPage::truncated(2 * number),
                frame: Frame::new(0),
                page_size: PageSize::KIB_4,
                global: false,
            };
            tlb.fill(fill, Access::Read, Privilege::User);
        }
        tlb.open_window().unwrap();
    }
    assert!(std::thread::Builder::new().spawn(|| ()).is_ok());
}

/// Opens a window on the space of `directory`, with slots for `pages`, and looks at it page by page.
fn open_window(tlb: &mut Tlb, directory: u32, pages: impl Iterator<Item = (u32, u64)>) {
    tlb.enter(SpaceKey::Directory(directory));
    for (page, frame) in pages {
        let fill = TlbEntry {
            page: LinearPage::truncated(page),
            frame: Frame::new(frame),
            page_size: PageSize::KIB_4,
            global: false,
        };
        tlb.fill(fill, Access::Read, Privilege::User);
    }
    tlb.open_window().unwrap();
}

/// Whether the window of a space shows page 0, for which there is a slot.
fn shows(tlb: &mut Tlb, directory: u32) -> bool {
    tlb.enter(SpaceKey::Directory(directory));
    let before = tlb.remaps();
    assert!(tlb.map_in_window(LinearPage::truncated(0), Access::Read));
    tlb.remaps() == before
}

#[test]
fn windows_used_longest_ago_make_room_for_mappings() {
    let _many = MANY_MAPPINGS.lock();
    let mut tlb = tlb();
    // A third of the mappings of all windows each, half of them inaccessible.
    let isolated = |pages: u32| (0..pages).map(|number| (2 * number, 0));
    for directory in 0..3 {
        open_window(&mut tlb, directory, isolated(8 << 10));
    }
    assert!(shows(&mut tlb, 0));
    open_window(&mut tlb, 3, isolated(2));
    assert_eq!(
        [0, 2, 3, 1].map(|space| shows(&mut tlb, space)),
        [true, true, true, false]
    );
}

#[test]
fn pages_in_successive_frames_count_as_one_mapping() {
    let mut tlb = tlb();
    for directory in 0..2 {
        let frames = (0..256).cycle();
        open_window(&mut tlb, directory, (0..64 << 10).zip(frames));
    }
    assert!(shows(&mut tlb, 0) && shows(&mut tlb, 1));
}
