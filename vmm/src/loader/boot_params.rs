//! The boot parameters of a Linux kernel: boot_params ("zero page") and the GDT.
//!
//! Documentation/arch/x86/boot.rst, "32-bit Boot Protocol" and "64-bit Boot Protocol"; Documentation/arch/x86/zero-page.rst.

use std::ops::Range;

use linux_loader::loader::bootparam::{LOADED_HIGH, boot_e820_entry, boot_params, setup_header};

use super::{image::Mode, memory_map::memory_map, ram::Ram};

const BOOT_FLAG: u16 = 0xaa55;
const HDRS: u32 = u32::from_le_bytes(*b"HdrS");
/// Version of the boot protocol for a kernel without a setup header.
const PROTOCOL: u16 = 0x20f;
/// `type_of_loader` of a loader with no assigned number.
const UNDEFINED_LOADER: u8 = 0xff;

/// Returns the GDT that a kernel entered in `mode` may load its segments from: `__BOOT_CS`, selector 0x10, and `__BOOT_DS`, selector
/// 0x18, both flat. The code segment is one of 32-bit or of 64-bit code (SDM Vol. 3A, 3.4.5 "Segment Descriptors": D and L).
pub(super) const fn gdt(mode: Mode) -> [u64; 4] {
    let code = match mode {
        Mode::Protected => 0x00cf_9b00_0000_ffff,
        Mode::Long => 0x00af_9b00_0000_ffff,
    };
    [0, 0, code, 0x00cf_9300_0000_ffff]
}

/// What boot_params says beside the setup header. Addresses are guest-physical.
pub(super) struct Told<'a> {
    /// The first instruction, if it is one of 32-bit code.
    pub code32_start: Option<u32>,
    /// The command line.
    pub cmdline: u32,
    /// The initrd, or empty.
    pub initrd: Range<u64>,
    /// The memory.
    pub ram: &'a Ram,
}

/// Makes boot_params. `header` is the setup header of the bzImage, none for a bare ELF.
pub(super) fn boot_params(header: Option<&setup_header>, told: &Told<'_>) -> boot_params {
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
    params.hdr.type_of_loader = UNDEFINED_LOADER;
    params.hdr.code32_start = told.code32_start.unwrap_or(params.hdr.code32_start);
    params.hdr.cmd_line_ptr = told.cmdline;
    let initrd = &told.initrd;
    (params.hdr.ramdisk_image, params.ext_ramdisk_image) = halves(initrd.start);
    (params.hdr.ramdisk_size, params.ext_ramdisk_size) = halves(initrd.end - initrd.start);
    let map = memory_map(told.ram);
    for (entry, (range, kind)) in params.e820_table.iter_mut().zip(map) {
        *entry = boot_e820_entry {
            addr: range.start,
            size: range.end - range.start,
            r#type: kind as u32,
        };
        params.e820_entries += 1;
    }
    params
}

/// Returns the low and the high 32 bits.
fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}
