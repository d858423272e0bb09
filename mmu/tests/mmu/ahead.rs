//! Slots that are filled ahead of accesses.

use mmu::{Access, Mmu, View};

use crate::guest::{A, D, P, U, User, W, linear, map, pde_at, pte, two_level};

/// The first of 16 pages, with entries of all kinds.
const FIRST: u32 = 0x4001_0000;
/// The frame of the first page. The others follow.
const FRAME: u64 = 0x30_0000;

/// The flags of the entry of each page, whether reads by programs are permitted and leave the entry alone, and the same of writes.
const KINDS: [(u64, bool, bool); 16] = [
    (0, false, false),
    (P, false, false),
    (P | U, false, false),
    (P | U | A, true, false),
    (P | U | D, false, false),
    (P | U | A | D, true, false),
    (P | U | W, false, false),
    (P | U | W | A, true, false),
    (P | U | W | D, false, false),
    (P | U | W | A | D, true, true),
    (P | W | A | D, false, false),
    (P | A | D, false, false),
    (U | W | A | D, false, false),
    (P | U | W | A | D, true, true),
    (P | U | A, true, false),
    (0, false, false),
];

fn address(page: usize) -> u32 {
    FIRST + ((page as u32) << 12)
}

/// A guest with the pages of [`KINDS`], and one on each side of them that programs may access, whose directory entry has `flags`.
fn guest(flags: u64) -> Mmu {
    let mut mmu = two_level();
    for (page, (kind, ..)) in KINDS.into_iter().enumerate() {
        map(&mut mmu, address(page), FRAME + ((page as u64) << 12), kind);
    }
    for neighbour in [FIRST - 0x1000, address(KINDS.len())] {
        map(&mut mmu, neighbour, 0x40_0000, P | U | W | A | D);
    }
    let directory_entry = pde_at(FIRST);
    let value: u32 = mmu.read_phys(directory_entry).unwrap();
    let value = value & !(A as u32) | flags as u32;
    mmu.write_phys(directory_entry, value).unwrap();
    mmu
}

/// Whether the user's read and write slots of a page are filled.
fn filled(mmu: &Mmu, address: u32) -> [bool; 2] {
    [Access::Read, Access::Write].map(|access| {
        let slot = mmu
            .tlb()
            .slot(View::of(access, User), linear(address).page());
        slot != 0
    })
}

#[test]
fn slots_are_filled_where_the_guest_cannot_tell() {
    for page in [0, 7, 15] {
        let mut mmu = guest(A);
        mmu.fill_ahead(linear(address(page) + 0x123));
        for (page, (kind, reads, writes)) in KINDS.into_iter().enumerate() {
            assert_eq!(filled(&mmu, address(page)), [reads, writes], "{kind:#x}");
            let entry = pte(&mut mmu, address(page));
            assert_eq!(entry & 0xfff, kind, "no entry is changed");
            if reads {
                let view = View::of(Access::Read, User);
                let frame = mmu.tlb().frame(view, linear(address(page)).page());
                assert_eq!(frame.unwrap().base().get(), FRAME + ((page as u64) << 12));
            }
        }
        for neighbour in [FIRST - 0x1000, address(KINDS.len())] {
            assert_eq!(filled(&mmu, neighbour), [false; 2], "in another group");
        }
    }
}

#[test]
fn a_directory_entry_that_was_not_used_is_left_alone() {
    let mut mmu = guest(0);
    mmu.fill_ahead(linear(FIRST));
    for page in 0..KINDS.len() {
        assert_eq!(filled(&mmu, address(page)), [false; 2]);
    }
    let value: u32 = mmu.read_phys(pde_at(FIRST)).unwrap();
    assert_eq!(u64::from(value) & A, 0);
}

#[test]
fn pages_kept_out_and_frames_of_code_get_no_slots_that_they_must_not_have() {
    let mut mmu = guest(A);
    mmu.keep_out([linear(address(9)).page()]);
    mmu.mark_code(mmu::Frame::new((FRAME >> 12) + 13));
    mmu.fill_ahead(linear(FIRST));
    assert_eq!(filled(&mmu, address(9)), [false; 2], "kept out");
    assert_eq!(filled(&mmu, address(13)), [true, false], "code");
}

#[test]
fn slots_that_were_filled_ahead_go_with_their_entries() {
    let mut mmu = guest(A);
    mmu.fill_ahead(linear(FIRST));
    map(&mut mmu, address(9), 0x50_0000, P | U | A);
    mmu.invlpg(linear(address(9)));
    assert_eq!(filled(&mmu, address(9)), [false; 2]);
    mmu.fill_ahead(linear(FIRST));
    assert_eq!(filled(&mmu, address(9)), [true, false]);
}
