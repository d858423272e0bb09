//! Filling the TLB from a walk, and tracking the entries of the walk so that the slots agree with the page tables.

use super::Mmu;
use super::snoop::follow;
use crate::addr::{GuestPhys, LinearPage};
use crate::memory::{Attribute, By, NotRam, RegionKind, Store, Tracking};
use crate::paging::{ACCESSED, Access, DIRTY, Privilege, Step, Translation, Walk};
use crate::tlb::TlbEntry;

impl Mmu {
    /// Stores bytes to guest-physical memory as the guest does: ROM ignores them.
    ///
    /// # Errors
    /// [`NotRam`] if any byte is neither RAM nor ROM; none is then stored.
    pub fn store_phys(&mut self, addr: GuestPhys, data: &[u8]) -> Result<(), NotRam> {
        let (mailbox, tlb, memory) = (&self.mailbox, &mut self.tlb, &self.memory);
        memory.store_by(By::Processor(self.id), addr, data, |store| {
            if store.attributes.has(Attribute::Code) {
                mailbox.note_code(store.frame);
            }
            // The processor's own stores to an unsync page table are free until the guest flushes.
            if store.attributes.has(Attribute::PageTable) {
                follow(tlb, memory, &store);
            }
        })
    }

    /// Sets the A and D bits of an access, which change no mapping, so that nothing is dropped.
    pub(super) fn set_accessed(&mut self, walk: &Walk, access: Access) {
        let (id, mailbox, memory) = (self.id, &self.mailbox, &self.memory);
        let own = |store: Store| {
            if store.attributes.has(Attribute::Code) {
                mailbox.note_code(store.frame);
            }
        };
        walk.commit(memory, access, &mut |step, values| {
            memory.exchange_by(id, step.entry, 1 << step.entry_shift, values, own)
        });
    }

    /// Fills the slots of a page of RAM or ROM: after an access to it was allowed and its A and D bits were set, but before the
    /// access is made, since a store may change the very entries of the walk. `writable` says that a write at this privilege
    /// would change no bit of the paging structures either.
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
        if self.tlb.is_own(page) && !self.track(page, walk, writable) {
            return;
        }
        let Translation {
            phys,
            page_size,
            global,
            ..
        } = walk.translation;
        let frame = phys.frame();
        let fill = TlbEntry {
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
            self.memory.mark_write_open(frame);
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

    /// Tracks the entries of a walk for `page`. Returns whether slots may be made from them: not if any is outside RAM, where
    /// changes go unseen, nor if somebody else has changed one since the walk or cleared its A or D bit.
    fn track(&mut self, page: LinearPage, walk: &Walk, writable: bool) -> bool {
        let in_ram = |step: &Step| self.memory.region(step.entry) == RegionKind::Ram;
        if !walk.trail.iter().all(in_ram) {
            return false;
        }
        let mut unchanged = true;
        for (index, step) in walk.trail.iter().enumerate() {
            let is_leaf = index + 1 == walk.trail.len();
            let needed = if is_leaf && writable {
                ACCESSED | DIRTY
            } else {
                ACCESSED
            };
            let holds = |value: u64| step.is_same(value) && value & needed == needed;
            let value = step.load(&self.memory);
            unchanged &= holds(value);
            let frame = step.entry.frame();
            let tracking = self.tlb.note_step(page, step, value);
            if tracking == Tracking::WriteTracked && !self.memory.has(frame, Attribute::PageTable) {
                // From here on stores are reported; earlier ones are seen by looking again.
                self.memory.track(frame, tracking);
                unchanged &= holds(step.load(&self.memory));
            }
        }
        unchanged
    }

    /// Drops the present address space's translations that come from changed entries of unsync page tables, as a guest's flush
    /// demands.
    pub(super) fn sync(&mut self) {
        let memory = &self.memory;
        let again = self.tlb.sync(|frame| memory.page(frame));
        for frame in again {
            self.memory.track(frame, Tracking::WriteTracked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paging::{Paging, PagingMode};
    use crate::{LinearAddr, Memory, View};

    const TABLE: u64 = 0x2000;
    const PAGE: LinearAddr = LinearAddr::new(0x3000);
    const ENTRY: GuestPhys = GuestPhys::new(TABLE + 3 * 4);
    const USED: u32 = 0x5067;

    /// 32-bit paging; one page at [`PAGE`], whose entry is `entry`.
    fn mmu(entry: u32) -> Mmu {
        let mut mmu = Mmu::new(Memory::new(1 << 20).unwrap()).unwrap();
        mmu.write_phys(GuestPhys::new(0x1000), TABLE as u32 | 0x27)
            .unwrap();
        mmu.write_phys(ENTRY, entry).unwrap();
        mmu.set_paging(Paging {
            mode: PagingMode::TwoLevel,
            cr3: 0x1000,
            ..Paging::default()
        });
        mmu
    }

    fn walk(mmu: &Mmu) -> Walk {
        crate::paging::walk(&mmu.memory, &mmu.registers, PAGE).unwrap()
    }

    #[test]
    fn bits_that_others_clear_after_the_walk_make_no_slot() {
        for (changed, reads) in [(USED, true), (USED & !0x40, false), (USED & !0x20, false)] {
            let mut mmu = mmu(USED);
            let walk = walk(&mmu);
            mmu.memory.store(ENTRY, changed).unwrap();
            mmu.fill(PAGE.page(), &walk, Access::Write, Privilege::User, true);
            let slot = |access| mmu.tlb.slot(View::of(access, Privilege::User), PAGE.page());
            assert_eq!(slot(Access::Read) != 0, reads);
            assert_eq!(slot(Access::Write) != 0, reads);
        }
    }

    #[test]
    fn accessed_bits_are_set_in_the_entry_that_was_walked_only() {
        const UNUSED: u32 = USED & !0x60;
        for (changed, after) in [
            (UNUSED, USED),
            (UNUSED | 0x20, USED),
            (UNUSED | 0x1_0000, UNUSED | 0x1_0000),
            (UNUSED & !1, UNUSED & !1),
        ] {
            let mut mmu = mmu(UNUSED);
            let walk = walk(&mmu);
            mmu.memory.store(ENTRY, changed).unwrap();
            mmu.set_accessed(&walk, Access::Write);
            assert_eq!(mmu.read_phys(ENTRY), Ok(after), "{changed:#x}");
        }
    }
}
