//! The flat tables and the raw access to guest memory through them. All `unsafe` code of the crate is here.
//!
//! ```text
//!   slot = (host page - linear page) + SLOT_PRESENT       0 = empty
//!   host address of a byte = linear address + slot - SLOT_PRESENT
//!
//!   base ─► ┌──────── 8 MiB ────────┐
//!           │ View 0: slot[2^20]    │ index = linear address >> 12
//!           ├─────── 120 MiB ───────┤
//!           │ always empty          │ index of a misaligned address: see View::STRIDE
//!           ├───────────────────────┤
//!           │ View 1 ...            │
//! ```
//!
//! Both pages are 4 KiB aligned, so the low 12 bits of a slot are free for flags; [`SLOT_PRESENT`] is the only one. The
//! tables are sparse: reserved address space that takes memory where slots were filled.
//!
//! What makes the raw accesses sound: a slot is only ever set by [`Table::set_slot`], to a whole page inside the RAM
//! mapping, and the table keeps that mapping alive.

use std::num::NonZeroUsize;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use bitvec::{BitArr, array::BitArray};
use nix::errno::Errno;
use nix::libc::c_void;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use vm_memory::MmapRegion;

use crate::addr::{Frame, LinearAddr, LinearPage, PAGE_SHIFT, PAGE_SIZE};
use crate::paging::{Access, Privilege};
use crate::scalar::Scalar;

/// The flag of a slot in use.
pub const SLOT_PRESENT: u64 = 1;

const VIEWS: usize = 6;
/// Slots from one view to the next. Those beyond the linear pages stay empty: see [`View::STRIDE`].
const VIEW_SLOTS: usize = View::STRIDE / size_of::<u64>();
const SLOTS: usize = VIEWS * VIEW_SLOTS;

/// Address space of all tables, in bytes.
pub(crate) const TABLES_BYTES: usize = SLOTS * size_of::<u64>();

/// Slots in one host page of a table.
const SLOTS_PER_PAGE: usize = PAGE_SIZE / size_of::<u64>();

/// One of the tables: the slots for one kind of access at one privilege.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View(u8);

impl View {
    /// Bytes from the table of one view to that of the next. 16 times what the linear pages need: code that probes the
    /// table inline can use the low address bits of a misaligned operand of up to 16 bytes as upper bits of its index, and
    /// finds an empty slot.
    pub const STRIDE: usize = 16 * LinearPage::COUNT * size_of::<u64>();

    /// All views.
    pub const ALL: [Self; VIEWS] = [Self(0), Self(1), Self(2), Self(3), Self(4), Self(5)];

    /// The view that serves `access` at `privilege`.
    #[inline(always)]
    pub const fn of(access: Access, privilege: Privilege) -> Self {
        let access = match access {
            Access::Read => 0,
            Access::Write => 2,
            Access::Fetch => 4,
        };
        match privilege {
            Privilege::Supervisor => Self(access),
            Privilege::User => Self(access + 1),
        }
    }

    /// The kind of access that the view serves.
    pub const fn access(self) -> Access {
        match self.0 / 2 {
            0 => Access::Read,
            1 => Access::Write,
            _ => Access::Fetch,
        }
    }
}

/// Names a slot: view and linear page in one number below `SLOTS`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SlotId(u32);

impl SlotId {
    #[inline(always)]
    pub(super) const fn new(view: View, page: LinearPage) -> Self {
        Self((view.0 as u32 * VIEW_SLOTS as u32) | page.get())
    }

    pub(super) const fn view(self) -> View {
        View((self.0 / VIEW_SLOTS as u32) as u8)
    }

    const fn page(self) -> LinearPage {
        LinearPage::truncated(self.0)
    }
}

/// The tables of all views.
pub(super) struct Table {
    /// Start of `SLOTS` slots in an anonymous mapping owned by this value.
    slots: NonNull<u64>,
    /// The RAM that slots point into; guest-physical 0 is its first byte.
    ram: Arc<MmapRegion>,
    /// Host pages of the tables that have held a slot since the last `clear`.
    touched: BitArr!(for SLOTS / SLOTS_PER_PAGE),
    /// Bytes of those pages.
    resident: usize,
    /// Counts, for each privilege, the events that emptied a slot of its fetch view.
    fetch_epochs: [u64; 2],
}

// SAFETY: the table owns both mappings (the RAM together with whoever shares the Arc); its raw pointers are not tied to
// a thread.
unsafe impl Send for Table {}

impl Table {
    /// Reserves empty tables for slots that point into `ram`.
    pub(super) fn new(ram: Arc<MmapRegion>) -> Result<Self, Errno> {
        const LENGTH: NonZeroUsize =
            NonZeroUsize::new(TABLES_BYTES).expect("the tables are not empty");
        // Fast-path pointers are made from integers: see `host`.
        ram.as_ptr().expose_provenance();
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice affects no existing memory.
        let slots = unsafe {
            mmap_anonymous(
                None,
                LENGTH,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE,
            )
        }?;
        // A huge page would cost 2 MiB for the first slot of a region. Hosts without huge pages refuse, harmlessly.
        // SAFETY: the range is the mapping just made; the advice does not change its contents.
        let _no_huge_pages = unsafe { madvise(slots, TABLES_BYTES, MmapAdvise::MADV_NOHUGEPAGE) };
        Ok(Self {
            slots: slots.cast(),
            ram,
            touched: BitArray::ZERO,
            resident: 0,
            fetch_epochs: [0; 2],
        })
    }

    /// The host address of the first slot of `view`.
    pub(super) fn base(&self, view: View) -> *const u64 {
        self.slots
            .as_ptr()
            .wrapping_add(view.0 as usize * VIEW_SLOTS)
    }

    /// Loads a value through `view`, unless its slot is empty or the value crosses the page.
    #[inline(always)]
    pub(super) fn load<T: Scalar>(&self, view: View, addr: LinearAddr) -> Option<T> {
        let host = self.host(view, addr, size_of::<T>())?;
        // SAFETY: `host` is valid for `size_of::<T>()` bytes of the RAM mapping, which is mapped readable, and any bytes
        // are a T (ByteValued). No Rust reference to guest RAM exists that this could alias.
        Some(unsafe { host.cast::<T>().read_unaligned() })
    }

    /// Stores a value through `view`, unless its slot is empty or the value crosses the page. Returns whether it did.
    #[inline(always)]
    pub(super) fn store<T: Scalar>(&mut self, view: View, addr: LinearAddr, value: T) -> bool {
        let Some(host) = self.host(view, addr, size_of::<T>()) else {
            return false;
        };
        // SAFETY: as in `load`; the RAM mapping is writable.
        unsafe { host.cast::<T>().write_unaligned(value) };
        true
    }

    /// Stores `value` `count` times from `addr` on, if all of it lies in one page that `view` holds. Returns whether it did.
    pub(super) fn fill<T: Scalar>(
        &mut self,
        view: View,
        addr: LinearAddr,
        value: T,
        count: usize,
    ) -> bool {
        let Some(host) = self.host(view, addr, count.saturating_mul(size_of::<T>())) else {
            return false;
        };
        for index in 0..count {
            // SAFETY: as in `store`; `host` made sure of all `count` values.
            unsafe { host.cast::<T>().add(index).write_unaligned(value) };
        }
        true
    }

    /// Copies `len` bytes, if both ends lie in one page each that their views hold and do not overlap. Returns whether it
    /// did.
    pub(super) fn copy(
        &mut self,
        to: (View, LinearAddr),
        from: (View, LinearAddr),
        len: usize,
    ) -> bool {
        let (Some(target), Some(source)) =
            (self.host(to.0, to.1, len), self.host(from.0, from.1, len))
        else {
            return false;
        };
        if target.addr().abs_diff(source.addr()) < len {
            return false;
        }
        // SAFETY: `host` made sure that both ranges lie in the RAM mapping; they do not overlap, and no Rust reference to
        // guest RAM exists.
        unsafe { ptr::copy_nonoverlapping(source, target, len) };
        true
    }

    /// The frame that `view` maps `page` to.
    #[inline(always)]
    pub(super) fn frame(&self, view: View, page: LinearPage) -> Option<Frame> {
        let slot = self.slot(SlotId::new(view, page));
        let host = page
            .base()
            .get()
            .wrapping_add(slot)
            .wrapping_sub(SLOT_PRESENT);
        (slot != 0)
            .then(|| Frame::new(host.wrapping_sub(self.ram.as_ptr().addr() as u64) >> PAGE_SHIFT))
    }

    /// Points a slot at `frame`, which must be RAM or ROM. Returns whether it did: not for a frame outside the mapping.
    pub(super) fn set_slot(&mut self, id: SlotId, frame: Frame) -> bool {
        let pages = self.ram.size() as u64 >> PAGE_SHIFT;
        if frame.get() >= pages {
            return false;
        }
        let host = self.ram.as_ptr().addr() as u64 + frame.base().get();
        let addend = host.wrapping_sub(id.page().base().get());
        // SAFETY: `id` is below SLOTS, the length of the mapping at `slots`, which this value owns.
        unsafe { self.slots.add(id.0 as usize).write(addend | SLOT_PRESENT) };
        if !self.touched.replace(id.0 as usize / SLOTS_PER_PAGE, true) {
            self.resident += PAGE_SIZE;
        }
        true
    }

    /// Empties a slot. Memory is not touched if the slot is empty already.
    pub(super) fn clear_slot(&mut self, id: SlotId) {
        if self.slot(id) != 0 {
            // SAFETY: `id` is below SLOTS, the length of the mapping at `slots`, which this value owns.
            unsafe { self.slots.add(id.0 as usize).write(0) };
            let view = id.view();
            if view.access() == Access::Fetch {
                self.fetch_epochs[usize::from(view.0 % 2)] += 1;
            }
        }
    }

    /// Increases whenever a slot of the fetch view of `privilege` is emptied.
    pub(super) fn fetch_epoch(&self, privilege: Privilege) -> u64 {
        self.fetch_epochs[usize::from(View::of(Access::Fetch, privilege).0 % 2)]
    }

    /// Host memory that the tables hold, in bytes.
    pub(super) fn resident(&self) -> usize {
        self.resident
    }

    /// Empties all slots and gives their memory back.
    pub(super) fn clear(&mut self) {
        self.touched = BitArray::ZERO;
        self.resident = 0;
        for epoch in &mut self.fetch_epochs {
            *epoch += 1;
        }
        // SAFETY: the range is the private anonymous mapping this value owns; its pages become zero, that is, empty
        // slots.
        let cleared = unsafe {
            madvise(
                self.slots.cast::<c_void>(),
                TABLES_BYTES,
                MmapAdvise::MADV_DONTNEED,
            )
        };
        if cleared.is_err() {
            // SAFETY: `slots` is valid for writes of SLOTS slots.
            unsafe { ptr::write_bytes(self.slots.as_ptr(), 0, SLOTS) };
        }
    }

    /// Host address of `len` bytes at `addr`: inside the RAM mapping, within one page.
    #[inline(always)]
    fn host(&self, view: View, addr: LinearAddr, len: usize) -> Option<*mut u8> {
        let slot = self.slot(SlotId::new(view, addr.page()));
        if slot == 0 || addr.offset() as usize + len > PAGE_SIZE {
            return None;
        }
        let linear = addr.get() as u32 as u64;
        let host = linear.wrapping_add(slot).wrapping_sub(SLOT_PRESENT);
        // The slot was set by `set_slot`: host is in the page of a frame inside the mapping, whose provenance `new`
        // exposed.
        Some(ptr::with_exposed_provenance_mut(host as usize))
    }

    #[inline(always)]
    fn slot(&self, id: SlotId) -> u64 {
        // SAFETY: `id` is below SLOTS, the length of the mapping at `slots`, which this value owns.
        unsafe { self.slots.add(id.0 as usize).read() }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and no reference to it outlives the value.
        let _unmapped = unsafe { munmap(self.slots.cast::<c_void>(), TABLES_BYTES) };
    }
}
