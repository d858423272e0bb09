//! [`Frames`]: kind, attributes and timestamps of each frame, all atomic, as any thread may store.
//!
//! All timestamps come from one counter that advances with every event, so that any two can be compared. The tables, 25
//! bytes a frame, take host memory only near frames that had an event, or whose kind is not what most frames around are.
//!
//! **Ordering.** A store first writes the bytes, then looks at the attributes. A reader who derives something from a frame first
//! sets the attribute, then reads the bytes. Both access the attributes by a sequentially consistent read-modify-write, which
//! orders the plain accesses around it (on x86 it is a full barrier). So at least one sees the other: either the reader gets
//! the new bytes, or the store is reported to it.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use super::map::RegionKind;
use crate::addr::Frame;
use crate::mapping::Atomics;

/// A property of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attribute {
    /// Code was scanned here and not overwritten since: stores take the slow path.
    Code,
    /// Cached translations were made from paging-structure entries here, and the frame is write-tracked: stores take the slow
    /// path.
    PageTable,
    /// Cached translations were made from a page table here, which is compared with them when the guest flushes: the processor's
    /// own stores go unseen until then.
    Unsync,
    /// Written since the machine was created.
    Dirty,
}

impl Attribute {
    const fn bit(self) -> u8 {
        match self {
            Self::Code => 1 << 2,
            Self::PageTable => 1 << 3,
            Self::Dirty => 1 << 4,
            Self::Unsync => 1 << 5,
        }
    }
}

/// The kind of a frame and its attributes, in one byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes(u8);

impl Attributes {
    /// Bits 1:0: the region's kind. 0 stands for what the frame is at first: RAM in one large region, device elsewhere.
    const KIND: u8 = 0b11;
    const RAM: u8 = 1;
    const ROM: u8 = 2;
    const DEVICE: u8 = 3;

    /// Whether the frame has `attribute`.
    #[inline]
    pub fn has(self, attribute: Attribute) -> bool {
        self.0 & attribute.bit() != 0
    }

    /// Whether something was derived from the frame that a store may void.
    #[inline]
    pub(super) fn is_source(self) -> bool {
        self.has(Attribute::Code) || self.is_tracked()
    }

    /// Whether cached translations were made from the frame.
    #[inline]
    pub(crate) fn is_tracked(self) -> bool {
        self.has(Attribute::PageTable) || self.has(Attribute::Unsync)
    }

    /// The kind, unless it is what the frame is at first.
    #[inline]
    fn kind(self) -> Option<RegionKind> {
        match self.0 & Self::KIND {
            Self::RAM => Some(RegionKind::Ram),
            Self::ROM => Some(RegionKind::Rom),
            Self::DEVICE => Some(RegionKind::Device),
            _ => None,
        }
    }

    fn bits_of(kind: RegionKind) -> u8 {
        match kind {
            RegionKind::Ram => Self::RAM,
            RegionKind::Rom => Self::ROM,
            RegionKind::Device => Self::DEVICE,
        }
    }
}

/// The way in which stores to a frame are followed, for the sake of translations made from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tracking {
    /// No store is reported, as no translation comes from the frame.
    Untracked,
    /// All stores are reported, as the frame has no write slots.
    WriteTracked,
    /// The processor's own stores go unseen; those of others are reported.
    Unsync,
}

/// A time on the memory's event counter, which only increases; zero means never.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The value of the event counter.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// The attributes and timestamps of all frames that can be memory. Frames beyond have none and cannot get any.
#[derive(Debug)]
pub(super) struct Frames {
    /// The frames that are RAM at first; the others are devices.
    ram: Range<Frame>,
    attributes: Atomics<AtomicU8>,
    written: Atomics<AtomicU64>,
    scanned: Atomics<AtomicU64>,
    executed: Atomics<AtomicU64>,
    clock: AtomicU64,
    /// Counts the epochs of all dirty logs.
    epochs: AtomicU64,
}

impl Frames {
    /// Creates `count` frames, of which those of `ram` are RAM, and the others devices.
    pub(super) fn new(count: usize, ram: Range<Frame>) -> io::Result<Self> {
        Ok(Self {
            ram,
            attributes: Atomics::new(count)?,
            written: Atomics::new(count)?,
            scanned: Atomics::new(count)?,
            executed: Atomics::new(count)?,
            clock: AtomicU64::new(0),
            epochs: AtomicU64::new(0),
        })
    }

    /// The number of frames.
    pub(super) fn count(&self) -> u64 {
        self.attributes.len() as u64
    }

    /// The attributes as they are now.
    #[inline]
    pub(super) fn attributes(&self, frame: Frame) -> Attributes {
        let byte = self.attributes.get(frame.get() as usize);
        Attributes(byte.map_or(0, |byte| byte.load(SeqCst)))
    }

    /// The kind of the frame.
    #[inline]
    pub(super) fn kind(&self, frame: Frame) -> RegionKind {
        let byte = self.attributes.get(frame.get() as usize);
        let set = byte.and_then(|byte| Attributes(byte.load(Relaxed)).kind());
        set.unwrap_or_else(|| match self.ram.contains(&frame) {
            true => RegionKind::Ram,
            false => RegionKind::Device,
        })
    }

    /// Sets the kind of the frame.
    pub(super) fn set_kind(&self, frame: Frame, kind: RegionKind) {
        if self.kind(frame) == kind {
            return;
        }
        if let Some(byte) = self.attributes.get(frame.get() as usize) {
            let change = |byte: u8| byte & !Attributes::KIND | Attributes::bits_of(kind);
            let changed = byte.fetch_update(SeqCst, SeqCst, |byte| Some(change(byte)));
            debug_assert!(changed.is_ok());
        }
    }

    pub(super) fn written_at(&self, frame: Frame) -> Timestamp {
        stamp(&self.written, frame)
    }

    pub(super) fn scanned_at(&self, frame: Frame) -> Timestamp {
        stamp(&self.scanned, frame)
    }

    pub(super) fn executed_at(&self, frame: Frame) -> Timestamp {
        stamp(&self.executed, frame)
    }

    /// Records a store that has just been made. Returns the attributes.
    pub(super) fn written(&self, frame: Frame) -> Attributes {
        let Some(byte) = self.attributes.get(frame.get() as usize) else {
            return Attributes(0);
        };
        while !self.stamp_written(frame, self.begin_stamp()) {}
        Attributes(byte.fetch_or(Attribute::Dirty.bit(), SeqCst))
    }

    /// Removes the mark Code.
    pub(super) fn overwritten(&self, frame: Frame) {
        if let Some(byte) = self.attributes.get(frame.get() as usize) {
            byte.fetch_and(!Attribute::Code.bit(), SeqCst);
        }
    }

    /// Records that code is about to be scanned in the frame.
    pub(super) fn scanned(&self, frame: Frame) {
        if let Some(byte) = self.attributes.get(frame.get() as usize) {
            byte.fetch_or(Attribute::Code.bit(), SeqCst);
            self.stamp(&self.scanned, frame);
        }
    }

    pub(super) fn executed(&self, frame: Frame) {
        self.stamp(&self.executed, frame);
    }

    /// Records how stores to the frame are followed from now on. In between two kinds of tracking the frame has both.
    pub(super) fn track(&self, frame: Frame, tracking: Tracking) {
        let Some(byte) = self.attributes.get(frame.get() as usize) else {
            return;
        };
        let both = Attribute::PageTable.bit() | Attribute::Unsync.bit();
        let wanted = match tracking {
            Tracking::Untracked => 0,
            Tracking::WriteTracked => Attribute::PageTable.bit(),
            Tracking::Unsync => Attribute::Unsync.bit(),
        };
        byte.fetch_or(wanted, SeqCst);
        byte.fetch_and(!both | wanted, SeqCst);
    }

    /// Begins an epoch of a dirty log. A store that does not show in [`Self::written_at`] after this gets a stamp later than the
    /// time returned.
    pub(super) fn begin_epoch(&self) -> Timestamp {
        let now = self.now();
        self.epochs.fetch_add(1, SeqCst);
        now
    }

    /// Takes a timestamp for a store, and the number of the epoch.
    fn begin_stamp(&self) -> (Timestamp, u64) {
        let epoch = self.epochs.load(SeqCst);
        (self.tick(), epoch)
    }

    /// Stamps a frame as written. Returns `false` if an epoch has begun since, the log of which may have looked too early; the
    /// frame then needs another stamp.
    fn stamp_written(&self, frame: Frame, (now, epoch): (Timestamp, u64)) -> bool {
        if let Some(stamp) = self.written.get(frame.get() as usize) {
            stamp.store(now.0, SeqCst);
        }
        self.epochs.load(SeqCst) == epoch
    }

    /// The present time.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp(self.clock.load(SeqCst))
    }

    fn stamp(&self, stamps: &[AtomicU64], frame: Frame) {
        if let Some(stamp) = stamps.get(frame.get() as usize) {
            stamp.store(self.tick().0, SeqCst);
        }
    }

    fn tick(&self) -> Timestamp {
        Timestamp(self.clock.fetch_add(1, SeqCst) + 1)
    }
}

fn stamp(stamps: &[AtomicU64], frame: Frame) -> Timestamp {
    let stamp = stamps.get(frame.get() as usize);
    Timestamp(stamp.map_or(0, |stamp| stamp.load(SeqCst)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PAGE_SIZE;
    use std::os::unix::fs::FileExt;

    /// The host pages of a table that were ever touched (Documentation/admin-guide/mm/pagemap.rst: bit 63, page present).
    fn touched<T>(table: &[T]) -> usize {
        let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
        let first = table.as_ptr().addr() / PAGE_SIZE;
        let mut entries = vec![0; size_of_val(table).div_ceil(PAGE_SIZE) * size_of::<u64>()];
        pagemap
            .read_exact_at(&mut entries, (first * size_of::<u64>()) as u64)
            .unwrap();
        entries
            .chunks(8)
            .filter(|entry| entry[7] & 0x80 != 0)
            .count()
    }

    #[test]
    fn frames_that_are_what_they_were_at_first_take_no_memory() {
        const COUNT: u64 = 8 << 20;
        let [start, end] = [0x100, COUNT - 5].map(Frame::new);
        let frames = Frames::new(COUNT as usize, start..end).unwrap();
        for frame in [0, 0xff, COUNT - 5, COUNT - 1, COUNT, u64::MAX] {
            assert_eq!(frames.kind(Frame::new(frame)), RegionKind::Device);
        }
        for frame in [0x100, 0x1_2345, COUNT - 6] {
            let frame = Frame::new(frame);
            assert_eq!(frames.kind(frame), RegionKind::Ram);
            for kind in [RegionKind::Device, RegionKind::Rom, RegionKind::Ram] {
                frames.set_kind(frame, kind);
                frames.written(frame);
                assert_eq!(frames.kind(frame), kind);
                assert!(frames.attributes(frame).has(Attribute::Dirty));
            }
        }
        // At the first and last frames and at those of the loop: two of the first share a page.
        assert!(touched(&frames.attributes) <= 5);
        assert_eq!(touched(&frames.written), 3);
        assert_eq!(touched(&frames.scanned) + touched(&frames.executed), 0);
    }

    #[test]
    fn a_store_during_which_an_epoch_begins_is_stamped_again() {
        let frames = Frames::new(1, Frame::new(0)..Frame::new(1)).unwrap();
        let frame = Frame::new(0);
        let stamp = frames.begin_stamp();
        let since = frames.begin_epoch();
        assert_eq!(frames.written_at(frame), Timestamp::default());
        assert!(!frames.stamp_written(frame, stamp));
        assert!(frames.stamp_written(frame, frames.begin_stamp()));
        assert!(frames.written_at(frame) > since);
    }
}
