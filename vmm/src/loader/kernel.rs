//! [`Kernel`]: a kernel ready to be placed in guest memory, with the protocol by which it is entered.

use linux_loader::loader::bootparam::{XLF_CAN_BE_LOADED_ABOVE_4G, setup_header};
use thiserror::Error;

use super::{
    BzImage, BzImageError, Cache, Compression, ElfError, Foreign, MultibootError, UnpackError,
    bzimage, elf,
    image::{Image, Mode, Origin, Segment},
    multiboot, unpack,
};

/// A reason why a file cannot be booted.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The file is not a valid bzImage.
    #[error(transparent)]
    BzImage(#[from] BzImageError),
    /// The bzImage's payload does not unpack.
    #[error("bzImage payload: {0}")]
    Unpack(UnpackError),
    /// The file is not a valid ELF.
    #[error(transparent)]
    Elf(ElfError),
    /// The payload does not unpack to a valid ELF.
    #[error("bzImage payload: {0}")]
    Payload(ElfError),
    /// The file has a Multiboot header that cannot be followed.
    #[error(transparent)]
    Multiboot(#[from] MultibootError),
    /// The file is a kernel for Multiboot2 only.
    #[error(
        "kernel for Multiboot2 (header at offset {offset:#x}), which replex does not boot: build it with a Multiboot \
         header of version 1, magic 0x1badb002"
    )]
    Multiboot2 {
        /// Offset of the Multiboot2 header in the file.
        offset: usize,
    },
    /// The file is in a known format, but no kernel that can be booted.
    #[error(transparent)]
    Foreign(#[from] Foreign),
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
    image: Image,
    protocol: Protocol,
    header: Option<setup_header>,
}

/// The way in which a kernel is entered and told what it has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Linux's boot protocol, the 32-bit or the 64-bit one, as [`Image::mode`] says.
    Linux,
    /// Multiboot, version 1.
    Multiboot,
}

/// The `cmdline_size` of a kernel that does not give it: `COMMAND_LINE_SIZE` without the final NUL.
const CMDLINE_SIZE_DEFAULT: u32 = 2047;
/// The same of a kernel whose setup header has no such field (boot.rst: up to protocol 2.05).
const CMDLINE_SIZE_OLD: u32 = 255;
/// The first version of the boot protocol with `cmdline_size`.
const VERSION_CMDLINE_SIZE: u16 = 0x206;
/// The `initrd_addr_max` of a kernel that does not give it (boot.rst).
const INITRD_ADDR_MAX_DEFAULT: u32 = 0x37ff_ffff;
/// Guest-physical address of [`Kernel::flat`].
const FLAT_START: u64 = 0x10_0000;

impl Kernel {
    /// Reads a kernel from the bytes of a file: a bzImage, unpacked through `cache` if there is one, a kernel for Multiboot, or an
    /// ELF for Linux's boot protocol: an ELF32 for the i386 or an ELF64 for x86-64. `progress` is called with the number of bytes
    /// unpacked so far.
    ///
    /// # Errors
    /// See [`KernelError`].
    pub fn read(
        file: Vec<u8>,
        cache: Option<&Cache>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self, KernelError> {
        if bzimage::has_signature(&file) {
            return Self::read_bzimage(file, cache, progress);
        }
        if let Some(header) = multiboot::Header::find(&file) {
            return Self::read_multiboot(file, &header);
        }
        if let Some(offset) = multiboot::find_multiboot2(&file) {
            return Err(KernelError::Multiboot2 { offset });
        }
        if file.starts_with(elf::MAGIC) {
            let image = elf::parse(&file).map_err(KernelError::Elf)?;
            return Ok(Self {
                file,
                image,
                protocol: Protocol::Linux,
                header: None,
            });
        }
        match Foreign::of(&file) {
            Some(foreign) => Err(foreign.into()),
            None => Self::read_bzimage(file, cache, progress),
        }
    }

    fn read_bzimage(
        file: Vec<u8>,
        cache: Option<&Cache>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self, KernelError> {
        let bzimage = BzImage::parse(&file)?;
        let header = Some(bzimage.header);
        let protocol = Protocol::Linux;
        let payload = bzimage.payload.clone().map(|range| &file[range]);
        // What cannot be unpacked here unpacks itself.
        let payload =
            payload.filter(|payload| Compression::detect(payload) != Some(Compression::Lzo));
        let Some(payload) = payload else {
            let image = bzimage.whole()?;
            return Ok(Self {
                file,
                image,
                protocol,
                header,
            });
        };
        let unpacked = match cache {
            Some(cache) => cache.get_or_unpack(&file, || unpack(payload, progress))?,
            None => unpack(payload, progress)?,
        };
        let image = elf::parse(&unpacked).map_err(KernelError::Payload)?;
        Ok(Self {
            file: unpacked,
            image,
            protocol,
            header,
        })
    }

    fn read_multiboot(file: Vec<u8>, header: &multiboot::Header) -> Result<Self, KernelError> {
        let image = match header.image(&file)? {
            Some(image) => image,
            None if file.starts_with(elf::MAGIC) => {
                elf::parse_for_multiboot(&file).map_err(KernelError::Elf)?
            }
            None => return Err(MultibootError::NoAddresses.into()),
        };
        Ok(Self {
            file,
            image,
            protocol: Protocol::Multiboot,
            header: None,
        })
    }

    /// Returns a kernel that consists of `code` only, placed at 1 MiB and entered at its first byte: for the smallest guests.
    pub fn flat(code: Vec<u8>) -> Self {
        let segment = Segment {
            origin: Origin::Flat,
            paddr: FLAT_START,
            memsz: code.len() as u64,
            file: 0..code.len(),
        };
        Self {
            file: code,
            image: Image {
                mode: Mode::Protected,
                entry: FLAT_START,
                segments: vec![segment],
            },
            protocol: Protocol::Linux,
            header: None,
        }
    }

    /// Returns the segments and the entry point.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Returns the protocol by which the kernel is entered.
    pub fn protocol(&self) -> Protocol {
        self.protocol
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
        match &self.header {
            Some(header) if header.version < VERSION_CMDLINE_SIZE => CMDLINE_SIZE_OLD,
            Some(header) if header.cmdline_size != 0 => header.cmdline_size,
            _ => CMDLINE_SIZE_DEFAULT,
        }
    }

    /// Returns the highest guest-physical address that an initrd may occupy. See also [`Self::initrd_above_4g`].
    pub fn initrd_addr_max(&self) -> u32 {
        match self.header.map_or(0, |h| h.initrd_addr_max) {
            0 => INITRD_ADDR_MAX_DEFAULT,
            n => n,
        }
    }

    /// Returns whether an initrd may also lie above 4 GiB: the kernel is a 64-bit one that says so (`XLF_CAN_BE_LOADED_ABOVE_4G`).
    pub fn initrd_above_4g(&self) -> bool {
        let flags = self.header.as_ref().map_or(0, bzimage::xloadflags);
        self.image.mode == Mode::Long && flags & XLF_CAN_BE_LOADED_ABOVE_4G != 0
    }

    /// Returns the guest-physical address of the first byte behind the memory that the kernel uses before it reads the memory
    /// map: its segments and, if it was unpacked here, the working space that the setup header asks for (`pref_address`,
    /// `init_size`), which is part of the segment otherwise.
    pub fn end(&self) -> u64 {
        let working_space = self.header.map_or(0, |h| {
            { h.pref_address }.saturating_add(u64::from(h.init_size))
        });
        self.image.end().max(working_space)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::super::{
        bzimage::tests::bzimage,
        elf::tests::{elf, elf64},
        unpack::tests::*,
    };
    use super::*;
    use crate::loader::Compression;

    /// A bzImage that unpacks to a small ELF32 at 16 MiB.
    pub(crate) fn packed_kernel(compression: Compression) -> Vec<u8> {
        bzimage(&pack(compression, &elf(0x100_0000, &[0xf4; 300], 0x1000)))
    }

    /// The same as an ELF64, with the given `xloadflags`.
    pub(crate) fn packed_kernel_64(compression: Compression, xloadflags: u16) -> Vec<u8> {
        let mut file = bzimage(&pack(compression, &elf64(0x100_0000, &[0xf4; 300], 0x1000)));
        file[0x236..0x238].copy_from_slice(&xloadflags.to_le_bytes());
        file
    }

    fn read(file: Vec<u8>) -> Result<Kernel, KernelError> {
        Kernel::read(file, None, &mut |_| ())
    }

    #[test]
    fn bzimages_of_every_compression_are_read() {
        for compression in SUPPORTED {
            let kernel = read(packed_kernel(compression)).unwrap();
            assert_eq!(kernel.image().entry, 0x100_0000, "{compression:?}");
            assert_eq!(
                kernel.file()[kernel.image().segments[0].file.clone()],
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
    fn the_payload_says_in_which_mode_the_kernel_is_entered() {
        // Kernels of before protocol 2.12 have no flags.
        for (flags, above) in [(0, false), (1, false), (3, true)] {
            let kernel = read(packed_kernel_64(Compression::Gzip, flags)).unwrap();
            let image = kernel.image();
            assert_eq!((image.mode, image.entry), (Mode::Long, 0x100_0000));
            assert_eq!(kernel.initrd_above_4g(), above, "{flags}");
        }
        let mut file = packed_kernel(Compression::Gzip);
        file[0x236] = 3;
        let kernel = read(file).unwrap();
        assert_eq!(kernel.image().mode, Mode::Protected);
        assert!(!kernel.initrd_above_4g());
        let kernel = read(elf64(0x10_0000, &[0xf4], 0)).unwrap();
        assert_eq!(kernel.image().mode, Mode::Long);
        assert_eq!(kernel.protocol(), Protocol::Linux);
    }

    #[test]
    fn a_payload_for_another_processor_is_named() {
        let mut inner = elf(0x100_0000, &[0xf4; 300], 0);
        inner[18] = 40;
        let error = read(bzimage(&pack(Compression::Gzip, &inner))).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("bzImage payload: kernel for another architecture"),
            "{error}"
        );
    }

    #[test]
    fn a_bzimage_that_is_not_unpacked_here_is_a_kernel_as_it_is() {
        let lzo = bzimage(&pack(Compression::Lzo, &[]));
        let mut none = packed_kernel(Compression::Gzip);
        none[0x24c..0x250].fill(0);
        for file in [lzo, none] {
            let kernel = read(file.clone()).unwrap();
            let segment = &kernel.image().segments[0];
            assert_eq!(
                (kernel.image().entry, segment.paddr),
                (0x10_0000, 0x10_0000)
            );
            assert_eq!(kernel.file()[segment.file.clone()], file[1024..]);
            assert_eq!(kernel.protocol(), Protocol::Linux);
        }
    }

    #[test]
    fn old_kernels_take_short_command_lines() {
        let mut file = packed_kernel(Compression::Gzip);
        file[0x206..0x208].copy_from_slice(&0x205u16.to_le_bytes());
        assert_eq!(read(file).unwrap().cmdline_size(), 255);
    }

    #[test]
    fn multiboot_kernels_are_told_by_their_header() {
        let header = |flags: u32, more: &[u32]| {
            let sum = 0u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags);
            let words = [&[0x1bad_b002, flags, sum], more].concat();
            words
                .into_iter()
                .flat_map(u32::to_le_bytes)
                .collect::<Vec<_>>()
        };
        // In an ELF, in a file of its own, and in an ELF whose headers it replaces.
        let inside = elf(0x10_0000, &header(0, &[]), 0);
        let addresses = [0x10_0000, 0x10_0000, 0, 0, 0x10_0020];
        let flat = [header(1 << 16, &addresses), vec![0xf4]].concat();
        let mut other = elf(0x10_0000, &flat, 0);
        other[18] = 62;
        for (file, entry) in [
            (&inside, 0x10_0000),
            (&flat, 0x10_0020),
            (&other, 0x10_0020),
        ] {
            let kernel = read(file.clone()).unwrap();
            assert_eq!(
                (kernel.protocol(), kernel.image().entry),
                (Protocol::Multiboot, entry)
            );
        }
        let error = |file: Vec<u8>| read(file).unwrap_err().to_string();
        assert!(error(header(0, &[])).contains("no ELF32"));
        assert!(error(header(4, &[])).contains("video mode"));
        let second = [0xe852_50d6u32, 0, 16, 0x17ad_af1a]
            .map(u32::to_le_bytes)
            .concat();
        assert!(error(elf(0x10_0000, &[&[0; 4][..], &second].concat(), 0)).contains("Multiboot2"));
    }

    #[test]
    fn files_of_other_formats_are_named() {
        let packed = pack(Compression::Xz, &elf(0x10_0000, &[0xf4], 0));
        assert!(
            read(packed)
                .unwrap_err()
                .to_string()
                .contains("compressed by Xz")
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
        fn any_setup_header_gives_a_sound_image_or_an_error(
            changes in proptest::collection::vec((0x1f1..0x268usize, any::<u8>()), 1..12),
        ) {
            let mut file = bzimage(&[0x90; 300]);
            file[0x24c..0x250].fill(0);
            for (at, value) in changes {
                file[at] = value;
            }
            if let Ok(kernel) = read(file) {
                for segment in &kernel.image().segments {
                    prop_assert!(kernel.file().get(segment.file.clone()).is_some());
                    prop_assert!(segment.file.len() as u64 <= segment.memsz);
                    prop_assert!(segment.paddr.checked_add(segment.memsz).is_some());
                    prop_assert!(segment.end() <= 1 << 32);
                }
            }
        }

        #[test]
        fn mutated_elfs_have_sound_ranges(
            is_64: bool,
            changes in proptest::collection::vec((0..120usize, any::<u8>()), 1..8),
        ) {
            let mut file = match is_64 {
                true => elf64(0x10_0000, &[0xf4; 40], 0x1000),
                false => elf(0x10_0000, &[0xf4; 40], 0x1000),
            };
            for (at, value) in changes {
                file[at] = value;
            }
            if let Ok(kernel) = read(file) {
                for segment in &kernel.image().segments {
                    prop_assert!(kernel.file().get(segment.file.clone()).is_some());
                    prop_assert!(segment.file.len() as u64 <= segment.memsz);
                    prop_assert!(segment.paddr.checked_add(segment.memsz).is_some());
                }
            }
        }
    }
}
