//! The compressions of layers and archives.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

/// A compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    /// One that images do not have.
    Unsupported(&'static str),
}

impl Compression {
    /// The number of bytes that tell.
    pub(crate) const MAGIC: usize = 6;

    /// Tells the compression by the first bytes. Archives of `docker save` do not say it, and what media types say is not always
    /// true.
    pub(crate) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable frame (RFC 8878, 3.1 "Frames").
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Unsupported("xz"),
            [b'B', b'Z', b'h', ..] => Self::Unsupported("bzip2"),
            _ => Self::None,
        }
    }
}

/// The largest window of a zstd frame, as a power of two; as much memory is used.
const WINDOW_LOG: u32 = 27;

/// Returns a reader of the uncompressed bytes.
pub(crate) fn decode<'a>(mut reader: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    match Compression::of(reader.fill_buf()?) {
        Compression::None => Ok(Box::new(reader)),
        Compression::Gzip => Ok(Box::new(MultiGzDecoder::new(reader))),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Ok(Box::new(decoder))
        }
        Compression::Unsupported(name) => Err(io::Error::other(format!(
            "it is compressed by {name}, not by gzip or zstd"
        ))),
    }
}
