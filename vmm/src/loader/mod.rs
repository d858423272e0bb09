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
//!  0x0001_2000  page tables of a 64-bit kernel                   page_tables.rs
//!  0x0002_0000  command line                                     place.rs
//!  0x0010_0000… kernel segments, p_paddr                         elf.rs
//!  …            initrd, as high as it may; a Multiboot module, behind the kernel
//! ```
//!
//! What a kernel's file is says in which mode it is entered ([`Mode`]): an ELF32, also as a bzImage's payload, in protected mode with
//! paging off, an ELF64 in long mode. The payload is entered where the unpacker in the bzImage would enter it: in `startup_32` or
//! `startup_64` of the kernel's arch/x86/kernel, which ask for the same registers and tables as the boot protocols.
//!
//! Everything read from a file is checked before it is used: whatever the bytes are, the result is a loaded kernel or an
//! error that names the bad field, never a panic and never a store outside guest RAM.

mod bios_data;
mod boot_params;
mod bzimage;
mod cache;
mod cmdline;
mod elf;
mod elf_class;
mod entry;
mod foreign;
mod image;
mod kernel;
mod layout;
mod load_error;
mod memory_map;
mod multiboot;
mod page_tables;
mod place;
mod ram;
pub(crate) mod rom;
mod unpack;

pub use bzimage::{BzImage, BzImageError};
pub use cache::Cache;
pub use cmdline::linux_cmdline;
pub use elf::ElfError;
pub use entry::{Entry, EntryParseError, EntryPoint};
pub use foreign::Foreign;
pub use image::{Image, Mode, Origin, Segment};
pub use kernel::{Kernel, KernelError, Protocol};
pub use load_error::LoadError;
pub use multiboot::MultibootError;
pub use place::{BootSource, place};
pub use ram::Ram;
pub use rom::Rom;
pub use unpack::{Compression, UnpackError, unpack};
