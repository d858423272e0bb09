//! Tests of the MMU through its public interface.

mod access;
mod ahead;
mod aliases;
mod code;
mod four_level;
mod guest;
mod high;
mod mappings;
mod memory;
mod model;
mod oracle;
mod pdpte;
mod random;
mod regions;
mod sharing;
mod spaces;
mod spaces_random;
mod span;
mod tlb;

/// A virtual machine may move to the thread that runs it.
const _: fn() = || {
    fn sendable<T: Send>() {}
    sendable::<::mmu::Mmu>();
};
