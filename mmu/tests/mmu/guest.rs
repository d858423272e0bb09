//! A small guest for the tests: memory with page tables, and shorthand for accesses.

use mmu::{
    Access, GuestPhys, LinearAddr, MemFault, Memory, Mmu, PAGE_SIZE, PageFault, Paging, PagingMode,
    Privilege,
};

pub use Privilege::{Supervisor, User};

/// Entry bits, as a guest writes them.
pub const P: u64 = 0x1;
pub const W: u64 = 0x2;
pub const U: u64 = 0x4;
pub const A: u64 = 0x20;
pub const D: u64 = 0x40;
pub const PS: u64 = 0x80;
pub const G: u64 = 0x100;

/// Address of the page directory of [`two_level`].
pub const DIRECTORY: u64 = 0x1_0000;
/// Address of the page tables of [`two_level`], one after the other.
const TABLES: u64 = 0x20_0000;
pub const RAM: u64 = 16 << 20;

pub fn phys(addr: u64) -> GuestPhys {
    GuestPhys::new(addr)
}

pub fn linear(addr: u32) -> LinearAddr {
    LinearAddr::from(addr)
}

/// A machine with [`RAM`] and paging off.
pub fn unpaged() -> Mmu {
    Mmu::new(Memory::new(RAM).unwrap()).unwrap()
}

/// A machine with 32-bit paging, PSE, WP and PGE, and an empty page directory.
pub fn two_level() -> Mmu {
    let mut mmu = unpaged();
    mmu.set_paging(Paging {
        mode: PagingMode::TwoLevel,
        pse: true,
        wp: true,
        pge: true,
        nxe: false,
        cr3: DIRECTORY,
    });
    mmu
}

/// The address of the page-table entry for `addr`. Makes the page table if there is none.
pub fn pte_at(mmu: &mut Mmu, addr: u32) -> GuestPhys {
    let slot = pde_at(addr);
    let mut pde: u32 = mmu.read_phys(slot).unwrap();
    if u64::from(pde) & P == 0 {
        let used = (0..1024u64)
            .filter(|i| mmu.read_phys::<u32>(phys(DIRECTORY + i * 4)).unwrap() & 1 != 0)
            .count();
        pde = ((TABLES + (used * PAGE_SIZE) as u64) | P | W | U) as u32;
        mmu.write_phys(slot, pde).unwrap();
    }
    phys(u64::from(pde & 0xffff_f000) + u64::from(addr >> 12 & 0x3ff) * 4)
}

/// The address of the page-directory entry for `addr`.
pub fn pde_at(addr: u32) -> GuestPhys {
    phys(DIRECTORY + u64::from(addr >> 22) * 4)
}

/// Maps the page of `addr` to the frame at `target` with the entry's low bits `flags`. Flushes nothing.
pub fn map(mmu: &mut Mmu, addr: u32, target: u64, flags: u64) {
    let slot = pte_at(mmu, addr);
    mmu.write_phys(slot, (target | flags) as u32).unwrap();
}

/// The page-table entry for `addr`.
pub fn pte(mmu: &mut Mmu, addr: u32) -> u64 {
    let slot = pte_at(mmu, addr);
    mmu.read_phys::<u32>(slot).unwrap().into()
}

/// Reads as the supervisor.
pub fn read32(mmu: &mut Mmu, addr: u32) -> u32 {
    mmu.read(linear(addr), Supervisor).unwrap()
}

/// Address and error code of the page fault that `result` must be.
pub fn fault<T: std::fmt::Debug>(result: Result<T, MemFault>) -> (u32, u32) {
    match result {
        Err(MemFault::Page(PageFault { addr, code })) => {
            (u32::try_from(addr.get()).unwrap(), code.bits())
        }
        other => panic!("a page fault was expected, not {other:?}"),
    }
}

pub const ACCESSES: [Access; 3] = [Access::Read, Access::Write, Access::Fetch];
pub const PRIVILEGES: [Privilege; 2] = [Supervisor, User];
