//! Memory to which several parties store: slots and code of a processor follow, whoever stores, on any thread.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;

use mmu::{
    Access, Attribute, DirtyLog, Frame, LinearAddr, MemFault, Memory, PAGE_SIZE, Subscriber, View,
};
use vm_memory::{Bytes, GuestAddress};

use crate::guest::{
    A, D, P, RAM, Supervisor, U, User, W, linear, map, phys, pte_at, read32, two_level, unpaged,
};

const PAGE: u32 = 0x1234_5000;
const OLD: u64 = 0x50_0000;
const NEW: u64 = 0x51_0000;

/// A way to store for a party that is not a processor.
type Store = fn(&Arc<Memory>, u64, &[u8]);

const STORES: [Store; 4] = [
    |memory, addr, bytes| memory.write(phys(addr), bytes).unwrap(),
    |memory, addr, bytes| memory.store_bytes(phys(addr), bytes).unwrap(),
    |memory, addr, bytes| {
        let ram = memory.guest_ram();
        ram.write_slice(bytes, GuestAddress(addr)).unwrap();
    },
    |memory, addr, bytes| {
        let ram = memory.guest_ram();
        let mut source = bytes;
        let target = GuestAddress(addr);
        ram.read_exact_volatile_from(target, &mut source, bytes.len())
            .unwrap();
    },
];

/// Stores on a thread of its own, as a device does.
fn store_elsewhere(memory: &Arc<Memory>, store: Store, addr: u64, bytes: &[u8]) {
    thread::scope(|scope| {
        scope.spawn(|| store(memory, addr, bytes));
    });
}

#[test]
fn a_page_table_in_use_is_followed_whoever_stores() {
    for store in STORES {
        let mut mmu = two_level();
        for frame in [OLD, NEW] {
            mmu.write_phys(phys(frame), frame as u32).unwrap();
        }
        map(&mut mmu, PAGE, OLD, P | W | U | A | D);
        let entry = pte_at(&mut mmu, PAGE);
        let memory = Arc::clone(mmu.memory());
        for _ in 0..3 {
            for frame in [NEW, OLD] {
                let value = (frame | P | W | U | A | D) as u32;
                store_elsewhere(&memory, store, entry.get(), &value.to_le_bytes());
                // The guest's flush, after it was told that the transfer is done.
                mmu.snoop();
                mmu.invlpg(linear(PAGE));
                assert_eq!(read32(&mut mmu, PAGE), frame as u32);
            }
        }
    }
}

#[test]
fn a_directory_in_use_is_followed_whoever_stores() {
    for store in STORES {
        let mut mmu = two_level();
        map(&mut mmu, PAGE, OLD, P | W | U);
        read32(&mut mmu, PAGE);
        let entry = crate::guest::pde_at(PAGE);
        let memory = Arc::clone(mmu.memory());
        store_elsewhere(&memory, store, entry.get(), &[0; 4]);
        mmu.snoop();
        assert!(matches!(
            mmu.read::<u32>(linear(PAGE), Supervisor),
            Err(MemFault::Page(_))
        ));
    }
}

/// Two pages of one page table, read, so that their slots come from it.
fn two_pages_in_use() -> (mmu::Mmu, [u64; 2]) {
    let mut mmu = two_level();
    for frame in [OLD, NEW] {
        mmu.write_phys(phys(frame), frame as u32).unwrap();
    }
    let pages = [PAGE, PAGE + 0x1000];
    for page in pages {
        map(&mut mmu, page, OLD, P | W | U | A | D);
    }
    for page in pages {
        assert_eq!(read32(&mut mmu, page), OLD as u32);
    }
    let entries = pages.map(|page| pte_at(&mut mmu, page).get());
    (mmu, entries)
}

#[test]
fn every_store_before_a_look_is_followed() {
    for store in STORES {
        let (mut mmu, entries) = two_pages_in_use();
        let memory = Arc::clone(mmu.memory());
        for entry in entries {
            let value = (NEW | P | W | U | A | D) as u32;
            store_elsewhere(&memory, store, entry, &value.to_le_bytes());
        }
        mmu.snoop();
        mmu.flush_non_global();
        assert_eq!(read32(&mut mmu, PAGE), NEW as u32);
        assert_eq!(read32(&mut mmu, PAGE + 0x1000), NEW as u32);
    }
}

/// A device's bytes reach memory before its store is recorded. In between the processor stores to the same page table.
#[test]
fn a_store_recorded_late_is_followed() {
    let (mut mmu, [first, second]) = two_pages_in_use();
    let memory = Arc::clone(mmu.memory());
    let value = (NEW | P | W | U | A | D) as u32;
    memory
        .file()
        .write_all_at(&value.to_le_bytes(), second)
        .unwrap();
    mmu.write_phys(phys(first), value).unwrap();
    memory.mark_written(phys(second), 4);
    mmu.snoop();
    mmu.flush_non_global();
    assert_eq!(read32(&mut mmu, PAGE), NEW as u32);
    assert_eq!(read32(&mut mmu, PAGE + 0x1000), NEW as u32);
}

#[test]
fn code_is_void_whoever_stores() {
    for store in STORES {
        let mut mmu = unpaged();
        let frame = phys(OLD).frame();
        let memory = Arc::clone(mmu.memory());
        for round in 1..4 {
            mmu.write(linear(OLD as u32), Supervisor, 1u8).unwrap();
            mmu.mark_code(frame);
            assert_eq!(
                mmu.tlb().slot(
                    View::of(Access::Write, Supervisor),
                    linear(OLD as u32).page()
                ),
                0
            );
            let epoch = mmu.code_epoch();
            store_elsewhere(&memory, store, OLD + 7, &[round; 3]);
            assert!(mmu.code_epoch() > epoch, "without a look at the mailbox");
            assert!(memory.stale(frame) && !memory.has(frame, Attribute::Code));
            assert!(mmu.take_code_writes().eq([frame]));
            assert_eq!(mmu.code_bytes(frame)[7], round);
        }
    }
}

#[test]
fn stores_of_others_are_told_while_pages_are_kept_out() {
    let mut mmu = unpaged();
    let memory = Arc::clone(mmu.memory());
    memory.store(phys(OLD), 1u32).unwrap();
    mmu.snoop();
    assert!(mmu.take_stores().is_empty());
    mmu.keep_out([linear(PAGE).page()]);
    memory.store_bytes(phys(OLD + 0xffe), &[1; 4]).unwrap();
    mmu.write_phys(phys(OLD), 1u32).unwrap();
    mmu.snoop();
    let told = mmu.take_stores().into_iter();
    let told: Vec<_> = told.map(|store| (store.frame, store.bytes)).collect();
    let first = phys(OLD).frame();
    let second = phys(OLD + PAGE_SIZE as u64).frame();
    assert_eq!(told, [(first, 0xffe..0x1000), (second, 0..2)]);
    for _ in 0..10_000 {
        memory.store(phys(OLD), 1u32).unwrap();
        mmu.snoop();
    }
    assert!((1000..2000).contains(&mmu.take_stores().len()));
    mmu.keep_out([]);
    memory.store(phys(OLD), 1u32).unwrap();
    mmu.snoop();
    assert!(mmu.take_stores().is_empty());
}

#[test]
fn stores_are_not_told_to_those_who_keep_pages_out_later() {
    for snooped in [false, true] {
        let mut mmu = unpaged();
        let memory = Arc::clone(mmu.memory());
        mmu.keep_out([linear(PAGE).page()]);
        memory.store(phys(OLD), 1u32).unwrap();
        if snooped {
            mmu.snoop();
        }
        mmu.keep_out([]);
        mmu.snoop();
        mmu.keep_out([linear(PAGE).page()]);
        mmu.snoop();
        assert_eq!(mmu.take_stores(), []);
    }
}

/// A device stores to page tables at random while a processor uses them. After the device has stopped and the processor has
/// looked, no slot disagrees with the tables.
#[test]
fn a_device_that_stores_to_page_tables_meanwhile_leaves_no_false_slot() {
    const PAGES: u32 = 64;
    for seed in 0..40 {
        let mut mmu = two_level();
        for page in 0..PAGES {
            map(&mut mmu, PAGE + page * 0x1000, OLD, P | W | U);
        }
        let table = pte_at(&mut mmu, PAGE & !0x3f_ffff).get();
        let first = pte_at(&mut mmu, PAGE).get();
        let memory = Arc::clone(mmu.memory());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = fastrand(seed);
                for _ in 0..3000 {
                    let entry = first + u64::from(random() % PAGES) * 4;
                    let frame = OLD + u64::from(random() % 16) * 0x1000;
                    let present = u64::from(random() & 3 > 0);
                    let value = (frame | W | U | A | D | present) as u32;
                    memory.store(phys(entry), value).unwrap();
                }
                done.store(true, Ordering::Release);
            });
            let mut random = fastrand(seed + 1000);
            while !done.load(Ordering::Acquire) {
                let addr = linear(PAGE + random() % PAGES * 0x1000);
                let _may_fault = mmu.read::<u32>(addr, User);
                match random() % 8 {
                    0 => mmu.invlpg(addr),
                    1 => mmu.flush_non_global(),
                    2 | 3 => mmu.snoop(),
                    _ => {}
                }
            }
        });
        mmu.snoop();
        mmu.flush_non_global();
        for page in 0..PAGES {
            let addr = linear(PAGE + page * 0x1000);
            let cached = mmu.tlb().frame(View::of(Access::Read, User), addr.page());
            let walked = mmu.walk(addr).ok().map(|found| found.phys.frame());
            assert!(
                cached.is_none() || cached == walked,
                "seed {seed}, page {page}: {cached:?}, not {walked:?}, table {table:#x}"
            );
        }
    }
}

fn fastrand(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as u32
    }
}

#[test]
fn an_epoch_of_the_dirty_log_has_what_was_written_in_it() {
    let mut mmu = unpaged();
    let memory = Arc::clone(mmu.memory());
    let frame = |addr: u64| phys(addr).frame();
    let (open, other, device) = (0x30_0000u64, 0x31_0000, 0x32_0000);
    mmu.write(linear(open as u32), Supervisor, 1u8).unwrap();
    mmu.rest();
    let mut log = DirtyLog::new(&memory);
    let mut second = DirtyLog::new(&memory);
    assert_eq!(log.frames().count(), 0);
    mmu.wake();
    // Through a write slot that was open before the epoch.
    mmu.write(linear(open as u32), Supervisor, 2u8).unwrap();
    mmu.write(linear(open as u32 + 8), Supervisor, 2u8).unwrap();
    mmu.rest();
    memory.store(phys(device), 1u8).unwrap();
    assert_eq!(log.clear(), [frame(open), frame(device)]);
    assert_eq!(log.frames().count(), 0);
    mmu.wake();
    mmu.write(linear(other as u32), Supervisor, 2u8).unwrap();
    mmu.rest();
    assert!(log.frames().eq([frame(other)]));
    assert_eq!(second.clear(), [frame(open), frame(other), frame(device)]);
    assert_eq!(log.clear(), [frame(other)]);
}

#[test]
fn a_running_processor_loses_no_store_to_the_dirty_log() {
    let mut mmu = unpaged();
    let memory = Arc::clone(mmu.memory());
    let addr = linear(0x30_0000);
    mmu.write(addr, Supervisor, 1u8).unwrap();
    let mut log = DirtyLog::new(&memory);
    log.clear();
    // The processor has not dropped its write slot yet, so that nobody sees this store.
    mmu.write(addr, Supervisor, 2u8).unwrap();
    mmu.snoop();
    assert_eq!(log.clear(), [phys(0x30_0000).frame()]);
}

/// A device stores to one frame after the other while a log's epochs end: every frame is in one of them.
#[test]
fn stores_while_an_epoch_ends_are_in_one_of_the_two() {
    const FRAMES: u64 = 64;
    const ROUNDS: u64 = 500;
    let memory = Memory::new(RAM).unwrap();
    let mut log = DirtyLog::new(&memory);
    let (begun, done) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..ROUNDS {
                while begun.load(Ordering::Acquire) < round {
                    thread::yield_now();
                }
                for frame in 0..FRAMES {
                    memory.store(phys(frame * 0x1000), round).unwrap();
                }
                done.store(round, Ordering::Release);
            }
        });
        for round in 1..ROUNDS {
            let mut logged = 0u64;
            let mut follow = || {
                for frame in log.clear() {
                    logged |= 1 << frame.get();
                }
            };
            begun.store(round, Ordering::Release);
            while done.load(Ordering::Acquire) < round {
                follow();
            }
            follow();
            assert_eq!(logged, u64::MAX, "round {round}");
        }
    });
}

/// A subscriber that has others subscribe while it is told, and while it is dropped.
struct Recruiter(Arc<Memory>);

impl Recruiter {
    fn recruit(&self) {
        self.0.subscribe(Weak::<Self>::new());
    }
}

impl Subscriber for Recruiter {
    fn stored(&self, _: &mmu::Store) {
        self.recruit();
    }

    fn remapped(&self, _: Range<Frame>) {
        self.recruit();
    }

    fn write_protect(&self) {
        self.recruit();
    }
}

impl Drop for Recruiter {
    fn drop(&mut self) {
        self.recruit();
    }
}

#[test]
fn subscribers_may_subscribe_others_and_end_meanwhile() {
    let memory = Memory::new(RAM).unwrap();
    let recruiter = Arc::new(Recruiter(Arc::clone(&memory)));
    let weak: Weak<dyn Subscriber> = Arc::<Recruiter>::downgrade(&recruiter);
    memory.subscribe(weak);
    let storing = thread::spawn({
        let memory = Arc::clone(&memory);
        move || {
            for _ in 0..10_000 {
                memory.store(phys(OLD), 1u32).unwrap();
            }
        }
    });
    let _log = DirtyLog::new(&memory);
    drop(recruiter);
    storing.join().unwrap();
}

/// A virtio queue's used index is published by such a store.
#[test]
fn atomic_stores_of_devices_are_seen() {
    let mut mmu = unpaged();
    let ram = mmu.memory().guest_ram();
    mmu.mark_code(phys(OLD).frame());
    let epoch = mmu.code_epoch();
    ram.store(7u16, GuestAddress(OLD), Ordering::Release)
        .unwrap();
    assert_eq!(mmu.code_epoch(), epoch + 1);
    mmu.mark_code(phys(OLD).frame());
    ram.write_obj(7u16, GuestAddress(OLD)).unwrap();
    assert_eq!(mmu.code_epoch(), epoch + 2);
}

/// A subscriber that remembers whether the frame was still marked when it was told.
struct Witness(Arc<Memory>, AtomicBool);

impl Subscriber for Witness {
    fn stored(&self, store: &mmu::Store) {
        let marked = self.0.has(store.frame, Attribute::Code);
        self.1.store(marked, Ordering::Relaxed);
    }

    fn remapped(&self, _: Range<Frame>) {}

    fn write_protect(&self) {}
}

/// The mark stays until all are told: otherwise a processor could open the page for writing before it is told that the code
/// there is void.
#[test]
fn code_is_marked_until_all_have_been_told() {
    let mut mmu = unpaged();
    let memory = Arc::clone(mmu.memory());
    let witness = Arc::new(Witness(Arc::clone(&memory), AtomicBool::new(false)));
    let weak: Weak<dyn Subscriber> = Arc::<Witness>::downgrade(&witness);
    memory.subscribe(weak);
    let frame = phys(OLD).frame();
    for stores in [
        |mmu: &mut mmu::Mmu| mmu.memory().store(phys(OLD), 1u32).unwrap(),
        |mmu: &mut mmu::Mmu| mmu.write_phys(phys(OLD), 1u32).unwrap(),
    ] {
        mmu.mark_code(frame);
        stores(&mut mmu);
        assert!(witness.1.swap(false, Ordering::Relaxed));
        assert!(!memory.has(frame, Attribute::Code));
    }
}

#[test]
fn a_linear_address_is_not_told_apart_by_its_upper_half() {
    let mut mmu = unpaged();
    mmu.write(LinearAddr::new(0x30_0000), Supervisor, 5u32)
        .unwrap();
    let alias = LinearAddr::new(0x7_0030_0000);
    assert_eq!(mmu.read(alias, Supervisor), Ok(5u32));
}
