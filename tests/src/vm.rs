//! Tests in the virtual machine of `tests/kmod`: QEMU's translator, with the host's kernel module loaded.

use std::{env, sync::Arc};

use mmu::{Kmod, LinearWidth, Memory, Mmu, PagingModel};

/// Environment variable that says, by the value 1, that tests run in that machine.
const IN_VM: &str = "REPLEX_TESTS_IN_VM";

/// Whether this runs in that machine.
pub fn is_vm() -> bool {
    env::var_os(IN_VM).is_some_and(|value| value == "1")
}

/// An MMU of `memory`, whose windows, if `model` can have any, the module fills if this runs in that machine.
///
/// # Panics
/// If there is no memory for its tables, or the module cannot be used there.
pub fn mmu(memory: Arc<Memory>, model: PagingModel) -> Mmu {
    let has_windows = model.linear_width == LinearWidth::Bits32;
    let kmod = (is_vm() && has_windows)
        .then(|| Kmod::open(Kmod::PATH.as_ref(), &memory).expect("the module"));
    let mut mmu = Mmu::with_model(memory, model).expect("tables");
    if let Some(kmod) = kmod {
        mmu.tlb_mut().use_kmod(kmod);
    }
    mmu
}

/// Faults of a machine's programs that the module has served.
pub fn served(mmu: &Mmu) -> u64 {
    let stats = mmu.tlb().kmod().map(|kmod| kmod.stats().expect("counts"));
    stats.map_or(0, |stats| stats.faults + stats.upgrades)
}
