//! Tests of the TLB's limits, and of the reverse map.

use super::spaces::most_spaces;
use super::*;
use crate::shadow::MANY_MAPPINGS;

const FLUSHES: [fn(&mut Tlb); 2] = [|tlb| tlb.flush_all(|_| ()), Tlb::flush_non_global];

const PAGES: u64 = LinearWidth::Bits32.slots() as u64;

fn tlb() -> Tlb {
    tlb_of(LinearWidth::Bits32)
}

fn tlb_of(width: LinearWidth) -> Tlb {
    Tlb::new(Memory::new(1 << 20).unwrap(), width, SpaceKey::Unpaged).unwrap()
}

/// Fills one slot in every host page of every table of 32-bit addresses: the most memory that a space can make them take.
fn fill_everywhere(tlb: &mut Tlb) {
    for number in (0..PAGES).step_by(512) {
        let fill = TlbEntry {
            page: LinearPage::new(number),
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
    let table_bytes = PAGES as usize * size_of::<u64>();
    for flush in FLUSHES {
        let mut tlb = tlb();
        fill_everywhere(&mut tlb);
        assert_eq!(tlb.tables.resident(), View::ALL.len() * table_bytes);
        for directory in 0..4 {
            tlb.enter(SpaceKey::Top(directory));
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
            page: LinearPage::new(5),
            frame: Frame::new(number),
            page_size: PageSize::KIB_4,
            global: false,
        }
    }
    tlb.enter(SpaceKey::Top(1));
    tlb.fill(fill(1), Access::Read, Privilege::User);
    let filled = slot(&tlb);
    for directory in [2, 3] {
        tlb.enter(SpaceKey::Top(directory));
        fill_everywhere(&mut tlb);
        let ended = tlb.spaces.current().space;
        tlb.enter(SpaceKey::Top(4));
        tlb.empty_space(ended);
    }
    tlb.flush_shared();
    tlb.tables.release(PartId::Shared);
    assert!(tlb.tables.resident() > RESIDENT_LIMIT);
    tlb.flush_non_global();
    assert!(tlb.tables.resident() <= RESIDENT_LIMIT);
    tlb.enter(SpaceKey::Top(1));
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
    for number in 0..PAGES {
        for view in View::ALL {
            assert_eq!(tlb.slot(view, LinearPage::new(number)), 0);
        }
    }
}

#[test]
fn more_spaces_than_are_kept_displace_the_oldest() {
    let mut tlb = tlb();
    let fill = |number| TlbEntry {
        page: LinearPage::new(5),
        frame: Frame::new(number),
        page_size: PageSize::KIB_4,
        global: false,
    };
    let found = |tlb: &Tlb| tlb.frame(View::of(Access::Read, Privilege::User), fill(0).page);
    for number in 0..200 {
        tlb.enter(SpaceKey::Top(number));
        assert_eq!(found(&tlb), None);
        tlb.fill(fill(number), Access::Read, Privilege::User);
        tlb.enter(SpaceKey::Top(0));
        assert_eq!(
            found(&tlb),
            Some(Frame::new(0)),
            "space 0 is never the oldest"
        );
    }
    let kept = |number: &u64| tlb.spaces.find(SpaceKey::Top(*number)).is_some();
    let kept: Vec<u64> = (0..200).filter(kept).collect();
    assert_eq!(kept[0], 0);
    assert_eq!(kept[1..], (73..200).collect::<Vec<u64>>());
    for number in kept {
        tlb.enter(SpaceKey::Top(number));
        assert_eq!(found(&tlb), Some(Frame::new(number)));
    }
}

#[test]
fn a_frame_with_many_writers_has_no_write_slot_once_they_are_dropped() {
    let frame = Frame::new(7);
    let mut tlb = tlb();
    let pages = [1, 2, 3, 0xc_0001, 4, 0xf_ffff, 5].map(LinearPage::new);
    for directory in 0..3 {
        tlb.enter(SpaceKey::Top(directory));
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
            tlb.enter(SpaceKey::Top(directory));
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
        tlb.enter(SpaceKey::Top(directory));
        for number in 0..16 << 10 {
            let fill = TlbEntry {
                page: LinearPage::new(2 * number),
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
fn open_window(tlb: &mut Tlb, directory: u64, pages: impl Iterator<Item = (u64, u64)>) {
    tlb.enter(SpaceKey::Top(directory));
    for (page, frame) in pages {
        let fill = TlbEntry {
            page: LinearPage::new(page),
            frame: Frame::new(frame),
            page_size: PageSize::KIB_4,
            global: false,
        };
        tlb.fill(fill, Access::Read, Privilege::User);
    }
    tlb.open_window().unwrap();
}

/// Whether the window of a space shows page 0, for which there is a slot.
fn shows(tlb: &mut Tlb, directory: u64) -> bool {
    tlb.enter(SpaceKey::Top(directory));
    let before = tlb.remaps();
    assert!(tlb.map_in_window(LinearPage::new(0), Access::Read));
    tlb.remaps() == before
}

#[test]
fn windows_used_longest_ago_make_room_for_mappings() {
    let _many = MANY_MAPPINGS.lock();
    let mut tlb = tlb();
    // A third of the mappings of all windows each, half of them inaccessible.
    let isolated = |pages: u64| (0..pages).map(|number| (2 * number, 0));
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

/// An entry for the page of a 48-bit address.
fn entry(addr: u64, frame: u64, global: bool) -> TlbEntry {
    TlbEntry {
        page: LinearAddr::new(addr).page(),
        frame: Frame::new(frame),
        page_size: PageSize::KIB_4,
        global,
    }
}

const READ: View = View::of(Access::Read, Privilege::User);

#[test]
fn pages_and_addresses_with_a_common_slot_are_told_apart() {
    let mut tlb = tlb_of(LinearWidth::Bits48);
    for (addr, others) in [
        (
            0x5555_5555_4000,
            [0x5455_5555_4000, 0x1_5555_5555_4000, 0xffff_5555_5555_4000],
        ),
        (
            0xffff_8880_0000_0000,
            [
                0x8880_0000_0000,
                0xffff_8980_0000_0000,
                0x7fff_8880_0000_0000,
            ],
        ),
    ] {
        let others = others.map(|addr| LinearAddr::new(addr).page());
        let page = LinearAddr::new(addr).page();
        for access in [Access::Read, Access::Write, Access::Fetch] {
            tlb.fill(entry(addr, 7, false), access, Privilege::User);
            let view = View::of(access, Privilege::User);
            assert_eq!(tlb.frame(view, page), Some(Frame::new(7)));
            for other in others {
                assert_eq!(tlb.index(other), tlb.index(page), "{other:?}");
                assert_eq!(tlb.slot(view, other), 0, "{other:?}");
                assert_eq!(tlb.frame(view, other), None, "{other:?}");
            }
        }
        assert!(tlb.set_code(page, Privilege::User, 5));
        let code = View::code(Privilege::User);
        assert_eq!(tlb.slot(code, page), 5);
        for other in others {
            assert_eq!(tlb.slot(code, other), 0);
            assert!(!tlb.set_code(other, Privilege::User, 6));
            let addr = other.base();
            assert_eq!(tlb.load::<u8>(addr, Privilege::User), None);
            assert!(!tlb.store(addr, Privilege::User, 1u8));
        }
        assert!(tlb.store(page.base(), Privilege::User, 9u8));
        assert_eq!(tlb.load::<u8>(page.base(), Privilege::User), Some(9));
    }
}

#[test]
fn a_page_that_takes_the_slot_of_another_drops_it_as_a_flush_does() {
    let mut tlb = tlb_of(LinearWidth::Bits48);
    let (first, second) = (0x5555_5555_4000, 0x5455_5555_4000);
    let [page, other] = [first, second].map(|addr| LinearAddr::new(addr).page());
    let who = Privilege::User;
    tlb.fill(entry(first, 7, false), Access::Fetch, who);
    assert!(tlb.set_code(page, who, 5));
    let (epoch, drops) = (tlb.fetch_epoch(who), tlb.drops());
    tlb.fill(entry(second, 8, false), Access::Fetch, who);
    assert!(tlb.fetch_epoch(who) > epoch && tlb.drops() > drops);
    assert_eq!(tlb.slot(View::of(Access::Fetch, who), page), 0);
    assert_eq!(tlb.slot(View::code(who), page), 0);
    assert_eq!(tlb.slot(View::code(who), other), 0);
    assert_eq!(
        tlb.frame(View::of(Access::Fetch, who), other),
        Some(Frame::new(8))
    );
}

#[test]
fn stores_to_a_frame_are_withdrawn_from_pages_that_took_slots_of_others() {
    let mut tlb = tlb_of(LinearWidth::Bits48);
    let write = View::of(Access::Write, Privilege::User);
    let page = |addr| LinearAddr::new(addr).page();
    for (addr, frame) in [
        (0x5555_5555_4000, 7),
        (0x5455_5555_4000, 8),
        (0x7fff_ffff_f000, 7),
    ] {
        tlb.fill(entry(addr, frame, false), Access::Write, Privilege::User);
    }
    let mut opened = vec![];
    tlb.drop_write_slots(Frame::new(7));
    assert_eq!(tlb.slot(write, page(0x7fff_ffff_f000)), 0);
    assert_eq!(
        tlb.frame(write, page(0x5455_5555_4000)),
        Some(Frame::new(8)),
        "the slot is another page's by now"
    );
    tlb.drop_all_write_slots(|frame| opened.push(frame));
    assert_eq!(opened, [Frame::new(8)]);
    assert_eq!(tlb.slot(write, page(0x5455_5555_4000)), 0);
}

#[test]
fn kernel_slots_of_48_bits_are_shared_and_flushed_unless_global() {
    let mut tlb = tlb_of(LinearWidth::Bits48);
    let [program, local, global] = [
        0x7fff_0000_0000,
        0xffff_c900_0000_0000,
        0xffff_ffff_8100_0000,
    ];
    let cached = |tlb: &Tlb| {
        [program, local, global].map(|addr| tlb.slot(READ, LinearAddr::new(addr).page()) != 0)
    };
    for addr in [program, local, global] {
        tlb.fill(
            entry(addr, 3, addr == global),
            Access::Read,
            Privilege::User,
        );
        assert_eq!(tlb.is_shared(LinearAddr::new(addr).page()), addr >> 47 != 0);
    }
    tlb.enter(SpaceKey::Top(1 << 12));
    assert_eq!(cached(&tlb), [false, true, true]);
    tlb.flush_non_global();
    assert_eq!(cached(&tlb), [false, false, true]);
    tlb.enter(SpaceKey::Unpaged);
    assert_eq!(cached(&tlb), [true, false, true]);
    tlb.drop_page(LinearAddr::new(global));
    tlb.flush_all(|_| ());
    assert_eq!(cached(&tlb), [false; 3]);
}

#[test]
fn a_gibibyte_page_entered_in_pieces_is_dropped_by_any_of_its_addresses() {
    let mut tlb = tlb_of(LinearWidth::Bits48);
    let start = 0xffff_8880_4000_0000u64;
    for page in [0, 1, 0x3_ffff, 0x4_0000] {
        let small = entry(start + (page << PAGE_SHIFT), page % 256, true);
        let page_size = if page < 0x4_0000 {
            PageSize::GIB_1
        } else {
            PageSize::KIB_4
        };
        tlb.fill(
            TlbEntry { page_size, ..small },
            Access::Read,
            Privilege::User,
        );
    }
    tlb.drop_page(LinearAddr::new(start + 0x1234_5678));
    let cached = [0, 1, 0x3_ffff].map(|page: u64| LinearAddr::new(start + (page << PAGE_SHIFT)));
    assert!(cached.iter().all(|addr| tlb.slot(READ, addr.page()) == 0));
}

#[test]
fn tables_of_48_bits_take_little_memory_and_give_it_back() {
    let mut tlb = tlb_of(LinearWidth::Bits48);
    for number in 0..3 * most_spaces(LinearWidth::Bits48) as u64 {
        tlb.enter(SpaceKey::Top(number << PAGE_SHIFT));
        for index in 0..64 {
            let addr =
                (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index << 38) & 0xffff_ffff_f000;
            let addr = ((addr << 16) as i64 >> 16) as u64;
            for privilege in [Privilege::Supervisor, Privilege::User] {
                tlb.fill(entry(addr, 5, false), Access::Write, privilege);
            }
        }
    }
    assert!(tlb.tables.resident() <= 64 * 2 * 64 * 4096 * 2);
    tlb.flush_non_global();
    assert!(tlb.tables.resident() <= RESIDENT_LIMIT);
    assert!(tlb.displaced() > 0);
}

/// The frame that the host has mapped at an address, as its kernel says, and whether it can be written; none if it is inaccessible.
fn mapped_at(address: u64) -> Option<(u64, bool)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let number = |text| u64::from_str_radix(text, 16).unwrap();
    maps.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let (start, end) = fields[0].split_once('-').unwrap();
        let is_here = (number(start)..number(end)).contains(&address);
        let offset = number(fields[2]) + address.wrapping_sub(number(start));
        (is_here && fields[1].starts_with('r'))
            .then(|| (offset >> PAGE_SHIFT, fields[1][1..].starts_with('w')))
    })
}

/// What the window shows at an address.
fn shown(tlb: &Tlb, addr: u64) -> Option<(u64, bool)> {
    let host = tlb.in_window(LinearAddr::new(addr))?;
    assert_eq!(tlb.shown_at(host), Some(LinearAddr::new(addr)));
    mapped_at(host)
}

#[test]
fn a_window_on_48_bits_shows_what_slots_lead_to() {
    const BEFORE: u64 = 0x5555_5555_4000;
    const BEHIND: u64 = 0x7fff_ffff_e000;
    let mut tlb = tlb_of(LinearWidth::Bits48);
    let who = Privilege::User;
    let page = |addr| LinearAddr::new(addr).page();
    tlb.fill(entry(BEFORE, 7, false), Access::Read, who);
    tlb.open_window().unwrap();
    assert_eq!(shown(&tlb, BEFORE), Some((7, false)));
    assert_eq!(tlb.in_window(LinearAddr::new(BEHIND)), None);
    assert!(!tlb.map_in_window(page(BEHIND), Access::Read));
    for access in [Access::Read, Access::Write] {
        tlb.fill(entry(BEHIND, 9, false), access, who);
    }
    assert!(tlb.map_in_window(page(BEHIND), Access::Write));
    assert_eq!(shown(&tlb, BEHIND), Some((9, true)));
    assert!(!tlb.map_in_window(page(BEFORE), Access::Write));
    tlb.drop_write_slots(Frame::new(9));
    tlb.settle_window();
    assert_eq!(shown(&tlb, BEHIND), None);
    assert_eq!(shown(&tlb, BEFORE), Some((7, false)));
    assert!(tlb.map_in_window(page(BEHIND), Access::Read));
    assert_eq!(shown(&tlb, BEHIND), Some((9, false)));
    tlb.close_window();
    assert_eq!(tlb.in_window(LinearAddr::new(BEFORE)), None);
}

#[test]
fn a_window_on_48_bits_does_not_show_pages_of_others_with_their_slots() {
    const FIRST: u64 = 0x5555_5555_4000;
    const SECOND: u64 = 0x5455_5555_4000;
    let mut tlb = tlb_of(LinearWidth::Bits48);
    let who = Privilege::User;
    let page = |addr| LinearAddr::new(addr).page();
    tlb.fill(entry(FIRST, 7, false), Access::Read, who);
    tlb.open_window().unwrap();
    tlb.fill(entry(SECOND, 8, false), Access::Read, who);
    tlb.settle_window();
    assert_eq!(shown(&tlb, FIRST), None);
    assert_eq!(tlb.in_window(LinearAddr::new(SECOND)), None);
    assert!(!tlb.map_in_window(page(FIRST), Access::Read));
    assert!(!tlb.map_in_window(page(SECOND), Access::Read));
    assert_eq!(shown(&tlb, FIRST), None);
}
