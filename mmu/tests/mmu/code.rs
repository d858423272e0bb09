//! Pages that hold scanned code, to which every store is noticed.

use mmu::{Access, Attribute, Frame, Mmu};

use crate::guest::{
    A, P, Supervisor, U, User, W, linear, map, phys, pte, pte_at, read32, two_level, unpaged,
};

const PAGE: u32 = 0x4000_3000;
const ALIAS: u32 = 0x5000_7000;
const TARGET: u64 = 0x30_0000;

fn frame() -> Frame {
    phys(TARGET).frame()
}

/// A machine in which [`PAGE`] and [`ALIAS`] map the target, writable by all.
fn aliased() -> Mmu {
    let mut mmu = two_level();
    map(&mut mmu, PAGE, TARGET, P | W | U);
    map(&mut mmu, ALIAS, TARGET, P | W | U);
    mmu
}

/// Makes `store` on a page just marked and checks that it is noticed.
fn assert_noticed(mmu: &mut Mmu, store: impl FnOnce(&mut Mmu)) {
    mmu.mark_code(frame());
    let (epoch, scanned) = (mmu.code_epoch(), mmu.memory().scanned(frame()));
    assert!(mmu.memory().has(frame(), Attribute::Code) && !mmu.memory().stale(frame()));
    store(mmu);
    assert_eq!(mmu.code_epoch(), epoch + 1);
    assert!(mmu.written(frame()) > scanned && mmu.memory().stale(frame()));
    assert!(!mmu.memory().has(frame(), Attribute::Code));
}

#[test]
fn a_store_through_a_cached_translation_is_noticed_once() {
    let mut mmu = aliased();
    for privilege in [Supervisor, User] {
        mmu.write(linear(PAGE), privilege, 1u32).unwrap();
        assert_noticed(&mut mmu, |mmu| {
            mmu.write(linear(PAGE + 4), privilege, 2u32).unwrap()
        });
        let epoch = mmu.code_epoch();
        mmu.write(linear(PAGE + 8), privilege, 3u32).unwrap();
        assert_eq!(
            mmu.code_epoch(),
            epoch,
            "the page holds no scanned code any more"
        );
        assert_eq!(mmu.read_phys(phys(TARGET + 4)), Ok(3u64 << 32 | 2));
    }
}

#[test]
fn a_store_through_any_alias_is_noticed() {
    for alias in [PAGE, ALIAS] {
        for privilege in [Supervisor, User] {
            let mut mmu = aliased();
            for page in [PAGE, ALIAS] {
                mmu.write(linear(page), Supervisor, 1u32).unwrap();
                mmu.write(linear(page), User, 1u32).unwrap();
            }
            assert_noticed(&mut mmu, |mmu| {
                mmu.write(linear(alias), privilege, 2u32).unwrap()
            });
        }
    }
}

#[test]
fn a_store_is_noticed_after_the_first_alias_moved_elsewhere() {
    let mut mmu = aliased();
    mmu.write(linear(PAGE), User, 1u32).unwrap();
    map(&mut mmu, PAGE, TARGET + 0x1000, P | W | U);
    mmu.invlpg(linear(PAGE));
    mmu.write(linear(PAGE), User, 1u32).unwrap();
    mmu.write(linear(ALIAS), User, 1u32).unwrap();
    assert_noticed(&mut mmu, |mmu| {
        mmu.write(linear(ALIAS), User, 2u32).unwrap()
    });
}

#[test]
fn a_store_is_noticed_after_more_fills_than_are_listed() {
    let mut mmu = aliased();
    for page in 0..20_000 {
        let addr = 0x1000_0000 + page * 0x1000;
        map(&mut mmu, addr, TARGET + 0x1000, P | W | U);
        mmu.write(linear(addr), User, 1u32).unwrap();
    }
    for page in [PAGE, ALIAS] {
        mmu.write(linear(PAGE), User, 1u32).unwrap();
        mmu.write(linear(ALIAS), User, 1u32).unwrap();
        assert_noticed(&mut mmu, |mmu| mmu.write(linear(page), User, 2u32).unwrap());
    }
}

#[test]
fn a_store_that_only_touches_the_page_at_its_end_is_noticed() {
    let mut mmu = unpaged();
    mmu.write(linear(TARGET as u32), Supervisor, 0u8).unwrap();
    mmu.write(linear(TARGET as u32 - 1), Supervisor, 0u8)
        .unwrap();
    assert_noticed(&mut mmu, |mmu| {
        mmu.write(linear(TARGET as u32 - 1), Supervisor, 0u16)
            .unwrap()
    });
}

#[test]
fn a_prepared_write_is_noticed_when_it_is_made() {
    let mut mmu = aliased();
    assert_noticed(&mut mmu, |mmu| {
        let epoch = mmu.code_epoch();
        mmu.prepare(linear(PAGE), 4, Access::Write, User).unwrap();
        assert_eq!(mmu.code_epoch(), epoch);
        mmu.write(linear(PAGE), User, 1u32).unwrap();
    });
}

#[test]
fn a_write_of_many_bytes_is_noticed_when_it_is_made() {
    let mut mmu = aliased();
    mmu.write(linear(PAGE), User, 1u8).unwrap();
    assert!(mmu.tlb_mut().store_bytes(linear(PAGE), User, &[0; 288]));
    assert_noticed(&mut mmu, |mmu| {
        assert!(!mmu.tlb_mut().store_bytes(linear(PAGE), User, &[0; 288]));
        mmu.write(linear(PAGE), User, 1u32).unwrap();
    });
}

#[test]
fn stores_of_the_host_are_noticed() {
    let mut mmu = unpaged();
    assert_noticed(&mut mmu, |mmu| {
        mmu.memory().write(phys(TARGET - 2), &[0; 4]).unwrap()
    });
    assert_noticed(&mut mmu, |mmu| {
        mmu.write_phys(phys(TARGET + 0xfff), 1u8).unwrap()
    });
    assert_noticed(&mut mmu, |mmu| {
        mmu.memory().mark_written(phys(TARGET - 0x1000), 0x1001)
    });
    mmu.mark_code(frame());
    let epoch = mmu.code_epoch();
    mmu.memory().write(phys(TARGET - 2), &[0; 2]).unwrap();
    mmu.memory().mark_written(phys(TARGET), 0);
    mmu.memory().mark_written(phys(u64::MAX), u64::MAX);
    assert_eq!(mmu.code_epoch(), epoch);
}

#[test]
fn accessed_bits_set_in_a_page_with_code_are_noticed() {
    let mut mmu = two_level();
    map(&mut mmu, PAGE, TARGET, P);
    let table = pte_at(&mut mmu, PAGE).frame();
    mmu.mark_code(table);
    let epoch = mmu.code_epoch();
    read32(&mut mmu, PAGE);
    assert_eq!(mmu.code_epoch(), epoch + 1);
    assert!(mmu.memory().stale(table));
    assert!(mmu.memory().has(table, Attribute::PageTable));
    mmu.flush_all();
    mmu.mark_code(table);
    read32(&mut mmu, PAGE);
    assert_eq!(
        mmu.code_epoch(),
        epoch + 1,
        "A is set already: nothing is stored"
    );
    assert_eq!(pte(&mut mmu, PAGE) & A, A);
}

#[test]
fn reads_and_fetches_of_code_stay_fast_and_unnoticed() {
    let mut mmu = aliased();
    mmu.mark_code(frame());
    let epoch = mmu.code_epoch();
    for _ in 0..2 {
        read32(&mut mmu, PAGE);
        mmu.fetch_page(linear(PAGE), User).unwrap();
    }
    assert_eq!(mmu.code_epoch(), epoch);
    assert!(mmu.memory().has(frame(), Attribute::Code));
}

#[test]
fn rom_code_stays_valid_under_guest_stores() {
    let mut mmu = unpaged();
    let rom = phys(0xf_0000).frame();
    mmu.mark_code(rom);
    let epoch = mmu.code_epoch();
    mmu.write(linear(0xf_0000), Supervisor, 1u32).unwrap();
    assert_eq!(mmu.code_epoch(), epoch);
    mmu.memory().write(phys(0xf_0000), &[1]).unwrap();
    assert_eq!(mmu.code_epoch(), epoch + 1);
}

#[test]
fn timestamps_share_one_clock() {
    let mut mmu = unpaged();
    mmu.memory().write(phys(TARGET), &[1]).unwrap();
    mmu.mark_code(frame());
    mmu.memory().mark_executed(frame());
    let phys = mmu.memory();
    assert!(
        phys.written(frame()) < phys.scanned(frame())
            && phys.scanned(frame()) < phys.executed(frame())
    );
    assert!(phys.has(frame(), Attribute::Dirty));
    assert!(!phys.has(Frame::new(frame().get() + 1), Attribute::Dirty));
}

#[test]
fn a_prepared_page_counts_as_written() {
    let mut mmu = unpaged();
    mmu.prepare(linear(TARGET as u32), 4, Access::Write, Supervisor)
        .unwrap();
    mmu.write(linear(TARGET as u32), Supervisor, 1u32).unwrap();
    assert!(mmu.memory().has(frame(), Attribute::Dirty));
    assert!(mmu.written(frame()).get() > 0);
}

#[test]
fn frames_without_memory_are_harmless() {
    let mut mmu = unpaged();
    for number in [0xa0, mmu.memory().size() >> 12, u64::MAX >> 12, u64::MAX] {
        let frame = Frame::new(number);
        mmu.mark_code(frame);
        mmu.memory().mark_executed(frame);
        assert_eq!(mmu.code_bytes(frame), [0xff; 4096]);
        assert_eq!(mmu.memory().written(frame).get(), 0);
    }
}

#[test]
fn frames_whose_code_was_overwritten_are_told_once() {
    let mut mmu = aliased();
    let other = phys(TARGET + 0x1000);
    assert!(mmu.take_code_writes().eq([]));
    for _ in 0..3 {
        mmu.mark_code(frame());
        mmu.mark_code(other.frame());
        mmu.write(linear(PAGE), User, 1u32).unwrap();
    }
    assert!(mmu.take_code_writes().eq([frame()]));
    assert!(mmu.take_code_writes().eq([]));
    mmu.memory().write(other, &[1]).unwrap();
    assert!(mmu.take_code_writes().eq([other.frame()]));
}
