//! [`Subscriber`]: the interface of those who are told of stores and changes of the map.

use std::ops::Range;

use super::frames::Attributes;
use crate::addr::Frame;

/// The kind of party that has stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Party {
    /// A processor.
    Processor,
    /// A device, by DMA.
    Device,
    /// The host: a loader, a debugger.
    Host,
}

/// A store that has been made, or the part of it that lies in one frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Store {
    /// The frame.
    pub frame: Frame,
    /// The offsets of the bytes in the frame; not empty.
    pub bytes: Range<u32>,
    /// The party that has stored.
    pub by: Party,
    /// The frame's attributes. [`Code`](super::Attribute::Code) is removed after all subscribers have been told.
    pub attributes: Attributes,
}

/// A party that derives something from frames, or keeps account of them.
///
/// The methods are called after the store or the change of the map, on the thread that made it, perhaps on several threads at
/// once. They make a note and return; they wait for nobody, as stores to code may wait for them.
pub trait Subscriber: Send + Sync {
    /// Reports that somebody else has stored to a frame. Stores through a processor's write slots go unseen; a frame marked
    /// [`Code`](super::Attribute::Code) or [`PageTable`](super::Attribute::PageTable) has none.
    fn stored(&self, store: &Store);

    /// Reports that the kind of these frames has changed.
    fn remapped(&self, frames: Range<Frame>);

    /// Demands that all write slots be dropped, so that the next store to each frame is seen.
    fn write_protect(&self);
}

/// The name of a subscription. A subscriber that stores under its name is not told of that store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubscriberId(pub(super) u64);
