//! The choice of the kernel.

use std::path::PathBuf;

use clap::Args;
use guest_kernels::Guest;

/// The kernel and what it is told.
#[derive(Args, Debug)]
#[command(next_help_heading = "Kernel")]
pub struct KernelArgs {
    /// Kernel to boot: an i386 bzImage, a Multiboot kernel (version 1), or an ELF32 entered by Linux's 32-bit boot protocol.
    /// Default: the guest's.
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Put this at the end of the kernel command line; of a Multiboot kernel it is the whole.
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// Distribution kernel to fetch, if it is not in the cache yet, and boot.
    #[arg(long, value_name = "NAME", default_value_t, conflicts_with = "kernel")]
    pub guest: Guest,
}
