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
//!   transfer ─ RAM: load or store    ROM: load, ignore stores    device: MemFault::Device, no data moved
//!      │
//!   fill ───── if the access lies in one page of memory
//! ```

use nix::errno::Errno;
use smallvec::SmallVec;
use thiserror::Error;

use crate::addr::{Frame, GuestPhys, LinearAddr, PAGE_SIZE};
use crate::paging::{
    self, Access, NoTranslation, PageFault, Paging, Pdptes, Privilege, ReservedBits, Translation,
    Walk,
};
use crate::phys::{Attribute, MemoryError, NotRam, PhysMemory, RegionKind, Timestamp};
use crate::scalar::Scalar;
use crate::tlb::{Fill, TABLES_BYTES, Tlb, View};

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

/// A piece of an access with the walk that translated it.
struct Resolved {
    linear: LinearAddr,
    len: u32,
    walk: Walk,
}

/// The pieces of one access.
type Pieces = SmallVec<[Resolved; 2]>;

/// Paging registers, software TLB and memory.
#[derive(Debug)]
pub struct Mmu {
    /// Guest-physical memory.
    pub phys: PhysMemory,
    paging: Paging,
    pdptes: Pdptes,
    tlb: Tlb,
}

impl Mmu {
    /// An MMU after reset: paging off, nothing cached.
    pub fn new(phys: PhysMemory) -> Result<Self, MemoryError> {
        let tables = |source: Errno| MemoryError::Tables {
            bytes: TABLES_BYTES,
            source,
        };
        let tlb = Tlb::new(phys.mapping().clone()).map_err(tables)?;
        Ok(Self {
            phys,
            paging: Paging::default(),
            pdptes: Pdptes::default(),
            tlb,
        })
    }

    /// The paging registers.
    pub fn paging(&self) -> &Paging {
        &self.paging
    }

    /// Sets the paging registers. A change of CR3 alone flushes nothing: the caller follows it with the flush that the
    /// instruction implies. Any other change drops all cached translations, whose permissions were computed under the
    /// old registers.
    pub fn set_paging(&mut self, paging: Paging) {
        let same_rules = paging
            == Paging {
                cr3: paging.cr3,
                ..self.paging
            };
        self.paging = paging;
        if !same_rules {
            self.flush_all();
        }
    }

    /// Loads the page-directory-pointer-table registers from the table at `cr3`, as PAE paging does when CR3 is written
    /// or paging is switched on. On error they keep their values, and the instruction raises #GP(0)
    /// (SDM Vol. 3A, 4.4.1 PDPTE Registers).
    pub fn load_pdptes(&mut self, cr3: u32) -> Result<(), ReservedBits> {
        self.pdptes = Pdptes::load(&self.phys, cr3)?;
        Ok(())
    }

    /// Drops all cached translations, global ones too.
    pub fn flush_all(&mut self) {
        self.tlb.flush_all();
    }

    /// Drops all cached translations that are not global: MOV to CR3.
    pub fn flush_non_global(&mut self) {
        self.tlb.flush_non_global();
    }

    /// Drops the cached translation of the page that holds `addr`, of whatever size, global or not: INVLPG.
    pub fn invlpg(&mut self, addr: LinearAddr) {
        self.tlb.drop_page(addr);
    }

    /// Reads guest memory. The address wraps at 4 GiB and needs no alignment.
    #[inline(always)]
    pub fn read<T: Scalar>(
        &mut self,
        addr: LinearAddr,
        privilege: Privilege,
    ) -> Result<T, MemFault> {
        match self.tlb.load(View::of(Access::Read, privilege), addr) {
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
        if self
            .tlb
            .store(View::of(Access::Write, privilege), addr, value)
        {
            return Ok(());
        }
        self.write_slow(addr, privilege, value)
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
        let view = View::of(Access::Write, privilege);
        self.tlb.fill_range(view, addr, value, count)
    }

    /// Copies `len` bytes from `from` to `to`, as reads and writes in ascending order would, if both lie in one page each
    /// whose translation is cached and do not overlap. Returns whether it did; else nothing happened.
    pub fn copy_cached(
        &mut self,
        to: LinearAddr,
        from: LinearAddr,
        privilege: Privilege,
        len: usize,
    ) -> bool {
        let to = (View::of(Access::Write, privilege), to);
        let from = (View::of(Access::Read, privilege), from);
        self.tlb.copy(to, from, len)
    }

    /// Checks that `len` bytes (1..=4096) at `addr` can be written, with all side effects of a write but the data: for
    /// read-modify-write instructions, and for those that store several times. A later write to the range does not
    /// fault.
    #[inline]
    pub fn prepare_write(
        &mut self,
        addr: LinearAddr,
        len: u32,
        privilege: Privilege,
    ) -> Result<(), MemFault> {
        let cached = self
            .tlb
            .frame(View::of(Access::Write, privilege), addr.page())
            .is_some();
        if cached && addr.offset() + len <= PAGE_SIZE as u32 {
            return Ok(());
        }
        self.prepare_write_slow(addr, len, privilege)
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
                kind: self.phys.region(addr),
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
        paging::walk(&self.phys, &self.paging, &self.pdptes, addr).map(|walk| walk.translation)
    }

    /// The 4096 bytes of `frame`, for decoding; all ones where there is no memory.
    pub fn code_bytes(&self, frame: Frame) -> [u8; PAGE_SIZE] {
        self.phys.code_bytes(frame)
    }

    /// Marks `frame` as scanned for code now. Its cached write translations are dropped: the next store to it takes the
    /// slow path, which clears the mark and advances [`Mmu::code_epoch`].
    pub fn mark_code(&mut self, frame: Frame) {
        self.tlb.drop_writers(frame);
        self.phys.frames_mut().scanned(frame);
    }

    /// Increases whenever a store, from guest or host, hits a frame marked Code.
    #[inline(always)]
    pub fn code_epoch(&self) -> u64 {
        self.phys.code_epoch()
    }

    /// Increases whenever a cached translation for instruction fetches at `privilege` is dropped: what was found through
    /// [`Mmu::fetch_page`] holds while it stays the same.
    pub fn fetch_epoch(&self, privilege: Privilege) -> u64 {
        self.tlb.fetch_epoch(privilege)
    }

    /// When `frame` was last seen written: see [`PhysMemory::written`].
    pub fn written(&self, frame: Frame) -> Timestamp {
        self.phys.written(frame)
    }

    /// Reads RAM or ROM by guest-physical address.
    pub fn read_phys<T: Scalar>(&self, addr: GuestPhys) -> Result<T, NotRam> {
        self.phys.load(addr)
    }

    /// Stores to guest-physical memory as the guest does: ROM ignores it.
    pub fn write_phys<T: Scalar>(&mut self, addr: GuestPhys, value: T) -> Result<(), NotRam> {
        self.phys.store(addr, value)
    }

    /// Host address of the TLB table of `view`, for code that probes it inline: 2^20 slots of eight bytes indexed by
    /// linear address >> 12. A slot is 0, or the host address of the page minus its linear address plus
    /// [`SLOT_PRESENT`](crate::SLOT_PRESENT).
    pub fn tlb_table(&self, view: View) -> *const u64 {
        self.tlb.table_base(view)
    }

    #[cold]
    #[inline(never)]
    fn read_slow<T: Scalar>(
        &mut self,
        addr: LinearAddr,
        privilege: Privilege,
    ) -> Result<T, MemFault> {
        let mut value = T::zeroed();
        self.read_bytes(addr, privilege, value.as_mut_slice())?;
        Ok(value)
    }

    fn read_bytes(
        &mut self,
        addr: LinearAddr,
        privilege: Privilege,
        mut out: &mut [u8],
    ) -> Result<(), MemFault> {
        let pieces = self.access(addr, out.len() as u32, Access::Read, privilege)?;
        for piece in &pieces {
            let (head, tail) = out.split_at_mut(piece.len as usize);
            self.phys
                .read(piece.walk.translation.phys, head)
                .map_err(|_| MemFault::Device)?;
            out = tail;
        }
        self.fill(&pieces, Access::Read, privilege);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn write_slow<T: Scalar>(
        &mut self,
        addr: LinearAddr,
        privilege: Privilege,
        value: T,
    ) -> Result<(), MemFault> {
        self.write_bytes(addr, privilege, value.as_slice())
    }

    fn write_bytes(
        &mut self,
        addr: LinearAddr,
        privilege: Privilege,
        mut data: &[u8],
    ) -> Result<(), MemFault> {
        let pieces = self.access(addr, data.len() as u32, Access::Write, privilege)?;
        for piece in &pieces {
            let (head, tail) = data.split_at(piece.len as usize);
            self.phys
                .store_bytes(piece.walk.translation.phys, head)
                .map_err(|_| MemFault::Device)?;
            data = tail;
        }
        self.fill(&pieces, Access::Write, privilege);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn prepare_write_slow(
        &mut self,
        addr: LinearAddr,
        len: u32,
        privilege: Privilege,
    ) -> Result<(), MemFault> {
        let pieces = self.access(addr, len, Access::Write, privilege)?;
        self.fill(&pieces, Access::Write, privilege);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn fetch_page_slow(
        &mut self,
        addr: LinearAddr,
        privilege: Privilege,
    ) -> Result<Frame, MemFault> {
        let pieces = self.access(addr, 1, Access::Fetch, privilege)?;
        self.fill(&pieces, Access::Fetch, privilege);
        Ok(pieces[0].walk.translation.phys.frame())
    }

    /// Resolves and commits an access to memory. If a piece is a device, the A and D bits are set all the same, as the
    /// access goes on over the bus.
    fn access(
        &mut self,
        addr: LinearAddr,
        len: u32,
        access: Access,
        privilege: Privilege,
    ) -> Result<Pieces, MemFault> {
        let pieces = self.resolve(addr, len, access, privilege)?;
        self.commit(&pieces, access);
        let is_device =
            |piece: &Resolved| self.phys.region(piece.walk.translation.phys) == RegionKind::Device;
        if pieces.iter().any(is_device) {
            Err(MemFault::Device)
        } else {
            Ok(pieces)
        }
    }

    /// Translates and checks every page of an access, changing nothing in guest memory.
    fn resolve(
        &mut self,
        addr: LinearAddr,
        len: u32,
        access: Access,
        privilege: Privilege,
    ) -> Result<Pieces, PageFault> {
        debug_assert!((1..=PAGE_SIZE as u32).contains(&len));
        let addr = addr.wrapping_add32(0);
        let first_len = len.min(PAGE_SIZE as u32 - addr.offset());
        let mut pieces = Pieces::new();
        pieces.push(Resolved {
            linear: addr,
            len: first_len,
            walk: self.check(addr, access, privilege)?,
        });
        if first_len < len {
            let next = addr.wrapping_add32(first_len);
            pieces.push(Resolved {
                linear: next,
                len: len - first_len,
                walk: self.check(next, access, privilege)?,
            });
        }
        Ok(pieces)
    }

    /// Walks for one page and checks the access. A fault drops what the TLB holds for the page, as the processor does
    /// (SDM Vol. 3A, 4.10.4.1 Operations that Invalidate TLBs and Paging-Structure Caches).
    fn check(
        &mut self,
        addr: LinearAddr,
        access: Access,
        privilege: Privilege,
    ) -> Result<Walk, PageFault> {
        let cause = match paging::walk(&self.phys, &self.paging, &self.pdptes, addr) {
            Ok(walk)
                if walk
                    .translation
                    .permissions
                    .allow(access, privilege, &self.paging) =>
            {
                return Ok(walk);
            }
            Ok(_) => paging::Cause::Forbidden,
            Err(none) => paging::Cause::NoTranslation(none),
        };
        self.tlb.drop_page(addr);
        Err(PageFault::new(addr, cause, access, privilege, &self.paging))
    }

    fn commit(&mut self, pieces: &Pieces, access: Access) {
        for piece in pieces {
            piece.walk.commit(&mut self.phys, access, self.paging.mode);
        }
    }

    /// Enters the page of an access that went through, if it lies in one page of memory that may be entered. An access
    /// that crosses pages would never find its slots, so it fills none.
    fn fill(&mut self, pieces: &Pieces, access: Access, privilege: Privilege) {
        let [piece] = pieces.as_slice() else { return };
        let Translation {
            phys,
            page_size,
            global,
            ..
        } = piece.walk.translation;
        let frame = phys.frame();
        if access == Access::Write {
            if self.phys.region(phys) != RegionKind::Ram || self.phys.has(frame, Attribute::Code) {
                return;
            }
            self.phys.frames_mut().opened(frame);
        }
        let fill = Fill {
            page: piece.linear.page(),
            frame,
            page_size,
            global,
        };
        self.tlb.fill(fill, access, privilege);
    }
}
