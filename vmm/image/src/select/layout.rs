//! The images of an OCI image layout.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};

use super::candidate::{Candidate, LayerBlob, Place, Platform};
use crate::document::{Stored, fault, parse, read_blob};
use crate::error::Fault;
use crate::limits::PATH_BYTES;
use crate::limits::{DESCRIPTORS, INDEX_DEPTH};
use crate::source::{Source, blob_name};

/// The entry point of a layout.
pub(super) const INDEX: &str = "index.json";

/// Annotations that name images: containerd's whole name, then OCI's, which is often the tag alone ("Pre-Defined Annotation
/// Keys").
const NAMES: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];

const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYERS: [&str; 4] = [
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// Lists the images of a layout.
pub(super) fn candidates(source: &Source, index: &[u8]) -> Result<Vec<Candidate>, Fault> {
    let index: ImageIndex = parse(INDEX, index)?;
    let mut search = Search {
        source,
        seen: 0,
        found: Vec::new(),
    };
    search.index(INDEX, &index, &[], 0)?;
    Ok(search.found)
}

struct Search<'a> {
    source: &'a Source,
    seen: usize,
    found: Vec<Candidate>,
}

impl Search<'_> {
    fn index(
        &mut self,
        document: &str,
        index: &ImageIndex,
        names: &[String],
        depth: usize,
    ) -> Result<(), Fault> {
        for descriptor in index.manifests() {
            self.seen += 1;
            if self.seen > DESCRIPTORS || depth > INDEX_DEPTH {
                return Err(Fault::Limit {
                    what: "images and indexes",
                    most: DESCRIPTORS as u64,
                });
            }
            self.descriptor(document, descriptor, names, depth)?;
        }
        Ok(())
    }

    fn descriptor(
        &mut self,
        document: &str,
        descriptor: &Descriptor,
        inherited: &[String],
        depth: usize,
    ) -> Result<(), Fault> {
        let mut names = names_of(descriptor);
        names.retain(|name| name.len() <= PATH_BYTES);
        // All images below an index have its names.
        names.extend_from_slice(inherited);
        match descriptor.media_type() {
            media_type if is(media_type, &MediaType::ImageIndex, DOCKER_INDEX) => {
                let stored = Stored::new(descriptor, document)?;
                let index: ImageIndex = read_blob(self.source, &stored)?;
                self.index(&blob_name(&stored.digest), &index, &names, depth + 1)
            }
            media_type if is(media_type, &MediaType::ImageManifest, DOCKER_MANIFEST) => {
                let stored = Stored::new(descriptor, document)?;
                let platform = descriptor.platform().as_ref().map(|platform| Platform {
                    os: platform.os().clone(),
                    architecture: platform.architecture().clone(),
                });
                self.found.push(Candidate {
                    names,
                    id: stored.digest.to_string(),
                    platform,
                    place: Place::Manifest(stored),
                });
                Ok(())
            }
            // "Implementations … MUST NOT generate an error" ("Image Index", `mediaType`).
            _ => Ok(()),
        }
    }
}

fn names_of(descriptor: &Descriptor) -> Vec<String> {
    let annotations = descriptor.annotations().as_ref();
    let name = |key| annotations.and_then(|annotations| annotations.get(key).cloned());
    NAMES.into_iter().filter_map(name).collect()
}

fn is(media_type: &MediaType, ours: &MediaType, docker: &str) -> bool {
    media_type == ours || media_type.as_ref() == docker
}

/// Reads an image's manifest. Returns the configuration's blob, or `None` if the manifest is not an image's, and the layers' blobs.
pub(super) fn manifest(
    source: &Source,
    stored: &Stored,
) -> Result<Option<(Stored, Vec<LayerBlob>)>, Fault> {
    let name = blob_name(&stored.digest);
    let manifest: ImageManifest = read_blob(source, stored)?;
    let config = manifest.config();
    if !is(config.media_type(), &MediaType::ImageConfig, DOCKER_CONFIG) {
        return Ok(None);
    }
    let layers = manifest.layers().iter();
    let layers = layers.map(|layer| {
        if !is_layer(layer.media_type()) {
            let reason = format!("layers of type {} are not supported", layer.media_type());
            return Err(fault(&name, reason));
        }
        let stored = Stored::new(layer, &name)?;
        Ok(LayerBlob {
            name: blob_name(&stored.digest),
            stored: Some(stored),
        })
    });
    Ok(Some((
        Stored::new(config, &name)?,
        layers.collect::<Result<_, _>>()?,
    )))
}

fn is_layer(media_type: &MediaType) -> bool {
    match media_type {
        MediaType::ImageLayer
        | MediaType::ImageLayerGzip
        | MediaType::ImageLayerZstd
        | MediaType::ImageLayerNonDistributable
        | MediaType::ImageLayerNonDistributableGzip
        | MediaType::ImageLayerNonDistributableZstd => true,
        other => DOCKER_LAYERS.contains(&other.as_ref()),
    }
}
