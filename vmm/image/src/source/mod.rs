//! The files of an image layout or archive, by name.

mod archive;
mod folder;
mod members;

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use crate::blob::Blob;
use crate::digest::Digest;
use crate::error::{Fault, file_fault};
use crate::limits::{DOCUMENT_BYTES, Limits};
use crate::progress::Report;
use archive::Archive;
use folder::Folder;

/// The files of an image layout or archive.
pub(crate) enum Source {
    Folder(Folder),
    Archive(Archive),
}

impl Source {
    /// Opens a folder or an archive, which may be compressed by gzip or zstd; then it is uncompressed into an unnamed file in the
    /// folder `cache`.
    pub(crate) fn open(
        path: &Path,
        cache: &Path,
        limits: &Limits,
        report: Report<'_>,
    ) -> Result<Self, Fault> {
        let file = folder::open(path).map_err(file_fault("open", path))?;
        let metadata = file.metadata().map_err(file_fault("open", path))?;
        if metadata.is_dir() {
            Ok(Self::Folder(Folder::new(path)))
        } else if metadata.is_file() {
            let file = Blob {
                file: Arc::new(file),
                start: 0,
                len: metadata.len(),
            };
            Archive::open(file, cache, limits, report).map(Self::Archive)
        } else {
            Err(Fault::NotAnImage)
        }
    }

    /// Returns the file with a name, or `None` if there is none.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Blob>, Fault> {
        match self {
            Self::Folder(folder) => folder.find(name),
            Self::Archive(archive) => Ok(archive.find(name)),
        }
    }

    /// Returns the file with a name.
    pub(crate) fn get(&self, name: &str) -> Result<Blob, Fault> {
        self.find(name)?
            .ok_or_else(|| Fault::Missing(name.to_owned()))
    }

    /// Returns the bytes of a JSON document, which is refused if it is not small.
    pub(crate) fn document(&self, name: &str) -> Result<Vec<u8>, Fault> {
        let blob = self.get(name)?;
        if blob.len > DOCUMENT_BYTES {
            return Err(Fault::Document {
                document: name.to_owned(),
                reason: format!("it has more than {DOCUMENT_BYTES} bytes"),
            });
        }
        let mut bytes = Vec::new();
        let read = blob.reader().read_to_end(&mut bytes);
        read.map_err(file_fault("read", Path::new(name)))?;
        Ok(bytes)
    }
}

/// The name of the blob with a digest in a layout (OCI Image Format Specification, "Image Layout", "Blobs").
pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
