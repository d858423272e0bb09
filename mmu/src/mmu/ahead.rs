//! Filling the slots of pages that a program is about to access, so that its window shows them without an exit.

use super::Mmu;
use crate::addr::{LinearAddr, LinearPage};
use crate::memory::RegionKind;
use crate::paging::{self, ACCESSED, Access, Privilege, Translation};
use crate::tlb::View;

/// The pages whose slots are filled at a time: those that the host's kernel module shows at a time (`REPLEX_AROUND_MAX`).
const GROUP: u32 = 16;

impl Mmu {
    /// Fills the user's slots of the aligned 16 pages around `addr` where that changes nothing that the guest can see: read slots
    /// of pages whose entries have A set, and write slots where D is set, too. Only for an address space whose window shows what
    /// has slots by itself ([`Tables::shows_slots`](crate::Tables::shows_slots)).
    pub fn fill_ahead(&mut self, addr: LinearAddr) {
        let first = addr.page().get() & !(GROUP - 1);
        for page in (first..first + GROUP).map(LinearPage::truncated) {
            let view = View::of(Access::Read, Privilege::User);
            if self.tlb.is_own(page) && self.tlb.slot(view, page) == 0 {
                self.fill_page_ahead(page);
            }
        }
    }

    fn fill_page_ahead(&mut self, page: LinearPage) {
        let walk = paging::walk(&self.memory, &self.paging, &self.pdptes, page.base());
        let Ok(walk) = walk else { return };
        let Translation {
            phys,
            permissions,
            dirty,
            ..
        } = walk.translation;
        let allows = |access| permissions.allow(access, Privilege::User, &self.paging);
        let accessed = walk.trail.iter().all(|step| step.value & ACCESSED != 0);
        if !accessed || !allows(Access::Read) || self.memory.region(phys) == RegionKind::Device {
            return;
        }
        let writable = dirty && allows(Access::Write);
        self.fill(page, &walk, Access::Read, Privilege::User, writable);
    }
}
