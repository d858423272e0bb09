//! Every combination of entry bits, control bits, access and privilege, against the oracle. The idea is from the access test of
//! kvm-unit-tests.
//!
//! These are left out, for a reason: address bits (the random test covers them); AVL bits 11:9, PWT and PCD (ignored by
//! translation); D and G in an entry that points to a table (ignored, as bits of `IGNORED_IN_TABLE` stand for them).

use mmu::{
    Access, Frame, GuestPhys, LinearAddr, MemFault, Memory, Mmu, PageSize, Paging, PagingMode,
    Privilege,
};

use crate::guest::{ACCESSES, PRIVILEGES};
use crate::oracle::{Registers, Request, Success, predict};

const POINTERS: u64 = 0x1000;
const DIRECTORY: u64 = 0x2000;
const TABLE: u64 = 0x3000;
const SMALL_PAGE: u64 = 0x5000;
const LARGE_PAGE: u64 = 0x40_0000;
const RAM: u64 = 0x80_0000;
/// An address in the third gigabyte for which neither index is zero.
const LINEAR: u32 = 0x8060_7abc;

const XD: u64 = 1 << 63;
const LARGE: u64 = 0x80;
/// D and G: meaningless where an entry points to a table.
const IGNORED_IN_TABLE: u64 = 0x140;

/// All sums of subsets of `bits`.
fn subsets(bits: &[u64]) -> Vec<u64> {
    bits.iter().fold(vec![0], |sums, bit| {
        sums.iter().flat_map(|sum| [*sum, sum | bit]).collect()
    })
}

/// Each of `subsets`, combined with each of `extras`.
fn with_each(subsets: Vec<u64>, extras: &[u64]) -> Vec<u64> {
    subsets
        .iter()
        .flat_map(|set| extras.iter().map(move |extra| set | extra))
        .collect()
}

/// The entries of one format to enumerate.
struct Cases {
    mode: PagingMode,
    entry_bytes: u64,
    table_pdes: Vec<u64>,
    large_pdes: Vec<u64>,
    ptes: Vec<u64>,
}

impl Cases {
    fn two_level() -> Self {
        let flags = [0x1, 0x2, 0x4, 0x20];
        let leaf_flags = [0x1, 0x2, 0x4, 0x20, 0x40, 0x100];
        Self {
            mode: PagingMode::TwoLevel,
            entry_bytes: 4,
            table_pdes: with_each(subsets(&flags), &[TABLE, TABLE | IGNORED_IN_TABLE]),
            // Valid, PAT, address bit 32 (PSE-36), and three reserved bits.
            large_pdes: with_each(
                subsets(&leaf_flags),
                &[0, 1 << 12, 1 << 13, 1 << 17, 1 << 19, 1 << 21],
            ),
            // Valid, and PAT.
            ptes: with_each(subsets(&leaf_flags), &[0, 0x80]),
        }
    }

    fn pae() -> Self {
        let flags = [0x1, 0x2, 0x4, 0x20, XD];
        let leaf_flags = [0x1, 0x2, 0x4, 0x20, 0x40, 0x100, XD];
        Self {
            mode: PagingMode::Pae,
            entry_bytes: 8,
            table_pdes: with_each(
                subsets(&flags),
                &[
                    TABLE,
                    TABLE | IGNORED_IN_TABLE,
                    TABLE | 1 << 36,
                    TABLE | 1 << 62,
                ],
            ),
            // Valid, PAT, address bit 32, and reserved bits low and high.
            large_pdes: with_each(
                subsets(&leaf_flags),
                &[
                    0,
                    1 << 12,
                    1 << 32,
                    1 << 13,
                    1 << 20,
                    1 << 36,
                    1 << 51,
                    1 << 62,
                ],
            ),
            ptes: with_each(subsets(&leaf_flags), &[0, 0x80, 1 << 36, 1 << 51, 1 << 62]),
        }
    }
}

/// One machine with the entries under test.
struct Bench {
    mmu: Mmu,
    entry_bytes: u64,
    pde_at: u64,
    pte_at: u64,
    checked: u64,
    faults: u64,
}

impl Bench {
    fn new(cases: &Cases) -> Self {
        let mut mmu = Mmu::new(Memory::new(RAM).unwrap()).unwrap();
        let la = u64::from(LINEAR);
        let (pde_index, pte_index) = match cases.mode {
            PagingMode::Pae => (la >> 21 & 0x1ff, la >> 12 & 0x1ff),
            _ => (la >> 22, la >> 12 & 0x3ff),
        };
        mmu.write_phys(GuestPhys::new(POINTERS + 2 * 8), DIRECTORY | 1)
            .unwrap();
        mmu.load_pdptes(POINTERS as u32).unwrap();
        Self {
            mmu,
            entry_bytes: cases.entry_bytes,
            pde_at: DIRECTORY + pde_index * cases.entry_bytes,
            pte_at: TABLE + pte_index * cases.entry_bytes,
            checked: 0,
            faults: 0,
        }
    }

    fn load(&self, addr: u64) -> u64 {
        let addr = GuestPhys::new(addr);
        match self.entry_bytes {
            4 => self.mmu.read_phys::<u32>(addr).unwrap().into(),
            _ => self.mmu.read_phys::<u64>(addr).unwrap(),
        }
    }

    fn store(&mut self, addr: u64, entry: u64) {
        let addr = GuestPhys::new(addr);
        match self.entry_bytes {
            4 => self.mmu.write_phys(addr, entry as u32).unwrap(),
            _ => self.mmu.write_phys(addr, entry).unwrap(),
        }
    }

    /// Sets the entries up and checks every access at both privileges.
    fn check_entries(&mut self, regs: &Registers, pde: u64, pte: u64) {
        for access in ACCESSES {
            for privilege in PRIVILEGES {
                self.store(self.pde_at, pde);
                self.store(self.pte_at, pte);
                self.mmu.flush_all();
                self.check(regs, access, privilege, (pde, pte));
            }
        }
    }

    fn check(
        &mut self,
        regs: &Registers,
        access: Access,
        privilege: Privilege,
        (pde, pte): (u64, u64),
    ) {
        let request = Request {
            linear: LINEAR,
            write: access == Access::Write,
            fetch: access == Access::Fetch,
            user: privilege == Privilege::User,
        };
        let expected = predict(regs, |addr, _| self.load(addr), request);
        let context =
            || format!("{regs:x?}\n{request:x?} pde {pde:#x} pte {pte:#x}\nexpected {expected:x?}");
        self.checked += 1;
        match &expected {
            Err(code) => {
                self.faults += 1;
                // The second access finds the same: a fault is not cached.
                for _ in 0..2 {
                    let fault = self.translate(access, privilege).unwrap_err();
                    assert_eq!(
                        fault,
                        MemFault::Page(self.access(access, privilege).unwrap_err()),
                        "{}",
                        context()
                    );
                    let MemFault::Page(fault) = fault else {
                        panic!("{}", context())
                    };
                    assert_eq!(
                        (fault.addr.get(), fault.code.bits()),
                        (LINEAR.into(), *code),
                        "{}",
                        context()
                    );
                }
                assert_eq!(
                    (self.load(self.pde_at), self.load(self.pte_at)),
                    (pde, pte),
                    "A or D set\n{}",
                    context()
                );
            }
            Ok(success) => {
                // The first access walks, the second may hit the TLB; both are the same to the guest.
                for _ in 0..2 {
                    let frame = self
                        .access(access, privilege)
                        .unwrap_or_else(|_| panic!("{}", context()));
                    let on_bus = success.phys >= RAM;
                    assert_eq!(
                        frame,
                        (!on_bus).then_some(Frame::new(success.phys >> 12)),
                        "{}",
                        context()
                    );
                    self.check_entries_after(success, &context);
                }
                assert_eq!(
                    self.translate(access, privilege),
                    Ok(success.phys),
                    "{}",
                    context()
                );
                self.check_walk(success, request.write, &context);
            }
        }
    }

    fn check_entries_after(&self, success: &Success, context: &dyn Fn() -> String) {
        for &(addr, value) in &success.entries {
            assert_eq!(self.load(addr), value, "entry at {addr:#x}\n{}", context());
        }
    }

    fn check_walk(&self, success: &Success, written: bool, context: &dyn Fn() -> String) {
        let found = self.mmu.walk(LinearAddr::from(LINEAR)).unwrap();
        let size = match success.page_bytes {
            0x1000 => PageSize::KIB_4,
            0x20_0000 => PageSize::MIB_2,
            _ => PageSize::MIB_4,
        };
        assert_eq!(found.phys.get(), success.phys, "{}", context());
        assert_eq!(
            (found.page_size, found.global),
            (size, success.global),
            "{}",
            context()
        );
        assert!(found.dirty || !written, "{}", context());
    }

    /// Makes the access and returns the frame that it reached, found by its contents; `None` if it was not memory.
    fn access(
        &mut self,
        access: Access,
        privilege: Privilege,
    ) -> Result<Option<Frame>, mmu::PageFault> {
        let addr = LinearAddr::from(LINEAR);
        let result = match access {
            Access::Read => self
                .mmu
                .read::<u32>(addr, privilege)
                .map(|tag| Frame::new(tag.into())),
            Access::Fetch => self.mmu.fetch_page(addr, privilege),
            Access::Write => self
                .mmu
                .write(addr, privilege, u32::MAX)
                .map(|()| self.find_written()),
        };
        match result {
            Ok(frame) => Ok(Some(frame)),
            Err(MemFault::Device) => Ok(None),
            Err(MemFault::Page(fault)) => Err(fault),
        }
    }

    /// The target whose tag was overwritten; restores the tag.
    fn find_written(&mut self) -> Frame {
        let mut hit = None;
        for target in targets() {
            let tag = target.frame().get() as u32;
            if self.mmu.read_phys::<u32>(target).unwrap() != tag {
                self.mmu.write_phys(target, tag).unwrap();
                assert_eq!(hit.replace(target.frame()), None);
            }
        }
        hit.expect("the store reached one of the pages")
    }

    fn translate(&mut self, access: Access, privilege: Privilege) -> Result<u64, MemFault> {
        let span = self
            .mmu
            .translate(LinearAddr::from(LINEAR), 4, access, privilege)?;
        assert_eq!((span.first.len, span.second), (4, None));
        Ok(span.first.addr.get())
    }
}

/// The targets in RAM of an access to [`LINEAR`]: through a small, a 2 MiB or a 4 MiB page.
fn targets() -> [GuestPhys; 3] {
    let la = u64::from(LINEAR);
    [
        SMALL_PAGE | la & 0xfff,
        LARGE_PAGE | la & 0x1f_ffff,
        LARGE_PAGE | la & 0x3f_ffff,
    ]
    .map(GuestPhys::new)
}

/// Runs all cases. Returns the number of accesses checked and of those that faulted.
fn enumerate(cases: &Cases) -> (u64, u64) {
    let mut bench = Bench::new(cases);
    for target in targets() {
        bench
            .mmu
            .write_phys(target, target.frame().get() as u32)
            .unwrap();
    }
    for bits in 0..16u32 {
        let [wp, pse, pge, nxe] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
        let (mode, cr3) = (cases.mode, DIRECTORY as u32);
        bench.mmu.set_paging(Paging {
            mode,
            pse,
            wp,
            pge,
            nxe,
            cr3,
        });
        let pae = mode == PagingMode::Pae;
        let regs = Registers {
            pg: true,
            pae,
            pse,
            wp,
            pge,
            nxe,
            cr3,
            pdpte: [0, 0, DIRECTORY | 1, 0],
        };
        let large = pae || pse;
        for &pde in &cases.table_pdes {
            // Without PSE, bit 7 has no meaning in 32-bit paging.
            let pde = if large { pde } else { pde | LARGE };
            for &pte in &cases.ptes {
                bench.check_entries(&regs, pde, SMALL_PAGE | pte);
            }
        }
        if large {
            for &pde in &cases.large_pdes {
                bench.check_entries(&regs, LARGE_PAGE | LARGE | pde, 0);
            }
        }
    }
    (bench.checked, bench.faults)
}

#[test]
fn two_level_paging_agrees_with_the_oracle() {
    let (checked, faults) = enumerate(&Cases::two_level());
    println!("32-bit paging: {checked} accesses checked, {faults} of them fault");
    assert!(faults > 0 && faults < checked);
}

#[test]
fn pae_paging_agrees_with_the_oracle() {
    let (checked, faults) = enumerate(&Cases::pae());
    println!("PAE paging: {checked} accesses checked, {faults} of them fault");
    assert!(faults > 0 && faults < checked);
}
