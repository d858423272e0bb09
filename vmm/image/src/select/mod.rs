//! The choice of one image among those of a layout or archive.

mod candidate;
mod layout;
mod saved;

use oci_spec::image::{Arch, ImageConfiguration, Os};

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::document::{fault, parse, read_blob, verify_digest};
use crate::error::Fault;
use crate::limits::LAYERS;
use crate::source::{Source, blob_name};
use candidate::{Candidate, Place, Platform};

pub(crate) use candidate::LayerBlob;

/// A layer of the chosen image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) blob: LayerBlob,
    /// The digest of the uncompressed layer.
    pub(crate) diff_id: Digest,
}

/// The chosen image.
#[derive(Debug)]
pub(crate) struct Selected {
    pub(crate) architecture: Arch,
    pub(crate) config: ImageConfig,
    /// The layers, the lowest first.
    pub(crate) layers: Vec<Layer>,
}

/// Chooses the image for the first possible one of `architectures`, among those that have the name if one is given.
pub(crate) fn select(
    source: &Source,
    name: Option<&str>,
    architectures: &[Arch],
) -> Result<Selected, Fault> {
    let mut candidates = candidates(source)?;
    if let Some(name) = name {
        keep_named(&mut candidates, name)?;
    }
    let mut chosen: Vec<(Candidate, Selected)> = Vec::new();
    let mut found: Vec<String> = Vec::new();
    for candidate in candidates {
        if chosen.iter().any(|(other, _)| other.id == candidate.id) {
            continue;
        }
        match fitting(source, &candidate, architectures)? {
            Fit::Ours(selected) => chosen.push((candidate, selected)),
            Fit::Other(other) if !found.contains(&other) => found.push(other),
            Fit::Other(_) | Fit::NotAnImage => {}
        }
    }
    let preferred = architectures.iter().find(|&architecture| {
        let mut images = chosen.iter();
        images.any(|(_, image)| image.architecture == *architecture)
    });
    chosen.retain(|(_, image)| Some(&image.architecture) == preferred);
    if chosen.len() > 1 {
        let names = chosen.iter().map(|(image, _)| image.label().to_owned());
        return Err(Fault::Ambiguous {
            names: names.collect(),
        });
    }
    match chosen.pop() {
        Some((_, selected)) => Ok(selected),
        None if found.is_empty() => Err(Fault::NotAnImage),
        None => Err(Fault::Platform {
            wanted: architectures.iter().map(on_linux).collect(),
            found,
        }),
    }
}

/// The name of the platform of Linux on `architecture`.
fn on_linux(architecture: &Arch) -> String {
    let platform = Platform {
        os: Os::Linux,
        architecture: architecture.clone(),
    };
    platform.to_string()
}

fn candidates(source: &Source) -> Result<Vec<Candidate>, Fault> {
    if source.find(layout::INDEX)?.is_some() {
        layout::candidates(source, &source.document(layout::INDEX)?)
    } else if source.find(saved::MANIFEST)?.is_some() {
        saved::candidates(&source.document(saved::MANIFEST)?)
    } else {
        Err(Fault::NotAnImage)
    }
}

/// Keeps the images that have the name or, if there is none, those of which it is a short spelling.
fn keep_named(candidates: &mut Vec<Candidate>, name: &str) -> Result<(), Fault> {
    let is_exact = candidates.iter().any(|image| image.is_named(name));
    let is_named = |image: &Candidate| image.is_named(name) || image.is_named_shortly(name);
    if !candidates.iter().any(is_named) {
        let mut names: Vec<String> = candidates
            .iter()
            .filter_map(|image| image.names.first().cloned())
            .collect();
        names.dedup();
        return Err(Fault::NoSuchName {
            name: name.to_owned(),
            names,
        });
    }
    candidates.retain(|image| image.is_named(name) || !is_exact && is_named(image));
    Ok(())
}

/// Whether an image is for an architecture that is wanted.
enum Fit {
    Ours(Selected),
    /// An image for this platform.
    Other(String),
    /// Something else that is kept as images are.
    NotAnImage,
}

/// Reads the configuration of an image, if it may be for one of `architectures`.
fn fitting(source: &Source, candidate: &Candidate, architectures: &[Arch]) -> Result<Fit, Fault> {
    match &candidate.platform {
        Some(platform) if platform.is_none() => return Ok(Fit::NotAnImage),
        Some(platform) if !platform.is_one_of(architectures) => {
            return Ok(Fit::Other(platform.to_string()));
        }
        _ => {}
    }
    let (config_name, config, layers): (_, ImageConfiguration, _) = match &candidate.place {
        Place::Manifest(stored) => {
            let Some((config, layers)) = layout::manifest(source, stored)? else {
                return Ok(Fit::NotAnImage);
            };
            let name = blob_name(&config.digest);
            (name, read_blob(source, &config)?, layers)
        }
        Place::Saved { config, layers } => {
            let bytes = source.document(config)?;
            verify_digest(config, saved::config_digest(config)?, Digest::of(&bytes))?;
            (
                config.clone(),
                parse(config, &bytes)?,
                saved::layers(layers),
            )
        }
    };
    let platform = Platform::of(&config);
    if !platform.is_one_of(architectures) {
        return Ok(Fit::Other(platform.to_string()));
    }
    let layers = with_diff_ids(&config_name, &config, layers)?;
    Ok(Fit::Ours(Selected {
        architecture: platform.architecture,
        config: image_config(&config_name, &config)?,
        layers,
    }))
}

fn image_config(name: &str, config: &ImageConfiguration) -> Result<ImageConfig, Fault> {
    let config = config.config().clone().unwrap_or_default();
    ImageConfig::new(&config)
        .map_err(|field| fault(name, format!("config.{field} has a zero byte")))
}

/// Puts the blobs of layers and the digests of their uncompressed bytes together.
fn with_diff_ids(
    config_name: &str,
    config: &ImageConfiguration,
    blobs: Vec<LayerBlob>,
) -> Result<Vec<Layer>, Fault> {
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != blobs.len() {
        let reason = format!(
            "it has {} diff IDs for {} layers",
            diff_ids.len(),
            blobs.len()
        );
        return Err(fault(config_name, reason));
    }
    if blobs.len() > LAYERS {
        return Err(Fault::Limit {
            what: "layers",
            most: LAYERS as u64,
        });
    }
    let layer = |(blob, diff_id): (LayerBlob, &String)| {
        let reason = || fault(config_name, format!("{diff_id:?} is not a SHA-256 digest"));
        Ok(Layer {
            blob,
            diff_id: Digest::parse(diff_id).ok_or_else(reason)?,
        })
    };
    blobs.into_iter().zip(diff_ids).map(layer).collect()
}
