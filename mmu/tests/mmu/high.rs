//! RAM above 4 GiB, beyond the hole for devices.

use std::os::unix::fs::MetadataExt;

use mmu::{
    Access, Attribute, DirtyLog, Frame, LinearAddr, LinearWidth, Memory, Mmu, NotRam, Paging,
    PagingMode, PagingModel, Region, RegionKind, View,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::guest::{P, Supervisor, U, User, W, phys};

const GIB: u64 = 1 << 30;
const SIZE: u64 = 16 * GIB;
const LOW_END: u64 = 0xe000_0000;
const ABOVE: u64 = 4 * GIB;
const END: u64 = SIZE + ABOVE - LOW_END;

#[test]
fn the_hole_below_4_gib_belongs_to_devices() {
    let memory = Memory::new(SIZE).unwrap();
    let region = |start, end, kind| Region { start, end, kind };
    assert_eq!(
        memory.regions(),
        [
            region(0, 0xa_0000, RegionKind::Ram),
            region(0xc_0000, 0x10_0000, RegionKind::Rom),
            region(0x10_0000, LOW_END, RegionKind::Ram),
            region(ABOVE, END, RegionKind::Ram),
        ]
    );
    for (addr, kind) in [
        (LOW_END - 1, RegionKind::Ram),
        (LOW_END, RegionKind::Device),
        (ABOVE - 1, RegionKind::Device),
        (ABOVE, RegionKind::Ram),
        (END - 1, RegionKind::Ram),
        (END, RegionKind::Device),
        (1 << 40, RegionKind::Device),
    ] {
        assert_eq!(memory.region(phys(addr)), kind, "{addr:#x}");
    }
    assert_eq!((memory.size(), memory.ram_end()), (END, END));
    for addr in [LOW_END - 2, ABOVE - 2, END - 2] {
        let not_ram = NotRam {
            addr: phys(addr),
            len: 4,
        };
        assert_eq!(memory.load::<u32>(phys(addr)), Err(not_ram));
        assert_eq!(memory.store(phys(addr), 0u32), Err(not_ram));
    }
    memory
        .add_region(phys(0xfffc_0000)..phys(ABOVE), RegionKind::Rom)
        .unwrap();
    assert!(
        memory
            .add_region(phys(END)..phys(END + 0x1000), RegionKind::Ram)
            .is_err()
    );
}

#[test]
fn all_kinds_of_stores_reach_both_parts_and_are_logged() {
    let memory = Memory::new(SIZE).unwrap();
    let ram = memory.guest_ram();
    let mut log = DirtyLog::new(&memory);
    memory.write(phys(END - 8), &[1; 8]).unwrap();
    memory.store(phys(ABOVE), 2u64).unwrap();
    memory.write(phys(8 * GIB), &[3; 128 << 10]).unwrap();
    ram.write_slice(&[4; 8], GuestAddress(9 * GIB - 4)).unwrap();
    ram.write_slice(&[5; 8], GuestAddress(LOW_END - 8)).unwrap();
    assert!(ram.write_slice(&[6; 8], GuestAddress(LOW_END - 4)).is_err());
    assert_eq!(ram.last_addr(), GuestAddress(END - 1));
    for (addr, value) in [
        (END - 8, 1),
        (8 * GIB + 0x1_2340, 3),
        (9 * GIB, 4),
        (LOW_END - 8, 5),
    ] {
        let byte = memory.load::<u8>(phys(addr)).unwrap();
        assert_eq!(byte, value, "{addr:#x}");
        assert!(memory.has(phys(addr).frame(), Attribute::Dirty));
    }
    let frame = |addr: u64| Frame::new(addr >> 12);
    let mut expected = vec![frame(LOW_END - 8), frame(ABOVE)];
    expected.extend((0..32).map(|page| frame(8 * GIB + (page << 12))));
    expected.extend([frame(9 * GIB - 4), frame(9 * GIB), frame(END - 8)]);
    assert_eq!(log.frames().collect::<Vec<_>>(), expected);
    assert_eq!(log.clear(), expected);
    assert_eq!(log.frames().count(), 0);
    let bytes = memory.file().metadata().unwrap().blocks() * 512;
    assert!(bytes <= 64 * 4096, "{bytes} bytes for few pages");
}

#[test]
fn a_memory_with_two_parts_is_restored() {
    let memory = Memory::new(SIZE).unwrap();
    memory.store(phys(END - 4), 7u32).unwrap();
    memory
        .remove_region(phys(0x10_0000)..phys(LOW_END))
        .unwrap();
    let file = memory.file().try_clone().unwrap();
    let restored = Memory::restore(memory.save(), file, LinearWidth::Bits32).unwrap();
    assert_eq!(restored.regions(), memory.regions());
    assert_eq!(restored.load(phys(END - 4)), Ok(7u32));
    assert_eq!(restored.region(phys(0x20_0000)), RegionKind::Device);
    let small = Memory::new(1 << 20).unwrap();
    let file = small.file().try_clone().unwrap();
    assert!(
        Memory::restore(memory.save(), file, LinearWidth::Bits32).is_err(),
        "the file is too short"
    );
}

#[test]
fn page_tables_and_pages_above_4_gib_are_cached_tracked_and_dropped() {
    const TABLES: u64 = END - 0x10_000;
    const PAGE: u64 = 0x7fff_0123_4000;
    let memory = Memory::for_width(SIZE, LinearWidth::Bits48).unwrap();
    let mut mmu = Mmu::with_model(memory, PagingModel::X86_64).unwrap();
    let shifts = [39, 30, 21, 12];
    let mut entry_at = TABLES;
    for (level, shift) in shifts.into_iter().enumerate() {
        let table = TABLES + level as u64 * 0x1000;
        entry_at = table + (PAGE >> shift & 0x1ff) * 8;
        mmu.write_phys(phys(entry_at), (table + 0x1000) | P | W | U)
            .unwrap();
    }
    mmu.set_paging(Paging {
        mode: PagingMode::FourLevel,
        cr3: TABLES,
        ..Paging::default()
    });
    let addr = LinearAddr::new(PAGE + 8);
    for target in [END - 0x1000, ABOVE, LOW_END - 0x1000, 12 * GIB] {
        mmu.write_phys(phys(entry_at), target | P | W | U).unwrap();
        mmu.invlpg(addr);
        mmu.write(addr, User, target).unwrap();
        assert_eq!(mmu.read_phys(phys(target + 8)), Ok(target));
        let write = View::of(Access::Write, User);
        assert_eq!(
            mmu.tlb().frame(write, addr.page()),
            Some(Frame::new(target >> 12))
        );
        mmu.mark_code(Frame::new(target >> 12));
        assert_eq!(mmu.tlb().frame(write, addr.page()), None);
        let epoch = mmu.code_epoch();
        mmu.write(addr, Supervisor, 0u64).unwrap();
        assert_eq!(mmu.code_epoch(), epoch + 1);
    }
}
