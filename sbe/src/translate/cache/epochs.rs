//! [`Epochs`]: the circumstances under which emitted code holds.

use mmu::{Mmu, Privilege};

/// The MMU's epochs when emitted code ran last: return addresses on its stacks hold under the same only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Epochs {
    /// The epochs of the fetch slots, by privilege.
    fetch: [u64; 2],
    /// The epoch of the fetch slots that all spaces share.
    pub shared: u64,
    /// The epoch of stores to code.
    pub code: u64,
}

impl Epochs {
    /// The present epochs.
    pub fn now(mmu: &Mmu) -> Self {
        Self {
            fetch: [
                mmu.tlb().fetch_epoch(Privilege::Supervisor),
                mmu.tlb().fetch_epoch(Privilege::User),
            ],
            shared: mmu.tlb().shared_fetch_epoch(),
            code: mmu.code_epoch(),
        }
    }
}
