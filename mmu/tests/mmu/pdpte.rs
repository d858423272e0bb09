//! Loading of the PAE pointer registers: SDM Vol. 3A, 4.4.1 PDPTE Registers.

use std::sync::Arc;

use mmu::{Mmu, MmuState, NoTranslation, Paging, PagingMode, ReservedBits};

use crate::guest::{RAM, linear, phys, unpaged};

const POINTERS: u32 = 0x1020;

fn pae(cr3: u32) -> Paging {
    Paging {
        mode: PagingMode::Pae,
        cr3: cr3.into(),
        ..Paging::default()
    }
}

#[test]
fn a_present_pointer_with_a_reserved_bit_is_refused_and_an_absent_one_is_not() {
    let mut mmu = unpaged();
    for register in 0..4 {
        for bit in 1..64u32 {
            let slot = phys(u64::from(POINTERS) + register * 8);
            let reserved = matches!(bit, 1 | 2 | 5..=8 | 36..);
            mmu.write_phys(slot, 1u64 << bit | 1).unwrap();
            assert_eq!(
                mmu.load_pdptes(POINTERS),
                if reserved { Err(ReservedBits) } else { Ok(()) },
                "bit {bit}"
            );
            mmu.write_phys(slot, 1u64 << bit).unwrap();
            assert_eq!(
                mmu.load_pdptes(POINTERS),
                Ok(()),
                "bit {bit} of an absent pointer"
            );
        }
        mmu.write_phys(phys(u64::from(POINTERS) + register * 8), 0u64)
            .unwrap();
    }
}

#[test]
fn the_table_is_found_at_a_32_byte_boundary() {
    let mut mmu = unpaged();
    mmu.write_phys(phys(u64::from(POINTERS)), 0x3001u64)
        .unwrap();
    mmu.write_phys(phys(0x3000), 0x60_0083u64).unwrap();
    mmu.set_paging(pae(POINTERS | 0x1f));
    mmu.load_pdptes(POINTERS | 0x1f).unwrap();
    assert_eq!(mmu.walk(linear(0x12_3456)).unwrap().phys, phys(0x72_3456));
}

#[test]
fn a_refused_load_keeps_the_registers() {
    let mut mmu = unpaged();
    mmu.write_phys(phys(0x3000), 0x60_0083u64).unwrap();
    mmu.write_phys(phys(u64::from(POINTERS)), 0x3001u64)
        .unwrap();
    mmu.set_paging(pae(POINTERS));
    mmu.load_pdptes(POINTERS).unwrap();
    mmu.write_phys(phys(u64::from(POINTERS)), 0x5001u64)
        .unwrap();
    mmu.write_phys(phys(u64::from(POINTERS) + 8), 0x5003u64)
        .unwrap();
    assert_eq!(mmu.load_pdptes(POINTERS), Err(ReservedBits));
    assert_eq!(mmu.walk(linear(0)).unwrap().phys, phys(0x60_0000));
    assert_eq!(
        mmu.walk(linear(0x4000_0000)),
        Err(NoTranslation::NotPresent)
    );
}

#[test]
fn a_store_to_the_table_means_nothing_until_the_next_load() {
    let mut mmu = unpaged();
    mmu.write_phys(phys(0x3000), 0x60_0083u64).unwrap();
    mmu.set_paging(pae(POINTERS));
    mmu.load_pdptes(POINTERS).unwrap();
    mmu.write_phys(phys(u64::from(POINTERS)), 0x3001u64)
        .unwrap();
    mmu.flush_all();
    assert_eq!(mmu.walk(linear(0)), Err(NoTranslation::NotPresent));
    mmu.load_pdptes(POINTERS).unwrap();
    assert!(mmu.walk(linear(0)).is_ok());
}

#[test]
fn a_table_outside_memory_reads_as_ones_and_is_refused() {
    let mut mmu = unpaged();
    for cr3 in [RAM as u32, 0xa_0000, 0xffff_ffe0] {
        assert_eq!(mmu.load_pdptes(cr3), Err(ReservedBits), "cr3 {cr3:#x}");
    }
}

#[test]
fn the_registers_are_saved_and_reserved_bits_in_them_refused() {
    let mut mmu = unpaged();
    mmu.write_phys(phys(u64::from(POINTERS)), 0x3001u64)
        .unwrap();
    mmu.write_phys(phys(0x3000), 0x60_0083u64).unwrap();
    mmu.load_pdptes(POINTERS).unwrap();
    let state = mmu.save();
    assert_eq!(state.pdptes, [0x3001, 0, 0, 0]);
    let mut restored = Mmu::new(Arc::clone(mmu.memory())).unwrap();
    // Later stores to the table have no effect until the next load.
    mmu.write_phys(phys(u64::from(POINTERS)), 0u64).unwrap();
    restored.restore(pae(POINTERS), &state).unwrap();
    let found = restored.walk(linear(0x12_3456)).unwrap();
    assert_eq!(found.phys, phys(0x72_3456));
    for bit in (1..3).chain(5..9).chain(36..64) {
        let pdptes = [1, 1 << bit | 1, 0, 0];
        let refused = restored.restore(pae(POINTERS), &MmuState { pdptes });
        assert!(refused.is_err(), "{bit}");
    }
}
