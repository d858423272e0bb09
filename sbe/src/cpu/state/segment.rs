//! [`SegmentState`]: a segment register as it is saved.

use super::error::CpuStateError;
use crate::cpu::canonical::is_canonical;
use crate::cpu::segment::{Attributes, Segment, Selector};
use serde::{Deserialize, Serialize};

/// A segment register with its hidden part, from which the bounds of accesses follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentState {
    /// The visible part.
    pub selector: u16,
    /// Base linear address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u32,
    /// Attribute bits: bits 8..=15 and 20..=23 of a descriptor's upper doubleword, moved down by 8.
    pub attributes: u16,
}

impl SegmentState {
    /// Saves `segment`.
    pub(super) fn save(segment: &Segment) -> Self {
        Self {
            selector: segment.selector.0,
            base: segment.base,
            limit: segment.limit,
            attributes: segment.attributes.0,
        }
    }

    /// Makes the segment register, which is called `field` in errors.
    pub(super) fn restore(&self, field: &'static str) -> Result<Segment, CpuStateError> {
        let is_defined = self.attributes & !Attributes::DEFINED == 0;
        CpuStateError::unless(is_defined, field, self.attributes)?;
        CpuStateError::unless(is_canonical(self.base), field, self.base)?;
        Ok(Segment::new(
            Selector(self.selector),
            self.base,
            self.limit,
            Attributes(self.attributes),
        ))
    }
}
