//! The header extensions of a qcow2 image (QEMU, docs/interop/qcow2.txt), checked before imago reads them: it takes the entries of
//! the table of feature names for whole.

use super::refcounts::{CLUSTER_BITS, HEADER, MAGIC, invalid, read};
use std::{fs::File, io};

/// The type of the extension that names features, and the size of its entries.
const FEATURE_NAMES: u32 = 0x6803_f857;
const FEATURE_NAME: u32 = 48;
/// The size of an extension's type and length.
const HEAD: usize = 8;

/// Checks the extensions of the image in `file`. What imago refuses by itself passes, as do other files.
///
/// # Errors
/// If imago could not read them, or the file cannot be read.
pub fn check(file: &File) -> io::Result<()> {
    let header = read(file, 0, HEADER)?;
    let word = |bytes: &[u8], at: usize| {
        let word = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(word))
    };
    let of_header = |at| word(&header, at).unwrap_or_default();
    let (version, cluster_bits) = (of_header(4), of_header(20));
    if !header.starts_with(&MAGIC) || version != 3 || !CLUSTER_BITS.contains(&cluster_bits) {
        return Ok(());
    }
    let cluster = read(file, 0, 1 << cluster_bits)?;
    let mut at = of_header(100) as usize;
    while let (Some(kind @ 1..), Some(length)) = (word(&cluster, at), word(&cluster, at + 4)) {
        if kind == FEATURE_NAMES && !length.is_multiple_of(FEATURE_NAME) {
            return Err(invalid("its table of feature names ends within an entry"));
        }
        at += HEAD + length.next_multiple_of(8) as usize;
    }
    Ok(())
}
