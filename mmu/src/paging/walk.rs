//! The page walker.
//!
//! A walk is pure: it reads the paging structures and answers with a [`Translation`] and the trail of entries it used.
//! Whoever then makes the access calls [`Walk::commit`], which sets A in every entry of the trail and, for a write, D in
//! the last one. So an access that faults sets no A or D bit at any level. (The SDM leaves open whether a walk that
//! ends in a fault sets A in the upper levels it went through: Vol. 3A, 4.8 Accessed and Dirty Flags.)

use smallvec::SmallVec;

use super::control::{Access, Paging, PagingMode};
use super::entry::{Entry, PageSize, Permissions, ReservedBits};
use super::format::{self, ACCESSED, DIRTY, Format};
use super::pdpte::Pdptes;
use crate::addr::{GuestPhys, LinearAddr, PAGE_SHIFT};
use crate::phys::PhysMemory;

/// CR3 bits 31:12 locate the page directory of 32-bit paging.
const CR3_DIRECTORY: u32 = !0xfff;

/// What a linear address translates to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The guest-physical address.
    pub phys: GuestPhys,
    /// Size of the page that maps it.
    pub page_size: PageSize,
    /// What all levels together permit.
    pub permissions: Permissions,
    /// The page is global: G is set and CR4.PGE = 1.
    pub global: bool,
    /// D is set in the entry that maps the page.
    pub dirty: bool,
}

/// Why a linear address has no translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoTranslation {
    /// An entry has P = 0.
    NotPresent,
    /// A present entry sets reserved bits.
    Reserved,
}

impl From<ReservedBits> for NoTranslation {
    fn from(_: ReservedBits) -> Self {
        Self::Reserved
    }
}

/// A translation and the entries that made it, top level first.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    pub(crate) translation: Translation,
    trail: SmallVec<[GuestPhys; 2]>,
}

impl Walk {
    /// The walk without paging: linear is physical, everything is permitted.
    fn identity(addr: LinearAddr) -> Self {
        let translation = Translation {
            phys: GuestPhys::new(addr.get() as u32 as u64),
            page_size: PageSize::KIB_4,
            permissions: Permissions::ALL,
            global: false,
            dirty: true,
        };
        Self {
            translation,
            trail: SmallVec::new(),
        }
    }

    /// Records the access in the paging structures: A at every level, D in the last for a write.
    pub(crate) fn commit(&self, phys: &mut PhysMemory, access: Access, mode: PagingMode) {
        let set = match mode {
            PagingMode::Off => return,
            PagingMode::TwoLevel => format::TwoLevel::set,
            PagingMode::Pae => format::Pae::set,
        };
        let Some((&leaf, tables)) = self.trail.split_last() else {
            return;
        };
        for &entry in tables {
            set(phys, entry, ACCESSED);
        }
        set(
            phys,
            leaf,
            if access == Access::Write {
                ACCESSED | DIRTY
            } else {
                ACCESSED
            },
        );
        for entry in &self.trail {
            phys.frames_mut().walked(entry.frame());
        }
    }
}

/// Translates `addr` without side effects.
pub(crate) fn walk(
    phys: &PhysMemory,
    paging: &Paging,
    pdptes: &Pdptes,
    addr: LinearAddr,
) -> Result<Walk, NoTranslation> {
    match paging.mode {
        PagingMode::Off => Ok(Walk::identity(addr)),
        PagingMode::TwoLevel => {
            let directory = GuestPhys::new((paging.cr3 & CR3_DIRECTORY).into());
            walk_tables::<format::TwoLevel>(phys, paging, directory, addr)
        }
        PagingMode::Pae => {
            let directory = pdptes.directory(addr).ok_or(NoTranslation::NotPresent)?;
            walk_tables::<format::Pae>(phys, paging, directory, addr)
        }
    }
}

/// Walks the structures of format `F` from the top one at `root`.
fn walk_tables<F: Format>(
    phys: &PhysMemory,
    paging: &Paging,
    root: GuestPhys,
    addr: LinearAddr,
) -> Result<Walk, NoTranslation> {
    let mut structure = root;
    let mut allowed = Permissions::ALL;
    let mut trail = SmallVec::new();
    for level in (1..=F::LEVELS).rev() {
        let shift = PAGE_SHIFT + (level - 1) * F::INDEX_BITS;
        let index = (addr.get() >> shift) & ((1 << F::INDEX_BITS) - 1);
        let slot = structure.with_offset(index << F::ENTRY_SHIFT);
        trail.push(slot);
        match F::decode(F::load(phys, slot), level, paging)? {
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
                let translation = Translation {
                    phys: base.with_offset(page_size.offset_of(addr.get())),
                    page_size,
                    permissions: allowed.and(permissions),
                    global: global && paging.pge,
                    dirty,
                };
                return Ok(Walk { translation, trail });
            }
        }
    }
    unreachable!("every entry of level 1 is absent, reserved or maps a page")
}
