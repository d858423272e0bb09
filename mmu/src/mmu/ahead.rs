//! Filling slots ahead of accesses, where a processor might have cached the translations, too: A is set, and D for writes
//! (SDM Vol. 3A, 4.10.2.3 Details of TLB Use). Nothing here sets A or D, or raises a fault.
//!
//! | when                        | which pages                                                   |
//! |-----------------------------|---------------------------------------------------------------|
//! | a program's slot was filled | those around, whose entries lie beside the one just used      |
//! | a page-fault handler ends   | the one that a program has last faulted for                   |

use super::Mmu;
use crate::addr::{LinearAddr, LinearPage};
use crate::memory::RegionKind;
use crate::paging::{self, Access, Privilege, Translation, Walk};
use crate::tlb::View;

/// A page fault of a program, which is likely to repeat the access when the handler has returned.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProgramFault {
    addr: LinearAddr,
    access: Access,
}

impl Mmu {
    /// Notes that an access to data has faulted.
    pub(super) fn note_fault(&mut self, addr: LinearAddr, access: Access, privilege: Privilege) {
        if privilege == Privilege::User && access != Access::Fetch {
            self.program_fault = Some(ProgramFault { addr, access });
        }
    }

    /// Fills the slots of the page of data for which a program has last faulted, if it may access it by now, and maps it in the
    /// window, if there is one that does not show it by itself: to be called when control returns to a program.
    #[inline]
    pub fn fill_after_fault(&mut self) {
        if let Some(fault) = self.program_fault.take() {
            self.follow_fault(fault);
        }
    }

    fn follow_fault(&mut self, ProgramFault { addr, access }: ProgramFault) {
        let page = addr.page();
        if !self.tlb.is_own(page) {
            return;
        }
        let view = View::of(access, Privilege::User);
        if self.tlb.slot(view, page) == 0 {
            let walk = paging::walk(&self.memory, &self.registers, addr);
            let Ok(walk) = walk else { return };
            self.fill_ahead(page, &walk);
        }
        if self.tlb.slot(view, page) != 0 && !self.tlb.shows_slots() {
            self.tlb.map_in_window(page, access);
        }
    }

    /// Fills the empty slots of the pages around `page`, to which `walk` leads, in its page table.
    pub(super) fn fill_around(&mut self, page: LinearPage, walk: &Walk) {
        let read = View::of(Access::Read, Privilege::User);
        let empty = |page| self.tlb.slot(read, page) == 0;
        for (page, walk) in paging::around(&self.memory, &self.registers, page, walk, empty) {
            self.fill_ahead(page, &walk);
        }
    }

    /// Fills the user's slots for data of an own page, to which `walk` leads, as far as the user may access it and A and D are set.
    fn fill_ahead(&mut self, page: LinearPage, walk: &Walk) {
        let Translation {
            phys,
            permissions,
            dirty,
            ..
        } = walk.translation;
        let user = Privilege::User;
        let allows = |access| permissions.allow(access, user, self.paging());
        if allows(Access::Read) && self.memory.region(phys) != RegionKind::Device {
            let writable = dirty && allows(Access::Write);
            self.fill(page, walk, Access::Read, user, writable);
        }
    }
}
