//! [`Mmu`]: the memory-management unit of one virtual CPU, with paging registers and software TLB, on the shared memory.
//!
//! Guest accesses come in two speeds. The fast path ([`Mmu::read`], [`Mmu::write`], [`Mmu::fetch_page`]) is one TLB
//! probe, or two where an access crosses pages. The slow path walks the page tables, checks every page of the access before it
//! changes anything, sets A and D bits, fills the TLB, and moves the bytes:
//!
//! ```text
//!   resolve ── for each page touched: walk, check permissions ──► PageFault, nothing changed
//!      │
//!   commit ─── set A, and D for a write, in the entries used
//!      │
//!   fill ───── the slots of those pages that are memory
//!      │
//!   transfer ─ RAM: load or store    ROM: load, ignore stores    device: MemFault::Device, no data moved
//! ```

mod access;
mod ahead;
mod fill;
mod snoop;

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use access::{Resolved, is_in_page};
use ahead::ProgramFault;

use crate::addr::{Frame, GuestPhys, LinearAddr, LinearPage, PAGE_SIZE};
use crate::mailbox::Mailbox;
use crate::memory::{
    Attribute, Memory, MemoryError, NotRam, RegionKind, Store, Subscriber, SubscriberId, Timestamp,
    Tracking,
};
use crate::paging::{
    self, Access, NoTranslation, PageFault, Paging, PagingMode, PagingModel, Pdptes, Privilege,
    Registers, ReservedBits, Translation,
};
use crate::scalar::Scalar;
use crate::tlb::{SpaceKey, Tlb, View, set_bytes};

/// The reason why the processor makes no access to a linear address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum LinearFault {
    /// Deliver a page fault.
    #[error("page fault at {}: {:?}", .0.addr, .0.code)]
    Page(PageFault),
    /// Part of the access is at an address that is not canonical: deliver #GP or, for the stack segment, #SS (SDM Vol. 1,
    /// 3.3.7.1 Canonical Addressing). This comes before page faults, and in 4-level paging only.
    #[error("the address is not canonical")]
    NonCanonical,
}

/// The reason why a guest access did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum MemFault {
    /// Deliver a page fault.
    #[error("page fault at {}: {:?}", .0.addr, .0.code)]
    Page(PageFault),
    /// See [`LinearFault::NonCanonical`].
    #[error("the address is not canonical")]
    NonCanonical,
    /// Part of the access is not RAM or ROM: go through [`Mmu::translate`] and the bus.
    #[error("the access is not to memory")]
    Device,
}

impl From<LinearFault> for MemFault {
    fn from(fault: LinearFault) -> Self {
        match fault {
            LinearFault::Page(fault) => Self::Page(fault),
            LinearFault::NonCanonical => Self::NonCanonical,
        }
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
    /// The kind of region there.
    pub kind: RegionKind,
}

/// The guest-physical place of an access: one or two pieces, in the order of linear addresses.
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

/// The registers that belong to the MMU alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MmuState {
    /// The page-directory-pointer-table registers of PAE paging, as entries of the table: 0 where P is 0.
    pub pdptes: [u64; 4],
}

impl MmuState {
    /// The first entry that [`Mmu::restore`] refuses on a processor of `model`, if there is one.
    pub fn invalid_pdpte(&self, model: &PagingModel) -> Option<u64> {
        let mut entries = self.pdptes.into_iter();
        entries.find(|&entry| Pdptes::decode([entry, 0, 0, 0], model).is_err())
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
    /// Linear pages that get no slots for reads and writes.
    kept_out: BTreeSet<LinearPage>,
    /// Stores of devices to any memory, if pages are kept out.
    stores: Vec<Store>,
    /// Whether the processor rests: it has stored nothing through write slots since it last looked at the mailbox.
    resting: bool,
    /// The latest page fault of a program, until [`Self::fill_after_fault`].
    program_fault: Option<ProgramFault>,
    registers: Registers,
}

impl Mmu {
    /// Creates the MMU of a processor without IA-32e mode, [`PagingModel::IA32`], as [`Self::with_model`] does.
    ///
    /// # Errors
    /// As [`Self::with_model`].
    pub fn new(memory: Arc<Memory>) -> Result<Self, MemoryError> {
        Self::with_model(memory, PagingModel::IA32)
    }

    /// Creates an MMU as after reset: paging off, nothing cached.
    ///
    /// # Errors
    /// [`MemoryError::Tables`] when the host grants no address space for the tables, and [`MemoryError::Narrow`] if `memory` was
    /// not made for such linear addresses ([`Memory::for_width`]).
    pub fn with_model(memory: Arc<Memory>, model: PagingModel) -> Result<Self, MemoryError> {
        let width = model.linear_width;
        if !memory.serves(width) {
            return Err(MemoryError::Narrow);
        }
        let tables = |reason| MemoryError::Tables {
            bytes: set_bytes(width),
            reason,
        };
        let tlb = Tlb::new(Arc::clone(&memory), width, SpaceKey::Unpaged).map_err(tables)?;
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
            program_fault: None,
            registers: Registers {
                model,
                ..Registers::default()
            },
        })
    }

    /// The memory.
    #[inline(always)]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The TLB.
    #[inline(always)]
    pub fn tlb(&self) -> &Tlb {
        &self.tlb
    }

    /// The TLB, for code slots and windows.
    #[inline(always)]
    pub fn tlb_mut(&mut self) -> &mut Tlb {
        &mut self.tlb
    }

    /// The paging registers.
    pub fn paging(&self) -> &Paging {
        &self.registers.paging
    }

    /// The model of the processor.
    pub fn model(&self) -> &PagingModel {
        &self.registers.model
    }

    pub(crate) fn registers(&self) -> &Registers {
        &self.registers
    }

    /// Sets the paging registers. A change of CR3 alone leads to another address space and flushes nothing: the caller
    /// follows it with the flush that the instruction implies. Any other change drops all cached translations, whose
    /// permissions were computed under the old registers.
    ///
    /// # Panics
    /// If the mode translates wider addresses than the model has.
    pub fn set_paging(&mut self, paging: Paging) {
        assert!(
            paging.mode.width().bits() <= self.model().linear_width.bits(),
            "4-level paging needs a model with 48-bit linear addresses"
        );
        self.snoop();
        let same_rules = paging
            == Paging {
                cr3: paging.cr3,
                ..self.registers.paging
            };
        self.registers.paging = paging;
        if !same_rules {
            self.flush_all();
        }
        self.enter_space();
    }

    /// Loads the page-directory-pointer-table registers from the table at `cr3`, as PAE paging does when CR3 is written
    /// or paging is switched on. On error they keep their values, and the instruction raises #GP(0)
    /// (SDM Vol. 3A, 4.4.1 PDPTE Registers).
    pub fn load_pdptes(&mut self, cr3: u32) -> Result<(), ReservedBits> {
        self.registers.load_pdptes(&self.memory, cr3)?;
        self.enter_space();
        Ok(())
    }

    /// The state to save, beside the control registers from which [`Self::restore`] takes `paging`.
    pub fn save(&self) -> MmuState {
        MmuState {
            pdptes: self.registers.pdptes.encode(),
        }
    }

    /// Takes over the registers of another MMU, and drops all cached translations.
    ///
    /// # Errors
    /// [`ReservedBits`] if a page-directory-pointer-table register is invalid.
    pub fn restore(&mut self, paging: Paging, state: &MmuState) -> Result<(), ReservedBits> {
        let pdptes = Pdptes::decode(state.pdptes, self.model())?;
        self.set_paging(paging);
        self.flush_all();
        self.registers.pdptes = pdptes;
        self.enter_space();
        Ok(())
    }

    /// Switches the TLB to the address space that the paging registers select.
    fn enter_space(&mut self) {
        let key = match self.registers.paging.mode {
            PagingMode::Off => SpaceKey::Unpaged,
            PagingMode::TwoLevel | PagingMode::FourLevel => SpaceKey::Top(self.registers.top()),
            PagingMode::Pae => SpaceKey::Pointers(self.registers.pdptes),
        };
        self.tlb.enter(key);
    }

    /// Keeps the given linear pages, and no others, out of the tables for reads and writes in all address spaces, so that each
    /// access to them takes the slow path. While there are any, [`Self::take_stores`] reports what others store. For
    /// watchpoints.
    pub fn keep_out(&mut self, pages: impl IntoIterator<Item = LinearPage>) {
        let width = self.model().linear_width;
        self.kept_out = pages.into_iter().map(|page| page.cut(width)).collect();
        self.mailbox.want_device_stores(!self.kept_out.is_empty());
        if self.kept_out.is_empty() {
            self.stores.clear();
        }
        self.flush_all();
    }

    /// Drops all cached translations, global ones too.
    pub fn flush_all(&mut self) {
        self.program_fault = None;
        let memory = &self.memory;
        self.tlb
            .flush_all(|frame| memory.track(frame, Tracking::Untracked));
    }

    /// Drops all cached translations that are not global: MOV to CR3. Those known to agree with the page tables may
    /// stay.
    pub fn flush_non_global(&mut self) {
        self.snoop();
        self.tlb.flush_non_global();
        self.sync();
    }

    /// Drops the cached translation of the page that holds `addr`, of whatever size, global or not: INVLPG. One
    /// known to agree with the page tables may stay.
    pub fn invlpg(&mut self, addr: LinearAddr) {
        self.snoop();
        self.tlb.drop_page(self.paging().mode.cut(addr));
    }

    /// Reads guest memory. The address needs no alignment, and wraps: in 4-level paging at 2^64, else at 4 GiB.
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

    /// Writes guest memory. The address needs no alignment, and wraps as that of [`Self::read`] does. Both pages of an access that
    /// crosses a page boundary are checked before a byte is stored.
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

    /// Checks that `len` bytes (1..=4096) at `addr` can be accessed, with all side effects of an access but the transfer of data:
    /// for instructions that read and then write, and for those that store several times. A later access to the range does not
    /// fault, unless a store in between changes its translation.
    #[inline]
    pub fn prepare(
        &mut self,
        addr: LinearAddr,
        len: u32,
        access: Access,
        privilege: Privilege,
    ) -> Result<(), MemFault> {
        let cached = self.tlb.frame(View::of(access, privilege), addr.page());
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
    ) -> Result<Span, LinearFault> {
        if let Some(span) = self.cached_span(addr, len, access, privilege) {
            return Ok(span);
        }
        let pieces = self.resolve(addr, len, access, privilege)?;
        self.commit(&pieces, access);
        let piece = |resolved: &Resolved| self.piece(resolved.walk.translation.phys, resolved.len);
        let span = Span {
            first: piece(&pieces[0]),
            second: pieces.get(1).map(piece),
        };
        for (resolved, piece) in pieces.iter().zip(span.pieces()) {
            if piece.kind != RegionKind::Device {
                self.fill_accessed(resolved.page, &resolved.walk, access, privilege);
            }
        }
        Ok(span)
    }

    /// The frame from which the instruction bytes at `addr` are fetched.
    ///
    /// # Errors
    /// [`MemFault::Page`] or [`MemFault::NonCanonical`] if the fetch faults; [`MemFault::Device`] if it leads to no memory.
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

    /// Translates `addr` without any effect on guest memory or TLB, for debuggers. Translations that the TLB still holds from
    /// older page tables are not consulted.
    pub fn walk(&self, addr: LinearAddr) -> Result<Translation, NoTranslation> {
        paging::walk(&self.memory, &self.registers, addr).map(|walk| walk.translation)
    }

    /// The 4096 bytes of `frame`, for decoding, which are all ones where there is no memory.
    pub fn code_bytes(&self, frame: Frame) -> [u8; PAGE_SIZE] {
        self.memory.page(frame)
    }

    /// Marks `frame` as scanned for code now; the caller reads its bytes after this. Its write slots are dropped, so that the
    /// next store to it takes the slow path, which clears the mark and advances [`Mmu::code_epoch`].
    pub fn mark_code(&mut self, frame: Frame) {
        if !self.memory.has(frame, Attribute::Code) {
            self.tlb.drop_write_slots(frame);
        }
        self.memory.mark_scanned(frame);
    }

    /// A count of the stores, from whatever thread, that hit a frame marked Code.
    #[inline(always)]
    pub fn code_epoch(&self) -> u64 {
        self.mailbox.code_epoch()
    }

    /// Takes the frames, each once, in which stores have advanced [`Mmu::code_epoch`] since the last call.
    pub fn take_code_writes(&mut self) -> impl Iterator<Item = Frame> + use<> {
        self.mailbox.take_code().into_iter()
    }

    /// The time at which `frame` was last seen written: see [`Memory::written`].
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
}
