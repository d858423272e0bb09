//! Unpacks the payload of a bzImage on the host.
//!
//! The payload is one compressed stream followed by the size of what it unpacks to (32 bits, little endian; gzip's own
//! last field is that size already). The first bytes tell the format, as for the kernel's own `decompress_method`.
//! All formats that distributions use are supported, by widely used crates; LZO is recognized and refused.

use std::io::{self, Read};

use thiserror::Error;

/// A compression format of a bzImage's payload (`CONFIG_KERNEL_*` of the kernel's configuration).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// gzip, RFC 1952.
    Gzip,
    /// The .xz container, with or without the x86 branch filter.
    Xz,
    /// The older .lzma ("alone") container.
    Lzma,
    /// bzip2.
    Bzip2,
    /// Zstandard, RFC 8878.
    Zstd,
    /// LZ4's legacy frame: independent blocks of at most 8 MiB.
    Lz4Legacy,
    /// The lzop container: recognized, not supported.
    Lzo,
}

/// A reason why a payload could not be unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The payload has no room for a compressed stream and its size.
    #[error("payload of {0} bytes is too short")]
    Short(usize),
    /// The first bytes are those of no known format.
    #[error("payload starts with {0:02x?}, the magic of no known compression")]
    UnknownMagic([u8; MAGIC_LEN]),
    /// The format is known but not supported.
    #[error("unsupported compression {0:?}")]
    Unsupported(Compression),
    /// The size field asks for more than any kernel needs.
    #[error("unpacked size field says {0} bytes, more than the limit of {MAX_UNPACKED}")]
    TooLarge(usize),
    /// The stream ended early, or holds more or fewer bytes than the size field says.
    #[error("{compression:?} stream unpacks to {actual} bytes where the size field says {stated}")]
    Size {
        /// The format of the stream.
        compression: Compression,
        /// The size that follows the stream.
        stated: usize,
        /// Number of bytes unpacked, at most one more than `stated`.
        actual: usize,
    },
    /// The stream is damaged.
    #[error("damaged {compression:?} stream: {reason}")]
    Damaged {
        /// The format of the stream.
        compression: Compression,
        /// The decompressor's error.
        reason: io::Error,
    },
}

/// Length of the longest magic number in bytes.
const MAGIC_LEN: usize = 4;
/// Bytes of the size field behind the stream.
const SIZE_LEN: usize = 4;
/// Largest unpacked kernel accepted, in bytes. Distribution kernels unpack to 20–60 MiB.
const MAX_UNPACKED: usize = 512 << 20;
/// Memory an LZMA decoder may take for its dictionary, in bytes (kernels are packed with at most 32 MiB).
const LZMA_MEMORY: u64 = 256 << 20;
/// Bytes unpacked between two reports of progress.
const STEP: u64 = 1 << 20;

impl Compression {
    /// Detects the format by the first bytes of a payload.
    pub fn detect(payload: &[u8]) -> Option<Self> {
        const MAGICS: [(&[u8], Compression); 8] = [
            (&[0x1f, 0x8b], Compression::Gzip),
            (&[0x1f, 0x9e], Compression::Gzip),
            (b"BZh", Compression::Bzip2),
            (&[0x5d, 0, 0], Compression::Lzma),
            (&[0xfd, b'7', b'z', b'X'], Compression::Xz),
            (&[0x89, b'L', b'Z', b'O'], Compression::Lzo),
            (&[0x02, 0x21, 0x4c, 0x18], Compression::Lz4Legacy),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
        ];
        MAGICS
            .iter()
            .find(|(magic, _)| payload.starts_with(magic))
            .map(|&(_, compression)| compression)
    }
}

/// Unpacks `payload`, calling `progress` with the number of bytes done about every mebibyte.
///
/// # Errors
/// See [`UnpackError`]. The result is exactly as long as the size field behind the stream says.
pub fn unpack(payload: &[u8], progress: &mut dyn FnMut(usize)) -> Result<Vec<u8>, UnpackError> {
    let (stream, size) = payload
        .split_last_chunk::<SIZE_LEN>()
        .ok_or(UnpackError::Short(payload.len()))?;
    let magic = *stream
        .first_chunk::<MAGIC_LEN>()
        .ok_or(UnpackError::Short(payload.len()))?;
    let compression = Compression::detect(&magic).ok_or(UnpackError::UnknownMagic(magic))?;
    let stated = u32::from_le_bytes(*size) as usize;
    if stated > MAX_UNPACKED {
        return Err(UnpackError::TooLarge(stated));
    }
    let damaged = |reason| UnpackError::Damaged {
        compression,
        reason,
    };
    let reader: Box<dyn Read + '_> = match compression {
        // The size field is the stream's own last field.
        Compression::Gzip => Box::new(flate2::bufread::GzDecoder::new(payload)),
        Compression::Xz => Box::new(liblzma::bufread::XzDecoder::new_stream(
            stream,
            liblzma::stream::Stream::new_stream_decoder(LZMA_MEMORY, 0)
                .map_err(|e| damaged(e.into()))?,
        )),
        Compression::Lzma => Box::new(liblzma::bufread::XzDecoder::new_stream(
            stream,
            liblzma::stream::Stream::new_lzma_decoder(LZMA_MEMORY)
                .map_err(|e| damaged(e.into()))?,
        )),
        Compression::Bzip2 => Box::new(bzip2::bufread::BzDecoder::new(stream)),
        Compression::Zstd => Box::new(
            zstd::stream::read::Decoder::with_buffer(stream)
                .map_err(damaged)?
                .single_frame(),
        ),
        Compression::Lz4Legacy => Box::new(Lz4Blocks::new(&stream[MAGIC_LEN..])),
        Compression::Lzo => return Err(UnpackError::Unsupported(compression)),
    };
    // One byte more than stated is enough to know that the stream is too long.
    let unpacked = read_all(reader.take(stated as u64 + 1), progress).map_err(damaged)?;
    if unpacked.len() != stated {
        return Err(UnpackError::Size {
            compression,
            stated,
            actual: unpacked.len(),
        });
    }
    Ok(unpacked)
}

/// Reads to the end in steps, so that progress can be shown.
fn read_all(mut reader: impl Read, progress: &mut dyn FnMut(usize)) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    while reader.by_ref().take(STEP).read_to_end(&mut all)? > 0 {
        progress(all.len());
    }
    Ok(all)
}

/// Reader of an LZ4 legacy frame behind its magic: blocks of a 32-bit little-endian length and that many bytes.
struct Lz4Blocks<'a> {
    input: &'a [u8],
    block: io::Cursor<Vec<u8>>,
}

/// Largest block of a legacy frame once unpacked, in bytes (LZ4 frame format, Legacy frame).
const LZ4_BLOCK: usize = 8 << 20;

impl<'a> Lz4Blocks<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            block: io::Cursor::new(Vec::new()),
        }
    }

    /// Unpacks the next block; false at the end of the input.
    fn next_block(&mut self) -> io::Result<bool> {
        if self.input.is_empty() {
            return Ok(false);
        }
        let (length, rest) = self
            .input
            .split_first_chunk::<4>()
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let (packed, rest) = rest
            .split_at_checked(u32::from_le_bytes(*length) as usize)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut unpacked = vec![0; LZ4_BLOCK];
        let len = lz4_flex::block::decompress_into(packed, &mut unpacked)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        unpacked.truncate(len);
        self.block = io::Cursor::new(unpacked);
        self.input = rest;
        Ok(true)
    }
}

impl Read for Lz4Blocks<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.block.read(buf)?;
            if read > 0 || buf.is_empty() || !self.next_block()? {
                return Ok(read);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    /// Packs `data` as the kernel's build does, the size behind it.
    pub(crate) fn pack(compression: Compression, data: &[u8]) -> Vec<u8> {
        let mut out = match compression {
            Compression::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
                encoder.write_all(data).unwrap();
                return encoder.finish().unwrap();
            }
            Compression::Xz => {
                let options = liblzma::stream::LzmaOptions::new_preset(6).unwrap();
                let mut filters = liblzma::stream::Filters::new();
                filters.x86().lzma2(&options);
                let stream = liblzma::stream::Stream::new_stream_encoder(
                    &filters,
                    liblzma::stream::Check::Crc32,
                )
                .unwrap();
                let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Lzma => {
                let options = liblzma::stream::LzmaOptions::new_preset(6).unwrap();
                let stream = liblzma::stream::Stream::new_lzma_encoder(&options).unwrap();
                let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Bzip2 => {
                let mut encoder =
                    bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::stream::encode_all(data, 19).unwrap(),
            Compression::Lz4Legacy => {
                let mut out = vec![0x02, 0x21, 0x4c, 0x18];
                for block in data.chunks(LZ4_BLOCK) {
                    let packed = lz4_flex::block::compress(block);
                    out.extend((packed.len() as u32).to_le_bytes());
                    out.extend(packed);
                }
                out
            }
            Compression::Lzo => b"\x89LZO\0\r\n\x1a\n".to_vec(),
        };
        out.extend((data.len() as u32).to_le_bytes());
        out
    }

    pub(crate) const SUPPORTED: [Compression; 6] = [
        Compression::Gzip,
        Compression::Xz,
        Compression::Lzma,
        Compression::Bzip2,
        Compression::Zstd,
        Compression::Lz4Legacy,
    ];

    /// Compressible bytes, not constant, with call instructions for the branch filter to work on.
    fn sample(len: usize) -> Vec<u8> {
        (0..len)
            .map(|i| if i % 7 == 0 { 0xe8 } else { (i / 64) as u8 })
            .collect()
    }

    #[test]
    fn every_supported_format_unpacks_to_what_was_packed() {
        // Longer than one LZ4 block.
        let data = sample(LZ4_BLOCK + 12_345);
        for compression in SUPPORTED {
            let mut done = 0;
            let unpacked = unpack(&pack(compression, &data), &mut |n| done = n).unwrap();
            assert!(unpacked == data, "{compression:?}");
            assert_eq!(done, data.len(), "{compression:?}");
        }
    }

    #[test]
    fn truncated_streams_are_errors() {
        let data = sample(50_000);
        for compression in SUPPORTED {
            let packed = pack(compression, &data);
            for len in (0..packed.len()).step_by(packed.len() / 50 + 1) {
                assert!(
                    unpack(&packed[..len], &mut |_| ()).is_err(),
                    "{compression:?} cut at {len}"
                );
            }
        }
    }

    #[test]
    fn the_size_field_must_agree_with_the_stream() {
        for compression in SUPPORTED {
            for wrong in [9_999u32, 10_001] {
                let mut packed = pack(compression, &sample(10_000));
                let at = packed.len() - SIZE_LEN;
                packed[at..].copy_from_slice(&wrong.to_le_bytes());
                assert!(
                    unpack(&packed, &mut |_| ()).is_err(),
                    "{compression:?} {wrong}"
                );
            }
        }
    }

    #[test]
    fn an_absurd_size_is_refused_before_any_work() {
        let mut packed = pack(Compression::Zstd, &sample(100));
        let at = packed.len() - SIZE_LEN;
        packed[at..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(
            unpack(&packed, &mut |_| ()),
            Err(UnpackError::TooLarge(_))
        ));
    }

    #[test]
    fn lzo_is_named_in_the_error() {
        let error = unpack(&pack(Compression::Lzo, &[]), &mut |_| ()).unwrap_err();
        assert_eq!(error.to_string(), "unsupported compression Lzo");
    }

    #[test]
    fn unknown_magic_is_shown() {
        let error = unpack(b"garbage!", &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains("[67, 61, 72, 62]"), "{error}");
    }
}
