//! The choice of the kernel.

use std::path::PathBuf;

use clap::Args;
use guest_kernels::Guest;

/// The kernel and what it is told.
#[derive(Args, Debug)]
#[command(next_help_heading = "Kernel")]
pub struct KernelArgs {
    /// Kernel to boot: a bzImage for i386 or x86-64, a Multiboot kernel (version 1), or an ELF file entered by Linux's 32-bit or
    /// 64-bit boot protocol. Default: the guest's.
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Put this at the end of the kernel command line; of a Multiboot kernel it is the whole.
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// Distribution kernel to fetch, if it is not in the cache yet, and boot: debian-686, debian-686-pae or debian-amd64. Default:
    /// debian-686, or debian-amd64 for a root with 64-bit programs.
    #[arg(long, value_name = "NAME", conflicts_with = "kernel")]
    pub guest: Option<Guest>,
}

impl KernelArgs {
    /// Names the kernel for messages.
    pub fn what(&self) -> String {
        match &self.kernel {
            Some(path) => format!("kernel {}", path.display()),
            None => format!("guest {}", self.guest.unwrap_or_default()),
        }
    }
}
