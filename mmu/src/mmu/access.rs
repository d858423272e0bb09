//! The slow path of an access: walks, checks, sets A and D bits, fills the TLB and moves the bytes.

use smallvec::SmallVec;

use super::{LinearFault, MemFault, Mmu, Piece, Span};
use crate::addr::{Frame, GuestPhys, LinearAddr, LinearPage, PAGE_SIZE};
use crate::memory::RegionKind;
use crate::paging::{self, Access, Cause, PageFault, Privilege, Translation, Walk};
use crate::scalar::Scalar;
use crate::tlb::View;

/// A piece of an access with the walk that translated it.
pub(super) struct Resolved {
    pub(super) page: LinearPage,
    pub(super) len: u32,
    pub(super) walk: Walk,
}

/// The pieces of one access.
pub(super) type Pieces = SmallVec<[Resolved; 2]>;

impl Mmu {
    #[cold]
    #[inline(never)]
    pub(super) fn read_slow<T: Scalar>(
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
        if is_in_page(addr, out.len() as u32) {
            let phys = self.enter_page(addr, Access::Read, privilege)?;
            return self.memory.read(phys, out).map_err(|_| MemFault::Device);
        }
        for piece in self
            .access(addr, out.len() as u32, Access::Read, privilege)?
            .pieces()
        {
            let (head, tail) = out.split_at_mut(piece.len as usize);
            self.memory
                .read(piece.addr, head)
                .map_err(|_| MemFault::Device)?;
            out = tail;
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    pub(super) fn write_slow<T: Scalar>(
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
        if is_in_page(addr, data.len() as u32) {
            let phys = self.enter_page(addr, Access::Write, privilege)?;
            let stored = self.store_phys(phys, data);
            return stored.map_err(|_| MemFault::Device);
        }
        for piece in self
            .access(addr, data.len() as u32, Access::Write, privilege)?
            .pieces()
        {
            let (head, tail) = data.split_at(piece.len as usize);
            self.store_phys(piece.addr, head)
                .map_err(|_| MemFault::Device)?;
            data = tail;
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    pub(super) fn prepare_slow(
        &mut self,
        addr: LinearAddr,
        len: u32,
        access: Access,
        privilege: Privilege,
    ) -> Result<(), MemFault> {
        if is_in_page(addr, len) {
            self.enter_page(addr, access, privilege)?;
        } else {
            self.access(addr, len, access, privilege)?;
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    pub(super) fn fetch_page_slow(
        &mut self,
        addr: LinearAddr,
        privilege: Privilege,
    ) -> Result<Frame, MemFault> {
        let phys = self.enter_page(addr, Access::Fetch, privilege)?;
        Ok(phys.frame())
    }

    /// Resolves and commits an access to memory that lies in one page, and fills the page's slots. Returns the physical address.
    /// If a device is there, the A and D bits are set all the same, as the access goes on over the bus.
    fn enter_page(
        &mut self,
        addr: LinearAddr,
        access: Access,
        privilege: Privilege,
    ) -> Result<GuestPhys, MemFault> {
        let addr = self.canonical(addr, 1)?;
        let walk = match self.check(addr, access, privilege) {
            Ok(walk) => walk,
            Err(cause) => {
                let fault = self.page_fault(addr, cause, access, privilege);
                return Err(MemFault::Page(fault));
            }
        };
        self.set_accessed(&walk, access);
        let phys = walk.translation.phys;
        if self.memory.region(phys) == RegionKind::Device {
            return Err(MemFault::Device);
        }
        self.fill_accessed(addr.page(), &walk, access, privilege);
        let is_data_of_program = privilege == Privilege::User && access != Access::Fetch;
        if is_data_of_program && self.tlb.is_own(addr.page()) {
            self.fill_around(addr.page(), &walk);
        }
        Ok(phys)
    }

    /// Translates an access to memory that may cross pages, as [`Self::translate`] does. If a piece is a device, the A and D bits are
    /// set all the same, as the access goes on over the bus.
    fn access(
        &mut self,
        addr: LinearAddr,
        len: u32,
        access: Access,
        privilege: Privilege,
    ) -> Result<Span, MemFault> {
        let span = self.translate(addr, len, access, privilege)?;
        let is_device = |piece: Piece| piece.kind == RegionKind::Device;
        match span.pieces().any(is_device) {
            true => Err(MemFault::Device),
            false => Ok(span),
        }
    }

    /// The place of an access if each of its pages has a slot for it.
    pub(super) fn cached_span(
        &self,
        addr: LinearAddr,
        len: u32,
        access: Access,
        privilege: Privilege,
    ) -> Option<Span> {
        let addr = self.canonical(addr, len).ok()?;
        let view = View::of(access, privilege);
        let piece = |addr: LinearAddr, len| {
            let frame = self.tlb.frame(view, addr.page())?;
            Some(self.piece(frame.base().with_offset(addr.offset().into()), len))
        };
        let first_len = first_len(addr, len);
        let first = piece(addr, first_len)?;
        let second = match len - first_len {
            0 => None,
            rest => Some(piece(self.paging().mode.add(addr, first_len), rest)?),
        };
        Some(Span { first, second })
    }

    /// The piece of an access at `addr`.
    pub(super) fn piece(&self, addr: GuestPhys, len: u32) -> Piece {
        Piece {
            addr,
            len,
            kind: self.memory.region(addr),
        }
    }

    /// Translates and checks every page of an access, changing nothing in guest memory.
    pub(super) fn resolve(
        &mut self,
        addr: LinearAddr,
        len: u32,
        access: Access,
        privilege: Privilege,
    ) -> Result<Pieces, LinearFault> {
        debug_assert!((1..=PAGE_SIZE as u32).contains(&len));
        let addr = self.canonical(addr, len)?;
        let first_len = first_len(addr, len);
        let next = self.paging().mode.add(addr, first_len);
        let mut pieces = Pieces::new();
        for (addr, len) in [(addr, first_len), (next, len - first_len)] {
            if len == 0 {
                break;
            }
            let walk = self.check(addr, access, privilege).map_err(|cause| {
                LinearFault::Page(self.page_fault(addr, cause, access, privilege))
            })?;
            pieces.push(Resolved {
                page: addr.page(),
                len,
                walk,
            });
        }
        Ok(pieces)
    }

    /// The linear address of an access to `len` bytes at `addr`, all of which must be at canonical addresses.
    fn canonical(&self, addr: LinearAddr, len: u32) -> Result<LinearAddr, LinearFault> {
        let mode = self.paging().mode;
        let first = mode.cut(addr);
        if mode.is_canonical(first) && mode.is_canonical(mode.add(first, len - 1)) {
            Ok(first)
        } else {
            Err(LinearFault::NonCanonical)
        }
    }

    /// Walks for one page and checks the access.
    fn check(&self, addr: LinearAddr, access: Access, privilege: Privilege) -> Result<Walk, Cause> {
        let walk =
            paging::walk(&self.memory, &self.registers, addr).map_err(Cause::NoTranslation)?;
        let permissions = walk.translation.permissions;
        match permissions.allow(access, privilege, self.paging()) {
            true => Ok(walk),
            false => Err(Cause::Forbidden),
        }
    }

    /// The fault of an access. It drops the TLB's translation of the page, as on the processor
    /// (SDM Vol. 3A, 4.10.4.1 Operations that Invalidate TLBs and Paging-Structure Caches).
    #[inline(never)]
    fn page_fault(
        &mut self,
        addr: LinearAddr,
        cause: Cause,
        access: Access,
        privilege: Privilege,
    ) -> PageFault {
        self.tlb.drop_page(addr);
        self.note_fault(addr, access, privilege);
        PageFault::new(addr, cause, access, privilege, self.paging())
    }

    pub(super) fn commit(&mut self, pieces: &Pieces, access: Access) {
        for piece in pieces {
            self.set_accessed(&piece.walk, access);
        }
    }

    /// Fills the slots of the page to which `walk` leads, after an access whose A and D bits were set.
    pub(super) fn fill_accessed(
        &mut self,
        page: LinearPage,
        walk: &Walk,
        access: Access,
        privilege: Privilege,
    ) {
        let Translation {
            permissions, dirty, ..
        } = walk.translation;
        let writable = access == Access::Write
            || dirty && permissions.allow(Access::Write, privilege, self.paging());
        self.fill(page, walk, access, privilege, writable);
    }
}

/// The bytes of an access to `len` bytes at `addr` that lie in its first page.
fn first_len(addr: LinearAddr, len: u32) -> u32 {
    len.min(PAGE_SIZE as u32 - addr.offset())
}

/// Whether `len` bytes at `addr` lie in one page.
pub(super) fn is_in_page(addr: LinearAddr, len: u32) -> bool {
    addr.offset() + len <= PAGE_SIZE as u32
}
