//! The placement of kernel, initrd and boot_params in guest RAM.

use std::{ops::Range, os::unix::fs::FileExt as _};

use thiserror::Error;
use vm_memory::{
    Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion,
    bitmap::Bitmap,
};

use super::{
    Kernel,
    boot_params::{self, BOOT_PARAMS, CMDLINE_ROOM, HIGH_START},
};

/// A kernel with its initrd and command line, to be booted.
#[derive(Clone, Copy, Debug)]
pub struct BootSource<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// The initial RAM disk: cpio archives, one behind the other, or empty.
    pub initrd: &'a [u8],
    /// The kernel command line.
    pub cmdline: &'a str,
}

/// The registers with which the kernel is entered (boot.rst, "32-bit Boot Protocol").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryPoint {
    /// Guest-physical address of the first instruction, for EIP.
    pub entry: u32,
    /// Guest-physical address of boot_params, for ESI.
    pub boot_params: u32,
}

/// A reason why a kernel cannot be placed in the guest's memory.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A segment of the kernel lies outside RAM or in the first mebibyte.
    #[error(
        "ELF segment {index}: p_paddr {paddr:#x} and p_memsz {memsz:#x} are not within the guest's memory, \
         0x100000 to {ram_end:#x}"
    )]
    Segment {
        /// Number of the program header, from 0.
        index: usize,
        /// `p_paddr`.
        paddr: u32,
        /// `p_memsz`.
        memsz: u32,
        /// First guest-physical address behind RAM.
        ram_end: u32,
    },
    /// There is no room for the initrd.
    #[error(
        "initrd of {len} bytes does not fit between the kernel's end {kernel_end:#x} and {limit:#x}"
    )]
    Initrd {
        /// Length of the initrd in bytes.
        len: usize,
        /// First address that the kernel leaves free.
        kernel_end: u64,
        /// First address behind what the initrd may occupy.
        limit: u64,
    },
    /// The command line is longer than the kernel takes.
    #[error("kernel command line of {len} bytes is longer than the kernel's limit of {limit}")]
    CommandLine {
        /// Length of the command line in bytes.
        len: usize,
        /// The kernel's `cmdline_size`.
        limit: u32,
    },
    /// The command line holds a zero byte, which would end it.
    #[error("kernel command line holds a zero byte")]
    CommandLineNul,
    /// Guest RAM is smaller than a mebibyte or does not begin at 0.
    #[error("guest memory: {0}")]
    Memory(GuestMemoryError),
}

impl From<GuestMemoryError> for LoadError {
    fn from(error: GuestMemoryError) -> Self {
        Self::Memory(error)
    }
}

const PAGE_SIZE: u64 = 4096;

/// Copies `source` into `ram`, which must begin at guest-physical 0 and be zero from 1 MiB on, as new memory is.
///
/// # Errors
/// See [`LoadError`]; `ram` may have been written in part.
pub fn place(
    ram: &impl GuestMemoryBackend,
    source: &BootSource<'_>,
) -> Result<EntryPoint, LoadError> {
    let ram_end = ram_end(ram);
    let limit = source.kernel.cmdline_size().min(CMDLINE_ROOM);
    let cmdline = source.cmdline.as_bytes();
    if cmdline.len() > limit as usize {
        let len = cmdline.len();
        return Err(LoadError::CommandLine { len, limit });
    }
    if cmdline.contains(&0) {
        return Err(LoadError::CommandLineNul);
    }
    place_kernel(ram, ram_end, source.kernel)?;
    let initrd = place_initrd(ram, ram_end, source.kernel, source.initrd)?;
    boot_params::write(ram, ram_end, source.kernel.header(), cmdline, initrd)?;
    Ok(EntryPoint {
        entry: source.kernel.elf().entry,
        boot_params: BOOT_PARAMS,
    })
}

/// Returns the first guest-physical address behind RAM, which ends below 4 GiB.
fn ram_end(ram: &impl GuestMemoryBackend) -> u32 {
    u32::try_from(ram.last_addr().raw_value().saturating_add(1)).unwrap_or(u32::MAX)
}

/// Copies the kernel's segments to their physical addresses.
fn place_kernel(
    ram: &impl GuestMemoryBackend,
    ram_end: u32,
    kernel: &Kernel,
) -> Result<(), LoadError> {
    for segment in &kernel.elf().segments {
        if segment.paddr < HIGH_START || segment.end() > ram_end.into() {
            return Err(LoadError::Segment {
                index: segment.index,
                paddr: segment.paddr,
                memsz: segment.memsz,
                ram_end,
            });
        }
        let bytes = &kernel.file()[segment.file.clone()];
        copy(ram, bytes, GuestAddress(segment.paddr.into()))?;
    }
    Ok(())
}

/// Copies `bytes` to `start`, through the file that the memory is mapped from if there is one: that saves a page fault for
/// each page.
fn copy(
    ram: &impl GuestMemoryBackend,
    bytes: &[u8],
    start: GuestAddress,
) -> Result<(), GuestMemoryError> {
    let region = ram
        .to_region_addr(start)
        .filter(|(region, at)| region.len() - at.raw_value() >= bytes.len() as u64);
    let file =
        region.and_then(|(region, at)| Some((region, region.file_offset()?, at.raw_value())));
    let Some((region, place, at)) = file else {
        return ram.write_slice(bytes, start);
    };
    place
        .file()
        .write_all_at(bytes, place.start() + at)
        .map_err(GuestMemoryError::IOError)?;
    region.bitmap().mark_dirty(at as usize, bytes.len());
    Ok(())
}

/// Copies the initrd to the highest pages allowed and returns its range.
fn place_initrd(
    ram: &impl GuestMemoryBackend,
    ram_end: u32,
    kernel: &Kernel,
    initrd: &[u8],
) -> Result<Range<u32>, LoadError> {
    if initrd.is_empty() {
        return Ok(0..0);
    }
    let kernel_end = kernel.end().next_multiple_of(PAGE_SIZE);
    let limit = u64::from(ram_end).min(u64::from(kernel.initrd_addr_max()) + 1);
    let start = limit
        .checked_sub(initrd.len() as u64)
        .map(|start| start & !(PAGE_SIZE - 1))
        .filter(|&start| start >= kernel_end)
        .ok_or(LoadError::Initrd {
            len: initrd.len(),
            kernel_end,
            limit,
        })?;
    copy(ram, initrd, GuestAddress(start))?;
    // Below `limit`, hence below 4 GiB.
    let start = start as u32;
    Ok(start..start + initrd.len() as u32)
}

#[cfg(test)]
mod tests {
    use linux_loader::loader::bootparam::boot_params;
    use vm_memory::GuestMemoryMmap;

    use super::super::{elf::tests::elf, kernel::tests::packed_kernel};
    use super::*;
    use crate::loader::Compression;

    const MIB: usize = 1 << 20;

    fn ram(mib: usize) -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), mib * MIB)]).unwrap()
    }

    fn kernel(file: Vec<u8>) -> Kernel {
        Kernel::read(file, None, &mut |_| ()).unwrap()
    }

    fn bytes(ram: &GuestMemoryMmap, at: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        ram.read_slice(&mut bytes, GuestAddress(at.into())).unwrap();
        bytes
    }

    #[test]
    fn the_kernel_finds_what_the_boot_protocol_promises() {
        let kernel = kernel(packed_kernel(Compression::Zstd));
        let ram = ram(32);
        let initrd = [7; 5000];
        let source = BootSource {
            kernel: &kernel,
            initrd: &initrd,
            cmdline: "console=ttyS0",
        };
        let entry = place(&ram, &source).unwrap();
        assert_eq!(bytes(&ram, entry.entry, 300), [0xf4; 300]);

        let params: boot_params = ram
            .read_obj(GuestAddress(entry.boot_params.into()))
            .unwrap();
        let header = params.hdr;
        assert_eq!({ header.header }, u32::from_le_bytes(*b"HdrS"));
        assert_eq!(
            { header.init_size },
            0x10_0000,
            "the header is the kernel's own"
        );
        assert_eq!(header.type_of_loader, 0xff);
        assert_eq!(bytes(&ram, header.cmd_line_ptr, 14), b"console=ttyS0\0");
        assert_eq!({ header.ramdisk_size }, 5000);
        assert_eq!(
            { header.ramdisk_image },
            32 * MIB as u32 - 8192,
            "the highest pages"
        );
        assert_eq!(bytes(&ram, header.ramdisk_image, 5000), initrd);

        let map: Vec<_> = params.e820_table[..params.e820_entries.into()]
            .iter()
            .map(|e| (e.addr, e.size, e.r#type))
            .collect();
        assert_eq!(
            map,
            [
                (0, 0x9fc00, 1),
                (0xf0000, 0x10000, 2),
                (0x10_0000, 31 * MIB as u64, 1)
            ]
        );
        assert_eq!(bytes(&ram, 0x413, 2), [0x7f, 0x02], "639 KiB of low memory");
    }

    #[test]
    fn an_initrd_stays_below_the_kernel_s_limit_and_above_its_end() {
        let mut file = packed_kernel(Compression::Gzip);
        // initrd_addr_max: 18 MiB - 1; the kernel's end is 17 MiB.
        file[0x22c..0x230].copy_from_slice(&(18 * MIB as u32 - 1).to_le_bytes());
        let kernel = kernel(file);
        let source = |initrd| BootSource {
            kernel: &kernel,
            initrd,
            cmdline: "",
        };
        let ram = ram(32);
        let large = vec![1; MIB + 1];
        place(&ram, &source(&large[1..])).unwrap();
        let params: boot_params = ram.read_obj(GuestAddress(BOOT_PARAMS.into())).unwrap();
        assert_eq!({ params.hdr.ramdisk_image }, 17 * MIB as u32);
        let error = place(&ram, &source(&large)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "initrd of 1048577 bytes does not fit between the kernel's end 0x1100000 and 0x1200000"
        );
    }

    #[test]
    fn wild_segments_are_refused() {
        for paddr in [0, 0x9_0000, 0xf_ffff, 2 * MIB as u32, 0xffff_0000] {
            let kernel = kernel(elf(paddr, b"code", 0));
            let source = BootSource {
                kernel: &kernel,
                initrd: &[],
                cmdline: "",
            };
            let error = place(&ram(2), &source).unwrap_err().to_string();
            assert!(error.contains(&format!("p_paddr {paddr:#x}")), "{error}");
        }
        let kernel = kernel(elf(0x10_0000, b"code", MIB as u32));
        let source = BootSource {
            kernel: &kernel,
            initrd: &[],
            cmdline: "",
        };
        assert!(matches!(
            place(&ram(2), &source),
            Err(LoadError::Segment { .. })
        ));
    }

    #[test]
    fn the_command_line_has_a_limit() {
        let kernel = kernel(elf(0x10_0000, b"code", 0));
        let source = |cmdline| BootSource {
            kernel: &kernel,
            initrd: &[],
            cmdline,
        };
        let long = "x".repeat(2048);
        place(&ram(2), &source(&long[1..])).unwrap();
        let error = place(&ram(2), &source(&long)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "kernel command line of 2048 bytes is longer than the kernel's limit of 2047"
        );
        assert!(matches!(
            place(&ram(2), &source("a\0b")),
            Err(LoadError::CommandLineNul)
        ));
    }
}
