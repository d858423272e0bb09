//! The boot parameters of a Linux kernel: boot_params ("zero page") and the GDT.
//!
//! Documentation/arch/x86/boot.rst, "32-bit Boot Protocol"; Documentation/arch/x86/zero-page.rst.

use std::ops::Range;

use linux_loader::loader::bootparam::{LOADED_HIGH, boot_e820_entry, boot_params, setup_header};

use super::memory_map::memory_map;

const BOOT_FLAG: u16 = 0xaa55;
const HDRS: u32 = u32::from_le_bytes(*b"HdrS");
/// Version of the boot protocol for a kernel without a setup header.
const PROTOCOL: u16 = 0x20f;
/// `type_of_loader` of a loader with no assigned number.
const UNDEFINED_LOADER: u8 = 0xff;

/// The GDT that a kernel may load its segments from: `__BOOT_CS`, selector 0x10, and `__BOOT_DS`, selector 0x18, both flat.
pub(super) const GDT: [u64; 4] = [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// The addresses that boot_params holds, all guest-physical.
pub(super) struct Addresses {
    /// The first instruction.
    pub entry: u32,
    /// The command line.
    pub cmdline: u32,
    /// The initrd, or empty.
    pub initrd: Range<u32>,
    /// The first address behind RAM.
    pub ram_end: u32,
}

/// Makes boot_params. `header` is the setup header of the bzImage, none for a bare ELF.
pub(super) fn boot_params(header: Option<&setup_header>, addresses: &Addresses) -> boot_params {
    let mut params = boot_params {
        hdr: header.copied().unwrap_or(setup_header {
            boot_flag: BOOT_FLAG,
            header: HDRS,
            version: PROTOCOL,
            loadflags: LOADED_HIGH,
            ..Default::default()
        }),
        ..Default::default()
    };
    let initrd = &addresses.initrd;
    params.hdr.type_of_loader = UNDEFINED_LOADER;
    params.hdr.code32_start = addresses.entry;
    params.hdr.cmd_line_ptr = addresses.cmdline;
    params.hdr.ramdisk_image = initrd.start;
    params.hdr.ramdisk_size = initrd.end - initrd.start;
    let map = memory_map(addresses.ram_end);
    for (entry, (range, kind)) in params.e820_table.iter_mut().zip(map) {
        *entry = boot_e820_entry {
            addr: range.start.into(),
            size: (range.end - range.start).into(),
            r#type: kind as u32,
        };
        params.e820_entries += 1;
    }
    params
}
