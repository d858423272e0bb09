//! [`View`]: the table of slots for one kind of access, and where it lies.

use std::iter;

use crate::addr::{LinearPage, PAGE_SIZE};
use crate::paging::{Access, Privilege};

/// Number of views.
const COUNT: usize = 8;

/// A table of slots: for one kind of access at one privilege, or for code made from fetched pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View(u8);

impl View {
    /// Bytes from the table of one view to that of the next. This is 16 times what the linear pages need: code that probes
    /// the table inline can use the low address bits of a misaligned operand of up to 16 bytes as upper bits of its index, and
    /// finds an empty slot. It is some pages more, because processors predict the way of a cache set from a hash of address
    /// bits 12 to 27, and the slots of one page in different views would displace each other if these bits were the same
    /// (Lipp et al., "Take A Way: Exploring the Security Implications of AMD's Cache Way Predictors", 2020).
    pub const STRIDE: usize = 16 * LinearPage::COUNT * size_of::<u64>() + 0x25 * PAGE_SIZE;

    /// All views, in the order of their tables: the tables of one privilege lie at even distances, first read, then write,
    /// fetch and code.
    pub const ALL: [Self; COUNT] = {
        let mut all = [Self(0); COUNT];
        let mut index = 0;
        while index < COUNT {
            all[index] = Self(index as u8);
            index += 1;
        }
        all
    };

    /// The view that serves `access` at `privilege`.
    #[inline(always)]
    pub const fn of(access: Access, privilege: Privilege) -> Self {
        let pair = match access {
            Access::Read => 0,
            Access::Write => 1,
            Access::Fetch => 2,
        };
        Self::pair(pair, privilege)
    }

    /// The view of the code slots ([`Tlb::set_code`](crate::Tlb::set_code)) for pages fetched at `privilege`.
    #[inline(always)]
    pub const fn code(privilege: Privilege) -> Self {
        Self::pair(3, privilege)
    }

    const fn pair(pair: u8, privilege: Privilege) -> Self {
        match privilege {
            Privilege::Supervisor => Self(pair * 2),
            Privilege::User => Self(pair * 2 + 1),
        }
    }

    /// The position in [`View::ALL`].
    #[inline(always)]
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    pub(super) fn is_fetch(self) -> bool {
        ViewSet::FETCH.contains(self)
    }

    /// Whether a shadow page table shows its pages.
    pub(super) fn is_windowed(self) -> bool {
        self == Self::of(Access::Read, Privilege::User)
            || self == Self::of(Access::Write, Privilege::User)
    }

    pub(super) const fn privilege(self) -> Privilege {
        if self.0.is_multiple_of(2) {
            Privilege::Supervisor
        } else {
            Privilege::User
        }
    }
}

/// A set of views.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct ViewSet(u8);

impl ViewSet {
    /// The write views of both privileges.
    pub(super) const WRITE: Self = Self::both(View::of(Access::Write, Privilege::Supervisor));
    /// The fetch views of both privileges.
    pub(super) const FETCH: Self = Self::both(View::of(Access::Fetch, Privilege::Supervisor));
    /// The code views of both privileges.
    pub(super) const CODE: Self = Self::both(View::code(Privilege::Supervisor));
    /// All views.
    pub(super) const ALL: Self = Self(u8::MAX);

    const fn both(supervisor: View) -> Self {
        Self(0b11 << supervisor.0)
    }

    /// The set of `view` alone.
    pub(super) const fn only(view: View) -> Self {
        Self(1 << view.0)
    }

    pub(super) fn contains(self, view: View) -> bool {
        self.0 & Self::only(view).0 != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn insert(&mut self, view: View) {
        self.0 |= Self::only(view).0;
    }

    pub(super) fn remove(&mut self, views: Self) {
        self.0 &= !views.0;
    }

    /// The views of the set, and the code view of each fetch view among them.
    pub(super) fn with_code(self) -> Self {
        Self(self.0 | self.and(Self::FETCH).0 << 2)
    }

    /// The views that are in both sets.
    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = View> {
        let mut rest = self.0;
        iter::from_fn(move || {
            let view = View(rest.trailing_zeros() as u8);
            (rest != 0).then(|| {
                rest &= rest - 1;
                view
            })
        })
    }
}

/// A slot of the current space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SlotId {
    pub(super) view: View,
    pub(super) page: LinearPage,
}
