//! [`place`]: the placement of kernel, initrd and parameters in guest RAM.

use std::{ops::Range, os::unix::fs::FileExt as _};

use sbe::cpu::DescriptorTable;
use vm_memory::{
    Address, ByteValued, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError,
    GuestMemoryRegion, bitmap::Bitmap,
};

use super::{
    EntryPoint, Kernel, LoadError, Protocol, bios_data,
    boot_params::{Addresses, GDT, boot_params},
    layout::Layout,
    memory_map::HIGH_START,
    multiboot,
};

/// A kernel with its initrd and command line, to be booted.
#[derive(Clone, Copy, Debug)]
pub struct BootSource<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// The initial RAM disk: cpio archives, one behind the other, or empty. For a Multiboot kernel, its one module.
    pub initrd: &'a [u8],
    /// The kernel command line.
    pub cmdline: &'a str,
}

/// Guest-physical address of boot_params, or of the Multiboot information, if nothing else lies there.
const PARAMS: u32 = 0x1_0000;
/// Guest-physical address of the GDT, if nothing else lies there.
const GDT_AT: u32 = 0x1_1000;
/// Guest-physical address of the command line, if nothing else lies there.
const CMDLINE: u32 = 0x2_0000;
/// Length of the longest command line that is passed on, without the final NUL.
const CMDLINE_ROOM: u32 = 0x7_f000;
const PAGE_SIZE: u64 = 4096;

/// Copies `source` into `ram`, which must begin at guest-physical 0 and be zero from 1 MiB on, as new memory is. `taken` are
/// guest-physical ranges that hold something else.
///
/// # Errors
/// See [`LoadError`]; `ram` may have been written in part.
pub fn place(
    ram: &impl GuestMemoryBackend,
    taken: &[Range<u64>],
    source: &BootSource<'_>,
) -> Result<EntryPoint, LoadError> {
    let ram_end = ram_end(ram);
    let mut layout = Layout::new(ram_end, taken);
    check_cmdline(source)?;
    place_kernel(ram, ram_end, &mut layout, source.kernel)?;
    bios_data::write(ram, &layout)?;
    match source.kernel.protocol() {
        Protocol::Linux => place_for_linux(ram, ram_end, &mut layout, source),
        Protocol::Multiboot => place_for_multiboot(ram, ram_end, &mut layout, source),
    }
}

/// Returns the first guest-physical address behind RAM, which ends below 4 GiB.
fn ram_end(ram: &impl GuestMemoryBackend) -> u32 {
    u32::try_from(ram.last_addr().raw_value().saturating_add(1)).unwrap_or(u32::MAX)
}

fn check_cmdline(source: &BootSource<'_>) -> Result<(), LoadError> {
    let limit = source.kernel.cmdline_size().min(CMDLINE_ROOM);
    let len = source.cmdline.len();
    if len > limit as usize {
        return Err(LoadError::CommandLine { len, limit });
    }
    match source.cmdline.contains('\0') {
        true => Err(LoadError::CommandLineNul),
        false => Ok(()),
    }
}

/// Copies the kernel's segments to their physical addresses.
fn place_kernel(
    ram: &impl GuestMemoryBackend,
    ram_end: u32,
    layout: &mut Layout,
    kernel: &Kernel,
) -> Result<(), LoadError> {
    let mut segments = Vec::new();
    for segment in &kernel.image().segments {
        let range = u64::from(segment.paddr)..segment.end();
        if !layout.is_ram(&range) {
            let segment = segment.clone();
            return Err(LoadError::Segment { segment, ram_end });
        }
        if let Some(other) = layout.in_the_way(&range) {
            return Err(LoadError::SegmentOverlap {
                segment: segment.clone(),
                other: other.clone(),
            });
        }
        let bytes = &kernel.file()[segment.file.clone()];
        copy(ram, bytes, GuestAddress(range.start))?;
        segments.push(range);
    }
    // A kernel's own segments may overlap.
    for range in segments {
        layout.take(range);
    }
    Ok(())
}

/// Places what Linux's 32-bit boot protocol asks for.
fn place_for_linux(
    ram: &impl GuestMemoryBackend,
    ram_end: u32,
    layout: &mut Layout,
    source: &BootSource<'_>,
) -> Result<EntryPoint, LoadError> {
    let kernel = source.kernel;
    let entry = kernel.image().entry;
    let mut room = |what, preferred, len: usize| {
        let at = layout.take_near(preferred, len as u64);
        at.ok_or(LoadError::NoRoom { what, len })
    };
    let cmdline_bytes = [source.cmdline.as_bytes(), &[0]].concat();
    let gdt_bytes = GDT.map(u64::to_le_bytes);
    let params_at = room("boot_params", PARAMS, PAGE_SIZE as usize)?;
    let gdt_at = room("the GDT", GDT_AT, size_of_val(&GDT))?;
    let cmdline = room("the command line", CMDLINE, cmdline_bytes.len())?;
    let limit = u64::from(ram_end).min(u64::from(kernel.initrd_addr_max()) + 1);
    let initrd = place_initrd(ram, layout, source, limit, Layout::take_highest)?;
    let addresses = Addresses {
        entry,
        cmdline,
        initrd,
        ram_end,
    };
    let params = boot_params(kernel.header(), &addresses);
    ram.write_slice(params.as_slice(), GuestAddress(params_at.into()))?;
    ram.write_slice(gdt_bytes.as_flattened(), GuestAddress(gdt_at.into()))?;
    ram.write_slice(&cmdline_bytes, GuestAddress(cmdline.into()))?;
    Ok(EntryPoint::Linux {
        entry,
        boot_params: params_at,
        gdt: DescriptorTable {
            base: gdt_at,
            limit: size_of_val(&GDT) as u16 - 1,
        },
    })
}

/// Places what Multiboot asks for. The initrd is the one module, behind the kernel, where most kernels expect modules.
fn place_for_multiboot(
    ram: &impl GuestMemoryBackend,
    ram_end: u32,
    layout: &mut Layout,
    source: &BootSource<'_>,
) -> Result<EntryPoint, LoadError> {
    let cmdline = source.cmdline.as_bytes();
    let module = place_initrd(ram, layout, source, ram_end.into(), Layout::take_lowest)?;
    let len = multiboot::info(0, ram_end, cmdline, module.clone()).len();
    let info = layout
        .take_near(PARAMS, len as u64)
        .ok_or(LoadError::NoRoom {
            what: "the Multiboot information",
            len,
        })?;
    let bytes = multiboot::info(info, ram_end, cmdline, module);
    ram.write_slice(&bytes, GuestAddress(info.into()))?;
    let entry = source.kernel.image().entry;
    Ok(EntryPoint::Multiboot { entry, info })
}

/// Returns the lowest address that an initrd may have; the last of all if a header's addresses leave no room.
fn initrd_start(kernel: &Kernel) -> u64 {
    let end = kernel.end().max(HIGH_START.into());
    end.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX)
}

/// Copies the initrd to pages below `limit`, which `take` chooses, and returns its range. `limit` is the end of RAM at most.
fn place_initrd(
    ram: &impl GuestMemoryBackend,
    layout: &mut Layout,
    source: &BootSource<'_>,
    limit: u64,
    take: impl FnOnce(&mut Layout, u64, u64, Range<u64>) -> Option<u64>,
) -> Result<Range<u32>, LoadError> {
    let BootSource { kernel, initrd, .. } = *source;
    if initrd.is_empty() {
        return Ok(0..0);
    }
    let len = initrd.len();
    let kernel_end = initrd_start(kernel);
    let no_room = LoadError::Initrd {
        len,
        kernel_end,
        limit,
    };
    let start = take(layout, len as u64, PAGE_SIZE, kernel_end..limit).ok_or(no_room)?;
    copy(ram, initrd, GuestAddress(start))?;
    // In RAM, which ends below 4 GiB.
    let start = start as u32;
    Ok(start..start + len as u32)
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

#[cfg(test)]
mod tests {
    use std::slice;

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

    /// The first instruction and boot_params of a kernel for Linux's protocol, whose GDT is checked.
    fn linux(ram: &GuestMemoryMmap, entry: EntryPoint) -> (u32, boot_params) {
        let EntryPoint::Linux {
            entry,
            boot_params,
            gdt,
        } = entry
        else {
            panic!("{entry:?}");
        };
        let descriptors: [u64; 4] = ram.read_obj(GuestAddress(gdt.base.into())).unwrap();
        assert_eq!(
            descriptors[2..],
            [0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff]
        );
        assert_eq!(gdt.limit, 31);
        (
            entry,
            ram.read_obj(GuestAddress(boot_params.into())).unwrap(),
        )
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
        let (entry, params) = linux(&ram, place(&ram, &[], &source).unwrap());
        assert_eq!(bytes(&ram, entry, 300), [0xf4; 300]);
        let header = params.hdr;
        assert_eq!({ header.code32_start }, entry);
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
        place(&ram, &[], &source(&large[1..])).unwrap();
        let params: boot_params = ram.read_obj(GuestAddress(PARAMS.into())).unwrap();
        assert_eq!({ params.hdr.ramdisk_image }, 17 * MIB as u32);
        let error = place(&ram, &[], &source(&large)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "initrd of 1048577 bytes does not fit between the kernel's end 0x1100000 and 0x1200000"
        );
    }

    #[test]
    fn a_wild_working_space_leaves_no_room_for_an_initrd() {
        let mut file = packed_kernel(Compression::Gzip);
        file[0x258..0x260].fill(0xff); // pref_address
        let kernel = kernel(file);
        let source = BootSource {
            kernel: &kernel,
            initrd: &[1],
            cmdline: "",
        };
        let error = place(&ram(32), &[], &source).unwrap_err().to_string();
        assert_eq!(
            error,
            "initrd of 1 bytes does not fit between the kernel's end 0xffffffffffffffff and 0x2000000"
        );
    }

    #[test]
    fn wild_segments_are_refused() {
        for paddr in [0x9_fffd, 0xa_0000, 0xf_ffff, 2 * MIB as u32, 0xffff_0000] {
            let kernel = kernel(elf(paddr, b"code", 0));
            let source = BootSource {
                kernel: &kernel,
                initrd: &[],
                cmdline: "",
            };
            let error = place(&ram(2), &[], &source).unwrap_err().to_string();
            assert!(error.contains(&format!("p_paddr {paddr:#x}")), "{error}");
        }
        let kernel = kernel(elf(0x10_0000, b"code", MIB as u32));
        let source = BootSource {
            kernel: &kernel,
            initrd: &[],
            cmdline: "",
        };
        assert!(matches!(
            place(&ram(2), &[], &source),
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
        place(&ram(2), &[], &source(&long[1..])).unwrap();
        let error = place(&ram(2), &[], &source(&long)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "kernel command line of 2048 bytes is longer than the kernel's limit of 2047"
        );
        assert!(matches!(
            place(&ram(2), &[], &source("a\0b")),
            Err(LoadError::CommandLineNul)
        ));
    }

    #[test]
    fn segments_may_lie_anywhere_in_low_memory() {
        for paddr in [0, 0x400, 0xff00, 0x1_0000, 0x1_1010, 0x2_0003, 0x9_d000] {
            let code = vec![0x5a; 0x3000];
            let kernel = kernel(elf(paddr, &code, 0));
            let source = BootSource {
                kernel: &kernel,
                initrd: &[3; 10],
                cmdline: "quiet",
            };
            let ram = ram(2);
            let (entry, params) = linux(&ram, place(&ram, &[], &source).unwrap());
            assert_eq!(entry, paddr);
            assert!(bytes(&ram, paddr, code.len()) == code, "{paddr:#x}");
            assert_eq!(
                bytes(&ram, params.hdr.cmd_line_ptr, 6),
                b"quiet\0",
                "{paddr:#x}"
            );
            assert_eq!(bytes(&ram, params.hdr.ramdisk_image, 10), [3; 10]);
            let is_covered = (paddr..paddr + 0x3000).contains(&0x413);
            assert_eq!(
                bytes(&ram, 0x413, 2) == [0x7f, 0x02],
                !is_covered,
                "{paddr:#x}"
            );
        }
    }

    #[test]
    fn a_kernel_that_fills_low_memory_gets_its_parameters_above() {
        let kernel = kernel(elf(0, &[0x5a; 0xa_0000], 0));
        let source = BootSource {
            kernel: &kernel,
            initrd: &[],
            cmdline: "",
        };
        let ram = ram(2);
        let (_, params) = linux(&ram, place(&ram, &[], &source).unwrap());
        assert!({ params.hdr.cmd_line_ptr } >= HIGH_START);
        assert!(bytes(&ram, 0, 0xa_0000) == [0x5a; 0xa_0000]);
        let one = self::ram(1);
        let error = place(&one, &[], &source).unwrap_err().to_string();
        assert_eq!(
            error,
            "the kernel leaves no room for boot_params, 4096 bytes"
        );
    }

    #[test]
    fn what_was_there_before_is_avoided_or_named() {
        let kernel = kernel(elf(0x10_0000, b"code", 0));
        let source = BootSource {
            kernel: &kernel,
            initrd: &[1; 100],
            cmdline: "",
        };
        let ram = ram(2);
        let taken = [0x400..0x500, 0x1_0000..0x3_0000, 0x1f_f000..0x20_0000];
        let (_, params) = linux(&ram, place(&ram, &taken, &source).unwrap());
        assert_eq!({ params.hdr.cmd_line_ptr }, 0x2020);
        assert_eq!({ params.hdr.ramdisk_image }, 0x1f_e000);
        assert_eq!(bytes(&ram, 0x413, 2), [0, 0]);
        let inside = 0x10_0003..0x10_0010;
        let error = place(&ram, slice::from_ref(&inside), &source).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ELF segment 0: p_paddr 0x100000 and p_memsz 0x4 overlap the ROM from 0x100003 to 0x100010"
        );
    }

    #[test]
    fn a_multiboot_kernel_finds_its_module_behind_it() {
        let mut file = elf(0x10_0000, &[0xf4; 0x1001], 0);
        // Flags 0, in the segment.
        file[100..112].copy_from_slice(
            [0x1bad_b002, 0, 0xe452_4ffe]
                .map(u32::to_le_bytes)
                .as_flattened(),
        );
        let kernel = kernel(file);
        let module = vec![9; 5000];
        let source = BootSource {
            kernel: &kernel,
            initrd: &module,
            cmdline: "verbose",
        };
        let ram = ram(2);
        let entry = place(&ram, &[], &source).unwrap();
        let EntryPoint::Multiboot { entry, info } = entry else {
            panic!("{entry:?}");
        };
        assert_eq!(entry, 0x10_0000);
        let word = |at: u32| ram.read_obj::<u32>(GuestAddress(at.into())).unwrap();
        assert_eq!(word(info + 8), 1 << 10, "mem_upper in KiB");
        assert_eq!(bytes(&ram, word(info + 16), 8), b"verbose\0");
        let modules = word(info + 24);
        assert_eq!(
            (word(modules), word(modules + 4)),
            (0x10_2000, 0x10_2000 + 5000)
        );
        assert!(bytes(&ram, 0x10_2000, 5000) == module);
        let large = vec![9; MIB];
        let source = BootSource {
            initrd: &large,
            ..source
        };
        let error = place(&ram, &[], &source).unwrap_err().to_string();
        assert!(error.starts_with("initrd of 1048576 bytes"), "{error}");
    }

    #[test]
    fn a_bzimage_without_payload_is_placed_as_it_is() {
        let mut file = packed_kernel(Compression::Gzip);
        file[0x24c..0x250].fill(0);
        let code = file[1024..].to_vec();
        let kernel = kernel(file);
        let source = BootSource {
            kernel: &kernel,
            initrd: &[],
            cmdline: "",
        };
        let ram = ram(18);
        let (entry, params) = linux(&ram, place(&ram, &[], &source).unwrap());
        assert_eq!((entry, { params.hdr.code32_start }), (0x10_0000, 0x10_0000));
        assert!(bytes(&ram, entry, code.len()) == code);
        let error = place(&self::ram(1), &[], &source).unwrap_err().to_string();
        assert!(
            error.starts_with("protected-mode code of the bzImage: load address 0x100000"),
            "{error}"
        );
    }
}
