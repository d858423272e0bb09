//! The way from a reference to a root.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::{self, chain_id};
use crate::config::ImageConfig;
use crate::error::{Fault, ImageError, file_fault};
use crate::layer::Root;
use crate::limits::Limits;
use crate::progress::{Meter, Progress, Report, Step};
use crate::reference::Reference;
use crate::select::{Layer, select};
use crate::source::Source;
use crate::spool::Spool;
use crate::squashfs;

/// An image that a guest can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The root as a squashfs image, a whole number of 4 KiB blocks. It is shared; nobody may write to it.
    pub squashfs: PathBuf,
    /// What to run.
    pub config: ImageConfig,
}

/// Makes a root of the image that `reference` names, for linux/386, in the folder `cache`, unless it is there already.
///
/// `report` is called now and then, at least once for each step that may take longer than a second. A layer is read only if the
/// root is not in the cache.
///
/// # Errors
/// [`ImageError`], which names the image and what is wrong with it; the cache then has nothing new.
pub fn open(
    reference: &Reference,
    cache: &Path,
    limits: &Limits,
    report: &mut dyn FnMut(&Progress),
) -> Result<Image, ImageError> {
    let image = open_image(reference, cache, limits, report);
    image.map_err(|fault| ImageError {
        path: reference.path.clone(),
        fault,
    })
}

fn open_image(
    reference: &Reference,
    folder: &Path,
    limits: &Limits,
    report: Report<'_>,
) -> Result<Image, Fault> {
    fs::create_dir_all(folder).map_err(file_fault("create", folder))?;
    let source = Source::open(&reference.path, folder, limits, report)?;
    let selected = select(&source, reference.name.as_deref())?;
    let diff_ids: Vec<_> = selected.layers.iter().map(|layer| layer.diff_id).collect();
    let key = chain_id(&diff_ids);
    let squashfs = cache::get(folder, &key, report, |file, path, report| {
        let root = read(&source, &selected.layers, folder, limits, report)?;
        root.lost.warn();
        squashfs::write(&root.tree, &root.spool, file, path, limits, report)
    })?;
    Ok(Image {
        squashfs,
        config: selected.config,
    })
}

/// Reads all layers.
fn read(
    source: &Source,
    layers: &[Layer],
    folder: &Path,
    limits: &Limits,
    report: Report<'_>,
) -> Result<Root, Fault> {
    let mut root = Root::new(Spool::new(folder)?, *limits);
    for (index, layer) in layers.iter().enumerate() {
        let step = Step::Reading {
            layer: index + 1,
            layers: layers.len(),
        };
        let total = source.get(&layer.blob.name)?.len;
        root.apply(source, layer, &mut Meter::start(step, total, report))?;
    }
    Ok(root)
}
