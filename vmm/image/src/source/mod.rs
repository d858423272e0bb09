//! The files of an image layout or archive, by name.

mod archive;
mod folder;
mod members;

use std::fs::{File, Metadata};
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
    /// Takes the folder or archive at `path`, whose file is `file`. If the archive is compressed by gzip or zstd it is
    /// uncompressed into an unnamed file in the folder `cache`.
    pub(crate) fn new(
        (file, metadata): (Arc<File>, &Metadata),
        path: &Path,
        cache: &Path,
        limits: &Limits,
        report: Report<'_>,
    ) -> Result<Self, Fault> {
        if metadata.is_dir() {
            Ok(Self::Folder(Folder::new(path)))
        } else if metadata.is_file() {
            let file = Blob {
                file,
                start: 0,
                len: metadata.len(),
            };
            Archive::open(file, cache, limits, report).map(Self::Archive)
        } else {
            Err(Fault::NotAnImage)
        }
    }

    /// Whether it is an archive that had to be uncompressed.
    pub(crate) fn is_uncompressed(&self) -> bool {
        matches!(self, Self::Archive(archive) if archive.is_uncompressed)
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

/// Opens a folder or an archive.
pub(crate) fn open(path: &Path) -> Result<(Arc<File>, Metadata), Fault> {
    let opened = folder::open(path).and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = opened.map_err(file_fault("open", path))?;
    Ok((Arc::new(file), metadata))
}

/// The name of the blob with a digest in a layout (OCI Image Format Specification, "Image Layout", "Blobs").
pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
