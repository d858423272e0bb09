//! Every combination of entry bits, control bits, access and privilege, against the oracle. The idea is from the access test of
//! kvm-unit-tests.
//!
//! These are left out, for a reason: address bits (the random test covers them); AVL bits 11:9, PWT and PCD (ignored by
//! translation); D and G in an entry that points to a table (ignored, as bits of `IGNORED_IN_TABLE` stand for them).

use mmu::{
    Access, Frame, GuestPhys, LinearAddr, LinearFault, MemFault, Mmu, PageSize, PagingMode,
    Privilege,
};

use crate::guest::{ACCESSES, PRIVILEGES};
use crate::model;
use crate::oracle::{Registers, Request, Success, predict};

const POINTERS: u64 = 0x1000;
const DIRECTORY: u64 = 0x2000;
const TABLE: u64 = 0x3000;
const SMALL_PAGE: u64 = 0x5000;
/// The middle levels of 4-level paging.
const POINTERS_64: u64 = 0x6000;
const DIRECTORY_64: u64 = 0x8000;
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
    /// The address that is accessed.
    linear: u64,
    entry_bytes: u64,
    /// Where the entries for it are, top level first.
    at: Vec<u64>,
    checked: u64,
    faults: u64,
}

impl Bench {
    /// Creates a machine for an address that has such indices in its structures: where they begin, and the bits.
    fn new(regs: &Registers, linear: u64, structures: &[(u64, u64)]) -> Self {
        let mut mmu = model::mmu(RAM, regs);
        let entry_bytes = regs.width() as u64;
        mmu.write_phys(GuestPhys::new(POINTERS + 2 * 8), DIRECTORY | 1)
            .unwrap();
        mmu.load_pdptes(POINTERS as u32).unwrap();
        for target in targets() {
            mmu.write_phys(target, target.frame().get() as u32).unwrap();
        }
        let at = structures
            .iter()
            .map(|(structure, index)| structure + index * entry_bytes);
        Self {
            mmu,
            linear,
            entry_bytes,
            at: at.collect(),
            checked: 0,
            faults: 0,
        }
    }

    fn linear(&self) -> LinearAddr {
        LinearAddr::new(self.linear)
    }

    /// The entry at `addr`, which is all ones where there is no memory.
    fn load(&self, addr: u64) -> u64 {
        let addr = GuestPhys::new(addr);
        match self.entry_bytes {
            4 => self.mmu.read_phys::<u32>(addr).unwrap_or(u32::MAX).into(),
            _ => self.mmu.read_phys::<u64>(addr).unwrap_or(u64::MAX),
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
    fn check_entries(&mut self, regs: &Registers, entries: &[u64]) {
        assert_eq!(entries.len(), self.at.len());
        for access in ACCESSES {
            for privilege in PRIVILEGES {
                for (at, entry) in self.at.clone().into_iter().zip(entries) {
                    self.store(at, *entry);
                }
                self.mmu.flush_all();
                self.check(regs, access, privilege, entries);
            }
        }
    }

    fn check(&mut self, regs: &Registers, access: Access, privilege: Privilege, entries: &[u64]) {
        let request = Request {
            linear: self.linear,
            write: access == Access::Write,
            fetch: access == Access::Fetch,
            user: privilege == Privilege::User,
        };
        let expected = predict(regs, |addr, _| self.load(addr), request);
        let context =
            || format!("{regs:x?}\n{request:x?} entries {entries:x?}\nexpected {expected:x?}");
        self.checked += 1;
        match &expected {
            Err(code) => {
                self.faults += 1;
                // The second access finds the same: a fault is not cached.
                for _ in 0..2 {
                    let fault = self.access(access, privilege).unwrap_err();
                    assert_eq!(
                        self.translate(access, privilege),
                        Err(LinearFault::Page(fault)),
                        "{}",
                        context()
                    );
                    assert_eq!(
                        (fault.addr.get(), fault.code.bits()),
                        (self.linear, *code),
                        "{}",
                        context()
                    );
                }
                let now: Vec<u64> = self.at.iter().map(|at| self.load(*at)).collect();
                assert_eq!(now, entries, "A or D set\n{}", context());
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
        let found = self.mmu.walk(self.linear()).unwrap();
        let size = match success.page_bytes {
            0x1000 => PageSize::KIB_4,
            0x20_0000 => PageSize::MIB_2,
            0x40_0000 => PageSize::MIB_4,
            _ => PageSize::GIB_1,
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
        let addr = self.linear();
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
            Err(MemFault::NonCanonical) => panic!("{addr} is canonical"),
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

    fn translate(&mut self, access: Access, privilege: Privilege) -> Result<u64, LinearFault> {
        let span = self.mmu.translate(self.linear(), 4, access, privilege)?;
        assert_eq!((span.first.len, span.second), (4, None));
        Ok(span.first.addr.get())
    }
}

/// The targets in RAM of an access to [`LINEAR`], or an address with the same low bits: through a small, a 2 MiB, or a 4 MiB or
/// 1 GiB page.
fn targets() -> [GuestPhys; 3] {
    let la = u64::from(LINEAR);
    [
        SMALL_PAGE | la & 0xfff,
        LARGE_PAGE | la & 0x1f_ffff,
        LARGE_PAGE | la & 0x3f_ffff,
    ]
    .map(GuestPhys::new)
}

/// All settings of WP, PSE, PGE and NXE.
fn settings(regs: &Registers) -> impl Iterator<Item = Registers> + use<> {
    let regs = *regs;
    (0..16u32).map(move |bits| {
        let [wp, pse, pge, nxe] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
        Registers {
            wp,
            pse,
            pge,
            nxe,
            ..regs
        }
    })
}

/// Runs all cases. Returns the number of accesses checked and of those that faulted.
fn enumerate(cases: &Cases) -> (u64, u64) {
    let pae = cases.mode == PagingMode::Pae;
    let regs = Registers {
        pg: true,
        pae,
        cr3: DIRECTORY,
        pdpte: [0, 0, DIRECTORY | 1, 0],
        ..Registers::default()
    };
    let la = u64::from(LINEAR);
    let (pde_index, pte_index) = match pae {
        true => (la >> 21 & 0x1ff, la >> 12 & 0x1ff),
        false => (la >> 22, la >> 12 & 0x3ff),
    };
    let mut bench = Bench::new(&regs, la, &[(DIRECTORY, pde_index), (TABLE, pte_index)]);
    for regs in settings(&regs) {
        bench.mmu.set_paging(model::paging(&regs));
        let large = pae || regs.pse;
        for &pde in &cases.table_pdes {
            // Without PSE, bit 7 has no meaning in 32-bit paging.
            let pde = if large { pde } else { pde | LARGE };
            for &pte in &cases.ptes {
                bench.check_entries(&regs, &[pde, SMALL_PAGE | pte]);
            }
        }
        if large {
            for &pde in &cases.large_pdes {
                bench.check_entries(&regs, &[LARGE_PAGE | LARGE | pde, 0]);
            }
        }
    }
    (bench.checked, bench.faults)
}

/// Runs the cases of 4-level paging on a processor: all rights at all levels with each other, and at each level, below and above
/// entries that permit all, all bits. Returns the number of accesses checked and of those that faulted.
fn enumerate_four_level(max_phys: u32, gib_pages: bool, linear: u64) -> (u64, u64) {
    const ALL: u64 = 0x7;
    const STRUCTURES: [u64; 4] = [DIRECTORY, POINTERS_64, DIRECTORY_64, TABLE];
    let regs = Registers {
        pg: true,
        pae: true,
        lma: true,
        cr3: DIRECTORY,
        max_phys,
        gib_pages,
        linear_48: true,
        ..Registers::default()
    };
    let at = STRUCTURES.iter().zip([39, 30, 21, 12]);
    let at: Vec<_> = at
        .map(|(structure, shift)| (*structure, linear >> shift & 0x1ff))
        .collect();
    let mut bench = Bench::new(&regs, linear, &at);
    let targets = [STRUCTURES[1], STRUCTURES[2], STRUCTURES[3], SMALL_PAGE];
    let rights = subsets(&[0x2, 0x4, XD]);
    let flags = subsets(&[0x1, 0x2, 0x4, 0x20, 0x40, 0x100, XD]);
    // An address bit, where it is one, and the others from the lowest reserved one of a large page on.
    let others = [0, 12, 13, 20, 21, 29, 30, 35, 36, 39, 40, 51, 52, 58, 62].map(|bit| match bit {
        0 => 0,
        bit => 1u64 << bit,
    });
    for regs in settings(&regs).filter(|regs| !regs.pse) {
        bench.mmu.set_paging(model::paging(&regs));
        for number in 0..rights.len().pow(4) {
            let rights = |level: u32| rights[number / rights.len().pow(level) % rights.len()] | 1;
            let entries: [u64; 4] =
                std::array::from_fn(|index| targets[index] | rights(index as u32));
            bench.check_entries(&regs, &entries);
        }
        for level in 0..4 {
            let bases = match level {
                // PS is reserved.
                0 => vec![targets[0], targets[0] | LARGE],
                1 => vec![targets[1], LARGE],
                2 => vec![targets[2], LARGE_PAGE | LARGE],
                // PAT.
                _ => vec![SMALL_PAGE, SMALL_PAGE | LARGE],
            };
            // Other small pages than one have no tag.
            let has_tag =
                |bit: &&u64| level < 3 || !matches!(**bit, 0x2000 | 0x10_0000 | 0x20_0000);
            let others: Vec<u64> = others.iter().filter(has_tag).copied().collect();
            for entry in with_each(with_each(flags.clone(), &others), &bases) {
                let mut entries = targets.map(|target| target | ALL);
                entries[level] = entry;
                bench.check_entries(&regs, &entries);
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

#[test]
fn four_level_paging_agrees_with_the_oracle() {
    for (max_phys, gib_pages, high) in [
        (40, true, 0x5555_0000_0000),
        (36, false, 0xffff_8880_0000_0000),
        (52, true, 0xffff_ffff_c000_0000),
    ] {
        let linear = high | u64::from(LINEAR & 0x3fff_ffff);
        let (checked, faults) = enumerate_four_level(max_phys, gib_pages, linear);
        println!(
            "4-level paging with {max_phys} bits: {checked} accesses checked, {faults} of them fault"
        );
        assert!(faults > 0 && faults < checked);
    }
}
