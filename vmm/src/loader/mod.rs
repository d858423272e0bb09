//! The loader: puts a kernel straight into guest memory, with no BIOS in between.
//!
//! ```text
//!  file ──► bzimage (setup header) ─┬─ payload ──► unpack ──► cache ─┐
//!    │                              └─ without one, as it is ───────┼──► image ──► place ──► entry
//!    ├────► multiboot (header) ──────────────────────────────┐      │      ROMs ──► rom ──────┘
//!    └────────────────────────────────────────────────────── elf ───┘
//!
//!  guest-physical memory as the kernel finds it; what its segments cover lies elsewhere
//!  0x0000_0400  BIOS data area                                   bios_data.rs
//!  0x0001_0000  boot_params (zero page), or Multiboot information boot_params.rs, multiboot/info.rs
//!  0x0001_1000  GDT                                              boot_params.rs
//!  0x0002_0000  command line                                     place.rs
//!  0x0010_0000… kernel segments, p_paddr                         elf.rs
//!  …            initrd, as high as it may; a Multiboot module, behind the kernel
//! ```
//!
//! Everything read from a file is checked before it is used: whatever the bytes are, the result is a loaded kernel or an
//! error that names the bad field, never a panic and never a store outside guest RAM.

mod bios_data;
mod boot_params;
mod bzimage;
mod cache;
mod cmdline;
mod elf;
mod entry;
mod foreign;
mod image;
mod kernel;
mod layout;
mod load_error;
mod memory_map;
mod multiboot;
mod place;
pub(crate) mod rom;
mod unpack;

pub use bzimage::{BzImage, BzImageError};
pub use cache::Cache;
pub use cmdline::linux_cmdline;
pub use elf::ElfError;
pub use entry::{Entry, EntryParseError, EntryPoint};
pub use foreign::Foreign;
pub use image::{Image, Origin, Segment};
pub use kernel::{Kernel, KernelError, Protocol};
pub use load_error::LoadError;
pub use multiboot::MultibootError;
pub use place::{BootSource, place};
pub use rom::Rom;
pub use unpack::{Compression, UnpackError, unpack};
