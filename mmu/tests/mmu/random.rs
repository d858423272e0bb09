//! Random page tables and accesses against a naive model: flat bytes and the oracle, no TLB.

use mmu::{
    Access, Attribute, Frame, GuestPhys, LinearAddr, MemFault, Mmu, Paging, PagingMode, PhysMemory,
    Privilege,
};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::oracle::{Registers, Request, predict};

const RAM: usize = 1 << 20;
const PAGE: usize = 4096;
/// Frames that hold paging structures in the coherent test: the first few.
const STRUCTURES: usize = 8;

/// The guest as simply as can be.
struct Model {
    bytes: Vec<u8>,
    regs: Registers,
}

impl Model {
    fn is_memory(addr: u64) -> bool {
        matches!(addr, 0..0xa_0000 | 0xc_0000..0x10_0000)
    }

    fn load(&self, addr: u64, len: u32) -> u64 {
        let byte = |i| {
            if Self::is_memory(addr + i) {
                self.bytes[(addr + i) as usize]
            } else {
                0xff
            }
        };
        (0..u64::from(len))
            .rev()
            .fold(0, |sum, i| sum << 8 | u64::from(byte(i)))
    }

    fn store(&mut self, addr: u64, byte: u8) {
        if matches!(addr, 0..0xa_0000) {
            self.bytes[addr as usize] = byte;
        }
    }

    /// Guest-physical address of each byte of an access, or the fault: address and error code. Sets A and D.
    fn translate(&mut self, step: &AccessStep) -> Result<Vec<u64>, (u32, u32)> {
        let request = |linear| Request {
            linear,
            write: step.access == Access::Write,
            fetch: step.access == Access::Fetch,
            user: step.privilege == Privilege::User,
        };
        let mut found = vec![];
        let mut addrs = vec![];
        for i in 0..step.len() {
            let linear = step.linear.wrapping_add(i);
            let load = |addr, len| self.load(addr, len);
            let success =
                predict(&self.regs, load, request(linear)).map_err(|code| (linear, code))?;
            addrs.push(success.phys);
            found.push(success);
        }
        for (addr, value) in found.into_iter().flat_map(|success| success.entries) {
            let width = if self.regs.pae { 8 } else { 4 };
            let bits = value & 0x60 | self.load(addr, width);
            (0..u64::from(width)).for_each(|i| self.store(addr + i, (bits >> (8 * i)) as u8));
        }
        Ok(addrs)
    }
}

#[derive(Clone, Debug)]
struct AccessStep {
    linear: u32,
    access: Access,
    privilege: Privilege,
    /// log2 of the bytes, 0..=4.
    size: u32,
    value: u128,
}

impl AccessStep {
    fn len(&self) -> u32 {
        if self.access == Access::Fetch {
            1
        } else {
            1 << self.size
        }
    }
}

/// What an access shows the guest: bytes read, or the fault; `None` = goes to the bus.
type Outcome = Result<Option<u128>, (u32, u32)>;

fn on_model(model: &mut Model, step: &AccessStep) -> Outcome {
    let addrs = model.translate(step)?;
    if !addrs.iter().all(|addr| Model::is_memory(*addr)) {
        return Ok(None);
    }
    Ok(Some(match step.access {
        Access::Read => addrs
            .iter()
            .rev()
            .fold(0, |sum, addr| sum << 8 | u128::from(model.load(*addr, 1))),
        Access::Fetch => u128::from(addrs[0] >> 12),
        Access::Write => {
            addrs
                .iter()
                .zip(step.value.to_le_bytes())
                .for_each(|(addr, byte)| model.store(*addr, byte));
            0
        }
    }))
}

fn on_mmu(mmu: &mut Mmu, step: &AccessStep) -> Outcome {
    let (addr, who, value) = (LinearAddr::from(step.linear), step.privilege, step.value);
    let result = match (step.access, step.size) {
        (Access::Fetch, _) => mmu.fetch_page(addr, who).map(|frame| frame.get().into()),
        (Access::Read, 0) => mmu.read::<u8>(addr, who).map(u128::from),
        (Access::Read, 1) => mmu.read::<u16>(addr, who).map(u128::from),
        (Access::Read, 2) => mmu.read::<u32>(addr, who).map(u128::from),
        (Access::Read, 3) => mmu.read::<u64>(addr, who).map(u128::from),
        (Access::Read, _) => mmu.read::<u128>(addr, who),
        (Access::Write, 0) => mmu.write(addr, who, value as u8).map(|()| 0),
        (Access::Write, 1) => mmu.write(addr, who, value as u16).map(|()| 0),
        (Access::Write, 2) => mmu.write(addr, who, value as u32).map(|()| 0),
        (Access::Write, 3) => mmu.write(addr, who, value as u64).map(|()| 0),
        (Access::Write, _) => mmu.write(addr, who, value).map(|()| 0),
    };
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MemFault::Device) => Ok(None),
        Err(MemFault::Page(fault)) => {
            Err((u32::try_from(fault.addr.get()).unwrap(), fault.code.bits()))
        }
    }
}

/// Both machines, kept in step.
struct Pair {
    mmu: Mmu,
    model: Model,
}

impl Pair {
    fn new(regs: Registers) -> Self {
        let mmu = Mmu::new(PhysMemory::new(RAM as u64).unwrap()).unwrap();
        Self {
            mmu,
            model: Model {
                bytes: vec![0; RAM],
                regs,
            },
        }
    }

    fn poke(&mut self, addr: usize, data: &[u8]) {
        self.mmu
            .phys
            .write(GuestPhys::new(addr as u64), data)
            .unwrap();
        self.model.bytes[addr..addr + data.len()].copy_from_slice(data);
    }

    /// Loads the control registers. Pointer registers with reserved bits are refused, so absent ones stay.
    fn enable_paging(&mut self) {
        let regs = &mut self.model.regs;
        let mode = match (regs.pg, regs.pae) {
            (false, _) => PagingMode::Off,
            (true, false) => PagingMode::TwoLevel,
            (true, true) => PagingMode::Pae,
        };
        let Registers {
            pse,
            wp,
            pge,
            nxe,
            cr3,
            ..
        } = *regs;
        self.mmu.set_paging(Paging {
            mode,
            pse,
            wp,
            pge,
            nxe,
            cr3,
        });
        if self.mmu.load_pdptes(cr3).is_ok() {
            let table = u64::from(cr3 & !0x1f);
            let pdpte = std::array::from_fn(|i| self.model.load(table + 8 * i as u64, 8));
            self.model.regs.pdpte = pdpte;
        }
    }

    fn step(&mut self, step: &AccessStep) -> Result<(), TestCaseError> {
        prop_assert_eq!(on_mmu(&mut self.mmu, step), on_model(&mut self.model, step));
        Ok(())
    }

    fn frame(&self, number: usize) -> &[u8] {
        &self.model.bytes[number * PAGE..][..PAGE]
    }

    /// The frames marked Code and what they hold.
    fn code(&self) -> Vec<(usize, Vec<u8>)> {
        (0..RAM / PAGE)
            .filter(|frame| {
                self.mmu
                    .phys
                    .has(Frame::new(*frame as u64), Attribute::Code)
            })
            .map(|frame| (frame, self.frame(frame).to_vec()))
            .collect()
    }

    fn compare_memory(&self) -> Result<(), TestCaseError> {
        for (from, to) in [(0, 0xa_0000), (0xc_0000, RAM)] {
            let mut bytes = vec![0; to - from];
            self.mmu
                .phys
                .read(GuestPhys::new(from as u64), &mut bytes)
                .unwrap();
            let differs = bytes
                .iter()
                .zip(&self.model.bytes[from..to])
                .position(|(a, b)| a != b);
            prop_assert_eq!(differs.map(|at| from + at), None);
        }
        Ok(())
    }
}

fn registers() -> impl Strategy<Value = Registers> {
    (
        any::<[bool; 5]>(),
        prop::bool::weighted(0.95),
        0..RAM as u32 / PAGE as u32,
    )
        .prop_map(|([pae, pse, wp, pge, nxe], pg, frame)| Registers {
            pg,
            pae,
            pse,
            wp,
            pge,
            nxe,
            cr3: frame << 12,
            pdpte: [0; 4],
        })
}

/// Addresses that meet: few pages, near page ends, at the ends of the space.
fn linear() -> impl Strategy<Value = u32> {
    let page = prop_oneof![
        0..16u32,
        Just(0xf_ffff),
        Just(0x8_0000),
        Just(0x400),
        Just(0x200),
        any::<u32>()
    ];
    let offset = prop_oneof![0..0x1000u32, 0xff0..0x1000u32];
    (page, offset).prop_map(|(page, offset)| page << 12 | offset)
}

fn access_step() -> impl Strategy<Value = AccessStep> {
    let access =
        prop_oneof![3 => Just(Access::Read), 3 => Just(Access::Write), 1 => Just(Access::Fetch)];
    let privilege = prop_oneof![Just(Privilege::Supervisor), Just(Privilege::User)];
    (linear(), access, privilege, 0..=4u32, any::<u128>()).prop_map(
        |(linear, access, privilege, size, value)| AccessStep {
            linear,
            access,
            privilege,
            size,
            value,
        },
    )
}

/// An entry: mostly present and permissive, pointing anywhere in RAM or to one of the first `targets` frames.
fn entry(low: u64, targets: u64) -> impl Strategy<Value = u64> {
    let frame = prop_oneof![9 => low..targets, 1 => 0..RAM as u64 / PAGE as u64 + 2];
    let flags = prop_oneof![6 => Just(0x7u64), 1 => Just(0x3), 1 => Just(0x5), 1 => Just(0x187), 2 => 0..0x1000u64];
    let high = prop_oneof![12 => Just(0u64), 1 => Just(1 << 63), 1 => any::<u64>().prop_map(|bits| bits & !0xffff_ffff)];
    (frame, flags, high).prop_map(|(frame, flags, high)| frame << 12 | flags | high)
}

/// A change to a paging structure in the coherent test: structure, entry index, value.
type Edit = (usize, Index, u64);

#[derive(Clone, Debug)]
enum Step {
    Access(AccessStep),
    Edit(Edit),
    MarkCode(Index),
    FlushAll,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => access_step().prop_map(Step::Access),
        2 => edit().prop_map(Step::Edit),
        2 => any::<Index>().prop_map(Step::MarkCode),
        1 => Just(Step::FlushAll),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    // Directories point to tables, tables to any frame that holds no structure.
    (0..STRUCTURES, any::<Index>()).prop_flat_map(|(structure, index)| {
        let value = if structure < STRUCTURES / 2 {
            entry(STRUCTURES as u64 / 2, STRUCTURES as u64).boxed()
        } else {
            entry(STRUCTURES as u64, 32).boxed()
        };
        (Just(structure), Just(index), value)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Everything is garbage: tables overlap data, each other, themselves and the device hole. With a flush before each
    /// access, the outcome, A and D bits and all memory are those of the model.
    #[test]
    fn garbage_page_tables_do_what_the_model_does(
        regs in registers(),
        filler in prop::collection::vec(entry(0, 0x100), 64),
        steps in prop::collection::vec(access_step(), 1..60),
    ) {
        let mut pair = Pair::new(regs);
        let width = if regs.pae { 8 } else { 4 };
        let page: Vec<u8> = (0..PAGE / width)
            .flat_map(|i| filler[(i * 7 + i / 64) % filler.len()].to_le_bytes()[..width].to_vec())
            .collect();
        for frame in (0..0xa0).chain(0xc0..0x100) {
            pair.poke(frame * PAGE, &page);
        }
        // A pointer table that loads, with the directories anywhere.
        let pointers: Vec<u8> = (0..4).flat_map(|i| (filler[i] & 0xff000 | 1).to_le_bytes()).collect();
        if regs.pae && !matches!(regs.cr3 >> 12, 0xa0..0xc0) {
            pair.poke(regs.cr3 as usize, &pointers);
        }
        pair.enable_paging();
        for step in &steps {
            pair.mmu.flush_all();
            pair.step(step)?;
        }
        pair.compare_memory()?;
    }

    /// Structures are kept apart from data and every edit of them is followed by a flush, so that what the TLB holds is
    /// always current: the guest cannot tell that there is one. Stores to frames marked Code are all noticed.
    #[test]
    fn the_tlb_is_invisible_to_a_guest_that_flushes(
        regs in registers(),
        edits in prop::collection::vec(edit(), 200),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut pair = Pair::new(Registers { cr3: 0, pg: true, ..regs });
        let width = if regs.pae { 8 } else { 4 };
        let apply = |pair: &mut Pair, (structure, index, value): &Edit| {
            let index = [0, 1, 2, 3, 0x200 % (PAGE / width), PAGE / width - 1, index.index(16)][index.index(7)];
            let at = structure * PAGE + index * width;
            // No large page reaches the structures, and no garbage: a table may map any frame but theirs.
            let entry = if *structure < STRUCTURES / 2 {
                let table = (value >> 12) as usize % (STRUCTURES / 2) + STRUCTURES / 2;
                (table as u64) << 12 | value & 0x7f | 1
            } else {
                let frame = (value >> 12 & 0xff).max(STRUCTURES as u64);
                frame << 12 | value & 0xffff_ffff_0000_0fff
            };
            pair.poke(at, &entry.to_le_bytes()[..width]);
        };
        for edit in &edits {
            apply(&mut pair, edit);
        }
        if regs.pae {
            // The pointers take the place of the first entries of directory 0, and name directories 1, 2, 3.
            let pointers: Vec<u8> = [1u64, 2, 3, 1].iter().flat_map(|f| (f << 12 | 1).to_le_bytes()).collect();
            pair.poke(0, &pointers);
        }
        pair.enable_paging();
        for step in &steps {
            match step {
                Step::Access(step) => {
                    let (epoch, code) = (pair.mmu.code_epoch(), pair.code());
                    pair.step(step)?;
                    let changed = |(frame, old): &&(usize, Vec<u8>)| pair.frame(*frame) != old;
                    let hit = code.iter().filter(changed).count() as u64;
                    prop_assert!(pair.mmu.code_epoch() >= epoch + hit, "a store to a code page went unseen");
                }
                Step::Edit(edit) => {
                    apply(&mut pair, edit);
                    pair.mmu.flush_all();
                }
                Step::MarkCode(index) => pair.mmu.mark_code(Frame::new(index.index(40) as u64)),
                Step::FlushAll => pair.mmu.flush_all(),
            }
        }
        pair.compare_memory()?;
    }
}
