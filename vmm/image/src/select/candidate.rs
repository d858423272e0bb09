//! An image that could be meant.

use oci_spec::image::{Arch, ImageConfiguration, Os};

use crate::document::Stored;

/// An image that could be meant.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Its names; the first is the one that users are told.
    pub(super) names: Vec<String>,
    /// The digest of its manifest or configuration.
    pub(super) id: String,
    /// Its platform, if the index says it.
    pub(super) platform: Option<Platform>,
    pub(super) place: Place,
}

/// The place that names an image's configuration and layers.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// The manifest with this digest.
    Manifest(Stored),
    /// `manifest.json` of `docker save`.
    Saved { config: String, layers: Vec<String> },
}

/// A layer's blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerBlob {
    /// Its name in the layout or archive.
    pub(crate) name: String,
    /// Its size and digest, unless it has a name of `docker save`.
    pub(crate) stored: Option<Stored>,
}

/// An operating system and an architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Platform {
    pub(super) os: Os,
    pub(super) architecture: Arch,
}

impl Platform {
    pub(super) fn of(config: &ImageConfiguration) -> Self {
        Self {
            os: config.os().clone(),
            architecture: config.architecture().clone(),
        }
    }

    /// Whether it is Linux on one of these architectures.
    pub(super) fn is_one_of(&self, architectures: &[Arch]) -> bool {
        self.os == Os::Linux && architectures.contains(&self.architecture)
    }

    /// Whether it stands for documents about images, as BuildKit stores them beside images.
    pub(super) fn is_none(&self) -> bool {
        self.os == Os::Other("unknown".to_owned())
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

impl Candidate {
    /// The name that users are told.
    pub(super) fn label(&self) -> &str {
        self.names.first().unwrap_or(&self.id)
    }

    /// Whether `name` is one of its names.
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.id == name || self.names.iter().any(|own| own == name)
    }

    /// Whether `name` is a short spelling of one of its names, as docker understands it: without registry, `library` or
    /// `:latest`, or the tag alone.
    pub(super) fn is_named_shortly(&self, name: &str) -> bool {
        self.names.iter().any(|own| {
            let path = own.strip_prefix("docker.io/").unwrap_or(own);
            let short = path.strip_prefix("library/").unwrap_or(path);
            let is_tag = path.rsplit_once(':').is_some_and(|(_, tag)| tag == name);
            let is_it = |own: &str| own == name || own.strip_suffix(":latest") == Some(name);
            is_tag || is_it(path) || is_it(short)
        })
    }
}
