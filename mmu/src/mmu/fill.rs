//! Entering what a walk has found into the TLB, and keeping what was entered in agreement with the page tables.

use super::Mmu;
use super::snoop::follow;
use crate::addr::{GuestPhys, LinearPage};
use crate::memory::{Attribute, NotRam, RegionKind, Store, Tracking};
use crate::paging::{ACCESSED, Access, DIRTY, Privilege, Step, Translation, Walk};
use crate::tlb::Fill;

impl Mmu {
    /// Stores bytes to guest-physical memory as the guest does: ROM ignores them. If any byte is not memory, none is stored.
    pub fn store_phys(&mut self, addr: GuestPhys, data: &[u8]) -> Result<(), NotRam> {
        let (mailbox, tlb, memory) = (&self.mailbox, &mut self.tlb, &self.memory);
        memory.store_by(Some(self.id), addr, data, |store| {
            if store.attributes.has(Attribute::Code) {
                mailbox.note_code(store.frame);
            }
            // The processor's own stores to an unsync page table are free until the guest flushes.
            if store.attributes.has(Attribute::PageTable) {
                follow(tlb, memory, &store);
            }
        })
    }

    /// Sets the A and D bits of an access. They change no mapping, so nothing is dropped.
    pub(super) fn set_accessed(&mut self, walk: &Walk, access: Access) {
        let (id, mailbox, memory) = (self.id, &self.mailbox, &self.memory);
        walk.commit(memory, access, self.paging.mode, &mut |addr, entry| {
            let own = |store: Store| {
                if store.attributes.has(Attribute::Code) {
                    mailbox.note_code(store.frame);
                }
            };
            let _outside_ram = memory.store_by(Some(id), addr, entry, own);
        });
    }

    /// Enters a page of RAM or ROM after an access to it was allowed, its A and D bits set, and before it is made, since a
    /// store may change the very entries of the walk. `writable`: a write at this privilege would change no bit of the
    /// paging structures either.
    pub(super) fn fill(
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
        if self.tlb.is_own(page) && !self.watch(page, walk) {
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
            self.memory.mark_opened(frame);
            self.tlb.fill(fill, Access::Write, privilege);
        }
    }

    /// Whether stores to the frame may go unseen.
    fn may_open(&self, addr: GuestPhys) -> bool {
        let attributes = self.memory.attributes(addr.frame());
        self.memory.region(addr) == RegionKind::Ram
            && !attributes.has(Attribute::Code)
            && !attributes.has(Attribute::PageTable)
    }

    /// Watches the entries of a walk for `page`. Returns whether slots may be made from them: changes of anything but RAM are
    /// not noticed, and an entry may have been changed since the walk, by somebody else.
    fn watch(&mut self, page: LinearPage, walk: &Walk) -> bool {
        let in_ram = |step: &Step| self.memory.region(step.entry) == RegionKind::Ram;
        if !walk.trail.iter().all(in_ram) {
            return false;
        }
        let mut unchanged = true;
        for step in &walk.trail {
            let value = self.entry(step);
            unchanged &= is_same(value, step.value);
            let frame = step.entry.frame();
            let tracking = self.tlb.note_step(page, step, value);
            if tracking == Tracking::WriteTracked && !self.memory.has(frame, Attribute::PageTable) {
                // From here on stores are told: what came before is seen by looking again.
                self.memory.track(frame, tracking);
                unchanged &= is_same(value, self.entry(step));
            }
        }
        unchanged
    }

    /// The value of a paging-structure entry; all ones where there is no memory.
    fn entry(&self, step: &Step) -> u64 {
        let mut bytes = [0; size_of::<u64>()];
        let value = &mut bytes[..1 << step.entry_shift];
        if self.memory.read(step.entry, value).is_err() {
            value.fill(u8::MAX);
        }
        u64::from_le_bytes(bytes)
    }

    /// Drops the translations of the present address space that come from entries which have changed unseen, as a guest's flush
    /// asks for.
    pub(super) fn catch_up(&mut self) {
        let memory = &self.memory;
        let again = self.tlb.catch_up(|frame| memory.page(frame));
        for frame in again {
            self.memory.track(frame, Tracking::WriteTracked);
        }
    }
}

/// Whether two values of an entry translate alike.
fn is_same(value: u64, other: u64) -> bool {
    (value ^ other) & !(ACCESSED | DIRTY) == 0
}
