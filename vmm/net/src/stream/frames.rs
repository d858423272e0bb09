//! The frames of a stream: each behind its length, big-endian in four bytes.
//!
//! ```text
//!   00 00 00 2a  42 bytes │ 00 00 05 dc  1500 bytes │ …
//! ```

use std::ops::{Range, RangeInclusive};

use thiserror::Error;

/// The length in bytes of the length before each frame.
const LENGTH: usize = 4;

/// The shortest frame, an Ethernet header, and the longest, one with a VLAN tag and the largest IP packet; in bytes.
const SHORTEST: usize = 14;
pub(super) const LONGEST: usize = 14 + 4 + 65535;

/// The lengths of Ethernet frames.
pub(super) const LENGTHS: RangeInclusive<usize> = SHORTEST..=LONGEST;

/// The bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// The error of a length that no Ethernet frame has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a frame of {0} bytes")]
pub struct BadLength(u32);

/// Adds a frame to what is to be written.
pub(super) fn push(frame: &[u8], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&(frame.len() as u32).to_be_bytes());
    bytes.extend_from_slice(frame);
}

/// Bytes that were read, in which whole frames are found.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// The bytes, and room for more, which is not cleared again for each read.
    bytes: Vec<u8>,
    /// The bytes before this were taken.
    taken: usize,
    /// The bytes before this were read.
    filled: usize,
}

impl Input {
    /// Calls `read` with room for more bytes, of which it returns the number that it has filled.
    pub(super) fn fill<E>(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        self.bytes.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        if self.bytes.len() < self.filled + CHUNK {
            self.bytes.resize(self.filled + CHUNK, 0);
        }
        let read = read(&mut self.bytes[self.filled..][..CHUNK])?;
        self.filled += read;
        Ok(read)
    }

    /// Whether the next frame is there as a whole.
    ///
    /// # Errors
    /// If what comes next cannot be a frame.
    pub(super) fn has_frame(&self) -> Result<bool, BadLength> {
        Ok(self.find()?.is_some())
    }

    /// Takes the next frame that is there as a whole.
    ///
    /// # Errors
    /// If what comes next cannot be a frame.
    pub(super) fn next(&mut self) -> Result<Option<&mut [u8]>, BadLength> {
        let Some(frame) = self.find()? else {
            return Ok(None);
        };
        self.taken = frame.end;
        Ok(Some(&mut self.bytes[frame]))
    }

    /// The place of the next frame.
    fn find(&self) -> Result<Option<Range<usize>>, BadLength> {
        let present = &self.bytes[self.taken..self.filled];
        let Some((length, rest)) = present.split_first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length);
        let len = length as usize;
        if !LENGTHS.contains(&len) {
            return Err(BadLength(length));
        }
        let start = self.taken + LENGTH;
        Ok((rest.len() >= len).then_some(start..start + len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `stream` in pieces of `size` bytes, and returns the frames and what ended it.
    fn read(stream: &[u8], size: usize) -> (Vec<Vec<u8>>, Option<BadLength>) {
        let mut input = Input::default();
        let mut frames = Vec::new();
        for piece in stream.chunks(size) {
            let filled = input.fill(|room| {
                room[..piece.len()].copy_from_slice(piece);
                Ok::<_, ()>(piece.len())
            });
            assert_eq!(filled, Ok(piece.len()));
            loop {
                match input.next() {
                    Ok(Some(frame)) => frames.push(frame.to_vec()),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
        (frames, None)
    }

    #[test]
    fn frames_are_found_however_the_stream_is_cut() {
        let frames: Vec<Vec<u8>> = [14, 60, LONGEST, 15]
            .into_iter()
            .map(|len| (0..len).map(|byte| byte as u8).collect())
            .collect();
        let mut stream = Vec::new();
        for frame in &frames {
            push(frame, &mut stream);
        }
        for size in [1, 3, 4, 5, 17, 65536, CHUNK] {
            assert_eq!(read(&stream, size), (frames.clone(), None), "{size}");
        }
    }

    #[test]
    fn lengths_of_no_frame_are_refused() {
        for length in [0, 1, 13, LONGEST as u32 + 1, u32::MAX] {
            let mut stream = Vec::new();
            push(&[7; 20], &mut stream);
            stream.extend_from_slice(&length.to_be_bytes());
            stream.extend_from_slice(&[0; 100]);
            for size in [1, 1000] {
                let expected = (vec![vec![7; 20]], Some(BadLength(length)));
                assert_eq!(read(&stream, size), expected, "{length}");
            }
        }
    }
}
