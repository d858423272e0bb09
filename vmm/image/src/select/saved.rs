//! The images of an archive of `docker save`.

use serde::Deserialize;

use super::candidate::{Candidate, LayerBlob, Place};
use crate::digest::Digest;
use crate::document::{fault, parse};
use crate::error::Fault;
use crate::limits::DESCRIPTORS;

/// The document that lists the images.
pub(super) const MANIFEST: &str = "manifest.json";

/// An image in `manifest.json` (Docker Image Specification 1.2, "Combined Image JSON + Filesystem Changeset Format").
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// Lists the images of an archive.
pub(super) fn candidates(manifest: &[u8]) -> Result<Vec<Candidate>, Fault> {
    let images: Vec<SavedImage> = parse(MANIFEST, manifest)?;
    if images.len() > DESCRIPTORS {
        return Err(Fault::Limit {
            what: "images",
            most: DESCRIPTORS as u64,
        });
    }
    let images = images.into_iter().map(|image| Candidate {
        names: image.repo_tags.unwrap_or_default(),
        id: image.config.clone(),
        platform: None,
        place: Place::Saved {
            config: image.config,
            layers: image.layers.unwrap_or_default(),
        },
    });
    Ok(images.collect())
}

/// The layers' blobs.
pub(super) fn layers(names: &[String]) -> Vec<LayerBlob> {
    let blob = |name: &String| LayerBlob {
        name: name.clone(),
        stored: None,
    };
    names.iter().map(blob).collect()
}

/// The digest of a configuration, which its name has: `DIGEST.json`, `sha256:DIGEST` or `blobs/sha256/DIGEST`, according to the
/// tool that wrote the archive.
pub(super) fn config_digest(name: &str) -> Result<Digest, Fault> {
    let base = name.rsplit('/').next().unwrap_or(name);
    let base = base.strip_suffix(".json").unwrap_or(base);
    let hex = base.strip_prefix("sha256:").unwrap_or(base);
    Digest::from_hex(hex).ok_or_else(|| {
        fault(
            MANIFEST,
            format!("the name {name:?} of a configuration has no digest"),
        )
    })
}
