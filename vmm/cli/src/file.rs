//! [`read`]: files of a limited size.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// A file that is longer than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Reads the file at `path`, of at most `limit` bytes. A device or a pipe, which has no length to look at, is read up to there.
///
/// # Errors
/// If it cannot be read; within, if it is longer.
pub fn read(path: &Path, limit: u64) -> io::Result<Result<Vec<u8>, TooLong>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.len() > limit {
        return Ok(Err(TooLong));
    }
    // Room for all at once: what a growing vector gives back would stay with the allocator.
    let mut bytes = Vec::with_capacity(metadata.len().min(limit) as usize + 1);
    // One byte more is enough to know that it is too much.
    let len = file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(if len as u64 > limit {
        Err(TooLong)
    } else {
        Ok(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_for_files_with_and_without_a_length() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut file, b"abc").unwrap();
        assert_eq!(read(file.path(), 3).unwrap(), Ok(b"abc".to_vec()));
        assert_eq!(read(file.path(), 2).unwrap(), Err(TooLong));
        assert_eq!(read("/dev/zero".as_ref(), 5).unwrap(), Err(TooLong));
        assert_eq!(read("/dev/null".as_ref(), 0).unwrap(), Ok(Vec::new()));
        assert!(read("/".as_ref(), 5).is_err());
    }
}
