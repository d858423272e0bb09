//! [`Header`]: the Multiboot header, which lies somewhere in the first 8 KiB of a kernel's file.
//!
//! ```text
//!  0 magic  4 flags  8 checksum │ 12 header_addr  16 load_addr  20 load_end_addr  24 bss_end_addr  28 entry_addr
//!                               │ only with bit 16 of flags, and then in place of the ELF header's
//!
//!  file     … header …──────────────┐          header_addr - load_addr bytes before the header is the first byte loaded
//!  memory   load_addr … load_end_addr … bss_end_addr
//! ```

use thiserror::Error;

use super::super::image::{Image, Mode, Origin, Segment};

/// A reason why a kernel with a Multiboot header cannot be loaded.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MultibootError {
    /// The kernel requires features that are not there.
    #[error("Multiboot header field flags is {flags:#x}: {}", missing(*.flags))]
    Required {
        /// The field `flags`.
        flags: u32,
    },
    /// The header has no addresses, and the file is no ELF32.
    #[error(
        "Multiboot header without addresses (bit 16 of flags) in a file that is no ELF32 executable"
    )]
    NoAddresses,
    /// An address is less than the one that it must follow.
    #[error("Multiboot header field {field} {value:#x} is less than {least:#x}")]
    Order {
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: u32,
        /// The least value that it may have.
        least: u32,
    },
    /// The bytes to be loaded are not inside the file.
    #[error(
        "Multiboot header fields load_addr {load_addr:#x} and load_end_addr {load_end_addr:#x} reach beyond the file's {len} bytes"
    )]
    Range {
        /// The field `load_addr`.
        load_addr: u32,
        /// The field `load_end_addr`.
        load_end_addr: u32,
        /// Length of the file in bytes.
        len: usize,
    },
    /// The entry point is not in what is loaded.
    #[error("Multiboot header field entry_addr {0:#x} is not between load_addr and bss_end_addr")]
    Entry(u32),
}

/// The header of a kernel for Multiboot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::loader) struct Header {
    flags: u32,
    /// Offset of the header in the file.
    offset: usize,
    /// header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr.
    addresses: Option<[u32; 5]>,
}

const MAGIC: u32 = 0x1bad_b002;
/// The part of the file that the header lies in.
const SEARCHED: usize = 8192;
/// The fields that every header has, in words.
const WORDS: usize = 3;
/// The fields of a header with addresses, in words.
const WORDS_WITH_ADDRESSES: usize = 8;
/// Bits of `flags` that a boot loader has to understand.
const REQUIRED: u32 = 0xffff;
/// Modules begin at pages: they always do.
const PAGE_ALIGN: u32 = 1 << 0;
/// The kernel is told about memory: it always is.
const MEMORY_INFO: u32 = 1 << 1;
const VIDEO_MODE: u32 = 1 << 2;
const ADDRESSES: u32 = 1 << 16;

const MULTIBOOT2_MAGIC: u32 = 0xe852_50d6;
/// The part of the file that a Multiboot2 header lies in (Multiboot2 Specification, 3.1.1).
const MULTIBOOT2_SEARCHED: usize = 32768;

impl Header {
    /// Finds the header, if the file has one.
    pub(in crate::loader) fn find(file: &[u8]) -> Option<Self> {
        let searched = &file[..file.len().min(SEARCHED)];
        (0..searched.len()).step_by(4).find_map(|offset| {
            let [magic, flags, checksum] = words::<WORDS>(searched, offset)?;
            let sum = magic.wrapping_add(flags).wrapping_add(checksum);
            if magic != MAGIC || sum != 0 {
                return None;
            }
            let addresses = match flags & ADDRESSES {
                0 => None,
                _ => {
                    let [_, _, _, addresses @ ..] =
                        words::<WORDS_WITH_ADDRESSES>(searched, offset)?;
                    Some(addresses)
                }
            };
            Some(Self {
                flags,
                offset,
                addresses,
            })
        })
    }

    /// Returns the memory that the header asks for, none if the file's ELF headers say that.
    ///
    /// # Errors
    /// See [`MultibootError`].
    pub(in crate::loader) fn image(&self, file: &[u8]) -> Result<Option<Image>, MultibootError> {
        let flags = self.flags;
        if flags & REQUIRED & !(PAGE_ALIGN | MEMORY_INFO) != 0 {
            return Err(MultibootError::Required { flags });
        }
        let Some([header_addr, load_addr, load_end_addr, bss_end_addr, entry]) = self.addresses
        else {
            return Ok(None);
        };
        let order = |field, value, least| match value >= least {
            true => Ok(value - least),
            false => Err(MultibootError::Order {
                field,
                value,
                least,
            }),
        };
        let before = order("header_addr", header_addr, load_addr)?;
        let range = MultibootError::Range {
            load_addr,
            load_end_addr,
            len: file.len(),
        };
        let Some(start) = self.offset.checked_sub(before as usize) else {
            return Err(range);
        };
        // Zero stands for the whole file, and for no bss.
        let len = match load_end_addr {
            0 => u32::try_from(file.len() - start).unwrap_or(u32::MAX),
            end => order("load_end_addr", end, load_addr)?,
        };
        let bytes = start..start + len as usize;
        if bytes.end > file.len() {
            return Err(range);
        }
        let memsz = match bss_end_addr {
            0 => len,
            end => order("bss_end_addr", end, load_addr.saturating_add(len))?.saturating_add(len),
        };
        let image = Image {
            mode: Mode::Protected,
            entry: entry.into(),
            segments: vec![Segment {
                origin: Origin::MultibootHeader,
                paddr: load_addr.into(),
                memsz: memsz.into(),
                file: bytes,
            }],
        };
        match image.holds_entry() {
            true => Ok(Some(image)),
            false => Err(MultibootError::Entry(entry)),
        }
    }
}

/// Finds a Multiboot2 header, and returns its offset in the file.
pub(in crate::loader) fn find_multiboot2(file: &[u8]) -> Option<usize> {
    let searched = &file[..file.len().min(MULTIBOOT2_SEARCHED)];
    (0..searched.len()).step_by(8).find(|&offset| {
        words::<4>(searched, offset).is_some_and(|header| {
            header[0] == MULTIBOOT2_MAGIC && header.into_iter().fold(0, u32::wrapping_add) == 0
        })
    })
}

/// What of the required features is missing.
fn missing(flags: u32) -> &'static str {
    match flags & REQUIRED & !(PAGE_ALIGN | MEMORY_INFO | VIDEO_MODE) {
        0 => "the kernel requires a video mode (bit 2), and the machine has no display",
        _ => "the kernel requires features (bits 3 to 15) that Multiboot 0.6.96 does not define",
    }
}

/// Reads little-endian words.
fn words<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u32; N]> {
    let (words, _) = bytes.get(offset..offset + 4 * N)?.as_chunks::<4>();
    words
        .iter()
        .map(|word| u32::from_le_bytes(*word))
        .collect::<Vec<_>>()
        .try_into()
        .ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file of 400 bytes with a header of these flags and fields at offset 12.
    fn file(flags: u32, addresses: &[u32]) -> Vec<u8> {
        let mut file = vec![0x90; 12];
        for word in [MAGIC, flags, 0u32.wrapping_sub(MAGIC).wrapping_sub(flags)]
            .iter()
            .chain(addresses)
        {
            file.extend(word.to_le_bytes());
        }
        file.resize(400, 0x90);
        file
    }

    fn image(flags: u32, addresses: &[u32]) -> Result<Option<Image>, MultibootError> {
        let file = file(flags, addresses);
        Header::find(&file).expect("a header").image(&file)
    }

    #[test]
    fn addresses_say_what_is_loaded_where() {
        let loaded = |addresses: [u32; 5]| {
            let image = image(ADDRESSES | 3, &addresses).unwrap().unwrap();
            let [segment] = &image.segments[..] else {
                panic!()
            };
            (
                image.entry,
                segment.paddr,
                segment.memsz,
                segment.file.clone(),
            )
        };
        // The header is loaded at 1 MiB + 4: four bytes of the file before it, too.
        assert_eq!(
            loaded([0x10_0004, 0x10_0000, 0x10_0080, 0x10_1000, 0x10_0030]),
            (0x10_0030, 0x10_0000, 0x1000, 8..8 + 0x80)
        );
        assert_eq!(
            loaded([0x10_000c, 0x10_0000, 0, 0, 0x10_0000]),
            (0x10_0000, 0x10_0000, 400, 0..400),
            "no end is the file's, no bss is none"
        );
    }

    #[test]
    fn without_addresses_the_elf_headers_count() {
        for flags in [0, 1, 2, 3, 1 << 17] {
            assert_eq!(image(flags, &[]), Ok(None), "{flags:#x}");
        }
    }

    #[test]
    fn errors_name_the_field() {
        let good = [0x10_0004, 0x10_0000, 0x10_0080, 0x10_1000, 0x10_0030];
        for (field, value, named) in [
            (0, 0xf_ffff, "header_addr 0xfffff is less than 0x100000"),
            (0, 0x10_000d, "load_addr 0x100000"),
            (2, 0xf_ffff, "load_end_addr 0xfffff is less than 0x100000"),
            (2, 0x10_0200, "beyond the file's 400 bytes"),
            (3, 0x10_007f, "bss_end_addr 0x10007f is less than 0x100080"),
            (4, 0x10_1000, "entry_addr 0x101000"),
            (4, 0xf_ffff, "entry_addr 0xfffff"),
        ] {
            let mut addresses = good;
            addresses[field] = value;
            let error = image(ADDRESSES, &addresses).unwrap_err().to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
        assert!(
            image(4, &[])
                .unwrap_err()
                .to_string()
                .contains("video mode")
        );
        assert!(
            image(8, &[])
                .unwrap_err()
                .to_string()
                .contains("bits 3 to 15")
        );
    }

    #[test]
    fn a_header_is_aligned_whole_and_near_the_start() {
        let good = file(0, &[]);
        for shift in 1..4 {
            assert_eq!(Header::find(&good[shift..]), None, "{shift}");
        }
        assert_eq!(Header::find(&good[..23]), None);
        assert!(Header::find(&good[..24]).is_some());
        let at = |offset: usize| [&vec![0; offset][..], &good[12..]].concat();
        assert!(Header::find(&at(SEARCHED - 12)).is_some());
        assert_eq!(Header::find(&at(SEARCHED - 8)), None);
        let mut sum = good;
        sum[20] ^= 1;
        assert_eq!(Header::find(&sum), None, "the checksum is wrong");
    }

    #[test]
    fn multiboot2_is_told_apart() {
        let mut file = vec![0; 64];
        for word in [
            MULTIBOOT2_MAGIC,
            0,
            24,
            0u32.wrapping_sub(MULTIBOOT2_MAGIC + 24),
        ] {
            file.extend(word.to_le_bytes());
        }
        assert_eq!(find_multiboot2(&file), Some(64));
        assert_eq!(Header::find(&file), None);
        assert_eq!(find_multiboot2(&file[..79]), None);
        assert_eq!(find_multiboot2(&file[4..]), None);
    }

    proptest! {
        #[test]
        fn any_fields_give_a_sound_image_or_an_error(
            flags: u32,
            addresses in proptest::array::uniform5(prop_oneof![any::<u32>(), 0x10_0000..0x10_0200u32, Just(0)]),
            len in 24..400usize,
        ) {
            let mut file = file(flags, &addresses);
            file.truncate(len);
            if let Some(header) = Header::find(&file)
                && let Ok(Some(image)) = header.image(&file)
            {
                let segment = &image.segments[0];
                prop_assert!(file.get(segment.file.clone()).is_some());
                prop_assert!(segment.file.len() <= segment.memsz as usize);
                prop_assert!(image.holds_entry());
            }
        }
    }
}
