//! Strategies that generate guests, their page tables and their steps.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// The frame of a structure, and the frames to which its entries mostly point.
fn structure(mode: Mode) -> impl Strategy<Value = (u64, Vec<u64>)> {
    let data = || (16..32).chain([0]).collect::<Vec<u64>>();
    let tables: Vec<u64> = (8..=13).collect();
    let roots: Vec<(u64, Vec<u64>)> = match mode {
        Mode::TwoLevel | Mode::Pae => (1..=4).map(|frame| (frame, tables.clone())).collect(),
        Mode::FourLevel => {
            let pairs = [
                (POINTER_TABLES, DIRECTORIES_64.to_vec()),
                (DIRECTORIES_64, tables.clone()),
            ];
            let roots = (1..=4).map(|frame| (frame, POINTER_TABLES.to_vec()));
            let upper = pairs
                .into_iter()
                .flat_map(|(frames, next)| frames.map(|frame| (frame, next.clone())));
            roots.chain(upper).collect()
        }
    };
    let weight = if mode == Mode::FourLevel { 8 } else { 4 };
    prop_oneof![
        weight => select(roots),
        8 => select(tables).prop_map(move |frame| (frame, data())),
        1 => Just((ROM_TABLE, data())),
    ]
}

/// An entry that mostly points to `next`, mostly present and permissive; `upper` says that it is not one of a page table.
fn entry(next: Vec<u64>, upper: bool) -> impl Strategy<Value = u64> {
    let frame = prop_oneof![
        12 => select(next),
        1 => prop_oneof![Just(0), 16..32u64],
        1 => 1..=15u64,
        1 => select(vec![0xb0, ROM_TABLE, 0x400]),
    ];
    let flags = prop_oneof![
        8 => Just(0x7u64),
        2 => Just(0x67),
        2 => Just(0x3),
        2 => Just(0x5),
        1 => Just(0x107),
        1 => Just(0x0),
        1 => 0..0x80u64,
    ];
    let large = prop::bool::weighted(if upper { 0.1 } else { 0.0 });
    let no_execute = prop::bool::weighted(0.05);
    (frame, flags, large, no_execute).prop_map(|(frame, flags, large, no_execute)| {
        let base = if large { 0x80 } else { frame << 12 };
        base | flags | u64::from(no_execute) << 63
    })
}

pub(super) fn edit(mode: Mode) -> impl Strategy<Value = Edit> {
    structure(mode).prop_flat_map(|(frame, next)| {
        let how = select(vec![How::Guest, How::Host, How::Told]);
        let upper = !matches!(frame, 8..=13 | ROM_TABLE);
        (any::<usize>(), entry(next, upper), how).prop_map(move |(index, value, how)| Edit {
            frame,
            index,
            value,
            how,
        })
    })
}

pub(super) fn step(mode: Mode) -> impl Strategy<Value = Step> {
    let linear = move || select(mode.pages()).prop_map(|page| page << 12);
    let offset = prop_oneof![
        6 => select(mode.entries()).prop_map(move |index| (index * mode.width()) as u64),
        1 => 0xff1..0x1000u64,
        1 => 0..0x1000u64,
    ];
    let privilege = || prop_oneof![Just(Privilege::Supervisor), Just(Privilege::User)];
    let data = || entry((16..32).chain([0]).collect(), false);
    let value = (data(), data()).prop_map(|(a, b)| u128::from(a) | u128::from(b) << 64);
    let access = (
        linear(),
        offset,
        select(&ACCESSES[..]),
        privilege(),
        0..=4u32,
        value,
    )
        .prop_map(|(base, offset, access, privilege, size, value)| {
            Step::Access(AccessStep {
                linear: base | offset,
                access,
                privilege,
                size,
                value,
            })
        });
    let code = prop_oneof![0..14u64, 16..32u64, Just(ROM_TABLE)];
    let repoint = (0..SPACES, 0..4usize, 0..=4u64)
        .prop_map(|(space, index, frame)| Step::Repoint(space, index, frame << 12 | 1));
    prop_oneof![
        60 => access,
        10 => edit(mode).prop_map(Step::Edit),
        2 => edit(mode).prop_map(Step::Fill),
        10 => (0..SPACES).prop_map(Step::Enter),
        1 => repoint,
        2 => linear().prop_map(Step::Invlpg),
        2 => code.prop_map(Step::MarkCode),
        3 => (linear(), privilege()).prop_map(|(linear, who)| Step::SetCode(linear, who)),
        1 => Just(Step::ClearCode),
        1 => Just(Step::ToggleWp),
        1 => Just(Step::FlushAll),
        3 => Just(Step::OpenWindow),
        1 => Just(Step::CloseWindow),
        6 => Just(Step::SettleWindow),
        10 => Just(Step::FillAfterFault),
    ]
}

pub(super) fn registers(mode: Mode) -> impl Strategy<Value = Registers> {
    let bits = any::<[bool; 5]>();
    // Half of the guests with 32-bit addresses are on a processor with 48-bit ones.
    (bits, any::<bool>()).prop_map(move |([pse, wp, pge, nxe, gib_pages], linear_48)| {
        let lma = mode == Mode::FourLevel;
        Registers {
            pae: mode != Mode::TwoLevel,
            lma,
            pse,
            wp,
            pge,
            nxe,
            gib_pages,
            linear_48: linear_48 || lma,
            ..Registers::default()
        }
    })
}
