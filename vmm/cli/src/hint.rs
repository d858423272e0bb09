//! What helps against an error, where that is known.

use vmm::{
    VmError,
    loader::{BzImageError, Foreign, KernelError, LoadError},
    mmu::MAX_LOW_RAM,
};

/// The way to start code without a header.
const CODE: &str = "code without a header starts by --rom FILE@ADDR --entry ADDR";
/// The length of a boot sector, which every bzImage begins with, in bytes.
const SECTOR: usize = 512;

/// Returns a hint for whoever has caused `error`.
pub fn hint(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        let kernel = cause.downcast_ref().and_then(kernel_hint);
        kernel.or_else(|| cause.downcast_ref().and_then(machine_hint))
    })
}

fn kernel_hint(error: &KernelError) -> Option<&'static str> {
    match error {
        KernelError::BzImage(BzImageError::Header(_)) => {
            Some("a boot sector starts by --rom FILE@0x7c00 --entry real:0:7c00")
        }
        KernelError::BzImage(BzImageError::BootFlag(_)) => Some(CODE),
        KernelError::BzImage(BzImageError::Truncated { len, .. }) if *len < SECTOR => Some(CODE),
        KernelError::Foreign(Foreign::Cpio) => Some("initrds are given by --initrd"),
        _ => None,
    }
}

fn machine_hint(error: &VmError) -> Option<&'static str> {
    match error {
        VmError::Load(LoadError::Segment { segment, .. }) if segment.end() <= MAX_LOW_RAM => {
            Some("the kernel needs more memory (-m, --memory)")
        }
        VmError::Load(LoadError::NothingAtEntry { .. }) => Some(
            "the reset vector is in a ROM that ends at 4 GiB, such as --rom FILE@0xffff0000 of 64 KiB; --entry starts elsewhere",
        ),
        _ => None,
    }
}
