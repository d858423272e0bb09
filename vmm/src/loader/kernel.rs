//! A kernel ready to be placed in guest memory: an unpacked ELF32 and the setup header of its bzImage.

use linux_loader::loader::bootparam::setup_header;
use thiserror::Error;

use super::{BzImage, BzImageError, Cache, Elf32, ElfError, Segment, UnpackError, elf, unpack};

/// A reason why a file cannot be booted.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The file is not a valid bzImage.
    #[error(transparent)]
    BzImage(#[from] BzImageError),
    /// The bzImage's payload does not unpack.
    #[error("bzImage payload: {0}")]
    Unpack(UnpackError),
    /// The file is not a valid ELF32.
    #[error(transparent)]
    Elf(ElfError),
    /// The payload does not unpack to a valid ELF32.
    #[error("bzImage payload: {0}")]
    Payload(ElfError),
}

impl From<UnpackError> for KernelError {
    fn from(error: UnpackError) -> Self {
        Self::Unpack(error)
    }
}

/// A checked kernel, unpacked.
#[derive(Debug)]
pub struct Kernel {
    file: Vec<u8>,
    elf: Elf32,
    header: Option<setup_header>,
}

/// The `cmdline_size` of an i386 kernel that does not give it: `COMMAND_LINE_SIZE` without the final NUL.
const CMDLINE_SIZE_DEFAULT: u32 = 2047;
/// The `initrd_addr_max` of a kernel that does not give it (boot.rst).
const INITRD_ADDR_MAX_DEFAULT: u32 = 0x37ff_ffff;
/// Guest-physical address of [`Kernel::flat`].
const FLAT_START: u32 = 0x10_0000;

impl Kernel {
    /// Reads a kernel from the bytes of a file: a bzImage, unpacked through `cache` if there is one, or an ELF32.
    /// `progress` is called with the number of bytes unpacked so far.
    ///
    /// # Errors
    /// See [`KernelError`].
    pub fn read(
        file: Vec<u8>,
        cache: Option<&Cache>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self, KernelError> {
        if file.starts_with(elf::MAGIC) {
            let elf = Elf32::parse(&file).map_err(KernelError::Elf)?;
            return Ok(Self {
                file,
                elf,
                header: None,
            });
        }
        let image = BzImage::parse(&file)?;
        let payload = &file[image.payload.clone()];
        let unpacked = match cache {
            Some(cache) => cache.get_or_unpack(&file, || unpack(payload, progress))?,
            None => unpack(payload, progress)?,
        };
        let elf = Elf32::parse(&unpacked).map_err(KernelError::Payload)?;
        Ok(Self {
            file: unpacked,
            elf,
            header: Some(image.header),
        })
    }

    /// Returns a kernel that consists of `code` only, placed at 1 MiB and entered at its first byte: for the smallest guests.
    pub fn flat(code: Vec<u8>) -> Self {
        let segment = Segment {
            index: 0,
            paddr: FLAT_START,
            // More than 4 GiB do not fit into RAM, as the loader will say.
            memsz: u32::try_from(code.len()).unwrap_or(u32::MAX),
            file: 0..code.len(),
        };
        Self {
            file: code,
            elf: Elf32 {
                entry: FLAT_START,
                segments: vec![segment],
            },
            header: None,
        }
    }

    /// Returns the segments and the entry point.
    pub fn elf(&self) -> &Elf32 {
        &self.elf
    }

    /// Returns the bytes that the segments' file ranges refer to.
    pub fn file(&self) -> &[u8] {
        &self.file
    }

    /// Returns the setup header, if the file was a bzImage.
    pub fn header(&self) -> Option<&setup_header> {
        self.header.as_ref()
    }

    /// Returns the length of the longest command line in bytes, without the final NUL.
    pub fn cmdline_size(&self) -> u32 {
        match self.header.map_or(0, |h| h.cmdline_size) {
            0 => CMDLINE_SIZE_DEFAULT,
            n => n,
        }
    }

    /// Returns the highest guest-physical address that an initrd may occupy.
    pub fn initrd_addr_max(&self) -> u32 {
        match self.header.map_or(0, |h| h.initrd_addr_max) {
            0 => INITRD_ADDR_MAX_DEFAULT,
            n => n,
        }
    }

    /// Returns the guest-physical address of the first byte behind the memory that the kernel uses before it reads the memory
    /// map: its segments and the working space that the setup header asks for (`pref_address`, `init_size`).
    pub fn end(&self) -> u64 {
        let working_space = self.header.map_or(0, |h| {
            { h.pref_address }.saturating_add(u64::from(h.init_size))
        });
        self.elf.end().max(working_space)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::super::{bzimage::tests::bzimage, elf::tests::elf, unpack::tests::*};
    use super::*;
    use crate::loader::Compression;

    /// A bzImage that unpacks to a small ELF32 at 16 MiB.
    pub(crate) fn packed_kernel(compression: Compression) -> Vec<u8> {
        bzimage(&pack(compression, &elf(0x100_0000, &[0xf4; 300], 0x1000)))
    }

    fn read(file: Vec<u8>) -> Result<Kernel, KernelError> {
        Kernel::read(file, None, &mut |_| ())
    }

    #[test]
    fn bzimages_of_every_compression_are_read() {
        for compression in SUPPORTED {
            let kernel = read(packed_kernel(compression)).unwrap();
            assert_eq!(kernel.elf().entry, 0x100_0000, "{compression:?}");
            assert_eq!(
                kernel.file()[kernel.elf().segments[0].file.clone()],
                [0xf4; 300]
            );
            assert_eq!(kernel.end(), 0x110_0000, "init_size counts");
        }
    }

    #[test]
    fn an_elf_has_the_protocol_s_defaults() {
        let kernel = read(elf(0x10_0000, &[0xf4], 0)).unwrap();
        assert_eq!(kernel.cmdline_size(), 2047);
        assert_eq!(kernel.initrd_addr_max(), 0x37ff_ffff);
        assert_eq!(kernel.end(), 0x10_0001);
    }

    #[test]
    fn a_payload_for_another_processor_is_named() {
        let mut inner = elf(0x100_0000, &[0xf4; 300], 0);
        inner[18] = 62;
        let error = read(bzimage(&pack(Compression::Gzip, &inner))).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("bzImage payload: kernel for another architecture"),
            "{error}"
        );
    }

    #[test]
    fn truncated_bzimages_are_errors() {
        for compression in SUPPORTED {
            let file = packed_kernel(compression);
            for len in (0..file.len() - 8).step_by(37) {
                assert!(
                    read(file[..len].to_vec()).is_err(),
                    "{compression:?} cut at {len}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = read(bytes);
        }

        #[test]
        fn garbage_behind_the_elf_magic_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = read([elf::MAGIC, &bytes].concat());
        }

        #[test]
        fn mutated_bzimages_never_panic(
            which in 0..SUPPORTED.len(),
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<proptest::sample::Index>(),
            truncate in any::<bool>(),
        ) {
            let mut file = packed_kernel(SUPPORTED[which]);
            for (at, value) in changes {
                let at = at.index(file.len());
                file[at] = value;
            }
            if truncate {
                file.truncate(cut.index(file.len()));
            }
            let _ = read(file);
        }

        #[test]
        fn garbage_payloads_never_panic(
            which in 0..SUPPORTED.len(),
            bytes in proptest::collection::vec(any::<u8>(), 0..512),
        ) {
            let mut payload = pack(SUPPORTED[which], &[])[..4].to_vec();
            payload.extend(bytes);
            payload.extend([0, 0, 1, 0]);
            let _ = read(bzimage(&payload));
        }

        #[test]
        fn mutated_elfs_have_sound_ranges(
            changes in proptest::collection::vec((0..84usize, any::<u8>()), 1..8),
        ) {
            let mut file = elf(0x10_0000, b"code", 0x1000);
            for (at, value) in changes {
                file[at] = value;
            }
            if let Ok(kernel) = read(file) {
                for segment in &kernel.elf().segments {
                    prop_assert!(kernel.file().get(segment.file.clone()).is_some());
                    prop_assert!(segment.file.len() <= segment.memsz as usize);
                }
            }
        }
    }
}
