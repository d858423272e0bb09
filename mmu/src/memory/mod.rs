//! [`Memory`]: guest-physical memory, shared by all who access it. It holds RAM and ROM in one memfd, the map of RAM, ROM and
//! devices, and attributes and timestamps for each frame.
//!
//! ```text
//!   vCPU's slow path ─┐                ┌─► bytes
//!   device (DMA) ─────┤                │
//!   debugger ─────────┼──► Memory ─────┼─► frame: attributes, timestamps
//!   loader ───────────┘                └─► subscribers: each vCPU, dirty logs, ...
//! ```
//!
//! Guest-physical address = offset in the memfd, and the memfd is mapped once as a whole: a host address is base +
//! guest-physical address, and parts of the file can be mapped elsewhere too. The file is sparse and takes host memory where
//! it was written.
//!
//! Every store except those through a processor's write slots goes through this module, on any thread: the frame's `written`
//! timestamp advances, and whoever derived something from the frame is told ([`Subscriber`]). A frame with code or
//! write-tracked page tables has no write slots. So no store to them goes unseen. (Raw pointers that `vm-memory` hands out
//! bypass this; whoever writes through one calls [`Memory::mark_written`].)
//!
//! | file         | what it holds                                             |
//! |--------------|-----------------------------------------------------------|
//! | `map`        | regions of RAM, ROM and device                            |
//! | `store`      | the one entrance for stores                               |
//! | `frames`     | attributes and timestamps of each frame                   |
//! | `subscriber` | the interface of those who are told of stores             |
//! | `guest`      | the RAM as a `vm_memory::GuestMemory`                     |
//! | `dirty`      | a log of the frames that were written                     |
//! | `error`      | why there is no memory                                    |

mod dirty;
mod error;
mod frames;
mod guest;
mod map;
mod store;
mod subscriber;

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use nix::fcntl::{FallocateFlags, fallocate};
use parking_lot::{ReentrantMutex, RwLock};
use serde::{Deserialize, Serialize};
use vm_memory::{VolatileMemory, VolatileSlice};

use crate::addr::{Frame, GuestPhys, LinearWidth, PAGE_SIZE};
use crate::layout::{AliasedRam, Aliases, fits_ram};
use crate::mapping::{Mapping, Protection};
use crate::memfd;
use crate::scalar::Scalar;
pub use dirty::DirtyLog;
pub use error::{MemoryError, NotRam};
use frames::Frames;
pub(crate) use frames::Tracking;
pub use frames::{Attribute, Attributes, Timestamp};
pub use guest::{GuestRam, StoreHook};
use map::{ABOVE, Map};
pub use map::{MAX_LOW_RAM, MapError, Region, RegionKind};
pub(crate) use store::By;
pub use subscriber::{Party, Store, Subscriber, SubscriberId};

/// Least guest RAM: 1 MiB, as everything below the first megabyte exists.
pub const MIN_RAM: u64 = 1 << 20;

/// Most guest RAM: 32 GiB, of which [`MAX_LOW_RAM`] lie below 4 GiB, and the others from there up.
pub const MAX_RAM: u64 = 32 << 30;

/// Most bytes that guest memory takes of the guest-physical addresses, from 0 on.
pub(crate) const MOST_BYTES: u64 = ABOVE + MAX_RAM - MAX_LOW_RAM;
const _: () = assert!(fits_ram(MOST_BYTES));

/// The state of a memory that is saved beside its bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemoryState {
    map: Map,
}

#[derive(Clone)]
struct Subscription {
    id: SubscriberId,
    subscriber: Weak<dyn Subscriber>,
}

impl Subscription {
    fn is_alive(&self) -> bool {
        self.subscriber.strong_count() > 0
    }
}

/// The guest's RAM and ROM, and the attributes and timestamps of their frames, shared by [`Arc`].
pub struct Memory {
    file: Arc<File>,
    mapping: Mapping,
    /// The aliases of the mapping, if processors may have 48-bit linear addresses.
    aliases: Option<Aliases>,
    frames: Frames,
    map: RwLock<Map>,
    /// Held while a frame is being marked Code, and while a store to a marked frame is reported and the mark removed. So a
    /// processor that has not been told yet still finds the mark, and the mark of a later scan is not lost.
    marking: ReentrantMutex<()>,
    /// Replaced as a whole, so that no lock is held while subscribers are told.
    subscriptions: RwLock<Arc<[Subscription]>>,
    /// The number of the latest subscription.
    subscribed: AtomicU64,
}

impl Memory {
    /// Creates the memory of a PC whose processors have 32-bit linear addresses, as [`Self::for_width`] does.
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn new(ram: u64) -> Result<Arc<Self>, MemoryError> {
        Self::for_width(ram, LinearWidth::Bits32)
    }

    /// Creates the memory of a PC with `ram` bytes of zeroed RAM, between [`MIN_RAM`] and [`MAX_RAM`] and a multiple of the page
    /// size. It takes host memory where it is touched. RAM and ROM can be added below 4 GiB, or below the end of RAM above.
    ///
    /// `width` is the greatest of the processors' linear addresses. For 48 bits, more host addresses are reserved: in each of the
    /// 128 TiB that a process has, as many as guest memory has guest-physical addresses.
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn for_width(ram: u64, width: LinearWidth) -> Result<Arc<Self>, MemoryError> {
        if !(MIN_RAM..=MAX_RAM).contains(&ram) || !ram.is_multiple_of(PAGE_SIZE as u64) {
            return Err(MemoryError::Size { bytes: ram });
        }
        let map = Map::pc(ram);
        let limit = limit(&map);
        let file = memfd::create(c"guest-ram", limit).map_err(MemoryError::File)?;
        Self::with(map, file, limit, width)
    }

    /// Takes over the memory that [`Self::save`] and [`Self::file`] of another one describe, in this or another process. Both
    /// access the same bytes; the other must not be used any more, as neither sees the other's stores. `width` is as for
    /// [`Self::for_width`].
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn restore(
        state: MemoryState,
        file: File,
        width: LinearWidth,
    ) -> Result<Arc<Self>, MemoryError> {
        let length = file.metadata().map_err(MemoryError::File)?.len();
        let is_whole = length.is_multiple_of(PAGE_SIZE as u64);
        if !(ABOVE..=MOST_BYTES).contains(&length) || !is_whole || !memfd::cannot_shrink(&file) {
            return Err(MemoryError::Foreign);
        }
        Self::with(state.map.checked(length)?, file, length, width)
    }

    /// The state that [`Self::restore`] needs beside the file.
    pub fn save(&self) -> MemoryState {
        MemoryState {
            map: self.map.read().clone(),
        }
    }

    fn with(
        map: Map,
        file: File,
        limit: u64,
        width: LinearWidth,
    ) -> Result<Arc<Self>, MemoryError> {
        let (mapping, aliases) = mapped(&file, limit as usize, width)?;
        let mostly_ram = map.largest_ram().map(frames_of);
        let frames = Frames::new(limit as usize / PAGE_SIZE, mostly_ram.unwrap_or_default())
            .map_err(MemoryError::AddressSpace)?;
        let others = map
            .regions()
            .iter()
            .filter(|region| Some(*region) != map.largest_ram());
        for region in others {
            set_kind(&frames, region, region.kind);
        }
        Ok(Arc::new(Self {
            file: Arc::new(file),
            mapping,
            aliases,
            frames,
            map: RwLock::new(map),
            marking: ReentrantMutex::new(()),
            subscriptions: RwLock::new(Arc::new([])),
            subscribed: AtomicU64::new(0),
        }))
    }

    /// The memfd; guest-physical address = file offset.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The address at which all RAM and ROM ends.
    pub fn size(&self) -> u64 {
        self.map.read().memory_end()
    }

    /// The address at which all RAM ends.
    pub fn ram_end(&self) -> u64 {
        self.map.read().end_of(|kind| kind == RegionKind::Ram)
    }

    /// The address at which RAM and ROM must end: the length of the file.
    fn limit(&self) -> u64 {
        self.mapping.len() as u64
    }

    /// The regions that answer, in ascending order.
    pub fn regions(&self) -> Vec<Region> {
        self.map.read().regions().to_vec()
    }

    /// Adds a region: whole pages, of which none is in another region. RAM and ROM lie below the end of the file, which is at
    /// 4 GiB or, if there was RAM above at first, at its end. They hold zeros, unless somebody has stored there through a
    /// [`GuestRam`] from before a removal.
    ///
    /// # Errors
    /// See [`MapError`].
    pub fn add_region(&self, range: Range<GuestPhys>, kind: RegionKind) -> Result<(), MapError> {
        let (start, end) = (range.start.get(), range.end.get());
        let region = Region { start, end, kind };
        {
            let mut map = self.map.write();
            map.add(range, kind, self.limit())?;
            set_kind(&self.frames, &region, kind);
        }
        self.remapped(&region);
        Ok(())
    }

    /// Removes a region. What it held is lost. A processor that is running accesses it until it next looks
    /// ([`Mmu::snoop`](crate::Mmu::snoop)), and a [`GuestRam`] from before for as long as it is kept.
    ///
    /// # Errors
    /// See [`MapError`].
    pub fn remove_region(&self, range: Range<GuestPhys>) -> Result<(), MapError> {
        let region = {
            let mut map = self.map.write();
            let region = map.remove(&range)?;
            set_kind(&self.frames, &region, RegionKind::Device);
            // While nobody can add a region there whose bytes this would take.
            self.discard(&region);
            region
        };
        self.remapped(&region);
        Ok(())
    }

    /// Gives the bytes of a region of RAM or ROM back to the host: they are zeros from then on.
    fn discard(&self, region: &Region) {
        if region.kind == RegionKind::Device {
            return;
        }
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let (start, len) = (region.start, region.end - region.start);
        if let Err(error) = fallocate(&*self.file, hole, start as i64, len as i64) {
            log::warn!("guest memory at {start:#x} is not given back to the host: {error}");
        }
    }

    /// Reports that a region was added or removed: everything made from its frames is void, and lost bytes count as written.
    fn remapped(&self, region: &Region) {
        let frames = frames_of(region);
        self.tell(None, |subscriber| subscriber.remapped(frames.clone()));
        let end = frames.end.get().min(self.frames.count());
        for frame in (frames.start.get()..end).map(Frame::new) {
            if self.attributes(frame).is_source() {
                self.mark_written(frame.base(), PAGE_SIZE as u64);
            } else if region.kind != RegionKind::Device {
                self.frames.written(frame);
            }
        }
    }

    /// The kind of region at `addr`.
    #[inline]
    pub fn region(&self, addr: GuestPhys) -> RegionKind {
        self.frames.kind(addr.frame())
    }

    /// Subscribes `subscriber` to the events of frames for as long as it lives.
    pub fn subscribe(&self, subscriber: Weak<dyn Subscriber>) -> SubscriberId {
        let id = SubscriberId(self.subscribed.fetch_add(1, Relaxed) + 1);
        let new = Subscription { id, subscriber };
        let mut subscriptions = self.subscriptions.write();
        let alive = subscriptions.iter().filter(|one| one.is_alive());
        *subscriptions = alive.cloned().chain([new]).collect();
        id
    }

    /// Reads RAM or ROM.
    ///
    /// # Errors
    /// [`NotRam`] if any byte is neither; `out` is then unchanged.
    pub fn read(&self, addr: GuestPhys, out: &mut [u8]) -> Result<(), NotRam> {
        self.slice(addr, out.len())?.copy_to(out);
        Ok(())
    }

    /// Reads a value from RAM or ROM.
    ///
    /// # Errors
    /// [`NotRam`] if any byte is neither.
    #[inline]
    pub fn load<T: Scalar>(&self, addr: GuestPhys) -> Result<T, NotRam> {
        let slice = self.slice(addr, size_of::<T>())?;
        let value = slice.get_ref::<T>(0).map_err(|_| NotRam {
            addr,
            len: size_of::<T>(),
        })?;
        Ok(value.load())
    }

    /// Begins an epoch of a dirty log, and withdraws all write slots of all processors.
    fn begin_epoch(&self) -> Timestamp {
        let since = self.frames.begin_epoch();
        self.tell(None, |subscriber| subscriber.write_protect());
        since
    }

    /// All frames of RAM and ROM, in ascending order.
    fn memory_frames(&self) -> impl Iterator<Item = Frame> {
        let regions = self.regions().into_iter();
        regions
            .filter(|region| region.kind != RegionKind::Device)
            .flat_map(|region| {
                let frames = frames_of(&region);
                (frames.start.get()..frames.end.get()).map(Frame::new)
            })
    }

    /// Whether `frame` has the attribute. Frames that are no memory have none.
    #[inline]
    pub fn has(&self, frame: Frame, attribute: Attribute) -> bool {
        self.attributes(frame).has(attribute)
    }

    /// The attributes of `frame`.
    #[inline]
    pub fn attributes(&self, frame: Frame) -> Attributes {
        self.frames.attributes(frame)
    }

    /// The present moment on the event counter.
    pub fn now(&self) -> Timestamp {
        self.frames.now()
    }

    /// The time at which `frame` was last seen written. It is exact for frames marked [`Attribute::Code`]; stores to other frames
    /// are recorded when they take the slow path, at least the first after all their write slots were dropped.
    pub fn written(&self, frame: Frame) -> Timestamp {
        self.frames.written_at(frame)
    }

    /// The time at which `frame` was last scanned for code.
    pub fn scanned(&self, frame: Frame) -> Timestamp {
        self.frames.scanned_at(frame)
    }

    /// The time at which code of `frame` was last executed, as reported by [`Memory::mark_executed`], which engines call when
    /// they look the page up.
    pub fn executed(&self, frame: Frame) -> Timestamp {
        self.frames.executed_at(frame)
    }

    /// Whether `frame` was written after it was scanned, so that code made from the scan is void.
    pub fn stale(&self, frame: Frame) -> bool {
        self.written(frame) > self.scanned(frame)
    }

    /// Records that code made from `frame` executes now.
    pub fn mark_executed(&self, frame: Frame) {
        self.frames.executed(frame);
    }

    /// Marks `frame` as scanned for code now. The caller has dropped its write slots, and reads the bytes after this.
    pub(crate) fn mark_scanned(&self, frame: Frame) {
        let _marking = self.marking.lock();
        self.frames.scanned(frame);
    }

    /// Records that stores to `frame` go unseen from now on, so that it counts as written now.
    pub(crate) fn mark_write_open(&self, frame: Frame) {
        self.frames.written(frame);
    }

    /// Records how stores to `frame` are followed, for the sake of translations made from entries in it. Before it write-tracks a
    /// frame the caller drops its write slots; it reads the entries after this.
    pub(crate) fn track(&self, frame: Frame, tracking: Tracking) {
        self.frames.track(frame, tracking);
    }

    /// The 4096 bytes of `frame`, which are all ones where there is no memory, like an empty bus.
    pub fn page(&self, frame: Frame) -> [u8; PAGE_SIZE] {
        let mut bytes = [0xff; PAGE_SIZE];
        if let Ok(slice) = self.slice(frame.base(), PAGE_SIZE) {
            slice.copy_to(&mut bytes);
        }
        bytes
    }

    /// Host address of guest-physical 0. All frames that can be memory are mapped from there on.
    pub(crate) fn host_base(&self) -> *mut u8 {
        self.mapping.start().as_ptr()
    }

    /// Whether processors with such linear addresses can have this memory.
    pub(crate) fn serves(&self, width: LinearWidth) -> bool {
        width == LinearWidth::Bits32 || self.aliases.is_some()
    }

    /// The number of frames that are mapped from [`Self::host_base`] on.
    pub(crate) fn frame_count(&self) -> u64 {
        self.frames.count()
    }

    #[inline]
    fn slice(&self, addr: GuestPhys, len: usize) -> Result<VolatileSlice<'_>, NotRam> {
        self.check(addr, len)?;
        // SAFETY: `check` made sure that the range lies in the mapping, which is readable and writable, lives as long as `self`,
        // and is accessed through raw pointers only.
        Ok(unsafe { VolatileSlice::new(self.host_base().add(addr.get() as usize), len) })
    }

    /// Checks that all bytes of a range are RAM or ROM.
    #[inline]
    fn check(&self, addr: GuestPhys, len: usize) -> Result<(), NotRam> {
        let error = NotRam { addr, len };
        let last = addr
            .checked_add((len as u64).saturating_sub(1))
            .ok_or(error)?;
        let mut frames = addr.frame().get()..=last.frame().get();
        let is_memory = |frame| self.frames.kind(Frame::new(frame)) != RegionKind::Device;
        if frames.all(is_memory) {
            Ok(())
        } else {
            Err(error)
        }
    }
}

/// Maps the first `len` bytes of the file for processors with such linear addresses.
fn mapped(
    file: &File,
    len: usize,
    width: LinearWidth,
) -> Result<(Mapping, Option<Aliases>), MemoryError> {
    let mapped = match width {
        LinearWidth::Bits32 => {
            Mapping::of_file(file, len, Protection::ReadWrite).map(|mapping| (mapping, None))
        }
        LinearWidth::Bits48 => {
            AliasedRam::new(file, len).map(|ram| (ram.mapping, Some(ram.aliases)))
        }
    };
    mapped.map_err(|error| match error.kind() {
        io::ErrorKind::AddrNotAvailable => MemoryError::Crowded { bytes: len },
        _ => MemoryError::AddressSpace(error),
    })
}

/// The length of the file for a map.
fn limit(map: &Map) -> u64 {
    map.memory_end().max(ABOVE)
}

fn frames_of(region: &Region) -> Range<Frame> {
    GuestPhys::new(region.start).frame()..GuestPhys::new(region.end).frame()
}

fn set_kind(frames: &Frames, region: &Region, kind: RegionKind) {
    // Devices far above all memory have no frames here.
    let end = frames_of(region).end.get().min(frames.count());
    for frame in frames_of(region).start.get()..end {
        frames.set_kind(Frame::new(frame), kind);
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("map", &self.map)
            .finish_non_exhaustive()
    }
}
