//! ELF32 executables for the i386: headers checked, loadable segments listed.
//!
//! Segments are placed at their physical addresses (`p_paddr`): a kernel is linked to run at high linear addresses but is
//! entered with paging off. Structures are those of the System V ABI, "Object Files", and its Intel386 supplement.

use thiserror::Error;

use super::image::{Image, Origin, Segment};

/// A reason why a file is not an ELF32 kernel that can be loaded.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ElfError {
    /// The file does not start with `\x7fELF`.
    #[error("no ELF magic")]
    Magic,
    /// The file ends inside the part named.
    #[error("truncated ELF: {len} bytes end before {what}")]
    Truncated {
        /// Length of the file in bytes.
        len: usize,
        /// The part that is missing.
        what: &'static str,
    },
    /// The code is for another processor.
    #[error("kernel for another architecture: ELF field e_machine is {machine} ({name}), not 3 (i386)", name = machine_name(*machine))]
    Machine {
        /// `e_machine`.
        machine: u16,
    },
    /// The file is a 64-bit one.
    #[error("ELF field EI_CLASS is {0}, not 1 (32-bit)")]
    Class(u8),
    /// The file is big-endian.
    #[error("ELF field EI_DATA is {0}, not 1 (little endian)")]
    Data(u8),
    /// The file is not an executable.
    #[error("ELF field e_type is {0}, not 2 (executable) or 3 (position-independent executable)")]
    Type(u16),
    /// The program headers are not of the size that ELF32 has.
    #[error("ELF field e_phentsize is {0}, not {PHDR_LEN}")]
    PhEntSize(u16),
    /// The program header table is not inside the file.
    #[error(
        "ELF fields e_phoff {offset:#x} and e_phnum {count} reach beyond the file's {len} bytes"
    )]
    ProgramHeaders {
        /// `e_phoff`.
        offset: u32,
        /// `e_phnum`.
        count: u16,
        /// Length of the file in bytes.
        len: usize,
    },
    /// A segment's bytes are not inside the file.
    #[error(
        "ELF segment {index}: p_offset {offset:#x} and p_filesz {filesz:#x} reach beyond the file's {len} bytes"
    )]
    FileRange {
        /// Number of the program header, from 0.
        index: usize,
        /// `p_offset`.
        offset: u32,
        /// `p_filesz`.
        filesz: u32,
        /// Length of the file in bytes.
        len: usize,
    },
    /// A segment has more bytes in the file than in memory.
    #[error("ELF segment {index}: p_filesz {filesz:#x} is more than p_memsz {memsz:#x}")]
    FileSize {
        /// Number of the program header, from 0.
        index: usize,
        /// `p_filesz`.
        filesz: u32,
        /// `p_memsz`.
        memsz: u32,
    },
    /// A segment ends beyond 4 GiB.
    #[error("ELF segment {index}: p_paddr {paddr:#x} and p_memsz {memsz:#x} reach beyond 4 GiB")]
    MemoryRange {
        /// Number of the program header, from 0.
        index: usize,
        /// `p_paddr`.
        paddr: u32,
        /// `p_memsz`.
        memsz: u32,
    },
    /// There is no segment to load.
    #[error("ELF has no PT_LOAD segment")]
    NothingToLoad,
    /// The entry point lies in no segment.
    #[error("ELF field e_entry {0:#x} lies in no PT_LOAD segment (at p_paddr)")]
    Entry(u32),
}

/// The first bytes of every ELF file.
pub const MAGIC: &[u8] = b"\x7fELF";
const EHDR_LEN: usize = 52;
const PHDR_LEN: usize = 32;
const EI_CLASS: usize = 4;
const EI_DATA: usize = 5;
const E_TYPE: usize = 16;
const E_MACHINE: usize = 18;
const E_ENTRY: usize = 24;
const E_PHOFF: usize = 28;
const E_PHENTSIZE: usize = 42;
const E_PHNUM: usize = 44;
const P_TYPE: usize = 0;
const P_OFFSET: usize = 4;
const P_VADDR: usize = 8;
const P_PADDR: usize = 12;
const P_FILESZ: usize = 16;
const P_MEMSZ: usize = 20;
const CLASS_32: u8 = 1;
const DATA_LSB: u8 = 1;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_386: u16 = 3;
const PT_LOAD: u32 = 1;

/// Checks the headers of the ELF32 in `file`. Bytes behind the last segment (a kernel's relocations) are ignored.
///
/// # Errors
/// See [`ElfError`]. That the segments fit the guest's memory is for the caller to check.
pub(super) fn parse(file: &[u8]) -> Result<Image, ElfError> {
    parse_by(file, |entry, _| entry)
}

/// As [`parse`], for a kernel whose `e_entry` may also be the linear address that the entry point has once the kernel has
/// turned paging on (`p_vaddr`): boot loaders for Multiboot take either.
///
/// # Errors
/// As [`parse`].
pub(super) fn parse_with_linear_entry(file: &[u8]) -> Result<Image, ElfError> {
    parse_by(file, |entry, headers| {
        let by = |start| {
            headers
                .iter()
                .find_map(|header| placed(entry, header, start))
        };
        by(P_PADDR).or_else(|| by(P_VADDR)).unwrap_or(entry)
    })
}

/// Returns the physical address of what lies at `address`, if the segment of `header` does that begins at the address in the
/// field at offset `start`.
fn placed(address: u32, header: &[u8; PHDR_LEN], start: usize) -> Option<u32> {
    let offset = address.checked_sub(u32_at(header, start))?;
    let is_inside = is_loaded(header) && offset < u32_at(header, P_MEMSZ);
    is_inside.then(|| u32_at(header, P_PADDR).wrapping_add(offset))
}

/// As [`parse`], where `entry` makes the entry point from `e_entry` and the program headers.
fn parse_by(file: &[u8], entry: impl Fn(u32, &[[u8; PHDR_LEN]]) -> u32) -> Result<Image, ElfError> {
    check_ident(file)?;
    let header = file.first_chunk::<EHDR_LEN>().ok_or(ElfError::Truncated {
        len: file.len(),
        what: "the end of the ELF header",
    })?;
    let headers = program_headers(file, header)?;
    let image = Image {
        entry: entry(u32_at(header, E_ENTRY), headers),
        segments: segments(headers, file.len())?,
    };
    if image.segments.is_empty() {
        return Err(ElfError::NothingToLoad);
    }
    match image.holds_entry() {
        true => Ok(image),
        false => Err(ElfError::Entry(image.entry)),
    }
}

/// Checks the identification, `e_machine` and `e_type`. The machine comes before the class, since a wrong one explains the other.
fn check_ident(file: &[u8]) -> Result<(), ElfError> {
    if !file.starts_with(MAGIC) {
        return Err(ElfError::Magic);
    }
    let ident = file
        .first_chunk::<{ E_MACHINE + 2 }>()
        .ok_or(ElfError::Truncated {
            len: file.len(),
            what: "e_machine",
        })?;
    if ident[EI_DATA] != DATA_LSB {
        return Err(ElfError::Data(ident[EI_DATA]));
    }
    let machine = u16_at(ident, E_MACHINE);
    if machine != EM_386 {
        return Err(ElfError::Machine { machine });
    }
    if ident[EI_CLASS] != CLASS_32 {
        return Err(ElfError::Class(ident[EI_CLASS]));
    }
    match u16_at(ident, E_TYPE) {
        ET_EXEC | ET_DYN => Ok(()),
        other => Err(ElfError::Type(other)),
    }
}

/// Returns the program header table.
fn program_headers<'f>(
    file: &'f [u8],
    header: &[u8; EHDR_LEN],
) -> Result<&'f [[u8; PHDR_LEN]], ElfError> {
    let (offset, count) = (u32_at(header, E_PHOFF), u16_at(header, E_PHNUM));
    let entry_size = u16_at(header, E_PHENTSIZE);
    if count > 0 && usize::from(entry_size) != PHDR_LEN {
        return Err(ElfError::PhEntSize(entry_size));
    }
    let start = offset as usize;
    let table = file
        .get(start..start + usize::from(count) * PHDR_LEN)
        .ok_or(ElfError::ProgramHeaders {
            offset,
            count,
            len: file.len(),
        })?;
    let (headers, _) = table.as_chunks::<PHDR_LEN>();
    Ok(headers)
}

/// Lists the segments that are to be loaded from a file of `len` bytes.
fn segments(headers: &[[u8; PHDR_LEN]], len: usize) -> Result<Vec<Segment>, ElfError> {
    headers
        .iter()
        .enumerate()
        .filter(|(_, header)| is_loaded(header))
        .map(|(index, header)| segment(index, header, len))
        .collect()
}

/// Returns whether the segment of `header` is of type `PT_LOAD` and occupies memory.
fn is_loaded(header: &[u8; PHDR_LEN]) -> bool {
    u32_at(header, P_TYPE) == PT_LOAD && u32_at(header, P_MEMSZ) > 0
}

/// Checks the program header of a segment.
fn segment(index: usize, header: &[u8; PHDR_LEN], len: usize) -> Result<Segment, ElfError> {
    let (offset, filesz) = (u32_at(header, P_OFFSET), u32_at(header, P_FILESZ));
    let (paddr, memsz) = (u32_at(header, P_PADDR), u32_at(header, P_MEMSZ));
    let file = offset as usize..offset as usize + filesz as usize;
    if file.end > len {
        return Err(ElfError::FileRange {
            index,
            offset,
            filesz,
            len,
        });
    }
    if filesz > memsz {
        return Err(ElfError::FileSize {
            index,
            filesz,
            memsz,
        });
    }
    let segment = Segment {
        origin: Origin::ElfSegment(index),
        paddr,
        memsz,
        file,
    };
    if segment.end() > 1 << 32 {
        return Err(ElfError::MemoryRange {
            index,
            paddr,
            memsz,
        });
    }
    Ok(segment)
}

/// Returns the field at a constant offset inside a header of fixed size.
fn u16_at<const N: usize>(header: &[u8; N], at: usize) -> u16 {
    u16::from_le_bytes([header[at], header[at + 1]])
}

/// Returns the field at a constant offset inside a header of fixed size.
fn u32_at<const N: usize>(header: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

/// Returns the name of a processor that a Linux kernel is likely to be for.
fn machine_name(machine: u16) -> &'static str {
    match machine {
        8 => "MIPS",
        20 => "PowerPC",
        21 => "PowerPC64",
        22 => "S/390",
        40 => "ARM",
        62 => "x86-64",
        183 => "AArch64",
        243 => "RISC-V",
        258 => "LoongArch",
        _ => "unknown",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An ELF32 with one segment holding `code` at `paddr`, entered at its start, `bss` zero bytes behind it.
    pub(crate) fn elf(paddr: u32, code: &[u8], bss: u32) -> Vec<u8> {
        let data_at = (EHDR_LEN + PHDR_LEN) as u32;
        let mut file = MAGIC.to_vec();
        file.extend([CLASS_32, DATA_LSB, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for half in [ET_EXEC, EM_386] {
            file.extend(half.to_le_bytes());
        }
        for word in [1, paddr, EHDR_LEN as u32, 0, 0] {
            file.extend(word.to_le_bytes());
        }
        for half in [EHDR_LEN as u16, PHDR_LEN as u16, 1, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let len = code.len() as u32;
        for word in [
            PT_LOAD,
            data_at,
            paddr.wrapping_add(0xc000_0000),
            paddr,
            len,
            len.wrapping_add(bss),
            7,
            4096,
        ] {
            file.extend(word.to_le_bytes());
        }
        file.extend(code);
        file
    }

    #[test]
    fn segments_use_physical_addresses() {
        let image = parse(&elf(0x10_0000, b"code", 0x1000)).unwrap();
        assert_eq!(image.entry, 0x10_0000);
        assert_eq!(
            image.segments,
            [Segment {
                origin: Origin::ElfSegment(0),
                paddr: 0x10_0000,
                memsz: 0x1004,
                file: 84..88
            }]
        );
        assert_eq!(image.end(), 0x10_1004);
    }

    #[test]
    fn a_linear_entry_is_translated_where_that_is_wanted() {
        let mut file = elf(0x10_0000, b"code", 0);
        for (entry, expected) in [
            (0x10_0002, Ok(0x10_0002)),
            (0xc010_0003, Ok(0x10_0003)),
            (0xc010_0004, Err(ElfError::Entry(0xc010_0004))),
            (0x10_0004, Err(ElfError::Entry(0x10_0004))),
        ] {
            file[E_ENTRY..E_ENTRY + 4].copy_from_slice(&u32::to_le_bytes(entry));
            let image = parse_with_linear_entry(&file);
            assert_eq!(image.map(|image| image.entry), expected, "{entry:#x}");
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let file = elf(0x10_0000, b"code", 0);
        for len in 0..file.len() {
            assert!(parse(&file[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn errors_name_the_field() {
        let good = elf(0x10_0000, b"code", 0);
        let phdr = EHDR_LEN;
        let cases: [(usize, u32, &str); 12] = [
            (0, 0, "magic"),
            (4, 0x0001_0202, "EI_DATA"),
            (E_TYPE, 0x0003_0001, "e_type"),
            (E_TYPE, 62 << 16 | 2, "e_machine is 62 (x86-64)"),
            (E_TYPE, 183 << 16 | 2, "AArch64"),
            (E_ENTRY, 0xc010_0000, "e_entry"),
            (E_PHOFF, 0xffff_fff0, "e_phoff"),
            (E_PHENTSIZE, 56 | 1 << 16, "e_phentsize"),
            (phdr + P_TYPE, 2, "PT_LOAD"),
            (phdr + P_OFFSET, 0xffff_ffff, "p_offset"),
            (phdr + P_FILESZ, 3, "p_memsz"),
            (phdr + P_PADDR, 0xffff_fffe, "p_paddr"),
        ];
        for (at, value, expected) in cases {
            let mut file = good.clone();
            file[at..at + 4].copy_from_slice(&value.to_le_bytes());
            if expected == "p_memsz" {
                file[phdr + P_FILESZ..][..4].copy_from_slice(&4u32.to_le_bytes());
                file[phdr + P_MEMSZ..][..4].copy_from_slice(&value.to_le_bytes());
            }
            let error = parse(&file).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn a_64_bit_class_is_named() {
        let mut file = elf(0x10_0000, b"code", 0);
        file[EI_CLASS] = 2;
        assert_eq!(parse(&file), Err(ElfError::Class(2)));
    }
}
