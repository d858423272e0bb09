//! Random page tables and accesses against the naive model.

use mmu::{Access, Frame, Privilege};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::model::{AccessStep, PAGE, Pair, RAM};
use crate::oracle::Registers;

/// Frames that hold paging structures in the coherent test: the first few.
const STRUCTURES: usize = 8;

/// Registers of any mode, on processors with 32-bit linear addresses and with 48-bit ones.
fn registers() -> impl Strategy<Value = Registers> {
    (
        any::<[bool; 7]>(),
        prop::bool::weighted(0.95),
        prop::bool::weighted(0.4),
        0..RAM as u64 / PAGE as u64,
        select(vec![36, 40, 52]),
    )
        .prop_map(
            |([pae, pse, wp, pge, nxe, gib_pages, linear_48], pg, lma, frame, max_phys)| {
                Registers {
                    pg: pg || lma,
                    pae: pae || lma,
                    lma,
                    pse,
                    wp,
                    pge,
                    nxe,
                    cr3: frame << 12,
                    pdpte: [0; 4],
                    max_phys,
                    gib_pages,
                    linear_48: linear_48 || lma,
                }
            },
        )
}

/// Addresses that are likely to meet: in few pages, near page ends, at the ends of the space, where slots are shared.
fn linear() -> impl Strategy<Value = u64> {
    let low = prop_oneof![
        0..16u64,
        Just(0xf_ffff),
        Just(0x8_0000),
        Just(0x400),
        Just(0x200),
        any::<u32>().prop_map(u64::from),
    ];
    let high = select(vec![
        0,
        0x1000_0000,
        0x2000_0000,
        0x7_fff0_0000,
        0x8_0000_0000,
        0xf_0000_0000_0000,
        0xf_fff8_0000_0000,
        0xf_fff8_1000_0000,
        0xf_ffff_fff0_0000,
    ]);
    let page = prop_oneof![
        4 => low.clone(),
        8 => (low, high).prop_map(|(low, high)| high | low & 0xf_ffff),
        1 => 0..1u64 << 52,
    ];
    let offset = prop_oneof![0..0x1000u64, 0xff0..0x1000u64];
    (page, offset).prop_map(|(page, offset)| page << 12 | offset)
}

/// The step, with an address as wide as the mode has.
fn cut(regs: &Registers, step: &AccessStep) -> AccessStep {
    AccessStep {
        linear: regs.add(step.linear, 0),
        ..step.clone()
    }
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
    // Those of the upper levels point to the next, and tables to any frame without a structure.
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

    /// Random bytes everywhere: tables overlap data, each other, themselves and the device hole. With a flush before each access,
    /// the outcome, A and D bits and all memory are those of the model.
    #[test]
    fn garbage_page_tables_do_what_the_model_does(
        regs in registers(),
        filler in prop::collection::vec(entry(0, 0x100), 64),
        steps in prop::collection::vec(access_step(), 1..60),
    ) {
        let mut pair = Pair::new(regs);
        let width = regs.width();
        let page: Vec<u8> = (0..PAGE / width)
            .flat_map(|i| filler[(i * 7 + i / 64) % filler.len()].to_le_bytes()[..width].to_vec())
            .collect();
        for frame in (0..0xa0).chain(0xc0..0x100) {
            pair.poke(frame * PAGE, &page);
        }
        // A pointer table that loads, with the directories anywhere.
        let pointers: Vec<u8> = (0..4).flat_map(|i| (filler[i] & 0xff000 | 1).to_le_bytes()).collect();
        if regs.pae && !regs.lma && !matches!(regs.cr3 >> 12, 0xa0..0xc0) {
            pair.poke(regs.cr3 as usize, &pointers);
        }
        pair.enable_paging();
        for step in &steps {
            pair.mmu.flush_all();
            pair.step(&cut(&regs, step))?;
        }
        pair.compare_memory()?;
    }

    /// Structures are kept apart from data and every edit of them is followed by a flush, so that the TLB is always current and
    /// the guest cannot tell that there is one. All stores to frames marked Code are noticed.
    #[test]
    fn the_tlb_is_invisible_to_a_guest_that_flushes(
        regs in registers(),
        edits in prop::collection::vec(edit(), 200),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut pair = Pair::new(Registers { cr3: 0, pg: true, ..regs });
        let width = regs.width();
        let apply = |pair: &mut Pair, (structure, index, value): &Edit| {
            let index = [0, 1, 2, 3, 0x200 % (PAGE / width), PAGE / width - 1, index.index(16)][index.index(7)];
            let at = structure * PAGE + index * width;
            // No large page reaches the structures, and no garbage: a table may map any frame but theirs.
            let levels = if regs.lma { 4 } else { 2 };
            let each = STRUCTURES / levels;
            let level = structure / each;
            let entry = if level + 1 < levels {
                let table = (value >> 12) as usize % each + (level + 1) * each;
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
        if regs.pae && !regs.lma {
            // The pointers take the place of the first entries of directory 0, and name directories 1, 2, 3.
            let pointers: Vec<u8> = [1u64, 2, 3, 1].iter().flat_map(|f| (f << 12 | 1).to_le_bytes()).collect();
            pair.poke(0, &pointers);
        }
        pair.enable_paging();
        for step in &steps {
            match step {
                Step::Access(step) => {
                    let (epoch, code) = (pair.mmu.code_epoch(), pair.code());
                    pair.step(&cut(&regs, step))?;
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
