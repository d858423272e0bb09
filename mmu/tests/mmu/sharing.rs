//! Memory that several parties store to: what a processor has made from it follows, whoever stores and on whatever thread.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;

use mmu::{
    Access, Attribute, DirtyLog, Frame, GuestPhys, LinearAddr, MapError, MemFault, Memory,
    MemoryError, MemoryState, PAGE_SIZE, Region, RegionKind, Subscriber, View,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::guest::{
    A, D, P, RAM, Supervisor, U, User, W, linear, map, phys, pte_at, read32, two_level, unpaged,
};

const PAGE: u32 = 0x1234_5000;
const OLD: u64 = 0x50_0000;
const NEW: u64 = 0x51_0000;

/// The ways in which somebody who is no processor stores.
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

/// A device stores to page tables at random while a processor uses them. When the device has stopped and the processor has
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
    // Not yet noticed: a store that nobody sees.
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

/// Else a processor could open the page for writing before it is told that the code there is void.
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

/// What a removed region held is zeros when it comes back: a store like any other.
#[test]
fn the_dirty_log_has_what_a_removal_has_cleared() {
    let memory = Memory::new(RAM).unwrap();
    let (start, end) = (0x4000_0000, 0x4000_2000);
    let range = || phys(start)..phys(end);
    memory.add_region(range(), RegionKind::Ram).unwrap();
    memory.store(phys(start), 1u32).unwrap();
    let state = memory.save();
    let memory = Memory::restore(state, memory.file().try_clone().unwrap()).unwrap();
    let mut log = DirtyLog::new(&memory);
    memory.remove_region(range()).unwrap();
    memory.add_region(range(), RegionKind::Ram).unwrap();
    let frames = [phys(start).frame(), phys(start + 0x1000).frame()];
    assert_eq!(log.clear(), frames);
    assert_eq!(memory.load(phys(start)), Ok(0u32));
}

/// The map and what accesses find agree, whoever changes the map at the same time.
#[test]
fn regions_are_added_and_removed_on_several_threads() {
    let memory = Memory::new(RAM).unwrap();
    let start = 0x4000_0000;
    let range = || phys(start)..phys(start + 0x40_0000);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..300 {
                    let _there_already = memory.add_region(range(), RegionKind::Ram);
                    let _gone_already = memory.remove_region(range());
                }
            });
        }
    });
    let _there_already = memory.remove_region(range());
    for page in 0..0x400 {
        let addr = phys(start + page * 0x1000);
        assert_eq!(memory.region(addr), RegionKind::Device, "{addr}");
    }
}

#[test]
fn regions_come_and_go() {
    let mut mmu = unpaged();
    let memory = Arc::clone(mmu.memory());
    let range = |start: u64, end: u64| phys(start)..phys(end);
    let (start, end) = (0x4000_0000, 0x4000_3000);
    assert_eq!(
        mmu.read::<u32>(linear(start as u32), Supervisor),
        Err(MemFault::Device)
    );
    memory
        .add_region(range(start, end), RegionKind::Ram)
        .unwrap();
    mmu.snoop();
    mmu.write(linear(start as u32), Supervisor, 7u32).unwrap();
    assert_eq!(memory.load(phys(start)), Ok(7u32));
    let rom = (0xffff_0000, 0x1_0000_0000);
    memory
        .add_region(range(rom.0, rom.1), RegionKind::Rom)
        .unwrap();
    memory.write(phys(rom.0), &[9; 4]).unwrap();
    mmu.snoop();
    mmu.write(linear(rom.0 as u32), Supervisor, 0u32).unwrap();
    memory.store(phys(rom.0), 0u32).unwrap();
    assert_eq!(
        mmu.read(linear(rom.0 as u32), Supervisor),
        Ok(0x0909_0909u32)
    );
    memory
        .add_region(range(0x10_0000_0000, 0x10_0000_1000), RegionKind::Device)
        .unwrap();
    for (bad, kind) in [
        (range(start + 0x1000, end), RegionKind::Device),
        (range(start - 0x1000, start + 0x1000), RegionKind::Ram),
        (range(0xa_0000, 0xc_1000), RegionKind::Device),
        (range(0x10_0000_0000, 0x11_0000_0000), RegionKind::Device),
    ] {
        let error = memory.add_region(bad.clone(), kind);
        assert!(
            matches!(error, Err(MapError::Overlap { .. })),
            "{bad:?} {error:?}"
        );
    }
    for bad in [
        range(0x5000_0000, 0x5000_0000),
        range(0x5000_0000, 0x5000_0001),
    ] {
        let error = memory.add_region(bad, RegionKind::Ram);
        assert!(matches!(error, Err(MapError::Unaligned { .. })));
    }
    let error = memory.add_region(range(0x1_0000_0000, 0x1_0000_1000), RegionKind::Ram);
    assert!(matches!(error, Err(MapError::TooHigh { .. })));
    let error = memory.remove_region(range(start, end - 0x1000));
    assert!(matches!(error, Err(MapError::Absent { .. })));
    assert_eq!(memory.size(), rom.1);

    mmu.mark_code(phys(start + 0x1000).frame());
    memory.remove_region(range(start, end)).unwrap();
    mmu.snoop();
    assert!(mmu.take_code_writes().eq([phys(start + 0x1000).frame()]));
    assert_eq!(
        mmu.read::<u32>(linear(start as u32), Supervisor),
        Err(MemFault::Device)
    );
    memory
        .add_region(range(start, end), RegionKind::Ram)
        .unwrap();
    mmu.snoop();
    assert_eq!(
        mmu.read(linear(start as u32), Supervisor),
        Ok(0u32),
        "its bytes were lost"
    );
}

#[test]
fn vm_memory_sees_ram_and_no_rom() {
    let memory = Memory::new(RAM).unwrap();
    let ram = memory.guest_ram();
    let regions: Vec<_> = ram
        .iter()
        .map(|region| (region.start_addr().0, region.len()))
        .collect();
    assert_eq!(regions, [(0, 0xa_0000), (0x10_0000, RAM - 0x10_0000)]);
    assert!(ram.write_slice(&[1], GuestAddress(0xc_0000)).is_err());
    assert!(ram.write_slice(&[1; 2], GuestAddress(RAM - 1)).is_err());
    drop(memory);
    // The regions keep the bytes mapped.
    ram.write_slice(&[1], GuestAddress(0x10_0000)).unwrap();
}

#[test]
fn memory_moves_with_its_file() {
    let memory = Memory::new(RAM).unwrap();
    let rom = GuestPhys::new(0xffff_0000)..GuestPhys::new(0x1_0000_0000);
    memory.add_region(rom.clone(), RegionKind::Rom).unwrap();
    memory.write(rom.start, b"moved").unwrap();
    let state = postcard::to_allocvec(&memory.save()).unwrap();
    let file = memory.file().try_clone().unwrap();
    drop(memory);
    let state = postcard::from_bytes(&state).unwrap();
    let memory = Memory::restore(state, file).unwrap();
    let mut bytes = [0; 5];
    memory.read(rom.start, &mut bytes).unwrap();
    assert_eq!(&bytes, b"moved");
    assert_eq!(memory.region(rom.start), RegionKind::Rom);
    assert_eq!(memory.written(Frame::new(0)).get(), 0);

    let foreign = tempfile();
    assert!(Memory::restore(memory.save(), foreign).is_err());
}

/// The state of a memory with these regions, as another process may send it.
fn state_of(regions: &[(u64, u64, RegionKind)]) -> MemoryState {
    let regions: Vec<_> = regions
        .iter()
        .map(|&(start, end, kind)| Region { start, end, kind })
        .collect();
    postcard::from_bytes(&postcard::to_allocvec(&regions).unwrap()).unwrap()
}

#[test]
fn a_saved_map_is_checked() {
    let restore = |regions: &[_]| {
        let file = Memory::new(RAM).unwrap().file().try_clone().unwrap();
        Memory::restore(state_of(regions), file)
    };
    let memory = restore(&[
        (0x10_0000, 0x20_0000, RegionKind::Ram),
        (0x10_0000_0000, 0x10_0000_1000, RegionKind::Device),
        (0, 0xa_0000, RegionKind::Ram),
    ])
    .unwrap();
    assert_eq!(memory.size(), 0x20_0000);
    assert!(memory.regions().is_sorted_by_key(|region| region.start));
    assert_eq!(memory.guest_ram().iter().count(), 2);
    let error = memory.add_region(phys(0x1f_f000)..phys(0x21_0000), RegionKind::Ram);
    assert!(matches!(error, Err(MapError::Overlap { .. })));
    for bad in [
        [
            (0, 0x2000, RegionKind::Ram),
            (0x1000, 0x3000, RegionKind::Rom),
        ],
        [
            (0, 0x2000, RegionKind::Ram),
            (0x5000, 0x4000, RegionKind::Rom),
        ],
        [
            (0, 0x2001, RegionKind::Ram),
            (0x3000, 0x4000, RegionKind::Rom),
        ],
        [
            (0, 0x2000, RegionKind::Ram),
            (0x3000, 1 << 33, RegionKind::Rom),
        ],
        [
            (0, 0x2000, RegionKind::Ram),
            (0x3000, u64::MAX, RegionKind::Device),
        ],
    ] {
        assert!(matches!(restore(&bad), Err(MemoryError::Map(_))), "{bad:?}");
    }
}

/// A file of the right size that is no sealed memfd.
fn tempfile() -> std::fs::File {
    let name = std::env::temp_dir().join(format!("replex-mmu-{}", std::process::id()));
    let file = std::fs::File::create_new(&name).unwrap();
    std::fs::remove_file(name).unwrap();
    file.set_len(1 << 32).unwrap();
    file
}

#[test]
fn a_linear_address_is_not_told_apart_by_its_upper_half() {
    let mut mmu = unpaged();
    mmu.write(LinearAddr::new(0x30_0000), Supervisor, 5u32)
        .unwrap();
    let alias = LinearAddr::new(0x7_0030_0000);
    assert_eq!(mmu.read(alias, Supervisor), Ok(5u32));
}
