//! [`CoherentMemory`]: guest-physical memory together with what was translated from the page tables in it.

use std::collections::BTreeSet;
use std::ops::Deref;

use crate::addr::{Frame, GuestPhys, LinearPage};
use crate::paging::{Access, PagingMode, Privilege, Step, Translation, Walk};
use crate::phys::{Attribute, NotRam, PhysMemory, RegionKind};
use crate::scalar::Scalar;
use crate::tlb::{Fill, Tlb, Watching};

/// Guest-physical memory with a TLB. Every store that goes through its methods, from the guest or from the host, drops the
/// translations that came from what it changes. Reading is [`PhysMemory`]'s.
#[derive(Debug)]
pub struct CoherentMemory {
    phys: PhysMemory,
    pub(crate) tlb: Tlb,
    /// Linear pages that have no slots for reads and writes.
    kept_out: BTreeSet<LinearPage>,
}

impl Deref for CoherentMemory {
    type Target = PhysMemory;

    fn deref(&self) -> &PhysMemory {
        &self.phys
    }
}

impl CoherentMemory {
    pub(crate) fn new(phys: PhysMemory, tlb: Tlb) -> Self {
        Self {
            phys,
            tlb,
            kept_out: BTreeSet::new(),
        }
    }

    /// Writes RAM or ROM as the host: see [`PhysMemory::write`].
    pub fn write(&mut self, addr: GuestPhys, data: &[u8]) -> Result<(), NotRam> {
        self.phys.write(addr, data)?;
        self.drop_derived(addr, data.len() as u64);
        Ok(())
    }

    /// Stores a value as a guest does: see [`PhysMemory::store`].
    pub fn store<T: Scalar>(&mut self, addr: GuestPhys, value: T) -> Result<(), NotRam> {
        self.store_bytes(addr, value.as_slice())
    }

    /// Stores bytes as a guest does: see [`PhysMemory::store_bytes`].
    pub fn store_bytes(&mut self, addr: GuestPhys, data: &[u8]) -> Result<(), NotRam> {
        self.phys.store_bytes(addr, data)?;
        self.drop_derived(addr, data.len() as u64);
        Ok(())
    }

    /// Records that bytes were written by other means than this type's methods: see [`PhysMemory::mark_written`].
    pub fn mark_written(&mut self, addr: GuestPhys, len: u64) {
        self.phys.mark_written(addr, len);
        self.drop_derived(addr, len);
    }

    /// Records that code made from `frame` executes now.
    pub fn mark_executed(&mut self, frame: Frame) {
        self.phys.mark_executed(frame);
    }

    /// Marks `frame` as scanned for code now. It has no write slots from then on.
    pub(crate) fn mark_code(&mut self, frame: Frame) {
        if !self.phys.has(frame, Attribute::Code) {
            self.tlb.drop_writers(frame);
        }
        self.phys.frames_mut().scanned(frame);
    }

    pub(crate) fn take_code_writes(&mut self) -> Vec<Frame> {
        self.phys.take_code_writes()
    }

    /// Sets the A and D bits of an access. They change no mapping, so nothing is dropped.
    pub(crate) fn commit(&mut self, walk: &Walk, access: Access, mode: PagingMode) {
        walk.commit(&mut self.phys, access, mode);
    }

    /// See [`crate::Mmu::keep_out`].
    pub(crate) fn keep_out(&mut self, pages: BTreeSet<LinearPage>) {
        self.kept_out = pages;
        self.flush_all();
    }

    /// Drops all translations.
    pub(crate) fn flush_all(&mut self) {
        let frames = self.phys.frames_mut();
        self.tlb.flush_all(|frame| frames.watched(frame, false));
    }

    /// Enters a page of RAM or ROM after an access to it was allowed, its A and D bits set, and before it is made, since a
    /// store may change the very entries of the walk. `writable`: a write at this privilege would change no bit of the
    /// paging structures either.
    pub(crate) fn fill(
        &mut self,
        page: LinearPage,
        walk: &Walk,
        access: Access,
        privilege: Privilege,
        writable: bool,
    ) {
        if access != Access::Fetch && self.kept_out.contains(&page) {
            return;
        }
        if self.tlb.is_own(page) && !self.watch(page, &walk.trail) {
            return;
        }
        let Translation {
            phys,
            page_size,
            global,
            ..
        } = walk.translation;
        let frame = phys.frame();
        let fill = Fill {
            page,
            frame,
            page_size,
            global,
        };
        if access == Access::Fetch {
            return self.tlb.fill(fill, access, privilege);
        }
        self.tlb.fill(fill, Access::Read, privilege);
        if writable && self.may_open(phys) {
            self.phys.frames_mut().opened(frame);
            self.tlb.fill(fill, Access::Write, privilege);
        }
    }

    /// Whether stores to the frame may go unseen.
    fn may_open(&self, addr: GuestPhys) -> bool {
        let frame = addr.frame();
        self.phys.region(addr) == RegionKind::Ram
            && !self.phys.has(frame, Attribute::Code)
            && !self.phys.has(frame, Attribute::PageTable)
    }

    /// Notes the entries of a walk for `page`. Returns whether that is possible: changes of anything but RAM are not noticed.
    fn watch(&mut self, page: LinearPage, trail: &[Step]) -> bool {
        let in_ram = |step: &Step| self.phys.region(step.entry) == RegionKind::Ram;
        if !trail.iter().all(in_ram) {
            return false;
        }
        for step in trail {
            let value = self.entry(step);
            if self.tlb.note_step(page, step, value) == Watching::On {
                self.phys.frames_mut().watched(step.entry.frame(), true);
            }
        }
        true
    }

    /// The value of a paging-structure entry; all ones where there is no memory.
    pub(crate) fn entry(&self, step: &Step) -> u64 {
        let mut bytes = [0; size_of::<u64>()];
        let value = &mut bytes[..1 << step.entry_shift];
        if self.phys.read(step.entry, value).is_err() {
            value.fill(u8::MAX);
        }
        u64::from_le_bytes(bytes)
    }

    /// Drops the translations of the present address space that come from entries which have changed unseen, as a guest's flush
    /// asks for.
    pub(crate) fn catch_up(&mut self) {
        let phys = &self.phys;
        let again = self.tlb.catch_up(|frame| phys.code_bytes(frame));
        for frame in again {
            self.phys.frames_mut().watched(frame, true);
        }
    }

    fn drop_derived(&mut self, addr: GuestPhys, len: u64) {
        for (frame, bytes) in self.phys.pieces(addr, len) {
            let phys = &self.phys;
            if phys.has(frame, Attribute::PageTable)
                && self.tlb.stored(frame, &bytes, || phys.code_bytes(frame)) == Watching::Off
            {
                self.phys.frames_mut().watched(frame, false);
            }
        }
    }
}
