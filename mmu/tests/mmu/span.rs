//! Accesses that cross pages, wrap, or touch what is not plain RAM.

use mmu::{Access, MemFault, Piece, RegionKind, Span, View};

use crate::guest::{
    A, D, P, RAM, Supervisor, U, User, W, fault, linear, map, phys, pte, two_level, unpaged,
};

const PAGE: u32 = 0x4000_3000;
const LOW: u64 = 0x30_5000;
const HIGH: u64 = 0x30_1000;

#[test]
fn an_access_across_pages_reaches_both_frames() {
    let mut mmu = two_level();
    map(&mut mmu, PAGE, LOW, P | W | U);
    map(&mut mmu, PAGE + 0x1000, HIGH, P | W | U);
    for size in [2u32, 4, 8, 16] {
        for before in 1..size {
            let addr = linear(PAGE + 0x1000 - before);
            let bytes: Vec<u8> = (0..size as u8).map(|i| i + 1).collect();
            let value = bytes
                .iter()
                .rev()
                .fold(0u128, |sum, byte| sum << 8 | u128::from(*byte));
            match size {
                2 => mmu.write(addr, User, value as u16).unwrap(),
                4 => mmu.write(addr, User, value as u32).unwrap(),
                8 => mmu.write(addr, User, value as u64).unwrap(),
                _ => mmu.write(addr, User, value).unwrap(),
            }
            let mut low = vec![0; before as usize];
            let mut high = vec![0; (size - before) as usize];
            mmu.memory()
                .read(phys(LOW + 0x1000 - u64::from(before)), &mut low)
                .unwrap();
            mmu.memory().read(phys(HIGH), &mut high).unwrap();
            assert_eq!([low, high].concat(), bytes);
            let back = match size {
                2 => mmu.read::<u16>(addr, User).unwrap().into(),
                4 => mmu.read::<u32>(addr, User).unwrap().into(),
                8 => mmu.read::<u64>(addr, User).unwrap().into(),
                _ => mmu.read::<u128>(addr, User).unwrap(),
            };
            assert_eq!(back, value);
        }
    }
}

#[test]
fn an_access_across_pages_fills_the_slots_of_both_for_what_it_was_allowed() {
    let mut mmu = two_level();
    map(&mut mmu, PAGE, LOW, P | W | U);
    map(&mut mmu, PAGE + 0x1000, HIGH, P | U);
    let addr = linear(PAGE + 0xffd);
    let slots = |mmu: &mmu::Mmu, access| {
        [PAGE, PAGE + 0x1000].map(|page| {
            let page = linear(page).page();
            mmu.tlb().slot(View::of(access, User), page) != 0
        })
    };
    assert_eq!(mmu.read(addr, User), Ok(0u32));
    assert_eq!(slots(&mmu, Access::Read), [true; 2]);
    assert_eq!(slots(&mmu, Access::Write), [false; 2]);
    for _ in 0..2 {
        mmu.prepare(linear(PAGE), 1, Access::Write, User).unwrap();
        assert_eq!(
            fault(mmu.write(addr, User, u32::MAX)),
            (PAGE + 0x1000, 0b111)
        );
        assert_eq!(mmu.read(addr, User), Ok(0u32));
    }
    map(&mut mmu, PAGE + 0x1000, HIGH, P | W | U);
    mmu.invlpg(linear(PAGE + 0x1000));
    mmu.write(addr, User, 0x0403_0201u32).unwrap();
    assert_eq!(slots(&mmu, Access::Write), [true; 2]);
    mmu.write(addr, User, 0x0807_0605u32).unwrap();
    assert_eq!(mmu.read(addr, User), Ok(0x0807_0605u32));
    assert_eq!(mmu.read_phys(phys(LOW + 0xffc)), Ok(0x0706_0500u32));
    assert_eq!(mmu.read_phys(phys(HIGH)), Ok(8u32));
}

#[test]
fn an_access_that_ends_with_the_page_does_not_touch_the_next() {
    let mut mmu = two_level();
    map(&mut mmu, PAGE, LOW, P | W);
    for _ in 0..2 {
        mmu.write(linear(PAGE + 0xffc), Supervisor, 5u32).unwrap();
        assert_eq!(mmu.read(linear(PAGE + 0xffc), Supervisor), Ok(5u32));
        mmu.prepare(linear(PAGE), 0x1000, Access::Write, Supervisor)
            .unwrap();
    }
}

#[test]
fn cached_bytes_are_those_of_one_page_that_was_accessed() {
    let mut mmu = two_level();
    map(&mut mmu, PAGE, LOW, P | W | U);
    map(&mut mmu, PAGE + 0x1000, HIGH, P | W | U);
    let (first, end) = (linear(PAGE), linear(PAGE + 0x1000 - 3));
    let mut bytes = [0; 3];
    assert!(!mmu.tlb().load_bytes(first, User, &mut bytes));
    assert!(!mmu.tlb_mut().store_bytes(first, User, &bytes));
    mmu.prepare(first, 1, Access::Read, User).unwrap();
    assert!(mmu.tlb().load_bytes(end, User, &mut bytes));
    assert!(!mmu.tlb().load_bytes(end, Supervisor, &mut bytes));
    assert!(
        !mmu.tlb_mut().store_bytes(end, User, &bytes),
        "D is not set"
    );
    assert_eq!(pte(&mut mmu, PAGE) & (A | D), A);
    for page in [PAGE, PAGE + 0x1000] {
        mmu.prepare(linear(page), 1, Access::Write, User).unwrap();
    }
    assert!(mmu.tlb_mut().store_bytes(end, User, &[1, 2, 3]));
    assert_eq!(mmu.read_phys(phys(LOW + 0xffc)), Ok(0x0302_0100u32));
    assert!(mmu.tlb().load_bytes(end, User, &mut bytes));
    assert_eq!(bytes, [1, 2, 3]);
    assert!(!mmu.tlb_mut().store_bytes(end, User, &[0; 4]));
    assert!(!mmu.tlb().load_bytes(end, User, &mut [0; 4]));
    assert_eq!(mmu.read_phys(phys(LOW + 0xffc)), Ok(0x0302_0100u32));
}

#[test]
fn a_fault_in_the_second_page_changes_nothing_and_reports_its_first_byte() {
    let mut mmu = two_level();
    map(&mut mmu, PAGE, LOW, P | W | U);
    map(&mut mmu, PAGE + 0x1000, HIGH, P | U);
    let addr = linear(PAGE + 0xffd);
    assert_eq!(
        fault(mmu.write(addr, User, u32::MAX)),
        (PAGE + 0x1000, 0b111)
    );
    assert_eq!(
        fault(mmu.prepare(addr, 4, Access::Write, User)),
        (PAGE + 0x1000, 0b111)
    );
    assert_eq!(mmu.read_phys::<u32>(phys(LOW + 0xffc)), Ok(0));
    assert_eq!(pte(&mut mmu, PAGE) & (A | D), 0);
    assert_eq!(pte(&mut mmu, PAGE + 0x1000) & (A | D), 0);
}

#[test]
fn a_cached_first_page_does_not_vouch_for_the_second() {
    let mut mmu = two_level();
    map(&mut mmu, PAGE, LOW, P | W);
    mmu.write(linear(PAGE), Supervisor, 1u32).unwrap();
    let addr = linear(PAGE + 0xffd);
    assert_eq!(
        fault(mmu.prepare(addr, 4, Access::Write, Supervisor)),
        (PAGE + 0x1000, 0b010)
    );
    assert_eq!(
        fault(mmu.write(addr, Supervisor, 1u32)),
        (PAGE + 0x1000, 0b010)
    );
    assert_eq!(fault(mmu.read::<u32>(addr, Supervisor)), (PAGE + 0x1000, 0));
}

#[test]
fn a_fault_in_the_first_page_wins() {
    let mut mmu = two_level();
    map(&mut mmu, PAGE, LOW, P);
    assert_eq!(
        fault(mmu.write(linear(PAGE + 0xffd), Supervisor, 0u32)),
        (PAGE + 0xffd, 0b011)
    );
}

#[test]
fn an_access_wraps_at_4_gib() {
    let mut mmu = two_level();
    map(&mut mmu, 0xffff_f000, LOW, P | W);
    map(&mut mmu, 0, HIGH, P | W);
    mmu.write(linear(0xffff_fffe), Supervisor, 0x4433_2211u32)
        .unwrap();
    assert_eq!(mmu.read_phys(phys(LOW + 0xffe)), Ok(0x2211u16));
    assert_eq!(mmu.read_phys(phys(HIGH)), Ok(0x4433u16));
    assert_eq!(
        mmu.read(linear(0xffff_fffe), Supervisor),
        Ok(0x4433_2211u32)
    );
    map(&mut mmu, 0, HIGH, 0);
    mmu.invlpg(linear(0));
    assert_eq!(
        fault(mmu.read::<u32>(linear(0xffff_fffe), Supervisor)),
        (0, 0)
    );
}

#[test]
fn address_bits_above_32_do_not_count() {
    let mut mmu = two_level();
    map(&mut mmu, PAGE, LOW, P | W);
    let high = mmu::LinearAddr::new(u64::from(PAGE) | 0xdead_beef << 32);
    for _ in 0..2 {
        mmu.write(high, Supervisor, 9u32).unwrap();
        assert_eq!(mmu.read(high, Supervisor), Ok(9u32));
        assert_eq!(mmu.fetch_page(high, Supervisor), Ok(phys(LOW).frame()));
    }
    assert_eq!(mmu.read_phys(phys(LOW)), Ok(9u32));
}

#[test]
fn rom_is_read_and_fetched_but_ignores_stores() {
    let mut mmu = unpaged();
    mmu.memory().write(phys(0xf_0000), &[1, 2, 3, 4]).unwrap();
    for _ in 0..2 {
        assert_eq!(mmu.read(linear(0xf_0000), Supervisor), Ok(0x0403_0201u32));
        assert_eq!(mmu.write(linear(0xf_0000), Supervisor, 0u32), Ok(()));
        assert_eq!(
            mmu.prepare(linear(0xf_0000), 4, Access::Write, Supervisor),
            Ok(())
        );
        assert_eq!(
            mmu.fetch_page(linear(0xf_0000), Supervisor),
            Ok(phys(0xf_0000).frame())
        );
    }
    assert_eq!(mmu.code_bytes(phys(0xf_0000).frame())[..5], [1, 2, 3, 4, 0]);
    // The store across the end of ROM is kept where it is RAM.
    mmu.write(linear(0xf_fffe), Supervisor, u32::MAX).unwrap();
    assert_eq!(mmu.read(linear(0xf_fffe), Supervisor), Ok(0xffff_0000u32));
    mmu.write_phys(phys(0xf_fffc), u64::MAX).unwrap();
    assert_eq!(mmu.read_phys(phys(0xf_fffc)), Ok(0xffff_ffff_0000_0000u64));
}

#[test]
fn an_access_that_is_partly_device_goes_to_the_bus_whole() {
    let mut mmu = unpaged();
    assert_eq!(
        mmu.write(linear(0x9_fffe), Supervisor, u32::MAX),
        Err(MemFault::Device)
    );
    assert_eq!(
        mmu.read_phys(phys(0x9_fffe)),
        Ok(0u16),
        "nothing was stored"
    );
    assert_eq!(
        mmu.read::<u32>(linear(0x9_fffe), Supervisor),
        Err(MemFault::Device)
    );
    let piece = |addr, len, kind| Piece {
        addr: phys(addr),
        len,
        kind,
    };
    assert_eq!(
        mmu.translate(linear(0x9_fffe), 4, Access::Write, Supervisor),
        Ok(Span {
            first: piece(0x9_fffe, 2, RegionKind::Ram),
            second: Some(piece(0xa_0000, 2, RegionKind::Device)),
        })
    );
    assert_eq!(
        mmu.translate(linear(0xb_ffff), 8, Access::Read, Supervisor)
            .unwrap()
            .pieces()
            .collect::<Vec<_>>(),
        [
            piece(0xb_ffff, 1, RegionKind::Device),
            piece(0xc_0000, 7, RegionKind::Rom)
        ]
    );
}

#[test]
fn beyond_ram_is_the_bus() {
    let mut mmu = unpaged();
    let end = RAM as u32;
    assert_eq!(mmu.read::<u8>(linear(end - 1), Supervisor), Ok(0));
    for addr in [end - 1, end, 0xfee0_0000, 0xffff_fffe] {
        assert_eq!(
            mmu.read::<u16>(linear(addr), Supervisor),
            Err(MemFault::Device),
            "{addr:#x}"
        );
    }
}

#[test]
fn preparing_a_write_sets_the_dirty_bit_and_stores_nothing() {
    let mut mmu = two_level();
    map(&mut mmu, PAGE, LOW, P | W);
    map(&mut mmu, PAGE + 0x1000, HIGH, P | W);
    mmu.write_phys(phys(LOW + 0xff8), 0x1122_3344_5566_7788u64)
        .unwrap();
    mmu.prepare(linear(PAGE + 0xff8), 16, Access::Write, Supervisor)
        .unwrap();
    assert_eq!(pte(&mut mmu, PAGE) & (A | D), A | D);
    assert_eq!(pte(&mut mmu, PAGE + 0x1000) & (A | D), A | D);
    assert_eq!(
        mmu.read_phys(phys(LOW + 0xff8)),
        Ok(0x1122_3344_5566_7788u64)
    );
    mmu.write(linear(PAGE + 0xff8), Supervisor, 1u128).unwrap();
}
