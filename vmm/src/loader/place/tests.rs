use std::slice;

use linux_loader::loader::bootparam::boot_params;
use vm_memory::GuestMemoryMmap;

use super::super::{
    elf::tests::{elf, elf64},
    kernel::tests::{packed_kernel, packed_kernel_64},
};
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

/// Checks a GDT, `code` being the descriptor of its code segment.
fn check_gdt(ram: &GuestMemoryMmap, gdt: DescriptorTable, code: u64) {
    let descriptors: [u64; 4] = ram.read_obj(GuestAddress(gdt.base)).unwrap();
    assert_eq!(descriptors[2..], [code, 0x00cf_9300_0000_ffff]);
    assert_eq!(gdt.limit, 31);
}

/// The memory that the kernel is told of: addresses, sizes and types.
fn memory_map(params: &boot_params) -> Vec<(u64, u64, u32)> {
    params.e820_table[..params.e820_entries.into()]
        .iter()
        .map(|e| (e.addr, e.size, e.r#type))
        .collect()
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
    check_gdt(ram, gdt, 0x00cf_9b00_0000_ffff);
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

    assert_eq!(
        memory_map(&params),
        [
            (0, 0x9fc00, 1),
            (0xf0000, 0x10000, 2),
            (0x10_0000, 31 * MIB as u64, 1)
        ]
    );
    assert_eq!(bytes(&ram, 0x413, 2), [0x7f, 0x02], "639 KiB of low memory");
}

/// The entry point, the tables and boot_params of a kernel for the 64-bit protocol, whose GDT is checked.
fn linux64(ram: &GuestMemoryMmap, entry: EntryPoint) -> (u64, u64, boot_params) {
    let EntryPoint::Linux64 {
        entry,
        boot_params,
        page_tables,
        gdt,
    } = entry
    else {
        panic!("{entry:?}");
    };
    check_gdt(ram, gdt, 0x00af_9b00_0000_ffff);
    let params = ram.read_obj(GuestAddress(boot_params)).unwrap();
    (entry, page_tables, params)
}

/// RAM of 32 MiB from 0 on, and of 8 MiB from 4 GiB on.
fn two_parts() -> GuestMemoryMmap {
    let parts = [
        (GuestAddress(0), 32 * MIB),
        (GuestAddress(1 << 32), 8 * MIB),
    ];
    GuestMemoryMmap::from_ranges(&parts).unwrap()
}

#[test]
fn a_64_bit_kernel_finds_what_the_boot_protocol_promises() {
    let kernel = kernel(packed_kernel_64(Compression::Zstd, 1));
    let ram = two_parts();
    let source = BootSource {
        kernel: &kernel,
        initrd: &[7; 5000],
        cmdline: "console=ttyS0",
    };
    let (entry, tables, params) = linux64(&ram, place(&ram, &[], &source).unwrap());
    assert_eq!(entry, 0x100_0000);
    assert_eq!(bytes(&ram, entry as u32, 300), [0xf4; 300]);
    let mut expected = vec![0; page_tables::len(4) as usize];
    ram.read_slice(&mut expected, GuestAddress(tables)).unwrap();
    let (words, _) = expected.as_chunks::<8>();
    let words: Vec<_> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    assert_eq!(words, page_tables::identity(tables, 4));
    let header = params.hdr;
    assert_eq!({ header.code32_start }, 0, "nobody looks there");
    assert_eq!(header.type_of_loader, 0xff);
    assert_eq!(bytes(&ram, header.cmd_line_ptr, 14), b"console=ttyS0\0");
    assert_eq!({ header.ramdisk_image }, 32 * MIB as u32 - 8192);
    assert_eq!({ header.ramdisk_size }, 5000);
    assert_eq!((params.ext_ramdisk_image, params.ext_ramdisk_size), (0, 0));
    assert_eq!(
        memory_map(&params),
        [
            (0, 0x9fc00, 1),
            (0xf0000, 0x10000, 2),
            (0x10_0000, 31 * MIB as u64, 1),
            (1 << 32, 8 * MIB as u64, 1),
        ]
    );
}

#[test]
fn an_initrd_lies_above_4_gib_only_where_the_kernel_takes_it() {
    let initrd = vec![5; 7 * MIB];
    for (flags, limit) in [(1, 20 * MIB as u64), (3, (1 << 32) + 8 * MIB as u64)] {
        let mut file = packed_kernel_64(Compression::Gzip, flags);
        file[0x22c..0x230].copy_from_slice(&(20 * MIB as u32 - 1).to_le_bytes());
        let kernel = kernel(file);
        let source = |initrd| BootSource {
            kernel: &kernel,
            initrd,
            cmdline: "",
        };
        let ram = two_parts();
        let small = place(&ram, &[], &source(&initrd[..MIB])).unwrap();
        let (_, _, params) = linux64(&ram, small);
        assert_eq!({ params.hdr.ramdisk_image }, 19 * MIB as u32);
        let placed = place(&ram, &[], &source(&initrd));
        if flags & 2 == 0 {
            let error = placed.unwrap_err().to_string();
            assert!(error.ends_with(&format!("and {limit:#x}")), "{error}");
            continue;
        }
        let (_, _, params) = linux64(&ram, placed.unwrap());
        let at = u64::from(params.ext_ramdisk_image) << 32 | u64::from(params.hdr.ramdisk_image);
        assert_eq!(at, (1 << 32) + MIB as u64);
        let mut there = vec![0; initrd.len()];
        ram.read_slice(&mut there, GuestAddress(at)).unwrap();
        assert!(there == initrd);
        let error = place(&ram, &[], &source(&vec![1; 9 * MIB])).unwrap_err();
        assert!(error.to_string().ends_with(&format!("and {limit:#x}")));
    }
}

#[test]
fn a_64_bit_kernel_may_lie_above_4_gib() {
    let kernel = kernel(elf64((1 << 32) + 0x1000, b"code", 0));
    let source = BootSource {
        kernel: &kernel,
        initrd: &[],
        cmdline: "",
    };
    let ram = two_parts();
    let (entry, tables, _) = linux64(&ram, place(&ram, &[], &source).unwrap());
    assert_eq!(entry, (1 << 32) + 0x1000);
    let last = ram.read_obj::<u64>(GuestAddress(tables + page_tables::len(5) - 8));
    assert_eq!(last.unwrap(), ((5 << 30) - (2 << 20)) | 0x83);
    let error = place(&self::ram(2), &[], &source).unwrap_err().to_string();
    assert!(error.contains("p_paddr 0x100001000"), "{error}");
}

#[test]
fn a_64_bit_kernel_that_fills_low_memory_gets_its_tables_above() {
    let kernel = kernel(elf64(0, &[0x5a; 0xa_0000], 0));
    let source = BootSource {
        kernel: &kernel,
        initrd: &[],
        cmdline: "",
    };
    let ram = ram(2);
    let (_, tables, _) = linux64(&ram, place(&ram, &[], &source).unwrap());
    assert!(tables >= HIGH_START && tables % PAGE_SIZE == 0);
    assert!(bytes(&ram, 0, 0xa_0000) == [0x5a; 0xa_0000]);
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
    assert!(u64::from(params.hdr.cmd_line_ptr) >= HIGH_START);
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
