//! Walks to the pages around one: those whose entries lie beside its entry in the same page table.

use smallvec::SmallVec;

use super::control::PagingMode;
use super::entry::{Entry, PageSize, Permissions};
use super::format::{self, ACCESSED, Format};
use super::registers::Registers;
use super::walk::{Step, Translation, Walk};
use crate::addr::LinearPage;
use crate::memory::Memory;

/// Pages of a group, which is aligned.
const GROUP: u32 = 16;
/// log2 of the bytes of the largest entry.
const MOST_ENTRY_SHIFT: u32 = 3;

/// A page and the walk to it.
pub(crate) type Neighbour = (LinearPage, Walk);

/// The walks to the other pages of the group of `page` that are `wanted`, present and have been accessed, if `walk`, which is that
/// to `page`, ends in a page table. The page table is read once, without side effects.
pub(crate) fn around(
    memory: &Memory,
    registers: &Registers,
    page: LinearPage,
    walk: &Walk,
    wanted: impl Fn(LinearPage) -> bool,
) -> SmallVec<[Neighbour; GROUP as usize]> {
    match registers.paging.mode {
        PagingMode::Off => SmallVec::new(),
        PagingMode::TwoLevel => {
            around_in::<format::TwoLevel>(memory, registers, page, walk, wanted)
        }
        PagingMode::Pae => around_in::<format::Pae>(memory, registers, page, walk, wanted),
        PagingMode::FourLevel => {
            around_in::<format::FourLevel>(memory, registers, page, walk, wanted)
        }
    }
}

fn around_in<F: Format>(
    memory: &Memory,
    registers: &Registers,
    page: LinearPage,
    walk: &Walk,
    wanted: impl Fn(LinearPage) -> bool,
) -> SmallVec<[Neighbour; GROUP as usize]> {
    let mut found = SmallVec::new();
    let Some((leaf, tables)) = walk.trail.split_last().filter(|(leaf, _)| leaf.shift == 0) else {
        return found;
    };
    let here = (page.get() % u64::from(GROUP)) as u32;
    let table = leaf.entry.frame().base();
    let first = u64::from(leaf.entry.offset() - (here << F::ENTRY_SHIFT));
    let mut bytes = [0; (GROUP << MOST_ENTRY_SHIFT) as usize];
    let bytes = &mut bytes[..(GROUP << F::ENTRY_SHIFT) as usize];
    if memory.read(table.with_offset(first), bytes).is_err() {
        return found;
    }
    let allowed = permissions::<F>(tables, registers);
    for (index, bytes) in (0..GROUP).zip(bytes.chunks(1 << F::ENTRY_SHIFT)) {
        let neighbour = LinearPage::new(page.get() - u64::from(here) + u64::from(index));
        let mut value = [0; 1 << MOST_ENTRY_SHIFT];
        value[..bytes.len()].copy_from_slice(bytes);
        let value = u64::from_le_bytes(value);
        if index == here || value & ACCESSED == 0 || !wanted(neighbour) {
            continue;
        }
        let Ok(Entry::Mapped {
            base,
            permissions,
            global,
            dirty,
        }) = F::decode(value, 1, registers)
        else {
            continue;
        };
        let mut trail = walk.trail.clone();
        if let Some(last) = trail.last_mut() {
            *last = Step {
                entry: table.with_offset(first + u64::from(index << F::ENTRY_SHIFT)),
                value,
                ..*leaf
            };
        }
        let translation = Translation {
            phys: base,
            page_size: PageSize::KIB_4,
            permissions: allowed.and(permissions),
            global: global && registers.paging.pge,
            dirty,
        };
        found.push((neighbour, Walk { translation, trail }));
    }
    found
}

/// The permissions that the levels above the page table give.
fn permissions<F: Format>(tables: &[Step], registers: &Registers) -> Permissions {
    let levels = (2..=F::LEVELS).rev();
    levels
        .zip(tables)
        .fold(Permissions::ALL, |allowed, (level, step)| {
            match F::decode(step.value, level, registers) {
                Ok(Entry::Table { permissions, .. }) => allowed.and(permissions),
                _ => unreachable!("the walk went on from this entry"),
            }
        })
}
