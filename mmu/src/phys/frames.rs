//! What is known about each frame of RAM: attributes and timestamps.
//!
//! All timestamps come from one counter that advances with every event, so that any two can be compared. The arrays
//! are zero-backed and take host memory only for frames that had an event: 24 bytes and four bits a frame.

use std::mem;

use bitvec::vec::BitVec;

use crate::addr::Frame;

/// A property of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attribute {
    /// Code was scanned here and not overwritten since. Stores take the slow path.
    Code,
    /// Cached translations were made from paging-structure entries here and are dropped when the entries change. Stores take
    /// the slow path.
    PageTable,
    /// Written since the machine was created.
    Dirty,
}

impl Attribute {
    const COUNT: usize = 3;
}

/// A moment on the memory's monotonic event counter; zero = never.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Ticks of the event counter.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// The timestamps of one frame.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Stamps {
    pub(super) written: Timestamp,
    pub(super) scanned: Timestamp,
    pub(super) executed: Timestamp,
}

/// Attributes and timestamps of all frames of RAM. Frames beyond have no attributes, no stamps, and cannot get any.
pub(crate) struct Frames {
    attributes: [BitVec; Attribute::COUNT],
    /// Frames that lost the mark [`Attribute::Code`] to a store since they were last asked for, each once.
    code_writes: Vec<Frame>,
    /// Which frames are in `code_writes`.
    listed: BitVec,
    written: Vec<u64>,
    scanned: Vec<u64>,
    executed: Vec<u64>,
    clock: u64,
}

impl Frames {
    pub(super) fn new(count: u64) -> Self {
        let count = count as usize;
        Self {
            attributes: std::array::from_fn(|_| BitVec::repeat(false, count)),
            code_writes: Vec::new(),
            listed: BitVec::repeat(false, count),
            written: vec![0; count],
            scanned: vec![0; count],
            executed: vec![0; count],
            clock: 0,
        }
    }

    #[inline]
    pub(super) fn has(&self, frame: Frame, attribute: Attribute) -> bool {
        self.attributes[attribute as usize]
            .get(frame.get() as usize)
            .is_some_and(|bit| *bit)
    }

    pub(super) fn stamps(&self, frame: Frame) -> Stamps {
        let index = frame.get() as usize;
        let stamp = |of: &[u64]| Timestamp(of.get(index).copied().unwrap_or_default());
        Stamps {
            written: stamp(&self.written),
            scanned: stamp(&self.scanned),
            executed: stamp(&self.executed),
        }
    }

    /// Records a store. Returns whether the frame was marked Code; it no longer is.
    pub(super) fn written(&mut self, frame: Frame) -> bool {
        let now = self.tick();
        let Some(stamp) = self.written.get_mut(frame.get() as usize) else {
            return false;
        };
        *stamp = now;
        self.set(frame, Attribute::Dirty, true);
        let was_code = self.has(frame, Attribute::Code);
        if was_code {
            self.set(frame, Attribute::Code, false);
            if !self.listed.replace(frame.get() as usize, true) {
                self.code_writes.push(frame);
            }
        }
        was_code
    }

    /// The frames that lost the mark [`Attribute::Code`] to a store since the last call, each once.
    pub(super) fn take_code_writes(&mut self) -> Vec<Frame> {
        for frame in &self.code_writes {
            self.listed.set(frame.get() as usize, false);
        }
        mem::take(&mut self.code_writes)
    }

    /// Records that stores to the frame will go unseen from now on: it counts as written now.
    pub(crate) fn opened(&mut self, frame: Frame) {
        self.written(frame);
    }

    /// Records that code is scanned in the frame now.
    pub(crate) fn scanned(&mut self, frame: Frame) {
        let now = self.tick();
        let Some(stamp) = self.scanned.get_mut(frame.get() as usize) else {
            return;
        };
        *stamp = now;
        self.set(frame, Attribute::Code, true);
    }

    pub(super) fn executed(&mut self, frame: Frame) {
        let now = self.tick();
        if let Some(stamp) = self.executed.get_mut(frame.get() as usize) {
            *stamp = now;
        }
    }

    /// Records whether cached translations depend on the frame.
    pub(crate) fn watched(&mut self, frame: Frame, watched: bool) {
        self.set(frame, Attribute::PageTable, watched);
    }

    fn set(&mut self, frame: Frame, attribute: Attribute, value: bool) {
        if let Some(mut bit) = self.attributes[attribute as usize].get_mut(frame.get() as usize) {
            *bit = value;
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}
