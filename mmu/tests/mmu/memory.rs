//! Guest-physical memory as the host sees it.

use std::os::unix::fs::FileExt;

use mmu::{GuestPhys, MAX_LOW_RAM, MAX_RAM, MIN_RAM, Memory, MemoryError, NotRam, RegionKind};
use vm_memory::{Bytes, GuestAddress};

use crate::guest::phys;

#[test]
fn sizes_out_of_range_are_refused_with_value_and_limits() {
    for bytes in [
        0,
        1,
        4096,
        MIN_RAM - 4096,
        MIN_RAM + 1,
        MAX_RAM - 1,
        MAX_RAM + 4096,
        1 << 40,
        u64::MAX,
    ] {
        let error = Memory::new(bytes).unwrap_err();
        assert!(matches!(error, MemoryError::Size { bytes: named } if named == bytes));
        let text = error.to_string();
        assert!(
            text.contains(&bytes.to_string()) && text.contains("1 MiB") && text.contains("32 GiB"),
            "{text}"
        );
    }
    for bytes in [MIN_RAM, MIN_RAM + 4096, MAX_LOW_RAM] {
        assert_eq!(Memory::new(bytes).unwrap().size(), bytes);
    }
    let hole = (1 << 32) - MAX_LOW_RAM;
    for bytes in [MAX_LOW_RAM + 4096, MAX_RAM] {
        assert_eq!(Memory::new(bytes).unwrap().size(), bytes + hole);
    }
}

#[test]
fn the_map_is_that_of_a_pc() {
    let memory = Memory::new(2 << 20).unwrap();
    for (addr, kind) in [
        (0, RegionKind::Ram),
        (0x9_ffff, RegionKind::Ram),
        (0xa_0000, RegionKind::Device),
        (0xb_ffff, RegionKind::Device),
        (0xc_0000, RegionKind::Rom),
        (0xf_ffff, RegionKind::Rom),
        (0x10_0000, RegionKind::Ram),
        (0x1f_ffff, RegionKind::Ram),
        (0x20_0000, RegionKind::Device),
        (0xf_ffff_ffff, RegionKind::Device),
        (u64::MAX, RegionKind::Device),
    ] {
        assert_eq!(memory.region(phys(addr)), kind, "{addr:#x}");
    }
}

#[test]
fn ranges_that_are_not_all_memory_are_refused() {
    let memory = Memory::new(MIN_RAM).unwrap();
    for (addr, len) in [
        (0x9_ffff, 2),
        (0x9_f000, 0x2_2000),
        (0xa_0000, 1),
        (0xb_ffff, 2),
        (0xf_ffff, 2),
        (0x10_0000, 1),
        (u64::MAX, 1),
        (u64::MAX - 1, 4),
    ] {
        let mut buffer = vec![0; len];
        let error = Err(NotRam {
            addr: phys(addr),
            len,
        });
        assert_eq!(memory.read(phys(addr), &mut buffer), error);
        assert_eq!(memory.write(phys(addr), &buffer), error);
    }
    for addr in [0x9_fffd, 0xa_0000, 0xf_fffd, u64::MAX] {
        let error = NotRam {
            addr: phys(addr),
            len: 4,
        };
        assert_eq!(memory.load::<u32>(phys(addr)), Err(error));
        assert_eq!(memory.store(phys(addr), 0u32), Err(error));
    }
}

#[test]
fn the_file_the_mapping_and_vm_memory_are_the_same_bytes() {
    let memory = Memory::new(MIN_RAM).unwrap();
    memory.write(phys(0x1234), b"host").unwrap();
    memory
        .guest_ram()
        .write_slice(b"loader", GuestAddress(0x2345))
        .unwrap();
    let mut bytes = [0; 4];
    memory.file().read_exact_at(&mut bytes, 0x1234).unwrap();
    assert_eq!(&bytes, b"host");
    let mut bytes = [0; 6];
    memory.read(GuestPhys::new(0x2345), &mut bytes).unwrap();
    assert_eq!(&bytes, b"loader");
}

#[test]
fn the_file_cannot_shrink_under_the_mapping() {
    let memory = Memory::new(MIN_RAM).unwrap();
    assert!(memory.file().set_len(0).is_err());
    assert!(memory.file().set_len(MIN_RAM * 2).is_err());
}
