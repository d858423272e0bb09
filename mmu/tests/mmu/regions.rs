//! The memory map: changed at run time, seen by `vm-memory`, and saved.

use std::sync::Arc;
use std::thread;

use mmu::{
    DirtyLog, Frame, GuestPhys, LinearWidth, MapError, MemFault, Memory, MemoryError, MemoryState,
    Region, RegionKind,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::guest::{RAM, Supervisor, linear, phys, unpaged};

/// A removal clears the bytes of a region, which counts as a store.
#[test]
fn the_dirty_log_has_what_a_removal_has_cleared() {
    let memory = Memory::new(RAM).unwrap();
    let (start, end) = (0x4000_0000, 0x4000_2000);
    let range = || phys(start)..phys(end);
    memory.add_region(range(), RegionKind::Ram).unwrap();
    memory.store(phys(start), 1u32).unwrap();
    let state = memory.save();
    let memory = Memory::restore(
        state,
        memory.file().try_clone().unwrap(),
        LinearWidth::Bits32,
    )
    .unwrap();
    let mut log = DirtyLog::new(&memory);
    memory.remove_region(range()).unwrap();
    memory.add_region(range(), RegionKind::Ram).unwrap();
    let frames = [phys(start).frame(), phys(start + 0x1000).frame()];
    assert_eq!(log.clear(), frames);
    assert_eq!(memory.load(phys(start)), Ok(0u32));
}

/// The map and the kinds of frames agree, even if several threads change the map at the same time.
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
    assert!(memory.ram_end() < rom.0);

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
    let memory = Memory::restore(state, file, LinearWidth::Bits32).unwrap();
    let mut bytes = [0; 5];
    memory.read(rom.start, &mut bytes).unwrap();
    assert_eq!(&bytes, b"moved");
    assert_eq!(memory.region(rom.start), RegionKind::Rom);
    assert_eq!(memory.written(Frame::new(0)).get(), 0);

    let foreign = tempfile();
    assert!(Memory::restore(memory.save(), foreign, LinearWidth::Bits32).is_err());
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
        Memory::restore(state_of(regions), file, LinearWidth::Bits32)
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

/// A file of the right size that is not a sealed memfd.
fn tempfile() -> std::fs::File {
    let name = std::env::temp_dir().join(format!("replex-mmu-{}", std::process::id()));
    let file = std::fs::File::create_new(&name).unwrap();
    std::fs::remove_file(name).unwrap();
    file.set_len(1 << 32).unwrap();
    file
}
