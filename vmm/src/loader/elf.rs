//! ELF executables for the i386 and x86-64: headers checked, loadable segments listed.
//!
//! Segments are placed at their physical addresses (`p_paddr`): a kernel is linked to run at high linear addresses but is
//! entered at low ones. Structures are those of the System V ABI, "Object Files", and its supplements for the two processors:
//! an ELF32 for the i386 is entered in protected mode, an ELF64 for x86-64 in long mode. `elf_class.rs` knows where in the file
//! the fields of each lie.

use thiserror::Error;

use super::{
    elf_class::{Class, ProgramHeader},
    image::{Image, Mode, Origin, Segment},
};

/// A reason why a file is not an ELF kernel that can be loaded.
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
    #[error("kernel for another architecture: ELF field e_machine is {machine} ({name}), not 3 (i386) or 62 (x86-64)", name = machine_name(*machine))]
    Machine {
        /// `e_machine`.
        machine: u16,
    },
    /// The file's structures are not those of its processor.
    #[error(
        "ELF field EI_CLASS is {class}, not {expected} ({bits}-bit), for e_machine {machine} ({name})",
        bits = 32 * u32::from(*expected),
        name = machine_name(*machine)
    )]
    Class {
        /// `EI_CLASS`.
        class: u8,
        /// The class that files for the processor have.
        expected: u8,
        /// `e_machine`.
        machine: u16,
    },
    /// The file is a 64-bit one with a Multiboot header, which is entered in 32-bit code, and the header does not say where.
    #[error(
        "an ELF64 with a Multiboot header without addresses (bit 16 of flags): such a kernel has to be an ELF32"
    )]
    Multiboot64,
    /// The file is big-endian.
    #[error("ELF field EI_DATA is {0}, not 1 (little endian)")]
    Data(u8),
    /// The file is not an executable.
    #[error("ELF field e_type is {0}, not 2 (executable) or 3 (position-independent executable)")]
    Type(u16),
    /// The program headers are not of the size that the class has.
    #[error("ELF field e_phentsize is {size}, not {expected}")]
    PhEntSize {
        /// `e_phentsize`.
        size: u16,
        /// The size that the class has.
        expected: usize,
    },
    /// The program header table is not inside the file.
    #[error(
        "ELF fields e_phoff {offset:#x} and e_phnum {count} reach beyond the file's {len} bytes"
    )]
    ProgramHeaders {
        /// `e_phoff`.
        offset: u64,
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
        offset: u64,
        /// `p_filesz`.
        filesz: u64,
        /// Length of the file in bytes.
        len: usize,
    },
    /// A segment has more bytes in the file than in memory.
    #[error("ELF segment {index}: p_filesz {filesz:#x} is more than p_memsz {memsz:#x}")]
    FileSize {
        /// Number of the program header, from 0.
        index: usize,
        /// `p_filesz`.
        filesz: u64,
        /// `p_memsz`.
        memsz: u64,
    },
    /// A segment ends beyond the addresses of its class.
    #[error(
        "ELF segment {index}: p_paddr {paddr:#x} and p_memsz {memsz:#x} reach beyond {bits}-bit addresses"
    )]
    MemoryRange {
        /// Number of the program header, from 0.
        index: usize,
        /// `p_paddr`.
        paddr: u64,
        /// `p_memsz`.
        memsz: u64,
        /// The width of addresses, in bits.
        bits: u32,
    },
    /// There is no segment to load.
    #[error("ELF has no PT_LOAD segment")]
    NothingToLoad,
    /// The entry point lies in no segment.
    #[error("ELF field e_entry {0:#x} lies in no PT_LOAD segment (at p_paddr)")]
    Entry(u64),
}

/// The first bytes of every ELF file.
pub const MAGIC: &[u8] = b"\x7fELF";
const EI_CLASS: usize = 4;
const EI_DATA: usize = 5;
const E_TYPE: usize = 16;
const E_MACHINE: usize = 18;
const DATA_LSB: u8 = 1;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;

/// Checks the headers of the ELF in `file`. Bytes behind the last segment (a kernel's relocations) are ignored.
///
/// # Errors
/// See [`ElfError`]. That the segments fit the guest's memory is for the caller to check.
pub(super) fn parse(file: &[u8]) -> Result<Image, ElfError> {
    parse_by(file, check_ident(file)?, |entry, _| entry)
}

/// As [`parse`], for an ELF32 whose `e_entry` may also be the linear address that the entry point has once the kernel has
/// turned paging on (`p_vaddr`): boot loaders for Multiboot take either.
///
/// # Errors
/// As [`parse`], and if the file is an ELF64.
pub(super) fn parse_for_multiboot(file: &[u8]) -> Result<Image, ElfError> {
    let mode = match check_ident(file)? {
        Mode::Protected => Mode::Protected,
        Mode::Long => return Err(ElfError::Multiboot64),
    };
    parse_by(file, mode, |entry, headers| {
        let by = |start: fn(&ProgramHeader) -> u64| {
            let mut headers = headers.iter();
            headers.find_map(|header| placed(entry, header, start(header)))
        };
        by(|header| header.paddr)
            .or_else(|| by(|header| header.vaddr))
            .unwrap_or(entry)
    })
}

/// Returns the physical address of what lies at `address`, if the segment of `header`, taken to begin at `start`, does that.
fn placed(address: u64, header: &ProgramHeader, start: u64) -> Option<u64> {
    let offset = address.checked_sub(start)?;
    let is_inside = is_loaded(header) && offset < header.memsz;
    is_inside.then(|| header.paddr.wrapping_add(offset))
}

/// As [`parse`], where `entry` makes the entry point from `e_entry` and the program headers.
fn parse_by(
    file: &[u8],
    mode: Mode,
    entry: impl Fn(u64, &[ProgramHeader]) -> u64,
) -> Result<Image, ElfError> {
    let class = class_of(mode);
    let header = class.header(file).ok_or(ElfError::Truncated {
        len: file.len(),
        what: "the end of the ELF header",
    })?;
    if header.phnum > 0 && usize::from(header.phentsize) != class.phdr_len {
        return Err(ElfError::PhEntSize {
            size: header.phentsize,
            expected: class.phdr_len,
        });
    }
    let headers = class
        .program_headers(file, &header)
        .ok_or(ElfError::ProgramHeaders {
            offset: header.phoff,
            count: header.phnum,
            len: file.len(),
        })?;
    let image = Image {
        mode,
        entry: entry(header.entry, &headers),
        segments: segments(class, &headers, file.len())?,
    };
    if image.segments.is_empty() {
        return Err(ElfError::NothingToLoad);
    }
    match image.holds_entry() {
        true => Ok(image),
        false => Err(ElfError::Entry(image.entry)),
    }
}

/// Returns the structures of a file whose code is entered in `mode`.
fn class_of(mode: Mode) -> &'static Class {
    match mode {
        Mode::Protected => &Class::ELF32,
        Mode::Long => &Class::ELF64,
    }
}

/// Checks the identification, `e_machine` and `e_type`, and returns the mode in which the code is entered. The machine comes before
/// the class, since a wrong one explains the other.
fn check_ident(file: &[u8]) -> Result<Mode, ElfError> {
    if !file.starts_with(MAGIC) {
        return Err(ElfError::Magic);
    }
    let ident = file
        .first_chunk::<{ E_MACHINE + 2 }>()
        .ok_or(ElfError::Truncated {
            len: file.len(),
            what: "e_machine",
        })?;
    let half = |at: usize| u16::from_le_bytes([ident[at], ident[at + 1]]);
    if ident[EI_DATA] != DATA_LSB {
        return Err(ElfError::Data(ident[EI_DATA]));
    }
    let machine = half(E_MACHINE);
    let mode = match machine {
        EM_386 => Mode::Protected,
        EM_X86_64 => Mode::Long,
        _ => return Err(ElfError::Machine { machine }),
    };
    let (class, expected) = (ident[EI_CLASS], class_of(mode).number);
    if class != expected {
        return Err(ElfError::Class {
            class,
            expected,
            machine,
        });
    }
    match half(E_TYPE) {
        ET_EXEC | ET_DYN => Ok(mode),
        other => Err(ElfError::Type(other)),
    }
}

/// Lists the segments that are to be loaded from a file of `len` bytes.
fn segments(
    class: &Class,
    headers: &[ProgramHeader],
    len: usize,
) -> Result<Vec<Segment>, ElfError> {
    headers
        .iter()
        .enumerate()
        .filter(|(_, header)| is_loaded(header))
        .map(|(index, header)| segment(class, index, header, len))
        .collect()
}

/// Returns whether the segment of `header` is of type `PT_LOAD` and occupies memory.
fn is_loaded(header: &ProgramHeader) -> bool {
    header.kind == PT_LOAD && header.memsz > 0
}

/// Checks the program header of a segment.
fn segment(
    class: &Class,
    index: usize,
    header: &ProgramHeader,
    len: usize,
) -> Result<Segment, ElfError> {
    let &ProgramHeader {
        offset,
        paddr,
        filesz,
        memsz,
        ..
    } = header;
    let end = offset.checked_add(filesz);
    let Some(end) = end.filter(|&end| end <= len as u64) else {
        return Err(ElfError::FileRange {
            index,
            offset,
            filesz,
            len,
        });
    };
    if filesz > memsz {
        return Err(ElfError::FileSize {
            index,
            filesz,
            memsz,
        });
    }
    let end_of_memory = paddr.checked_add(memsz);
    if end_of_memory.is_none_or(|end| end - 1 > class.last_address) {
        return Err(ElfError::MemoryRange {
            index,
            paddr,
            memsz,
            bits: 32 * u32::from(class.number),
        });
    }
    Ok(Segment {
        origin: Origin::ElfSegment(index),
        paddr,
        memsz,
        file: offset as usize..end as usize,
    })
}

/// Returns the name of a processor that a Linux kernel is likely to be for.
fn machine_name(machine: u16) -> &'static str {
    match machine {
        3 => "i386",
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
        let memsz = (code.len() as u32).wrapping_add(bss);
        build(Mode::Protected, paddr.into(), code, memsz.into())
    }

    /// The same as an ELF64.
    pub(crate) fn elf64(paddr: u64, code: &[u8], bss: u64) -> Vec<u8> {
        let memsz = (code.len() as u64).wrapping_add(bss);
        build(Mode::Long, paddr, code, memsz)
    }

    /// Start of a kernel's linear addresses, less the physical ones.
    fn linear(mode: Mode) -> u64 {
        match mode {
            Mode::Protected => 0xc000_0000,
            Mode::Long => 0xffff_ffff_8000_0000,
        }
    }

    fn build(mode: Mode, paddr: u64, code: &[u8], memsz: u64) -> Vec<u8> {
        let (machine, ehdr_len) = match mode {
            Mode::Protected => (EM_386, 52u16),
            Mode::Long => (EM_X86_64, 64),
        };
        let class = class_of(mode);
        let phdr_len = class.phdr_len as u16;
        let data_at = u64::from(ehdr_len + phdr_len);
        let vaddr = paddr.wrapping_add(linear(mode));
        let len = code.len() as u64;
        let mut file = MAGIC.to_vec();
        file.extend([class.number, DATA_LSB, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let halves = |halves: &[u16], file: &mut Vec<u8>| {
            file.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
        };
        let word = |word: u64, file: &mut Vec<u8>| {
            file.extend(&word.to_le_bytes()[..4 * usize::from(class.number)]);
        };
        halves(&[ET_EXEC, machine, 1, 0], &mut file);
        for field in [paddr, ehdr_len.into(), 0] {
            word(field, &mut file);
        }
        halves(&[0, 0, ehdr_len, phdr_len, 1, 0, 0, 0], &mut file);
        halves(&[PT_LOAD as u16, 0], &mut file);
        if mode == Mode::Long {
            halves(&[7, 0], &mut file);
        }
        for field in [data_at, vaddr, paddr, len, memsz] {
            word(field, &mut file);
        }
        if mode == Mode::Protected {
            halves(&[7, 0], &mut file);
        }
        word(4096, &mut file);
        file.extend(code);
        file
    }

    #[test]
    fn segments_use_physical_addresses() {
        for (file, mode, start) in [
            (elf(0x10_0000, b"code", 0x1000), Mode::Protected, 84),
            (elf64(0x10_0000, b"code", 0x1000), Mode::Long, 120),
        ] {
            let image = parse(&file).unwrap();
            assert_eq!((image.mode, image.entry), (mode, 0x10_0000));
            assert_eq!(
                image.segments,
                [Segment {
                    origin: Origin::ElfSegment(0),
                    paddr: 0x10_0000,
                    memsz: 0x1004,
                    file: start..start + 4
                }]
            );
            assert_eq!(image.end(), 0x10_1004);
        }
    }

    #[test]
    fn addresses_of_64_bits_are_taken_whole() {
        let image = parse(&elf64(0x1_2345_6000, b"code", 1 << 32)).unwrap();
        assert_eq!((image.entry, image.end()), (0x1_2345_6000, 0x2_2345_6004));
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
            file[24..28].copy_from_slice(&u32::to_le_bytes(entry));
            let image = parse_for_multiboot(&file);
            assert_eq!(image.map(|image| image.entry), expected, "{entry:#x}");
        }
        let error = parse_for_multiboot(&elf64(0x10_0000, b"code", 0));
        assert_eq!(error, Err(ElfError::Multiboot64));
    }

    #[test]
    fn every_truncation_is_an_error() {
        for file in [elf(0x10_0000, b"code", 0), elf64(0x10_0000, b"code", 0)] {
            for len in 0..file.len() {
                assert!(parse(&file[..len]).is_err(), "{len}");
            }
        }
    }

    #[test]
    fn errors_name_the_field() {
        let phdr = 52;
        let cases: [(usize, u32, &str); 12] = [
            (0, 0, "magic"),
            (4, 0x0001_0201, "EI_DATA"),
            (E_TYPE, 0x0003_0001, "e_type"),
            (E_TYPE, 40 << 16 | 2, "e_machine is 40 (ARM)"),
            (E_TYPE, 183 << 16 | 2, "AArch64"),
            (24, 0xc010_0000, "e_entry"),
            (28, 0xffff_fff0, "e_phoff"),
            (42, 56 | 1 << 16, "e_phentsize is 56, not 32"),
            (phdr, 2, "PT_LOAD"),
            (phdr + 4, 0xffff_ffff, "p_offset"),
            (phdr + 16, 3, "p_memsz"),
            (phdr + 12, 0xffff_fffe, "32-bit addresses"),
        ];
        check_errors(&elf(0x10_0000, b"code", 0), &cases, phdr + 16);
    }

    #[test]
    fn errors_of_64_bit_files_name_the_field() {
        let phdr = 64;
        let cases: [(usize, u64, &str); 9] = [
            (24, 0xffff_ffff_8010_0000, "e_entry 0xffffffff80100000"),
            (32, 0xffff_ffff_ffff_fff0, "e_phoff"),
            (32, 1 << 32 | 64, "e_phoff 0x100000040"),
            (54, 32 | 1 << 16, "e_phentsize is 32, not 56"),
            (phdr, 2, "PT_LOAD"),
            (phdr + 8, u64::MAX, "p_offset"),
            (phdr + 8, 1 << 32 | 120, "p_offset 0x100000078"),
            (phdr + 32, 3, "p_memsz"),
            (phdr + 24, 0xffff_ffff_ffff_fffe, "64-bit addresses"),
        ];
        check_errors(&elf64(0x10_0000, b"code", 0), &cases, phdr + 32);
    }

    /// Checks that the value at its place makes an error with these words. One for `p_filesz`, at `filesz`, is for the word behind it.
    fn check_errors<W: Copy + Into<u64>>(good: &[u8], cases: &[(usize, W, &str)], filesz: usize) {
        for &(at, value, expected) in cases {
            let value: u64 = value.into();
            let bytes = &value.to_le_bytes()[..size_of::<W>()];
            let at = match at == filesz {
                true => at + bytes.len(),
                false => at,
            };
            let mut file = good.to_vec();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            let error = parse(&file).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn the_class_is_that_of_the_machine() {
        for (mut file, class, expected) in [
            (
                elf(0x10_0000, b"code", 0),
                2,
                "EI_CLASS is 2, not 1 (32-bit), for e_machine 3 (i386)",
            ),
            (
                elf64(0x10_0000, b"code", 0),
                1,
                "EI_CLASS is 1, not 2 (64-bit), for e_machine 62 (x86-64)",
            ),
        ] {
            file[EI_CLASS] = class;
            let error = parse(&file).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
