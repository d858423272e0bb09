//! Why an image is refused.

use std::io;
use std::path::{Path, PathBuf};

/// An image could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct ImageError {
    /// The folder or archive with the image.
    pub path: PathBuf,
    /// The reason.
    pub fault: Fault,
}

/// A reason for which an image cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A file of the host cannot be used.
    #[error("cannot {action} {}: {reason}", file.display())]
    File {
        /// The verb.
        action: &'static str,
        /// The file.
        file: PathBuf,
        /// The reason.
        reason: io::Error,
    },

    /// There is neither `index.json` nor `manifest.json`.
    #[error("this is neither an OCI image layout nor an archive of `docker save`")]
    NotAnImage,

    /// The archive with the image cannot be read.
    #[error("cannot read the archive: {0}")]
    Archive(String),

    /// A file of the layout or archive is missing.
    #[error("{0} is missing")]
    Missing(String),

    /// A blob has not the digest that is said of it.
    #[error("{blob} is damaged: its digest is {actual}, not {expected}")]
    Digest {
        /// The blob.
        blob: String,
        /// Its digest as the document that names it says.
        expected: String,
        /// The digest of its bytes.
        actual: String,
    },

    /// A blob has not the size that is said of it.
    #[error("{blob} is damaged: it has {actual} bytes, not {expected}")]
    Size {
        /// The blob.
        blob: String,
        /// Its size as the document that names it says.
        expected: u64,
        /// The number of its bytes.
        actual: u64,
    },

    /// A JSON document is not what it should be.
    #[error("{document}: {reason}")]
    Document {
        /// The document.
        document: String,
        /// The reason.
        reason: String,
    },

    /// A layer cannot be read.
    #[error("layer {layer}: {reason}")]
    Layer {
        /// The layer.
        layer: String,
        /// The reason.
        reason: String,
    },

    /// An entry of a layer is refused.
    #[error("layer {layer}: entry {entry:?}: {reason}")]
    Entry {
        /// The layer.
        layer: String,
        /// The entry's name; bytes that are not UTF-8 are replaced.
        entry: String,
        /// The reason.
        reason: String,
    },

    /// No image has the name.
    #[error("no image is named {name}; {}", listed(names))]
    NoSuchName {
        /// The name.
        name: String,
        /// The names that there are.
        names: Vec<String>,
    },

    /// Several images could be meant.
    #[error("there are several images; append a colon and a name: {}", names.join(", "))]
    Ambiguous {
        /// Their names, or digests of those that have none.
        names: Vec<String>,
    },

    /// There is no image for the guest's processor.
    #[error("there is no image for {}, which the guest's kernel can run, only for {}", wanted.join(" or "), found.join(", "))]
    Platform {
        /// The platforms that would do.
        wanted: Vec<String>,
        /// The platforms that there are images for.
        found: Vec<String>,
    },

    /// The image asks for more than it may.
    #[error("there are more than {most} {what}")]
    Limit {
        /// A plural noun.
        what: &'static str,
        /// The limit.
        most: u64,
    },

    /// So many files are so deep that the squashfs image would take very long to write.
    #[error(
        "too many files are deep in folders: the squares of their depths add up to more than {0}"
    )]
    TooDeep(
        /// The limit.
        u64,
    ),

    /// The squashfs image could not be written.
    #[error("cannot write the squashfs image {}: {reason}", file.display())]
    Squashfs {
        /// The file.
        file: PathBuf,
        /// The reason.
        reason: String,
    },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "the images have no names".to_owned()
    } else {
        format!("the names are {}", names.join(", "))
    }
}

/// Returns a function for `map_err` that turns an `io::Error` into [`Fault::File`].
pub(crate) fn file_fault(action: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Fault {
    move |reason| Fault::File {
        action,
        file: file.to_owned(),
        reason,
    }
}
