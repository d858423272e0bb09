//! The bzImage container: real-mode setup code, its header, and the protected-mode code with the packed kernel in it.
//!
//! ```text
//!  0x000            0x1f1 setup header            (setup_sects+1)*512
//!  ├─ boot sector ──┼──────────────┬─ setup code ─┼─ unpacker … │payload│ … ┤
//!                                  ▲ 0x202 + byte at 0x201       ▲ payload_offset, payload_length
//!                                                 └─ protected-mode code ───┘
//! ```
//!
//! An image that does not say where its payload is, or has none, is entered as it is: its protected-mode code is loaded and
//! unpacks the kernel itself ([`BzImage::whole`]). It is entered in long mode if it has an entry point for that.
//!
//! Field names and meanings are those of the kernel's Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".

use std::ops::Range;

use linux_loader::loader::bootparam::{LOADED_HIGH, XLF_KERNEL_64, setup_header};
use thiserror::Error;
use vm_memory::ByteValued;

use super::image::{Image, Mode, Origin, Segment};

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
    /// The boot protocol is older than the field for the command line.
    #[error("setup header field version is {}.{:02}, older than 2.02 (Linux 2.3.99): there is no field for the command line", .0 >> 8, .0 & 0xff)]
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
    /// The protected-mode code is not inside the file.
    #[error("truncated: {len} bytes, setup_sects and syssize {syssize:#x} say {stated}")]
    ProtectedMode {
        /// Length of the file in bytes.
        len: usize,
        /// Size of the protected-mode code in units of 16 bytes.
        syssize: u32,
        /// The length in bytes that the fields state, at least.
        stated: usize,
    },
    /// The protected-mode code is to be loaded beyond 4 GiB.
    #[error(
        "setup header fields pref_address {pref_address:#x} and init_size {init_size:#x} reach beyond 4 GiB"
    )]
    LoadAddress {
        /// The address at which the kernel wants to be loaded.
        pref_address: u64,
        /// Bytes that the kernel needs from there on.
        init_size: u32,
    },
    /// The entry point is not in the protected-mode code.
    #[error(
        "setup header field code32_start {0:#x} is not in the protected-mode code, which is linked to run at 0x100000"
    )]
    Entry(u32),
    /// The 64-bit entry point is not in the protected-mode code.
    #[error(
        "setup header field xloadflags has XLF_KERNEL_64, but the 64-bit entry point, at {ENTRY_64:#x}, is beyond the {0:#x} bytes \
         of protected-mode code"
    )]
    Entry64(usize),
}

/// A bzImage with a checked header.
#[derive(Clone, Debug)]
pub struct BzImage {
    /// The setup header as the file has it.
    pub header: setup_header,
    /// Range of the payload, the packed kernel, in the file. None if the header has no such fields or they are zero.
    pub payload: Option<Range<usize>>,
    /// Range of the protected-mode code in the file.
    pub protected_mode: Range<usize>,
}

/// Offset of the setup header in the file.
const HEADER_AT: usize = 0x1f1;
/// Offset of the byte that says how far the setup header goes: the operand of `jump`.
const HEADER_LENGTH_AT: usize = 0x201;
/// Offset from which that byte counts.
const HEADER_LENGTH_FROM: usize = 0x202;
const BOOT_FLAG_AT: usize = 0x1fe;
const BOOT_FLAG: u16 = 0xaa55;
const HDRS_AT: usize = 0x202;
const HDRS: u32 = u32::from_le_bytes(*b"HdrS");
const SECTOR: usize = 512;
/// Sectors that a `setup_sects` of 0 stands for, for compatibility.
const SETUP_SECTS_DEFAULT: usize = 4;
const VERSION_CMD_LINE_PTR: u16 = 0x202;
const VERSION_SYSSIZE: u16 = 0x204;
const VERSION_PAYLOAD: u16 = 0x208;
const VERSION_PREF_ADDRESS: u16 = 0x20a;
/// Unit of `syssize`, in bytes.
const PARAGRAPH: usize = 16;
/// Address at which protected-mode code is loaded that cannot be loaded elsewhere (boot.rst, "Loading The Rest of The Kernel").
const LOAD_ADDRESS: u32 = 0x10_0000;
const VERSION_XLOADFLAGS: u16 = 0x20c;
/// Offset of the 64-bit entry point in the protected-mode code (boot.rst, "64-bit Boot Protocol").
const ENTRY_64: usize = 0x200;
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
        let protected_mode = protected_mode(&header, file.len())?;
        let payload = payload(&header, &protected_mode, file.len())?;
        Ok(Self {
            header,
            payload,
            protected_mode,
        })
    }

    /// Returns the image of the protected-mode code, entered at its 64-bit entry point, or without one at `code32_start` as loaded. A
    /// relocatable kernel is loaded at `pref_address`, any other one at 1 MiB, and has `init_size` bytes from there on.
    ///
    /// # Errors
    /// If the header's addresses make no sense.
    pub(super) fn whole(&self) -> Result<Image, BzImageError> {
        let header = &self.header;
        let (pref_address, init_size) = match header.version {
            VERSION_PREF_ADDRESS.. => (header.pref_address, header.init_size),
            _ => (0, 0),
        };
        let len = self.protected_mode.len();
        let wanted = match header.relocatable_kernel != 0 && pref_address != 0 {
            true => pref_address,
            false => LOAD_ADDRESS.into(),
        };
        let memsz = u64::from(init_size).max(len as u64);
        let end = wanted.checked_add(memsz);
        if end.is_none_or(|end| end > 1 << 32) {
            return Err(BzImageError::LoadAddress {
                pref_address,
                init_size,
            });
        }
        let (mode, offset) = self.entry()?;
        Ok(Image {
            mode,
            entry: wanted + offset,
            segments: vec![Segment {
                origin: Origin::SetupHeader,
                paddr: wanted,
                memsz,
                file: self.protected_mode.clone(),
            }],
        })
    }

    /// Returns the mode in which the protected-mode code is entered, and the offset of the entry point in it.
    fn entry(&self) -> Result<(Mode, u64), BzImageError> {
        let (header, len) = (&self.header, self.protected_mode.len());
        if xloadflags(header) & XLF_KERNEL_64 != 0 {
            return match ENTRY_64 < len {
                true => Ok((Mode::Long, ENTRY_64 as u64)),
                false => Err(BzImageError::Entry64(len)),
            };
        }
        // A header made by hand may lack the default.
        let code32_start = match header.code32_start {
            0 => LOAD_ADDRESS,
            start => start,
        };
        let offset = code32_start
            .checked_sub(LOAD_ADDRESS)
            .filter(|&offset| (offset as usize) < len)
            .ok_or(BzImageError::Entry(code32_start))?;
        Ok((Mode::Protected, offset.into()))
    }
}

/// Returns whether `file` has the signature of a setup header.
pub(super) fn has_signature(file: &[u8]) -> bool {
    file.get(HDRS_AT..HDRS_AT + 4) == Some(&HDRS.to_le_bytes())
}

/// Returns the field `xloadflags`, which is 0 in a header without it.
pub(super) fn xloadflags(header: &setup_header) -> u16 {
    match header.version {
        VERSION_XLOADFLAGS.. => header.xloadflags,
        _ => 0,
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

/// Checks that the kernel can be booted by the 32-bit or 64-bit boot protocol.
fn check(header: &setup_header) -> Result<(), BzImageError> {
    if header.header != HDRS {
        return Err(BzImageError::Header(header.header));
    }
    if header.version < VERSION_CMD_LINE_PTR {
        return Err(BzImageError::Version(header.version));
    }
    if header.loadflags & LOADED_HIGH == 0 {
        return Err(BzImageError::LoadedLow(header.loadflags));
    }
    Ok(())
}

/// Returns where the protected-mode code lies in a file of `len` bytes: from the setup code's end to the file's. Bytes behind
/// `syssize`, such as a signature, do no harm.
fn protected_mode(header: &setup_header, len: usize) -> Result<Range<usize>, BzImageError> {
    let setup_sects = match header.setup_sects {
        0 => SETUP_SECTS_DEFAULT,
        n => usize::from(n),
    };
    let start = (setup_sects + 1) * SECTOR;
    let syssize = match header.version {
        VERSION_SYSSIZE.. => header.syssize,
        _ => 0,
    };
    // The last unit may not be whole.
    let least = (syssize as usize * PARAGRAPH).saturating_sub(PARAGRAPH - 1);
    let stated = start + least.max(1);
    match stated <= len {
        true => Ok(start..len),
        false => Err(BzImageError::ProtectedMode {
            len,
            syssize,
            stated,
        }),
    }
}

/// Returns where the payload lies in a file of `len` bytes.
fn payload(
    header: &setup_header,
    protected_mode: &Range<usize>,
    len: usize,
) -> Result<Option<Range<usize>>, BzImageError> {
    let (offset, length) = (header.payload_offset, header.payload_length);
    if header.version < VERSION_PAYLOAD || length == 0 {
        return Ok(None);
    }
    let start = protected_mode.start + offset as usize;
    let payload = start..start + length as usize;
    match payload.end <= len {
        true => Ok(Some(payload)),
        false => Err(BzImageError::Payload {
            offset,
            length,
            len,
        }),
    }
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
        assert_eq!(&file[image.payload.unwrap()], b"PAYLOAD");
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
        assert!(spoiled(0x206, 0x201).contains("version is 2.01"));
        assert!(spoiled(0x1f4, 0x1000).contains("syssize 0x1000"));
        assert!(spoiled(0x211, 0).contains("loadflags"));
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
        assert_eq!(&file[image.payload.unwrap()], b"PAYLOAD");
    }

    /// An image without payload whose protected-mode code is 100 bytes.
    fn whole(change: impl Fn(&mut setup_header)) -> Result<Image, BzImageError> {
        whole_of(100, change)
    }

    /// An image without payload whose protected-mode code is `len` bytes.
    fn whole_of(len: usize, change: impl Fn(&mut setup_header)) -> Result<Image, BzImageError> {
        let mut file = bzimage(&vec![0x90; len - 24]);
        let mut header = read_header(&file).unwrap();
        header.payload_length = 0;
        header.code32_start = 0x10_0000;
        change(&mut header);
        file[HEADER_AT..][..size_of::<setup_header>()].copy_from_slice(header.as_slice());
        let image = BzImage::parse(&file).unwrap();
        assert_eq!(image.payload, None);
        image.whole()
    }

    #[test]
    fn without_payload_the_protected_mode_code_is_the_kernel() {
        let placed = |change: fn(&mut setup_header)| {
            let image = whole(change).unwrap();
            let segment = &image.segments[0];
            assert_eq!(segment.file, 1024..1124);
            (image.entry, segment.paddr, segment.memsz)
        };
        assert_eq!(placed(|_| ()), (0x10_0000, 0x10_0000, 0x10_0000));
        assert_eq!(placed(|h| h.init_size = 0), (0x10_0000, 0x10_0000, 100));
        assert_eq!(
            placed(|h| h.code32_start += 99),
            (0x10_0063, 0x10_0000, 0x10_0000)
        );
        assert_eq!(
            placed(|h| h.code32_start = 0),
            (0x10_0000, 0x10_0000, 0x10_0000)
        );
        assert_eq!(
            placed(|h| h.relocatable_kernel = 1),
            (0x100_0000, 0x100_0000, 0x10_0000)
        );
        // Such a kernel may lack the fields of later protocols, whatever is in their place.
        for version in [0x202, 0x203, 0x207, 0x209] {
            let image = whole(|h| {
                h.version = version;
                h.relocatable_kernel = 1;
            });
            assert_eq!(image.unwrap().segments[0].paddr, 0x10_0000, "{version:#x}");
        }
    }

    #[test]
    fn a_kernel_with_a_64_bit_entry_point_is_entered_there() {
        let change = |header: &mut setup_header| {
            header.relocatable_kernel = 1;
            header.xloadflags = XLF_KERNEL_64;
            header.code32_start = 0;
        };
        let image = whole_of(0x201, change).unwrap();
        assert_eq!((image.mode, image.entry), (Mode::Long, 0x100_0200));
        assert_eq!(image.segments[0].paddr, 0x100_0000);
        let error = whole_of(0x200, change).unwrap_err().to_string();
        assert!(error.contains("beyond the 0x200 bytes"), "{error}");
        // The field is younger than this header.
        let old = |header: &mut setup_header| {
            header.xloadflags = XLF_KERNEL_64;
            header.version = 0x20b;
        };
        assert_eq!(whole_of(0x201, old).unwrap().mode, Mode::Protected);
    }

    #[test]
    fn addresses_that_make_no_sense_are_named() {
        let error = |change: fn(&mut setup_header)| whole(change).unwrap_err().to_string();
        assert!(error(|h| h.code32_start = 0xf_ffff).contains("code32_start 0xfffff"));
        assert!(error(|h| h.code32_start = 0x10_0064).contains("code32_start 0x100064"));
        assert!(error(|h| h.init_size = u32::MAX).contains("init_size 0xffffffff"));
        assert!(
            error(|h| {
                h.relocatable_kernel = 1;
                h.pref_address = 1 << 32;
            })
            .contains("pref_address 0x100000000")
        );
    }
}
