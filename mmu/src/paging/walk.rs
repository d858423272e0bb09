//! The page walker.
//!
//! A walk is pure: it reads the paging structures and answers with a [`Translation`] and the trail of entries it used.
//! Whoever then makes the access calls [`Walk::commit`], which sets A in every entry of the trail and, for a write, D in
//! the last one. So an access that faults sets no A or D bit at any level. (The SDM leaves open whether a walk that
//! ends in a fault sets A in the upper levels it went through: Vol. 3A, 4.8 Accessed and Dirty Flags.)

use smallvec::SmallVec;

use super::control::{Access, PagingMode};
use super::entry::{Entry, PageSize, Permissions, ReservedBits};
use super::format::{self, ACCESSED, DIRTY, Format};
use super::registers::Registers;
use crate::addr::{GuestPhys, LinearAddr, PAGE_SHIFT};
use crate::memory::Memory;

/// The translation of a linear address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The guest-physical address.
    pub phys: GuestPhys,
    /// Size of the page that maps it.
    pub page_size: PageSize,
    /// The permissions that all levels together give.
    pub permissions: Permissions,
    /// Whether the page is global: G is set and CR4.PGE = 1.
    pub global: bool,
    /// Whether D is set in the entry that maps the page.
    pub dirty: bool,
}

/// The reason why a linear address has no translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoTranslation {
    /// An entry has P = 0.
    NotPresent,
    /// A present entry sets reserved bits.
    Reserved,
    /// The address is not canonical. An access to it raises no page fault, but #GP or #SS.
    NonCanonical,
}

impl From<ReservedBits> for NoTranslation {
    fn from(_: ReservedBits) -> Self {
        Self::Reserved
    }
}

/// An entry that a walk used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    /// Address of the entry.
    pub(crate) entry: GuestPhys,
    /// log2 of the bytes of the entry.
    pub(crate) entry_shift: u32,
    /// log2 of the linear pages that the entry maps.
    pub(crate) shift: u32,
    /// The value of the entry.
    pub(crate) value: u64,
}

/// Replaces the entry of a step, which holds the first value, by the second. Returns `false`, and stores nothing, if it holds
/// another.
pub(crate) type Exchange<'a> = dyn FnMut(&Step, (u64, u64)) -> bool + 'a;

impl Step {
    /// Whether the entry's value `now` translates like the one that the walk found.
    pub(crate) fn is_same(&self, now: u64) -> bool {
        (self.value ^ now) & !(ACCESSED | DIRTY) == 0
    }

    /// The present value of the entry, which is all ones outside RAM and ROM, like an empty bus.
    pub(crate) fn load(&self, memory: &Memory) -> u64 {
        match self.entry_shift {
            format::TwoLevel::ENTRY_SHIFT => format::TwoLevel::load(memory, self.entry),
            _ => format::FourLevel::load(memory, self.entry),
        }
    }

    /// Sets A and D bits of the entry, unless somebody has replaced it since the walk.
    fn set(&self, bits: u64, memory: &Memory, exchange: &mut Exchange<'_>) {
        loop {
            let old = self.load(memory);
            let new = old | bits;
            if new == old || !self.is_same(old) || exchange(self, (old, new)) {
                return;
            }
        }
    }
}

/// A translation and the entries that made it, top level first.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    pub(crate) translation: Translation,
    pub(crate) trail: Trail,
}

impl Translation {
    /// The translation of a 32-bit address without paging: linear is physical, everything is permitted.
    fn identity(addr: LinearAddr) -> Self {
        Self {
            phys: GuestPhys::new(addr.get()),
            page_size: PageSize::KIB_4,
            permissions: Permissions::ALL,
            global: false,
            dirty: true,
        }
    }
}

impl Walk {
    /// Records the access in the paging structures by `exchange`: A at every level, D in the last for a write.
    pub(crate) fn commit(&self, memory: &Memory, access: Access, exchange: &mut Exchange<'_>) {
        let Some((leaf, tables)) = self.trail.split_last() else {
            return;
        };
        for step in tables {
            step.set(ACCESSED, memory, exchange);
        }
        let bits = if access == Access::Write {
            ACCESSED | DIRTY
        } else {
            ACCESSED
        };
        leaf.set(bits, memory, exchange);
    }
}

/// The entries that a walk has used, top level first.
pub(crate) type Trail = SmallVec<[Step; 4]>;

/// Translates `addr` without side effects.
pub(crate) fn walk(
    memory: &Memory,
    registers: &Registers,
    addr: LinearAddr,
) -> Result<Walk, NoTranslation> {
    let mut trail = Trail::new();
    let translation = walk_along(memory, registers, addr, &mut trail)?;
    Ok(Walk { translation, trail })
}

/// Translates `addr` without side effects, and adds the entries to `trail`, also those of a walk that ends without a
/// translation. Bits of the address beyond the mode's linear addresses are ignored.
#[inline]
pub(crate) fn walk_along(
    memory: &Memory,
    registers: &Registers,
    addr: LinearAddr,
    trail: &mut Trail,
) -> Result<Translation, NoTranslation> {
    let mode = registers.paging.mode;
    let addr = mode.cut(addr);
    if !mode.is_canonical(addr) {
        return Err(NoTranslation::NonCanonical);
    }
    match mode {
        PagingMode::Off => Ok(Translation::identity(addr)),
        PagingMode::TwoLevel => walk_tables::<format::TwoLevel>(memory, registers, addr, trail),
        PagingMode::Pae => walk_tables::<format::Pae>(memory, registers, addr, trail),
        PagingMode::FourLevel => walk_tables::<format::FourLevel>(memory, registers, addr, trail),
    }
}

/// Walks the structures of format `F` from the top one on.
fn walk_tables<F: Format>(
    memory: &Memory,
    registers: &Registers,
    addr: LinearAddr,
    trail: &mut Trail,
) -> Result<Translation, NoTranslation> {
    let mut structure = registers.root(addr).ok_or(NoTranslation::NotPresent)?;
    let mut allowed = Permissions::ALL;
    for level in (1..=F::LEVELS).rev() {
        let shift = PAGE_SHIFT + (level - 1) * F::INDEX_BITS;
        let index = (addr.get() >> shift) & ((1 << F::INDEX_BITS) - 1);
        let entry = structure.with_offset(index << F::ENTRY_SHIFT);
        let value = F::load(memory, entry);
        trail.push(Step {
            entry,
            entry_shift: F::ENTRY_SHIFT,
            shift: shift - PAGE_SHIFT,
            value,
        });
        match F::decode(value, level, registers)? {
            Entry::Absent => return Err(NoTranslation::NotPresent),
            Entry::Table { base, permissions } => {
                structure = base;
                allowed = allowed.and(permissions);
            }
            Entry::Mapped {
                base,
                permissions,
                global,
                dirty,
            } => {
                let page_size = PageSize::from_shift(shift);
                return Ok(Translation {
                    phys: base.with_offset(page_size.offset_of(addr.get())),
                    page_size,
                    permissions: allowed.and(permissions),
                    global: global && registers.paging.pge,
                    dirty,
                });
            }
        }
    }
    unreachable!("every entry of level 1 is absent, reserved or maps a page")
}
