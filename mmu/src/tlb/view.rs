//! [`View`]: the table of slots for one kind of access, and where it lies.

use std::iter;

use crate::addr::{LinearWidth, PAGE_SIZE};
use crate::paging::{Access, Privilege};

/// Number of views.
const COUNT: usize = 8;

/// The tables that the offsets of misaligned operands of up to 16 bytes tell apart; all but the first are empty.
const MISALIGNED: usize = 16;
/// The bytes by which tables lie further apart than is needed.
const APART: usize = 0x25 * PAGE_SIZE;

/// Bytes of the slots of one view.
pub(super) const fn table_bytes(width: LinearWidth) -> usize {
    width.slots() as usize * size_of::<u64>()
}

/// Address space of one set of tables, in bytes.
pub(crate) const fn set_bytes(width: LinearWidth) -> usize {
    match width {
        LinearWidth::Bits32 => COUNT * View::STRIDE,
        LinearWidth::Bits48 => COUNT / 2 * (View::DATA_STRIDE_48 + View::CODE_STRIDE_48),
    }
}

/// A table of slots: for one kind of access at one privilege, or for code made from fetched pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View(u8);

impl View {
    /// Bytes from the table of one view to that of the next, for 32-bit linear addresses. This is 16 times what the linear pages
    /// need: code that probes the table inline can use the low address bits of a misaligned operand of up to 16 bytes as upper bits
    /// of its index, and finds an empty slot. It is some pages more, because processors predict the way of a cache set from a hash
    /// of address bits 12 to 27, and the slots of one page in different views would displace each other if these bits were the same
    /// (Lipp et al., "Take A Way: Exploring the Security Implications of AMD's Cache Way Predictors", 2020).
    pub const STRIDE: usize = MISALIGNED * table_bytes(LinearWidth::Bits32) + APART;

    /// Bytes from the table of a view for data to the next table of the same privilege, for 48-bit linear addresses.
    const DATA_STRIDE_48: usize = MISALIGNED * table_bytes(LinearWidth::Bits48) + APART;
    /// Bytes from the table of a view for fetches or code, which is only ever probed by page, to the next table of the same
    /// privilege, for 48-bit linear addresses.
    const CODE_STRIDE_48: usize = table_bytes(LinearWidth::Bits48) + APART;

    /// All views. The tables of one privilege lie in the order read, write, fetch, code, at the same distances for both.
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

    /// The offset of the view's table in a set, in bytes.
    #[inline(always)]
    pub(super) const fn offset(self, width: LinearWidth) -> usize {
        match width {
            LinearWidth::Bits32 => self.index() * Self::STRIDE,
            LinearWidth::Bits48 => {
                let (kind, privilege) = (self.index() / 2, self.index() % 2);
                let (data, code) = if kind < 2 { (kind, 0) } else { (2, kind - 2) };
                privilege * set_bytes(width) / 2
                    + data * Self::DATA_STRIDE_48
                    + code * Self::CODE_STRIDE_48
            }
        }
    }

    pub(super) const fn is_code(self) -> bool {
        self.0 >= Self::code(Privilege::Supervisor).0
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

/// A slot of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SlotId {
    pub(super) view: View,
    /// The place in the table: [`LinearWidth::index`].
    pub(super) index: u32,
}
