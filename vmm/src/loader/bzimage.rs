//! The bzImage container: real-mode setup code, its header, and the packed kernel behind it.
//!
//! ```text
//!  0x000            0x1f1 setup header            (setup_sects+1)*512
//!  ├─ boot sector ──┼──────────────┬─ setup code ─┼─ unpacker … │payload│ … ┤
//!                                  ▲ 0x202 + byte at 0x201       ▲ payload_offset, payload_length
//! ```
//!
//! Field names and meanings are those of the kernel's Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".

use std::ops::Range;

use linux_loader::loader::bootparam::{LOADED_HIGH, XLF_KERNEL_64, setup_header};
use thiserror::Error;
use vm_memory::ByteValued;

/// A reason why a file is not a bzImage that can be booted.
#[derive(Debug, Error)]
pub enum BzImageError {
    /// The file ends inside the part named.
    #[error("truncated: {len} bytes end before {what}")]
    Truncated {
        /// Length of the file in bytes.
        len: usize,
        /// The part that is missing.
        what: &'static str,
    },
    /// The file is neither a bzImage nor in any other known format.
    #[error("not a kernel: no ELF magic, and setup header field boot_flag is {0:#06x}, not 0xaa55")]
    BootFlag(u16),
    /// The file has a boot sector, but not that of Linux.
    #[error("not a Linux kernel: setup header field header is {0:#010x}, not \"HdrS\"")]
    Header(u32),
    /// The kernel is for 64-bit ARM.
    #[error("kernel for another architecture: arm64 Image, not x86")]
    Arm64,
    /// The kernel is for 64-bit x86.
    #[error(
        "kernel for another architecture: setup header field xloadflags has XLF_KERNEL_64 (x86-64), not i386"
    )]
    Kernel64,
    /// The boot protocol is older than the payload fields.
    #[error("setup header field version is {}.{:02}, older than 2.08 (Linux 2.6.26)", .0 >> 8, .0 & 0xff)]
    Version(u16),
    /// The kernel is a zImage, which is loaded low.
    #[error("setup header field loadflags {0:#04x} has no LOADED_HIGH: a zImage, not a bzImage")]
    LoadedLow(u8),
    /// The payload is not inside the file.
    #[error(
        "truncated: payload_offset {offset:#x} and payload_length {length:#x} reach beyond the file's {len} bytes"
    )]
    Payload {
        /// Offset of the payload from the start of the protected-mode code.
        offset: u32,
        /// Length of the payload in bytes.
        length: u32,
        /// Length of the file in bytes.
        len: usize,
    },
}

/// A bzImage with a checked header.
#[derive(Clone, Debug)]
pub struct BzImage {
    /// The setup header as the file has it.
    pub header: setup_header,
    /// Range of the payload, the packed kernel, in the file.
    pub payload: Range<usize>,
}

/// Offset of the setup header in the file.
const HEADER_AT: usize = 0x1f1;
/// Offset of the byte that says how far the setup header goes: the operand of `jump`.
const HEADER_LENGTH_AT: usize = 0x201;
/// Offset from which that byte counts.
const HEADER_LENGTH_FROM: usize = 0x202;
const BOOT_FLAG_AT: usize = 0x1fe;
const BOOT_FLAG: u16 = 0xaa55;
const HDRS: u32 = u32::from_le_bytes(*b"HdrS");
const SECTOR: usize = 512;
/// Sectors that a `setup_sects` of 0 stands for, for compatibility.
const SETUP_SECTS_DEFAULT: usize = 4;
const VERSION_PAYLOAD: u16 = 0x208;
const VERSION_XLOADFLAGS: u16 = 0x20c;
const ARM64_MAGIC_AT: usize = 56;
const ARM64_MAGIC: &[u8] = b"ARM\x64";

impl BzImage {
    /// Checks the header of `file`.
    ///
    /// # Errors
    /// See [`BzImageError`]; the payload's contents are not looked at.
    pub fn parse(file: &[u8]) -> Result<Self, BzImageError> {
        let truncated = |what| BzImageError::Truncated {
            len: file.len(),
            what,
        };
        if file.get(ARM64_MAGIC_AT..ARM64_MAGIC_AT + ARM64_MAGIC.len()) == Some(ARM64_MAGIC) {
            return Err(BzImageError::Arm64);
        }
        let boot_flag = file
            .get(BOOT_FLAG_AT..BOOT_FLAG_AT + 2)
            .ok_or(truncated("the setup header's boot_flag"))?;
        let boot_flag = u16::from_le_bytes([boot_flag[0], boot_flag[1]]);
        if boot_flag != BOOT_FLAG {
            return Err(BzImageError::BootFlag(boot_flag));
        }
        let header = read_header(file).ok_or(truncated("the end of the setup header"))?;
        check(&header)?;
        let payload = payload_range(&header)
            .filter(|range| range.end <= file.len())
            .ok_or(BzImageError::Payload {
                offset: header.payload_offset,
                length: header.payload_length,
                len: file.len(),
            })?;
        Ok(Self { header, payload })
    }
}

/// Copies the setup header as far as its own length goes. Fields that an older protocol lacks are zero.
fn read_header(file: &[u8]) -> Option<setup_header> {
    let end = HEADER_LENGTH_FROM + usize::from(*file.get(HEADER_LENGTH_AT)?);
    let bytes = file.get(HEADER_AT..end)?;
    let mut header = setup_header::default();
    let len = bytes.len().min(header.as_slice().len());
    header.as_mut_slice()[..len].copy_from_slice(&bytes[..len]);
    Some(header)
}

/// Checks that the kernel can be booted by the 32-bit boot protocol.
fn check(header: &setup_header) -> Result<(), BzImageError> {
    if header.header != HDRS {
        return Err(BzImageError::Header(header.header));
    }
    if header.version < VERSION_PAYLOAD {
        return Err(BzImageError::Version(header.version));
    }
    if header.version >= VERSION_XLOADFLAGS && header.xloadflags & XLF_KERNEL_64 != 0 {
        return Err(BzImageError::Kernel64);
    }
    if header.loadflags & LOADED_HIGH == 0 {
        return Err(BzImageError::LoadedLow(header.loadflags));
    }
    Ok(())
}

/// Returns where the payload lies in the file, or none if the fields overflow.
fn payload_range(header: &setup_header) -> Option<Range<usize>> {
    let setup_sects = match header.setup_sects {
        0 => SETUP_SECTS_DEFAULT,
        n => usize::from(n),
    };
    let start = ((setup_sects + 1) * SECTOR).checked_add(header.payload_offset as usize)?;
    Some(start..start.checked_add(header.payload_length as usize)?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A bzImage around `payload`, with a header as Linux 6.1 on i386 has it.
    pub(crate) fn bzimage(payload: &[u8]) -> Vec<u8> {
        let header = setup_header {
            setup_sects: 1,
            boot_flag: BOOT_FLAG,
            // jmp rel8 to the end of the header
            jump: u16::from_le_bytes([
                0xeb,
                (HEADER_AT + size_of::<setup_header>() - HEADER_LENGTH_FROM) as u8,
            ]),
            header: HDRS,
            version: 0x20f,
            loadflags: LOADED_HIGH,
            initrd_addr_max: 0x37ff_ffff,
            kernel_alignment: 0x100_0000,
            cmdline_size: 2047,
            payload_offset: 16,
            payload_length: payload.len() as u32,
            pref_address: 0x100_0000,
            init_size: 0x10_0000,
            ..Default::default()
        };
        let mut file = vec![0; 2 * SECTOR + 16];
        file[HEADER_AT..][..size_of::<setup_header>()].copy_from_slice(header.as_slice());
        file.extend(payload);
        file.extend([0; 8]);
        file
    }

    #[test]
    fn the_payload_is_found() {
        let file = bzimage(b"PAYLOAD");
        let image = BzImage::parse(&file).unwrap();
        assert_eq!(&file[image.payload.clone()], b"PAYLOAD");
        assert_eq!({ image.header.init_size }, 0x10_0000);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let file = bzimage(b"PAYLOAD");
        for len in 0..file.len() - 8 {
            let error = BzImage::parse(&file[..len]).unwrap_err().to_string();
            assert!(error.starts_with("truncated"), "{len}: {error}");
        }
    }

    /// The error for a good file with the 16 bits at `at` changed.
    fn spoiled(at: usize, value: u16) -> String {
        let mut file = bzimage(b"PAYLOAD");
        file[at..at + 2].copy_from_slice(&value.to_le_bytes());
        BzImage::parse(&file).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_field() {
        assert!(spoiled(0x1fe, 0).contains("boot_flag"));
        assert!(spoiled(0x202, 0).contains("field header"));
        assert!(spoiled(0x206, 0x207).contains("version is 2.07"));
        assert!(spoiled(0x211, 0).contains("loadflags"));
        assert!(spoiled(0x236, 1).contains("XLF_KERNEL_64"));
        assert!(spoiled(0x24a, 1).contains("payload_offset"));
        assert!(spoiled(0x24e, 1).contains("payload_length"));
    }

    #[test]
    fn arm64_is_recognized() {
        let mut file = vec![0; 4096];
        file[ARM64_MAGIC_AT..][..4].copy_from_slice(ARM64_MAGIC);
        assert!(matches!(BzImage::parse(&file), Err(BzImageError::Arm64)));
    }

    #[test]
    fn zero_setup_sects_means_four() {
        let mut file = bzimage(b"PAYLOAD");
        file.splice(2 * SECTOR..2 * SECTOR, [0; 3 * SECTOR]);
        file[HEADER_AT] = 0;
        let image = BzImage::parse(&file).unwrap();
        assert_eq!(&file[image.payload], b"PAYLOAD");
    }
}
