//! Strategies that generate guests, their page tables and their steps.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

pub(super) fn structure() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 1..=4u64, 8 => 8..=13u64, 1 => Just(ROM_TABLE)]
}

/// An entry of a structure, mostly present and permissive.
pub(super) fn entry(directory: bool) -> impl Strategy<Value = u64> {
    let weights = if directory { [1, 12, 2] } else { [10, 2, 1] };
    let frame = prop_oneof![
        weights[0] => prop_oneof![Just(0), 16..32u64],
        weights[1] => 8..=13u64,
        weights[2] => 1..=4u64,
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
    let large = prop::bool::weighted(if directory { 0.1 } else { 0.0 });
    let no_execute = prop::bool::weighted(0.05);
    (frame, flags, large, no_execute).prop_map(|(frame, flags, large, no_execute)| {
        let base = if large { 0x80 } else { frame << 12 };
        base | flags | u64::from(no_execute) << 63
    })
}

pub(super) fn edit() -> impl Strategy<Value = Edit> {
    structure().prop_flat_map(|frame| {
        let how = select(vec![How::Guest, How::Host, How::Told]);
        (any::<usize>(), entry(frame <= 4), how).prop_map(move |(index, value, how)| Edit {
            frame,
            index,
            value,
            how,
        })
    })
}

pub(super) fn step(pae: bool) -> impl Strategy<Value = Step> {
    let linear = || select(pages(pae)).prop_map(|page| page << 12);
    let offset = prop_oneof![
        6 => select(entries(pae)).prop_map(move |index| (index * if pae { 8 } else { 4 }) as u32),
        1 => 0xff1..0x1000u32,
        1 => 0..0x1000u32,
    ];
    let privilege = || prop_oneof![Just(Privilege::Supervisor), Just(Privilege::User)];
    let value = (entry(false), entry(false)).prop_map(|(a, b)| u128::from(a) | u128::from(b) << 64);
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
        10 => edit().prop_map(Step::Edit),
        2 => edit().prop_map(Step::Fill),
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

pub(super) fn registers(pae: bool) -> impl Strategy<Value = Registers> {
    any::<[bool; 4]>().prop_map(move |[pse, wp, pge, nxe]| Registers {
        pae,
        pse,
        wp,
        pge,
        nxe,
        ..Registers::default()
    })
}
