//! The JSON documents of an image, read and verified.

use serde::de::DeserializeOwned;

use crate::digest::Digest;
use crate::error::Fault;
use crate::limits::DOCUMENT_BYTES;
use crate::source::{Source, blob_name};

/// The size and digest of a blob, as the document that names it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Stored {
    /// Takes size and digest from a descriptor in `document`.
    pub(crate) fn new(
        descriptor: &oci_spec::image::Descriptor,
        document: &str,
    ) -> Result<Self, Fault> {
        let digest = descriptor.digest();
        Ok(Self {
            digest: Digest::parse(digest.as_ref())
                .ok_or_else(|| fault(document, format!("{digest} is not a SHA-256 digest")))?,
            size: descriptor.size(),
        })
    }

    /// Checks the size and the digest of a blob that has been read.
    pub(crate) fn verify(&self, blob: &str, digest: Digest, size: u64) -> Result<(), Fault> {
        if size != self.size {
            return Err(Fault::Size {
                blob: blob.to_owned(),
                expected: self.size,
                actual: size,
            });
        }
        verify_digest(blob, self.digest, digest)
    }
}

/// Checks the digest of a blob.
pub(crate) fn verify_digest(blob: &str, expected: Digest, actual: Digest) -> Result<(), Fault> {
    if actual == expected {
        Ok(())
    } else {
        Err(Fault::Digest {
            blob: blob.to_owned(),
            expected: expected.to_string(),
            actual: actual.to_string(),
        })
    }
}

/// Reads a document that is a blob of a layout.
pub(crate) fn read_blob<T: DeserializeOwned>(source: &Source, stored: &Stored) -> Result<T, Fault> {
    let name = blob_name(&stored.digest);
    if stored.size > DOCUMENT_BYTES {
        let reason = format!("it has more than {DOCUMENT_BYTES} bytes");
        return Err(fault(&name, reason));
    }
    let bytes = source.document(&name)?;
    stored.verify(&name, Digest::of(&bytes), bytes.len() as u64)?;
    parse(&name, &bytes)
}

/// Reads a document with a name.
pub(crate) fn parse<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|error| fault(name, error))
}

/// The number of characters of a reason that are told.
const MOST_REASON: usize = 200;

/// Returns a fault of a document.
pub(crate) fn fault(document: &str, reason: impl ToString) -> Fault {
    Fault::Document {
        document: document.to_owned(),
        // Errors of JSON quote strings of the document.
        reason: reason.to_string().chars().take(MOST_REASON).collect(),
    }
}
