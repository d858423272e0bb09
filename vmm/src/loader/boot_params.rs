//! The boot parameters of the kernel: boot_params ("zero page"), command line, memory map, BIOS data area.
//!
//! Documentation/arch/x86/boot.rst, "32-bit Boot Protocol"; Documentation/arch/x86/zero-page.rst.

use std::ops::Range;

use linux_loader::loader::bootparam::{LOADED_HIGH, boot_e820_entry, boot_params, setup_header};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError};

/// Guest-physical address of boot_params.
pub(super) const BOOT_PARAMS: u32 = 0x1_0000;
/// Guest-physical address of the command line.
pub(super) const CMDLINE: u32 = 0x2_0000;
/// End of the low memory that the kernel may use; the extended BIOS data area would follow.
const LOW_END: u32 = 0x9_fc00;
/// Start of the ROMs.
const ROM_START: u32 = 0xf_0000;
/// Start of the memory above the adapters and ROMs: 1 MiB.
pub(super) const HIGH_START: u32 = 0x10_0000;
/// Length of the longest command line that fits between [`CMDLINE`] and the end of low memory, without the final NUL.
pub(super) const CMDLINE_ROOM: u32 = LOW_END - CMDLINE - 1;

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

const BOOT_FLAG: u16 = 0xaa55;
const HDRS: u32 = u32::from_le_bytes(*b"HdrS");
/// Version of the boot protocol for a kernel without a setup header.
const PROTOCOL: u16 = 0x20f;
/// `type_of_loader` of a loader with no assigned number.
const UNDEFINED_LOADER: u8 = 0xff;

/// BIOS data area: segment of the extended BIOS data area.
const BDA_EBDA_SEGMENT: GuestAddress = GuestAddress(0x40e);
/// BIOS data area: low memory in KiB.
const BDA_LOW_MEMORY_KIB: GuestAddress = GuestAddress(0x413);

/// Writes everything that a kernel reads from memory when it starts.
///
/// `header` is the setup header of the bzImage, none for a bare ELF; `initrd` is the initrd's range in guest-physical memory.
///
/// # Errors
/// Only if `ram` is smaller than a mebibyte.
pub(super) fn write(
    ram: &impl GuestMemoryBackend,
    ram_end: u32,
    header: Option<&setup_header>,
    cmdline: &[u8],
    initrd: Range<u32>,
) -> Result<(), GuestMemoryError> {
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
    params.hdr.cmd_line_ptr = CMDLINE;
    params.hdr.ramdisk_image = initrd.start;
    params.hdr.ramdisk_size = initrd.end - initrd.start;
    for (entry, (range, kind)) in params.e820_table.iter_mut().zip(memory_map(ram_end)) {
        *entry = boot_e820_entry {
            addr: range.start.into(),
            size: (range.end - range.start).into(),
            r#type: kind,
        };
        params.e820_entries += 1;
    }
    ram.write_slice(params.as_slice(), GuestAddress(BOOT_PARAMS.into()))?;
    ram.write_slice(&[cmdline, &[0]].concat(), GuestAddress(CMDLINE.into()))?;
    ram.write_slice(&((LOW_END >> 4) as u16).to_le_bytes(), BDA_EBDA_SEGMENT)?;
    ram.write_slice(&((LOW_END >> 10) as u16).to_le_bytes(), BDA_LOW_MEMORY_KIB)
}

/// Returns the memory map as INT 0x15, EAX=0xe820 would report it. Video memory, between low memory and the ROMs, is not in it.
fn memory_map(ram_end: u32) -> [(Range<u32>, u32); 3] {
    [
        (0..LOW_END, E820_RAM),
        (ROM_START..HIGH_START, E820_RESERVED),
        (HIGH_START..ram_end, E820_RAM),
    ]
}
