//! [`SpaceSet`]: a set of address spaces.

use super::spaces::{SpaceId, most_spaces};
use crate::addr::LinearWidth;

/// A set of address spaces, as a bit for each by [`SpaceId::index`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SpaceSet(u128);

const _: () = assert!(most_spaces(LinearWidth::Bits32) <= u128::BITS as usize);
const _: () = assert!(most_spaces(LinearWidth::Bits48) <= u128::BITS as usize);

impl SpaceSet {
    /// The set of the space with this index alone.
    pub(super) const fn only(index: u8) -> Self {
        Self(1 << index)
    }

    /// Adds the spaces of another set.
    pub(super) fn add(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// Adds a space.
    pub fn insert(&mut self, space: SpaceId) {
        self.0 |= 1 << space.index();
    }

    /// Whether it holds a space with the index of `space`.
    pub fn contains(self, space: SpaceId) -> bool {
        self.0 & (1 << space.index()) != 0
    }

    /// Whether the sets have a space in common.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}
