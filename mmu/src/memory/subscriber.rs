//! [`Subscriber`]: who is told of what happens to frames.

use std::ops::Range;

use super::frames::Attributes;
use crate::addr::Frame;

/// A store that has been made, as far as it lies in one frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Store {
    /// The frame.
    pub frame: Frame,
    /// The offsets of the bytes in it; not empty.
    pub bytes: Range<u32>,
    /// The frame's attributes. When all have been told, [`Code`](super::Attribute::Code) is taken away.
    pub attributes: Attributes,
}

/// Somebody who has made something from frames, or keeps account of them.
///
/// The methods are called on the thread of whoever stores or changes the map, after that is done, perhaps on several threads at
/// once; they note what they are told and return.
pub trait Subscriber: Send + Sync {
    /// Somebody else has stored to a frame. Stores through a processor's write slots go unseen; a frame marked
    /// [`Code`](super::Attribute::Code) or [`PageTable`](super::Attribute::PageTable) has none.
    fn stored(&self, store: &Store);

    /// What answers at these frames has changed.
    fn remapped(&self, frames: Range<Frame>);

    /// All write slots have to go, so that the next store to each frame is seen.
    fn write_protect(&self);
}

/// Names a subscription, and with it whoever stores by it: a subscriber is not told of its own stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubscriberId(pub(super) u64);
