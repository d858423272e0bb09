//! [`Entry`]: an entry of a paging structure, decoded once from its bits.

use thiserror::Error;

use super::control::{Access, Paging, Privilege};
use crate::addr::{GuestPhys, PAGE_SHIFT};

/// The error of a present entry that sets a bit that its format reserves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("a paging-structure entry sets reserved bits")]
pub struct ReservedBits;

/// An entry without reserved bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// P = 0: the other bits mean nothing.
    Absent,
    /// Points to the paging structure of the next level.
    Table {
        base: GuestPhys,
        permissions: Permissions,
    },
    /// Maps a page.
    Mapped {
        base: GuestPhys,
        permissions: Permissions,
        global: bool,
        dirty: bool,
    },
}

/// The accesses that an entry, or all entries of a walk together, permit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Permissions {
    /// R/W: writes are allowed.
    pub writable: bool,
    /// U/S: user-mode accesses are allowed.
    pub user: bool,
    /// No XD: instruction fetches are allowed.
    pub executable: bool,
}

impl Permissions {
    /// Everything is allowed.
    pub(super) const ALL: Self = Self {
        writable: true,
        user: true,
        executable: true,
    };

    /// The permissions that both have in common: those of a walk are the intersection over its entries.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            writable: self.writable && other.writable,
            user: self.user && other.user,
            executable: self.executable && other.executable,
        }
    }

    /// Whether the access may go ahead (SDM Vol. 3A, 4.6.1 Determination of Access Rights).
    pub(crate) fn allow(self, access: Access, privilege: Privilege, paging: &Paging) -> bool {
        let reachable = self.user || privilege == Privilege::Supervisor;
        reachable
            && match access {
                Access::Read => true,
                Access::Write => {
                    self.writable || (privilege == Privilege::Supervisor && !paging.wp)
                }
                Access::Fetch => self.executable,
            }
    }
}

/// Size of a page: a power of two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PageSize {
    shift: u32,
}

impl PageSize {
    /// 4 KiB, in every format.
    pub const KIB_4: Self = Self::from_shift(PAGE_SHIFT);
    /// 2 MiB, in PAE and 4-level paging.
    pub const MIB_2: Self = Self::from_shift(21);
    /// 4 MiB, in 32-bit paging with PSE.
    pub const MIB_4: Self = Self::from_shift(22);
    /// 1 GiB, in 4-level paging.
    pub const GIB_1: Self = Self::from_shift(30);

    pub(super) const fn from_shift(shift: u32) -> Self {
        Self { shift }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.shift
    }

    /// The bits of `addr` that are the offset in a page of this size.
    pub(super) const fn offset_of(self, addr: u64) -> u64 {
        addr & (self.bytes() - 1)
    }
}
