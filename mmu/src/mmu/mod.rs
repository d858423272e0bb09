//! The memory-management unit of one virtual CPU: paging registers, software TLB, and the memory behind them.
//!
//! Guest accesses come in two speeds. The fast path ([`Mmu::read`], [`Mmu::write`], [`Mmu::fetch_page`]) is one TLB
//! probe. The slow path walks the page tables, checks every page of the access before it changes anything, sets A and D
//! bits, moves the bytes, and fills the TLB:
//!
//! ```text
//!   resolve ── for each page touched: walk, check permissions ──► PageFault, nothing changed
//!      │
//!   commit ─── set A, and D for a write, in the entries used
//!      │
//!   fill ───── if the access lies in one page of memory
//!      │
//!   transfer ─ RAM: load or store    ROM: load, ignore stores    device: MemFault::Device, no data moved
//! ```

mod access;
mod fill;
mod snoop;

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Weak};

use thiserror::Error;

use access::{Resolved, is_in_page};

use crate::addr::{Frame, GuestPhys, LinearAddr, LinearPage, PAGE_SIZE};
use crate::mailbox::Mailbox;
use crate::memory::{
    Attribute, Memory, MemoryError, NotRam, RegionKind, Store, Subscriber, SubscriberId, Timestamp,
};
use crate::paging::{
    self, Access, NoTranslation, PageFault, Paging, PagingMode, Pdptes, Privilege, ReservedBits,
    Translation,
};
use crate::scalar::Scalar;
use crate::tlb::{Order, SET_BYTES, SpaceId, SpaceKey, Tlb, View};

/// Why a guest access did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum MemFault {
    /// Deliver a page fault.
    #[error("page fault at {}: {:?}", .0.addr, .0.code)]
    Page(PageFault),
    /// Part of the access is not RAM or ROM: go through [`Mmu::translate`] and the bus.
    #[error("the access is not to memory")]
    Device,
}

impl From<PageFault> for MemFault {
    fn from(fault: PageFault) -> Self {
        Self::Page(fault)
    }
}

const _: () = assert!(
    size_of::<Result<u64, MemFault>>() == 16,
    "results of the fast path are small"
);

/// Part of an access: bytes within one page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Guest-physical address of the first byte.
    pub addr: GuestPhys,
    /// Length in bytes, 1..=4096, not crossing the page.
    pub len: u32,
    /// What answers there.
    pub kind: RegionKind,
}

/// Where an access goes: one or two pieces, in the order of linear addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The bytes in the first page.
    pub first: Piece,
    /// The bytes in the second page, if the access crosses a page boundary.
    pub second: Option<Piece>,
}

impl Span {
    /// The pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> + use<> {
        [Some(self.first), self.second].into_iter().flatten()
    }
}

/// One vCPU's paging registers and software TLB, on the memory that it shares with others.
#[derive(Debug)]
pub struct Mmu {
    memory: Arc<Memory>,
    mailbox: Arc<Mailbox>,
    /// Names the processor to the memory.
    id: SubscriberId,
    tlb: Tlb,
    /// Linear pages that have no slots for reads and writes.
    kept_out: BTreeSet<LinearPage>,
    /// Stores of others to whatever memory, if pages are kept out.
    stores: Vec<Store>,
    /// Nothing has been stored through write slots since the last look at the mailbox.
    resting: bool,
    paging: Paging,
    pdptes: Pdptes,
}

impl Mmu {
    /// An MMU after reset: paging off, nothing cached.
    ///
    /// # Errors
    /// [`MemoryError::Tables`] when the host grants no address space for the tables.
    pub fn new(memory: Arc<Memory>) -> Result<Self, MemoryError> {
        let tables = |source| MemoryError::Tables {
            bytes: SET_BYTES,
            source,
        };
        let tlb = Tlb::new(Arc::clone(&memory), SpaceKey::Unpaged).map_err(tables)?;
        let mailbox = Arc::new(Mailbox::default());
        let subscriber: Weak<dyn Subscriber> = Arc::<Mailbox>::downgrade(&mailbox);
        Ok(Self {
            id: memory.subscribe(subscriber),
            memory,
            mailbox,
            tlb,
            kept_out: BTreeSet::new(),
            stores: Vec::new(),
            resting: false,
            paging: Paging::default(),
            pdptes: Pdptes::default(),
        })
    }

    /// The memory.
    #[inline(always)]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The paging registers.
    pub fn paging(&self) -> &Paging {
        &self.paging
    }

    pub(crate) fn pdptes(&self) -> &Pdptes {
        &self.pdptes
    }

    /// Sets the paging registers. A change of CR3 alone leads to another address space and flushes nothing: the caller
    /// follows it with the flush that the instruction implies. Any other change drops all cached translations, whose
    /// permissions were computed under the old registers.
    pub fn set_paging(&mut self, paging: Paging) {
        self.snoop();
        let same_rules = paging
            == Paging {
                cr3: paging.cr3,
                ..self.paging
            };
        self.paging = paging;
        if !same_rules {
            self.flush_all();
        }
        self.enter_space();
    }

    /// Loads the page-directory-pointer-table registers from the table at `cr3`, as PAE paging does when CR3 is written
    /// or paging is switched on. On error they keep their values, and the instruction raises #GP(0)
    /// (SDM Vol. 3A, 4.4.1 PDPTE Registers).
    pub fn load_pdptes(&mut self, cr3: u32) -> Result<(), ReservedBits> {
        self.pdptes = Pdptes::load(&self.memory, cr3)?;
        self.enter_space();
        Ok(())
    }

    /// Makes the translations of the present address space those that accesses find.
    fn enter_space(&mut self) {
        let key = match self.paging.mode {
            PagingMode::Off => SpaceKey::Unpaged,
            PagingMode::TwoLevel => SpaceKey::Directory(self.paging.directory()),
            PagingMode::Pae => SpaceKey::Pointers(self.pdptes),
        };
        self.tlb.enter(key);
    }

    /// Keeps the given linear pages out of the tables for reads and writes, and only them, in all address spaces: each access
    /// to them takes the slow path. While there are any, [`Self::take_stores`] tells what others store. For watchpoints.
    pub fn keep_out(&mut self, pages: impl IntoIterator<Item = LinearPage>) {
        self.kept_out = pages.into_iter().collect();
        self.mailbox.set_curious(!self.kept_out.is_empty());
        self.flush_all();
    }

    /// Drops all cached translations, global ones too.
    pub fn flush_all(&mut self) {
        let memory = &self.memory;
        self.tlb
            .flush_all(|frame| memory.mark_watched(frame, false));
    }

    /// Drops all cached translations that are not global: MOV to CR3. Those that are sure to agree with the page tables may
    /// stay.
    pub fn flush_non_global(&mut self) {
        self.snoop();
        self.tlb.flush_non_global();
        self.catch_up();
    }

    /// Drops the cached translation of the page that holds `addr`, of whatever size, global or not: INVLPG. One that is
    /// sure to agree with the page tables may stay.
    pub fn invlpg(&mut self, addr: LinearAddr) {
        self.snoop();
        self.tlb.drop_page(addr);
    }

    /// Reads guest memory. The address wraps at 4 GiB and needs no alignment.
    #[inline(always)]
    pub fn read<T: Scalar>(
        &mut self,
        addr: LinearAddr,
        privilege: Privilege,
    ) -> Result<T, MemFault> {
        match self.tlb.load(addr, privilege) {
            Some(value) => Ok(value),
            None => self.read_slow(addr, privilege),
        }
    }

    /// Writes guest memory. The address wraps at 4 GiB and needs no alignment. Both pages of an access that crosses a
    /// page boundary are checked before a byte is stored.
    #[inline(always)]
    pub fn write<T: Scalar>(
        &mut self,
        addr: LinearAddr,
        privilege: Privilege,
        value: T,
    ) -> Result<(), MemFault> {
        if self.tlb.store(addr, privilege, value) {
            return Ok(());
        }
        self.write_slow(addr, privilege, value)
    }

    /// Reads `out.len()` bytes, if all of them lie in one page whose translation is cached. Returns whether it did; else
    /// nothing happened.
    pub fn read_cached(&self, addr: LinearAddr, privilege: Privilege, out: &mut [u8]) -> bool {
        self.tlb.load_bytes(addr, privilege, out)
    }

    /// Writes `data`, if all of it lies in one page whose translation is cached. Returns whether it did; else nothing
    /// happened.
    pub fn write_cached(&mut self, addr: LinearAddr, privilege: Privilege, data: &[u8]) -> bool {
        self.tlb.store_bytes(addr, privilege, data)
    }

    /// Writes `value` `count` times from `addr` on, as so many writes would, if all of it lies in one page whose
    /// translation is cached. Returns whether it did; else nothing happened.
    pub fn fill_cached<T: Scalar>(
        &mut self,
        addr: LinearAddr,
        privilege: Privilege,
        value: T,
        count: usize,
    ) -> bool {
        self.tlb.fill_range(addr, privilege, value, count)
    }

    /// Copies `len` bytes from `from` to `to`, as reads and writes in that order would, if both lie in one page each whose
    /// translation is cached and no write changes what is read later. Returns whether it did; else nothing happened.
    pub fn copy_cached(
        &mut self,
        to: LinearAddr,
        from: LinearAddr,
        privilege: Privilege,
        len: usize,
        order: Order,
    ) -> bool {
        self.tlb.copy(to, from, privilege, len, order)
    }

    /// Checks that `len` bytes (1..=4096) at `addr` can be accessed, with all side effects of that but the data: for
    /// instructions that read and then write, and for those that store several times. A later access to the range does not
    /// fault, unless a store in between changes its translation.
    #[inline]
    pub fn prepare(
        &mut self,
        addr: LinearAddr,
        len: u32,
        access: Access,
        privilege: Privilege,
    ) -> Result<(), MemFault> {
        let cached = self.cached_frame(View::of(access, privilege), addr);
        if cached.is_some() && is_in_page(addr, len) {
            return Ok(());
        }
        self.prepare_slow(addr, len, access, privilege)
    }

    /// Translates an access of `len` bytes (1..=4096) to any kind of memory and sets A and D bits as the processor does
    /// for it. On a fault nothing is changed in guest memory.
    pub fn translate(
        &mut self,
        addr: LinearAddr,
        len: u32,
        access: Access,
        privilege: Privilege,
    ) -> Result<Span, PageFault> {
        let pieces = self.resolve(addr, len, access, privilege)?;
        self.commit(&pieces, access);
        let piece = |resolved: &Resolved| {
            let addr = resolved.walk.translation.phys;
            Piece {
                addr,
                len: resolved.len,
                kind: self.memory.region(addr),
            }
        };
        Ok(Span {
            first: piece(&pieces[0]),
            second: pieces.get(1).map(piece),
        })
    }

    /// The frame from which the instruction bytes at `addr` are fetched. `MemFault::Device`: not from memory.
    #[inline(always)]
    pub fn fetch_page(
        &mut self,
        addr: LinearAddr,
        privilege: Privilege,
    ) -> Result<Frame, MemFault> {
        match self
            .tlb
            .frame(View::of(Access::Fetch, privilege), addr.page())
        {
            Some(frame) => Ok(frame),
            None => self.fetch_page_slow(addr, privilege),
        }
    }

    /// Translates `addr` without any effect on guest memory or TLB: for debuggers. What the TLB still holds from older
    /// page tables is not consulted.
    pub fn walk(&self, addr: LinearAddr) -> Result<Translation, NoTranslation> {
        paging::walk(&self.memory, &self.paging, &self.pdptes, addr).map(|walk| walk.translation)
    }

    /// The 4096 bytes of `frame`, for decoding; all ones where there is no memory.
    pub fn code_bytes(&self, frame: Frame) -> [u8; PAGE_SIZE] {
        self.memory.page(frame)
    }

    /// Marks `frame` as scanned for code now: its bytes are to be read after this. Its cached write translations are dropped: the
    /// next store to it takes the slow path, which clears the mark and advances [`Mmu::code_epoch`].
    pub fn mark_code(&mut self, frame: Frame) {
        if !self.memory.has(frame, Attribute::Code) {
            self.tlb.drop_writers(frame);
        }
        self.memory.mark_scanned(frame);
    }

    /// Increases whenever a store, from whatever thread, hits a frame marked Code.
    #[inline(always)]
    pub fn code_epoch(&self) -> u64 {
        self.mailbox.code_epoch()
    }

    /// The frames whose stores advanced [`Mmu::code_epoch`] since the last call, each once.
    pub fn take_code_writes(&mut self) -> impl Iterator<Item = Frame> + use<> {
        self.mailbox.take_code().into_iter()
    }

    /// Increases whenever a cached translation for instruction fetches at `privilege` is dropped, in whatever address space,
    /// and when the address space changes: what was found through [`Mmu::fetch_page`] holds while it stays the same.
    #[inline]
    pub fn fetch_epoch(&self, privilege: Privilege) -> u64 {
        self.tlb.fetch_epoch(privilege)
    }

    /// Increases whenever cached translations of any kind are dropped: what was read from a table holds while it stays the
    /// same.
    #[inline]
    pub fn drops(&self) -> u64 {
        self.tlb.drops()
    }

    /// Increases whenever a cached translation for instruction fetches that all address spaces share is dropped.
    #[inline]
    pub fn shared_fetch_epoch(&self) -> u64 {
        self.tlb.shared_fetch_epoch()
    }

    /// Increases whenever a program's cached translation for instruction fetches is dropped in an address space that has a
    /// window, and when a window is closed.
    pub fn windowed_fetch_epoch(&self) -> u64 {
        self.tlb.windowed_fetch_epoch()
    }

    /// The frame that programs in `space` fetch the page of `addr` from, if that is cached and the space is still there and has
    /// a window.
    pub fn fetched_in(&self, space: SpaceId, addr: LinearAddr) -> Option<Frame> {
        self.tlb.fetched_in(space, addr.page())
    }

    /// Empties the code slots for programs in `space`, if that is still there.
    pub fn forget_user_code(&mut self, space: SpaceId) {
        self.tlb.forget_user_code(space);
    }

    /// Whether all address spaces share the cached translations of the page that holds `addr`.
    pub fn is_shared(&self, addr: LinearAddr) -> bool {
        !self.tlb.is_own(addr.page())
    }

    /// When `frame` was last seen written: see [`Memory::written`].
    #[inline]
    pub fn written(&self, frame: Frame) -> Timestamp {
        self.memory.written(frame)
    }

    /// Reads RAM or ROM by guest-physical address.
    pub fn read_phys<T: Scalar>(&self, addr: GuestPhys) -> Result<T, NotRam> {
        self.memory.load(addr)
    }

    /// Stores to guest-physical memory as the guest does: ROM ignores it.
    pub fn write_phys<T: Scalar>(&mut self, addr: GuestPhys, value: T) -> Result<(), NotRam> {
        self.store_phys(addr, value.as_slice())
    }

    /// Host address of the present address space's TLB table of `view`, for code that probes it inline: 2^20 slots of eight
    /// bytes indexed by linear address >> 12. A slot is 0, or the host address of the page minus its linear address plus
    /// [`SLOT_PRESENT`](crate::SLOT_PRESENT); in a code view, what [`Mmu::set_code_slot`] put there. It holds until the
    /// paging registers change.
    pub fn tlb_table(&self, view: View) -> *const u64 {
        self.tlb.table_base(view)
    }

    /// The slot of the page of `addr` in that table.
    #[inline]
    pub fn slot(&self, view: View, addr: LinearAddr) -> u64 {
        self.tlb.slot(view, addr.page())
    }

    /// The frame that `view`, which is not one of code, maps the page of `addr` to, if that is cached.
    #[inline]
    pub fn cached_frame(&self, view: View, addr: LinearAddr) -> Option<Frame> {
        self.tlb.frame(view, addr.page())
    }

    /// Keeps `value`, which is not 0, in the code slot of the page of `addr` for as long as the translation for
    /// instruction fetches at `privilege` is cached. Returns `false`, and keeps nothing, if it is not cached now.
    pub fn set_code_slot(&mut self, addr: LinearAddr, privilege: Privilege, value: u64) -> bool {
        debug_assert_ne!(value, 0);
        self.tlb.set_code(addr.page(), privilege, value)
    }

    /// Empties all code slots, in all address spaces.
    pub fn clear_code_slots(&mut self) {
        self.tlb.clear_code();
    }

    /// Host address that stands for linear address 0 in the window of the present address space, if it has one: 4 GiB of
    /// host addresses in which a program's pages below C000_0000h are mapped while the user's slots for them are filled,
    /// writable where the write slot is. All else is inaccessible there, and the page behind the 4 GiB is, too.
    #[inline]
    pub fn window(&self) -> Option<u64> {
        self.tlb.window()
    }

    /// Opens a window on the present address space. The code slots of its programs become empty, and
    /// [`Self::fetch_epoch`] increases.
    ///
    /// # Errors
    /// What the host says when it grants no address space.
    pub fn open_window(&mut self) -> io::Result<()> {
        self.tlb.open_window()
    }

    /// Closes the window on the present address space; else as [`Self::open_window`].
    pub fn close_window(&mut self) {
        self.tlb.close_window();
    }

    /// Maps the page of `addr` in the window as the user's slots for it say. Returns whether an access is possible then.
    pub fn map_in_window(&mut self, addr: LinearAddr, access: Access) -> bool {
        self.tlb.map_in_window(addr.page(), access)
    }

    /// How many times host pages were mapped and unmapped for windows.
    pub fn window_remaps(&self) -> u64 {
        self.tlb.remaps()
    }

    /// The present address space. Windows do not outlive what this names.
    pub fn space(&self) -> SpaceId {
        self.tlb.space()
    }
}
