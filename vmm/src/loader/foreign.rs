//! [`Foreign`]: files that users take for kernels, known by their first bytes.

use thiserror::Error;

use super::unpack::Compression;

/// A file in a known format that is no kernel for this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Foreign {
    /// A kernel or something else, compressed as a whole.
    #[error("a file compressed by {0:?}, not a kernel: unpack it first")]
    Compressed(Compression),
    /// An EFI application, such as a boot loader or a unified kernel image; `machine` is that of the COFF header (PE Format,
    /// "Machine Types").
    #[error(
        "an EFI executable for {name} without a bzImage's setup header: there is no EFI firmware to start it",
        name = machine_name(*machine)
    )]
    Efi {
        /// `Machine` of the COFF header.
        machine: u16,
    },
    /// A kernel that unpacks itself under EFI firmware, as there are for arm64, RISC-V and LoongArch.
    #[error("kernel for another architecture: compressed EFI image (zboot), not x86")]
    EfiZboot,
    /// An image for the boot loader U-Boot.
    #[error("an image for U-Boot (uImage), not a bzImage or ELF")]
    UBoot,
    /// A cpio archive.
    #[error("a cpio archive, not a kernel: an initrd?")]
    Cpio,
}

const MZ: &[u8] = b"MZ";
const ZBOOT_AT: usize = 4;
const ZBOOT: &[u8] = b"zimg";
/// Offset of the field that holds the PE signature's offset.
const PE_OFFSET_AT: usize = 0x3c;
const PE: &[u8] = b"PE\0\0";
const UIMAGE: &[u8] = &[0x27, 0x05, 0x19, 0x56];
const CPIO: &[u8] = b"07070";

impl Foreign {
    /// Recognizes the format of `file`, if it is one of these.
    pub fn of(file: &[u8]) -> Option<Self> {
        if let Some(compression) = Compression::detect(file) {
            return Some(Self::Compressed(compression));
        }
        if file.starts_with(UIMAGE) {
            return Some(Self::UBoot);
        }
        if file.starts_with(CPIO) {
            return Some(Self::Cpio);
        }
        if !file.starts_with(MZ) {
            return None;
        }
        if file.get(ZBOOT_AT..)?.starts_with(ZBOOT) {
            return Some(Self::EfiZboot);
        }
        let offset = file.get(PE_OFFSET_AT..)?.first_chunk::<4>()?;
        let header = file.get(u32::from_le_bytes(*offset) as usize..)?;
        let machine = header.strip_prefix(PE)?.first_chunk::<2>()?;
        Some(Self::Efi {
            machine: u16::from_le_bytes(*machine),
        })
    }
}

/// Returns the name of a processor that has EFI firmware.
fn machine_name(machine: u16) -> &'static str {
    match machine {
        0x014c => "i386",
        0x8664 => "x86-64",
        0x01c0 | 0x01c2 | 0x01c4 => "ARM",
        0xaa64 => "AArch64",
        0x5032 | 0x5064 => "RISC-V",
        0x6232 | 0x6264 => "LoongArch",
        _ => "an unknown processor",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn efi(machine: u16) -> Vec<u8> {
        let mut file = vec![0; 0x80];
        file[..2].copy_from_slice(MZ);
        file[PE_OFFSET_AT] = 0x40;
        file[0x40..0x44].copy_from_slice(PE);
        file[0x44..0x46].copy_from_slice(&machine.to_le_bytes());
        file
    }

    #[test]
    fn formats_are_named() {
        for (file, expected) in [
            (&[0xfd, b'7', b'z', b'X', b'Z', 0][..], "compressed by Xz"),
            (&[0x1f, 0x8b, 8], "compressed by Gzip"),
            (&efi(0x14c), "EFI executable for i386"),
            (&efi(0x8664), "EFI executable for x86-64"),
            (b"MZ\0\0zimg", "zboot"),
            (UIMAGE, "U-Boot"),
            (b"070701", "cpio"),
        ] {
            let text = Foreign::of(file).unwrap().to_string();
            assert!(text.contains(expected), "{expected}: {text}");
        }
        for file in [&b""[..], b"M", b"MZ", b"#!/bin/sh", &efi(0x14c)[..0x45]] {
            assert_eq!(Foreign::of(file), None, "{file:?}");
        }
    }

    proptest! {
        #[test]
        fn anything_behind_mz_is_taken(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = Foreign::of(&[MZ, &bytes].concat());
        }
    }
}
