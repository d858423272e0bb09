//! The loader: puts a kernel straight into guest memory, with no BIOS in between.
//!
//! ```text
//!  file ──► bzimage (setup header, payload) ──► unpack ──► cache ─┐
//!    └────────────────── ELF32 given directly ────────────────────┴─► elf ──► place
//!
//!  guest-physical memory as the kernel finds it
//!  0x0000_0400  BIOS data area            boot_params.rs
//!  0x0001_0000  boot_params (zero page)   boot_params.rs
//!  0x0002_0000  command line              boot_params.rs
//!  0x0010_0000… kernel segments, p_paddr  elf.rs
//!  …            initrd, as high as it may place.rs
//! ```
//!
//! Everything read from a file is checked before it is used: whatever the bytes are, the result is a loaded kernel or an
//! error that names the bad field, never a panic and never a store outside guest RAM.

mod boot_params;
mod bzimage;
mod cache;
mod cmdline;
mod elf;
mod kernel;
mod place;
mod unpack;

pub use bzimage::{BzImage, BzImageError};
pub use cache::Cache;
pub use cmdline::linux_cmdline;
pub use elf::{Elf32, ElfError, Segment};
pub use kernel::{Kernel, KernelError};
pub use place::{BootSource, EntryPoint, LoadError, place};
pub use unpack::{Compression, UnpackError, unpack};
