//! [`Tables`]: the flat tables, and raw accesses to guest memory through them.
//!
//! ```text
//!   slot = (host page - linear page) + SLOT_PRESENT       0 = empty
//!   host address of a byte = linear address + slot - SLOT_PRESENT
//! ```
//!
//! Both pages are 4 KiB aligned, so the low 12 bits of a slot are free for flags; [`SLOT_PRESENT`] is the only one. Slots of
//! code views hold values of the translator's and are never used as addresses here.
//!
//! There is a set of tables for each recent address space. The first slots of a table ([`LinearWidth::own_slots`]) are its own;
//! those from there on are shared by all sets.
//!
//! The raw accesses are sound because a slot of a view other than code is only ever set by [`Tables::set_frame`], to a whole
//! page inside the RAM mapping, and the tables keep that mapping alive. With 48-bit linear addresses a slot may be that of
//! another page, which leads outside the mapping (`index`); so each probe looks at where it leads. Other threads may store to the
//! same bytes meanwhile, as other processors do on hardware; an access then sees old or new bytes, and nothing is derived from
//! them here.
//!
//! | file      | what it holds                                     |
//! |-----------|---------------------------------------------------|
//! | `access`  | the raw accesses                                  |
//! | `slots`   | the host memory of a set of tables                |
//! | `part`    | changes of slots, and which host pages are in use |

mod access;
mod part;
mod slots;

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc::off_t;
use smallvec::SmallVec;

use super::index::ALIAS_BYTES;
use super::space_set::SpaceSet;
use super::view::{SlotId, View, ViewSet};
use crate::addr::{Frame, LinearAddr, LinearPage, LinearWidth, PAGE_SHIFT};
use crate::memfd;
use crate::memory::{MOST_BYTES, Memory};
use crate::paging::{Access, Privilege};
use crate::shadow::{
    self, Extent, Kmod, KmodWindow, LINEAR_PAGES, LazyShadow, MOST_MAPPINGS_IN_ALL, UserTables,
    WideWindow, Window,
};
pub use access::Order;
pub(super) use part::Part;
use part::{REGION_SHIFT, Residency};
use slots::{Slots, shared_file_bytes};

/// The flag of a filled slot.
pub const SLOT_PRESENT: u64 = 1;

const _: () = assert!(SLOT_PRESENT == shadow::SLOT_PRESENT);
const _: () = assert!(
    LinearWidth::Bits32
        .own_slots()
        .is_multiple_of(1 << REGION_SHIFT)
);
const _: () = assert!(
    LinearWidth::Bits48
        .own_slots()
        .is_multiple_of(1 << REGION_SHIFT)
);
/// The slot of another page leads outside memory.
const _: () = assert!(MOST_BYTES <= ALIAS_BYTES);

/// Pages that are mapped in a window together, if their frames allow that: an aligned group.
const GROUP: u32 = 16;

/// A part of the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PartId {
    /// The own slots of the set with this index.
    Own(u8),
    /// The slots that all sets share.
    Shared,
}

struct Set {
    slots: Slots,
    own: Residency,
    /// The shadow of the space for its programs, where that pays.
    window: Option<LazyShadow>,
    /// The count of switches when it last became the current set.
    entered: u64,
}

impl Set {
    fn new(width: LinearWidth, shared: &File, sets: usize) -> io::Result<Self> {
        Ok(Self {
            slots: Slots::new(width, shared, sets)?,
            own: Residency::default(),
            window: None,
            entered: 0,
        })
    }
}

/// The flat tables of all address spaces. Accesses go through the current set.
pub struct Tables {
    /// Start of the current set.
    base: NonNull<u64>,
    /// The width of linear addresses.
    width: LinearWidth,
    current: u8,
    /// Counts changes of the current set.
    switches: u64,
    sets: Vec<Set>,
    shared: Residency,
    shared_file: File,
    /// The memory that slots point into.
    memory: Arc<Memory>,
    /// Counts, for each privilege, the events that emptied a slot of its fetch view or changed the current set.
    fetch_epochs: [u64; 2],
    /// Counts the events that emptied a shared slot of a fetch view.
    shared_epoch: u64,
    /// The sets that lost a slot of the user's fetch view while they had a window, or the window itself.
    windowed_losses: SpaceSet,
    /// Counts the events that emptied slots.
    drops: u64,
    /// Counts the host calls that windows have taken.
    remaps: u64,
    /// The host's kernel module, which is to fill windows.
    kmod: Option<Arc<Kmod>>,
}

// SAFETY: `base` points into the mapping of a set that the value owns, and is not tied to a thread.
unsafe impl Send for Tables {}

impl Tables {
    /// Creates one set of empty tables for linear addresses of `width`, whose slots point into `memory`.
    pub(super) fn new(memory: Arc<Memory>, width: LinearWidth) -> io::Result<Self> {
        // Fast-path pointers are made from integers: see `host`.
        memory.host_base().expose_provenance();
        let shared_file = memfd::create(c"tlb-shared", shared_file_bytes(width) as u64)?;
        let first = Set::new(width, &shared_file, 0)?;
        Ok(Self {
            base: first.slots.base(),
            width,
            current: 0,
            switches: 0,
            sets: vec![first],
            shared: Residency::default(),
            shared_file,
            memory,
            fetch_epochs: [0; 2],
            shared_epoch: 0,
            windowed_losses: SpaceSet::default(),
            drops: 0,
            remaps: 0,
            kmod: None,
        })
    }

    /// Adds an empty set after the others.
    pub(super) fn grow(&mut self) -> io::Result<()> {
        let set = Set::new(self.width, &self.shared_file, self.sets.len())?;
        self.sets.push(set);
        Ok(())
    }

    /// Makes a set the current one.
    pub(super) fn switch(&mut self, set: u8) {
        self.switches += 1;
        self.current = set;
        let set = &mut self.sets[usize::from(set)];
        set.entered = self.switches;
        self.base = set.slots.base();
        for epoch in &mut self.fetch_epochs {
            *epoch += 1;
        }
    }

    /// Host address of the present address space's table of `view`, for code that probes it inline: slots of eight bytes indexed,
    /// with 32-bit linear addresses, by linear address >> 12 (2^20 slots), and with 48-bit ones by the bits
    /// [`INDEX_BITS`](super::INDEX_BITS) of the address, as PEXT extracts them (2^30 slots). A slot is 0, or the host address of a
    /// page minus its linear address plus [`SLOT_PRESENT`]; in a code view, the value given to
    /// [`Tlb::set_code`](super::Tlb::set_code). With 48-bit addresses it may be the slot of another page, whose address differs by
    /// a multiple of 1 TiB. The address is valid until the paging registers change.
    pub fn base(&self, view: View) -> *const u64 {
        self.base
            .as_ptr()
            .wrapping_byte_add(view.offset(self.width))
    }

    /// The width of linear addresses.
    pub(super) fn width(&self) -> LinearWidth {
        self.width
    }

    /// A count that increases whenever a cached translation for instruction fetches at `privilege` is dropped, in any address
    /// space, and when the address space changes: results of [`Mmu::fetch_page`](crate::Mmu::fetch_page) hold while it stays the
    /// same.
    #[inline]
    pub fn fetch_epoch(&self, privilege: Privilege) -> u64 {
        self.fetch_epochs[privilege as usize]
    }

    /// A count that increases whenever cached translations of any kind are dropped: slots read from a table hold while it stays
    /// the same.
    #[inline]
    pub fn drops(&self) -> u64 {
        self.drops
    }

    /// A count that increases whenever a cached translation for instruction fetches that all address spaces share is dropped.
    #[inline]
    pub fn shared_fetch_epoch(&self) -> u64 {
        self.shared_epoch
    }

    /// Takes the address spaces that have lost since the last call a program's cached translation for instruction fetches while
    /// they had a window, or the window itself.
    pub fn take_windowed_losses(&mut self) -> SpaceSet {
        std::mem::take(&mut self.windowed_losses)
    }

    /// The frame that the user's fetch view of a set, which has a window, maps an own page to.
    pub(super) fn fetched_in(&self, set: u8, page: LinearPage) -> Option<Frame> {
        let set = &self.sets[usize::from(set)];
        set.window.as_ref()?;
        let view = View::of(Access::Fetch, Privilege::User);
        // SAFETY: the base is that of a set that this value owns, for addresses of this width.
        let slot = unsafe { slot_at(set.slots.base(), self.width, view, self.width.index(page)) };
        self.frame_of(page, slot)
    }

    /// The part that holds the current set's slots of `page`.
    pub(super) fn part_of(&self, page: LinearPage) -> PartId {
        if self.width.is_own(page) {
            PartId::Own(self.current)
        } else {
            PartId::Shared
        }
    }

    /// The part `id`, for changes of its slots.
    pub(super) fn part(&mut self, id: PartId) -> Part<'_> {
        let own = self.width.own_slots();
        let (base, all, residency, window, spaces) = match id {
            PartId::Own(set) => {
                let spaces = SpaceSet::only(set);
                let set = &mut self.sets[usize::from(set)];
                let window = set.window.as_mut();
                (set.slots.base(), 0..own, &mut set.own, window, spaces)
            }
            PartId::Shared => {
                let (all, none) = (own..self.width.slots(), SpaceSet::default());
                (self.base, all, &mut self.shared, None, none)
            }
        };
        Part {
            base,
            width: self.width,
            all,
            residency,
            fetch_epochs: &mut self.fetch_epochs,
            shared_epoch: &mut self.shared_epoch,
            windowed_losses: &mut self.windowed_losses,
            spaces,
            drops: &mut self.drops,
            window,
        }
    }

    /// Host address that stands for linear address 0 in the window of the present address space, if it has one. A window is 4 GiB
    /// of host addresses in which a program's pages below 0xc0000000 are mapped while the user's slots for them are filled,
    /// writable where the write slot is. All else there is inaccessible, and so is the page after the 4 GiB. Pages whose slots
    /// were emptied stay mapped until [`Self::settle_window`].
    ///
    /// With 48-bit linear addresses, the host address of a directory of 2^32 quadwords, indexed by the upper half of a linear
    /// address. A quadword that is accessible, added to that address or to one in [`REACH`](crate::REACH) of it, gives the host
    /// address of memory as above, or an inaccessible one.
    #[inline]
    pub fn window(&self) -> Option<u64> {
        let window = self.current_set().window.as_ref();
        window.map(LazyShadow::base)
    }

    /// Host address that stands for a linear address in the window of the present address space, if there is one.
    pub fn in_window(&self, linear: LinearAddr) -> Option<u64> {
        self.current_set().window.as_ref()?.host(linear)
    }

    /// The linear address that a host address stands for in the window of the present address space, if it does.
    pub fn shown_at(&self, host: u64) -> Option<LinearAddr> {
        self.current_set().window.as_ref()?.linear(host)
    }

    /// Whether the present window, if there is one, should be opened anew: it refuses pages for the sake of others that it does not
    /// show.
    pub fn is_window_crowded(&self) -> bool {
        let window = self.current_set().window.as_ref();
        window.is_some_and(LazyShadow::is_crowded)
    }

    /// Whether the present window, if there is one, shows no page whose slots were emptied.
    #[inline]
    pub fn is_window_settled(&self) -> bool {
        let window = self.current_set().window.as_ref();
        window.is_none_or(LazyShadow::is_settled)
    }

    /// Makes inaccessible what the present window shows of pages whose slots were emptied: to be called each time before code
    /// uses it.
    pub fn settle_window(&mut self) {
        if let Some(window) = &mut self.sets[usize::from(self.current)].window {
            self.remaps += window.settle();
        }
    }

    /// Lets the host's kernel module, opened for the memory of these tables, fill the windows that are opened from now on.
    pub fn use_kmod(&mut self, kmod: Arc<Kmod>) {
        self.kmod = Some(kmod);
    }

    /// The host's kernel module that fills windows, if one does.
    pub fn kmod(&self) -> Option<&Kmod> {
        self.kmod.as_deref()
    }

    /// Whether the present window shows pages as soon as their slots are filled.
    pub fn shows_slots(&self) -> bool {
        let window = self.current_set().window.as_ref();
        window.is_some_and(LazyShadow::shows_slots)
    }

    /// The number of host calls by which pages were mapped or unmapped for windows.
    pub fn remaps(&self) -> u64 {
        self.remaps
    }

    /// Opens a window on the present address space, which shows all pages that it has slots for. The code slots of its programs
    /// become empty, and [`Self::fetch_epoch`] increases.
    ///
    /// # Errors
    /// The host's error if it grants no address space.
    pub fn open_window(&mut self) -> io::Result<()> {
        let window = match self.kmod_window() {
            Some(window) => LazyShadow::new(Box::new(window)),
            None => self.mapped_window()?,
        };
        self.sets[usize::from(self.current)].window = Some(window);
        self.change_user_code();
        Ok(())
    }

    /// A window on the present address space that the host's kernel module fills, if there is one.
    fn kmod_window(&self) -> Option<KmodWindow> {
        let kmod = self.kmod.as_ref()?;
        if self.width == LinearWidth::Bits48 {
            return None;
        }
        let [read, write] = [Access::Read, Access::Write].map(|access| {
            let table = self.base(View::of(access, Privilege::User));
            table.expose_provenance() as u64
        });
        let window = KmodWindow::new(kmod, &self.memory, UserTables { read, write });
        window
            .inspect_err(|error| kmod.report_failure(&format_args!("grants no window: {error}")))
            .ok()
    }

    /// A window on the present address space, in which all pages that it has slots for are mapped.
    fn mapped_window(&mut self) -> io::Result<LazyShadow> {
        let memory = Arc::clone(&self.memory);
        let mut window = LazyShadow::new(match self.width {
            LinearWidth::Bits32 => Box::new(Window::new(memory)?),
            LinearWidth::Bits48 => Box::new(WideWindow::new(memory)?),
        });
        let slots = self.part(PartId::Own(self.current)).user_slots();
        let extents: Vec<_> = self.extents(&slots).collect();
        for (extent, page) in extents {
            window.admit(page);
            if window.host(page.base()).is_some() {
                self.limit_windows(window.count());
                self.remaps += window.show(extent)?;
            }
        }
        Ok(window)
    }

    /// Closes the window on the present address space, with the same effects as [`Self::open_window`].
    pub fn close_window(&mut self) {
        self.drop_window(self.current);
        self.change_user_code();
    }

    /// Removes the window of a set that is being emptied.
    pub(super) fn drop_window(&mut self, set: u8) {
        let closed = self.sets[usize::from(set)].window.take();
        if closed.is_some() {
            self.windowed_losses.add(SpaceSet::only(set));
            self.fetch_epochs[Privilege::User as usize] += 1;
        }
    }

    /// Voids the code of the current set's programs, which depends on whether the set has a window.
    fn change_user_code(&mut self) {
        self.forget_user_code(self.current);
        self.fetch_epochs[Privilege::User as usize] += 1;
    }

    /// Empties the code slots of a set for programs.
    pub(super) fn forget_user_code(&mut self, set: u8) {
        let code = ViewSet::only(View::code(Privilege::User));
        self.part(PartId::Own(set)).clear_views(code);
    }

    /// Maps the page in the window according to the user's slots for it, and settles the window. Returns whether the access is then
    /// possible.
    pub fn map_in_window(&mut self, page: LinearPage, access: Access) -> bool {
        let Some(window) = &self.current_set().window else {
            return false;
        };
        if window.host(page.base()).is_none() {
            return false;
        }
        let mapped_here = window.count();
        let Some(extent) = self.extent_around(page) else {
            return false;
        };
        self.limit_windows(mapped_here);
        self.settle_window();
        self.show(extent) && (access == Access::Read || extent.writable)
    }

    /// The extent around `page` that the user's slots map, within a group of pages.
    fn extent_around(&self, page: LinearPage) -> Option<Extent> {
        if !self.width.is_own(page) {
            return None;
        }
        let index = self.width.index(page);
        let first = index & !(GROUP - 1);
        let slots = (first..first + GROUP).map(|index| (index, self.user_slots(index)));
        let slots: SmallVec<[_; GROUP as usize]> =
            slots.filter(|(_, [read, _])| *read != 0).collect();
        let mut extents = self.extents(&slots);
        let is_here = |extent: &Extent, from: LinearPage| {
            let pages = page.get().wrapping_sub(from.get());
            pages < extent.pages.into()
        };
        let here = extents.find(|(extent, from)| is_here(extent, *from))?;
        Some(here.0)
    }

    /// The user's read and write slots at a place.
    fn user_slots(&self, index: u32) -> [u64; 2] {
        [Access::Read, Access::Write].map(|access| {
            let view = View::of(access, Privilege::User);
            // SAFETY: `base` is that of a set that this value owns, for addresses of this width.
            unsafe { slot_at(self.base, self.width, view, index) }
        })
    }

    /// The extents that read and write slots at places, in ascending order, map, each with its first page: successive pages with
    /// equal slots lie in successive frames.
    fn extents(&self, slots: &[(u32, [u64; 2])]) -> impl Iterator<Item = (Extent, LinearPage)> {
        let alike = |&(index, slots): &(u32, [u64; 2]), &(next, others): &(u32, [u64; 2])| {
            index + 1 == next && slots == others && !next.is_multiple_of(LINEAR_PAGES)
        };
        let extent = |run: &[(u32, [u64; 2])]| {
            let &(page, [read, write]) = run.first()?;
            let extent = Extent {
                page,
                frame: self.frame_at(page, read)?,
                pages: run.len() as u32,
                writable: write == read,
            };
            Some((extent, self.page_at(page, read)))
        };
        slots.chunk_by(alike).filter_map(extent)
    }

    /// The page whose filled slot this is among those with a place.
    fn page_at(&self, index: u32, slot: u64) -> LinearPage {
        let low = self.width.low_address(index);
        let offset = self.memory_offset(low, slot);
        let further = (offset % ALIAS_BYTES).wrapping_sub(offset);
        LinearAddr::new(low.wrapping_add(further)).page()
    }

    /// Shows the pages, which have host addresses, in the present window, which is settled. Returns whether they are accessible.
    fn show(&mut self, extent: Extent) -> bool {
        let Some(window) = &mut self.sets[usize::from(self.current)].window else {
            return false;
        };
        let shown = window.show(extent);
        self.remaps += shown.as_ref().unwrap_or(&1);
        shown.is_ok()
    }

    /// Empties windows of other sets than the current one, those that were used longest ago first, until all of them and the
    /// `mapped_here` mappings of the current one are few enough.
    fn limit_windows(&mut self, mapped_here: usize) {
        let others = self.other_windows().map(|(_, window)| window.count());
        let mut mapped = mapped_here + others.sum::<usize>();
        while mapped > MOST_MAPPINGS_IN_ALL {
            let others = self.other_windows();
            let mapping = others.filter(|(_, window)| window.count() > 0);
            let Some((_, oldest)) = mapping.min_by_key(|(entered, _)| *entered) else {
                return;
            };
            mapped -= oldest.count();
            self.remaps += oldest.hide_all();
        }
    }

    /// The windows of other sets than the current one, each with the count of switches when it last was.
    fn other_windows(&mut self) -> impl Iterator<Item = (u64, &mut LazyShadow)> {
        let current = usize::from(self.current);
        let others = self.sets.iter_mut().enumerate();
        let others = others.filter(move |(set, _)| *set != current);
        others.filter_map(|(_, set)| Some((set.entered, set.window.as_mut()?)))
    }

    fn current_set(&self) -> &Set {
        &self.sets[usize::from(self.current)]
    }

    /// Whether all own slots of a set are empty, as far as is known without a look at each.
    pub(super) fn is_vacant(&self, set: u8) -> bool {
        self.sets[usize::from(set)].own.is_untouched()
    }

    /// All parts.
    pub(super) fn parts(&self) -> impl Iterator<Item = PartId> + use<> {
        (0..self.sets.len() as u8)
            .map(PartId::Own)
            .chain([PartId::Shared])
    }

    /// The host memory that the tables take, in bytes.
    pub(super) fn resident(&self) -> usize {
        let own: usize = self.sets.iter().map(|set| set.own.bytes()).sum();
        own + self.shared.bytes()
    }

    /// Empties a part and gives its memory back to the host. If the host refuses, the memory is kept for later use.
    pub(super) fn release(&mut self, id: PartId) {
        self.part(id).clear_all();
        let (discarded, residency) = match id {
            PartId::Own(set) => {
                let set = &mut self.sets[usize::from(set)];
                (set.slots.discard_own(), &mut set.own)
            }
            PartId::Shared => {
                let hole =
                    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                let len = shared_file_bytes(self.width) as off_t;
                let punched = fallocate(&self.shared_file, hole, 0, len);
                (punched.is_ok(), &mut self.shared)
            }
        };
        if discarded {
            residency.released();
        }
    }

    /// The slot of the page in `view`; 0 if it is empty.
    #[inline(always)]
    pub fn slot(&self, view: View, page: LinearPage) -> u64 {
        match self.width {
            LinearWidth::Bits32 => self.slot_at(view, LinearWidth::Bits32, page),
            LinearWidth::Bits48 => self.slot_48(view, page),
        }
    }

    /// The slot at the page's place.
    #[inline(always)]
    fn slot_at(&self, view: View, width: LinearWidth, page: LinearPage) -> u64 {
        debug_assert_eq!(width, self.width);
        // SAFETY: `base` is that of a set that this value owns, for addresses of this width.
        unsafe { slot_at(self.base, width, view, width.index(page)) }
    }

    /// The slot of a page with a 48-bit address, unless it is another page's.
    fn slot_48(&self, view: View, page: LinearPage) -> u64 {
        let slot = self.slot_at(view, LinearWidth::Bits48, page);
        let leads = match view.is_code() {
            true => self.slot_at(
                View::of(Access::Fetch, view.privilege()),
                LinearWidth::Bits48,
                page,
            ),
            false => slot,
        };
        if self.is_of(page, leads) { slot } else { 0 }
    }

    /// Whether a filled slot of a view other than code is that of this page among those that it can be.
    fn is_of(&self, page: LinearPage, slot: u64) -> bool {
        let offset = self.memory_offset(page.base().get(), slot);
        slot != 0 && offset >> PAGE_SHIFT < self.memory.frame_count()
    }

    /// The distance from the start of memory to which a slot leads from `linear`.
    #[inline(always)]
    fn memory_offset(&self, linear: u64, slot: u64) -> u64 {
        let host = linear.wrapping_add(slot).wrapping_sub(SLOT_PRESENT);
        host.wrapping_sub(self.memory.host_base().addr() as u64)
    }

    /// The frame that `view`, which is not one of code, maps the page to, if that is cached.
    #[inline(always)]
    pub fn frame(&self, view: View, page: LinearPage) -> Option<Frame> {
        self.frame_of(page.cut(self.width), self.slot(view, page))
    }

    /// The frame that a slot of any part leads to; `None` for one of another part.
    pub(super) fn frame_in(&mut self, id: PartId, slot: SlotId) -> Option<Frame> {
        let value = self.part(id).get(slot);
        self.frame_at(slot.index, value)
    }

    /// The frame to which a slot at a place leads, whichever page has it.
    fn frame_at(&self, index: u32, slot: u64) -> Option<Frame> {
        let offset = self.memory_offset(self.width.low_address(index), slot);
        (slot != 0).then(|| Frame::new((offset % ALIAS_BYTES) >> PAGE_SHIFT))
    }

    /// The place of a page's slots.
    #[inline]
    pub(super) fn index(&self, page: LinearPage) -> u32 {
        self.width.index(page)
    }

    /// The frames at which write slots of a part point.
    pub(super) fn frames_written(&mut self, id: PartId) -> Vec<Frame> {
        let mut frames = Vec::new();
        for view in ViewSet::WRITE.iter() {
            let slots = self.part(id).filled([view]);
            let frame = |(index, [slot]): (u32, [u64; 1])| self.frame_at(index, slot);
            frames.extend(slots.into_iter().filter_map(frame));
        }
        frames
    }

    /// Points the current set's slot for such accesses to `page` at `frame`, which must be RAM or ROM. Does nothing and
    /// returns `false` for a frame outside the mapping.
    pub(super) fn set_frame(
        &mut self,
        page: LinearPage,
        frame: Frame,
        access: Access,
        privilege: Privilege,
    ) -> bool {
        if frame.get() >= self.memory.frame_count() {
            return false;
        }
        let host = self.memory.host_base().addr() as u64 + frame.base().get();
        let addend = host.wrapping_sub(page.base().get());
        let view = View::of(access, privilege);
        self.make_room(view, page);
        self.set(view, page, addend | SLOT_PRESENT);
        if view.is_windowed()
            && let Some(window) = &mut self.sets[usize::from(self.current)].window
        {
            window.admit(page);
        }
        true
    }

    /// Empties the slot that `page` is to have if it is another page's.
    fn make_room(&mut self, view: View, page: LinearPage) {
        if self.width == LinearWidth::Bits32 {
            return;
        }
        let slot = self.slot_at(view, self.width, page);
        if slot != 0 && !self.is_of(page, slot) {
            let index = self.index(page);
            self.part(self.part_of(page))
                .clear_slot(SlotId { view, index });
        }
    }

    /// Sets a code slot of the current set.
    pub(super) fn set_code(&mut self, page: LinearPage, privilege: Privilege, value: u64) {
        self.set(View::code(privilege), page, value);
    }

    fn set(&mut self, view: View, page: LinearPage, value: u64) {
        let index = self.index(page);
        self.part(self.part_of(page))
            .set(SlotId { view, index }, value);
    }

    #[inline(always)]
    fn frame_of(&self, page: LinearPage, slot: u64) -> Option<Frame> {
        frame_of(self.memory.host_base(), page, slot)
    }
}

/// The slot of `view` at a place in the set of tables at `base`.
///
/// # Safety
/// `base` is [`Slots::base`] of a value of this width that exists, and `index` is a result of [`LinearWidth::index`].
#[inline(always)]
unsafe fn slot_at(base: NonNull<u64>, width: LinearWidth, view: View, index: u32) -> u64 {
    let index = view.offset(width) / size_of::<u64>() + index as usize;
    // SAFETY: the index is below `set_bytes / 8`, the length of the mapping.
    unsafe { base.add(index).read() }
}

/// The frame that a slot maps its page to.
#[inline(always)]
fn frame_of(host_base: *mut u8, page: LinearPage, slot: u64) -> Option<Frame> {
    let host = page
        .base()
        .get()
        .wrapping_add(slot)
        .wrapping_sub(SLOT_PRESENT);
    (slot != 0).then(|| Frame::new(host.wrapping_sub(host_base.addr() as u64) >> PAGE_SHIFT))
}
